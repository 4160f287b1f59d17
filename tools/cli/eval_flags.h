// The flags that `winnow eval` and `winnow check` share.
#pragma once

#include <string>

#include "eval/suite.h"
#include "flags.h"

namespace winnow::cli {

struct EvalFlags {
    Options options;
    eval::Settings settings;
    int seed = 42;
    int decode_batch = 0;
    std::string sweep, sweep_file, save_dir, shard, against;
};

/// The parser of `winnow eval <suite>`: the suite's own flags and those of all suites.
Parser eval_parser(const std::string& suite, const std::string& summary, EvalFlags& flags);

/// "2 h 5 m", "3 m 20 s", "12 s".
std::string human_seconds(double seconds);

}  // namespace winnow::cli
