// The subcommands. Each takes the words behind its name and returns the process's exit code;
// mistakes are thrown as winnow::Error and shown by main.
#pragma once

#include <winnow/winnow.h>

#include <memory>
#include <string>
#include <vector>

#include "options.h"

namespace winnow::cli {

using Arguments = std::vector<std::string>;

int run_command(const Arguments& args);
int chat_command(const Arguments& args);
int inspect_command(const Arguments& args);
int methods_command(const Arguments& args);
int info_command(const Arguments& args);
int plan_command(const Arguments& args);
int calibrate_command(const Arguments& args);
int tune_command(const Arguments& args);
int bench_command(const Arguments& args);
int eval_command(const Arguments& args);
int check_command(const Arguments& args);
int report_command(const Arguments& args);
int session_command(const Arguments& args);

/// Loads the model of the options, with --log and -t as they say. Stops at Ctrl-C.
std::shared_ptr<const Model> load_model(const Options& options, std::size_t text_bytes = 0);

}  // namespace winnow::cli
