// The `number` needle in a haystack.
#pragma once

#include <winnow/winnow.h>

#include <cstdint>
#include <string>
#include <vector>

namespace winnow::testing {

struct NeedlePrompt {
    std::vector<std::int32_t> tokens;  ///< chat template, question and the opening of the answer
    std::string answer;                ///< the seven digits
};

/// The files of `folder` in name order, joined by newlines; at most `most_bytes` of them. Empty
/// where there are none.
std::string read_haystack(const std::string& folder, std::size_t most_bytes);

/// `length` - 120 tokens of the haystack from its 1,000th on, with "One of the special magic
/// numbers for {key} is: {number}." behind the last sentence that ends before `depth` (0 to 1).
NeedlePrompt needle_prompt(const Model& model, const std::string& haystack, int length,
                           double depth, const std::string& key, const std::string& number);

/// Up to `most` greedy tokens as text, ended by an end of generation.
std::string greedy_answer(Session& session, int most);

}  // namespace winnow::testing
