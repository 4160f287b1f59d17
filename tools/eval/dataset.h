// What the benchmark suites run over: samples, and the tokenizer that their lengths are counted in.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace winnow::eval {

/// The model's tokenizer as two functions, so that datasets need no engine.
struct Tokenizer {
    /// Plain text to tokens: no BOS, and text that looks like a special token stays text.
    std::function<std::vector<std::int32_t>(std::string_view)> tokenize;
    /// The text of some tokens, special ones left out.
    std::function<std::string(std::span<const std::int32_t>)> detokenize;

    int count(std::string_view text) const { return static_cast<int>(tokenize(text).size()); }
};

/// One prompt of a task and what is expected of the reply.
struct Sample {
    std::string task;   ///< e.g. niah_single_1, multi_news
    int index = 0;      ///< the file's own number, else the line's, from 0
    std::string input;  ///< the user's message with chat_template, else the whole raw prompt
    std::vector<std::string> outputs;      ///< the expected answers
    std::vector<std::string> all_classes;  ///< class names; classification tasks only
    int length = 0;                        ///< the file's own length: RULER tokens, LongBench words
    int max_new_tokens = 0;                ///< at most so many tokens of reply
    bool chat_template = true;
    std::string answer_prefix;     ///< opens the reply; not part of `input`, may be empty
    bool stop_at_newline = false;  ///< the reply ends before its first newline
    bool asks_last = false;        ///< the last line of `input` is the question
};

/// What a loader or a generator gives.
struct Dataset {
    std::vector<Sample> samples;
    std::string wording = "ours";  ///< "official" where the prompts are the benchmark's own words
};

/// Keeps the first and the last half of `text` where it is longer than `max_tokens`, as LongBench
/// does; with an odd `max_tokens` one token fewer is kept. Joining the halves may change how
/// the text is split, so the result is shortened until it counts at most `max_tokens`.
std::string truncate_middle(const std::string& text, int max_tokens, const Tokenizer& tokenizer);

}  // namespace winnow::eval
