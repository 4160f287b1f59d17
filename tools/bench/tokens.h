// What the bench lets the engines read.
#pragma once

#include <winnow/winnow.h>

#include <cstdint>
#include <string>
#include <vector>

namespace winnow::bench {

struct BenchTokens {
    std::vector<std::int32_t> tokens;
    std::string source;  ///< what to call them in an output
};

/// The first `count` tokens of `text`, repeated where it is too short. `name` names its file.
/// Throws a failure Error when it holds none.
BenchTokens text_tokens(const Model& model, const std::string& name, const std::string& text,
                        std::size_t count);

/// `count` tokens drawn from the vocabulary's ordinary ones; the same on every machine.
BenchTokens synthetic_tokens(const Model& model, std::size_t count);

}  // namespace winnow::bench
