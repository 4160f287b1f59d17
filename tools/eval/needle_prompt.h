// The needle test's prompts, exact in tokens.
#pragma once

#include <winnow/winnow.h>

#include <cstdint>
#include <string>
#include <vector>

namespace winnow::eval {

/// What is hidden and asked.
struct Needle {
    std::string sentence, question, expected;
    std::string answer_prefix;  ///< opens the answer; may be empty
    int max_new_tokens = 0;
    bool stop_at_newline = false;
};

/// The paper's sentence about San Francisco, asked as `mode` does.
Needle sf_needle(const std::string& mode, bool answer_prefix);
/// A seven-digit number for a two-word key; key and number follow from `seed`.
Needle number_needle(std::uint64_t seed);

struct NeedlePrompt {
    std::vector<std::int32_t> tokens;
    std::string text;  ///< what the tokens are of, special ones included
    int haystack_tokens = 0;
    int needle_at = 0;  ///< haystack tokens before the needle
};

/// A haystack's text as tokens, repeated as needed.
class Haystack {
  public:
    Haystack(std::shared_ptr<const Model> model, std::string text);
    /// `count` tokens from number `first` on.
    std::vector<std::int32_t> slice(std::size_t first, std::size_t count);

  private:
    std::shared_ptr<const Model> model_;
    std::string text_;
    std::vector<std::int32_t> tokens_;
    std::string read_;  // what tokens_ are of
};

/// Our own mode: the whole prompt has exactly `length` tokens, chat template, question and answer
/// prefix included; nothing marks the needle, which stands behind the last sentence that ends
/// within the first `depth` percent of the haystack's tokens.
NeedlePrompt honest_prompt(const Model& model, Haystack& haystack, const Needle& needle, int length,
                           int depth, std::size_t first);

/// The paper's mode: haystack and needle together have `length` - 200 tokens, a newline on either
/// side of the needle and BOS before both where the tokenizer adds one; a raw prompt.
NeedlePrompt paper_prompt(const Model& model, Haystack& haystack, const Needle& needle, int length,
                          int depth, std::size_t first);

}  // namespace winnow::eval
