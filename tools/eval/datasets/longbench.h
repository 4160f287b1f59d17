// LongBench from its official files: <task>.jsonl with input, context, answers, all_classes,
// length.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "eval/dataset.h"

namespace winnow::eval {

struct LongBenchOptions {
    std::string data_dir;  ///< folder of <task>.jsonl
    /// Folder of the official dataset2prompt.json and dataset2maxlen.json. Empty: data_dir and its
    /// subfolder "config" are looked into, and without the files the prompts are in our words.
    std::string prompt_dir;
    std::vector<std::string> tasks;  ///< empty: every task that has a file and that we can score
    int max_samples = 0;             ///< of each task; 0: all
    bool random_samples = false;     ///< max_samples of them chosen by `seed`, else the first ones
    std::uint64_t seed = 42;
    /// Tokens for a prompt and its own task's reply; a longer prompt loses its middle. 0: no limit.
    /// The caller takes off what its chat template needs.
    int context_tokens = 0;
    bool paper_mode = false;  ///< raw prompts everywhere
};

/// Samples task by task in the order of the benchmark's tables, each task's in file order.
/// Sample::outputs are the answers, Sample::length the file's own length in words. Throws a usage
/// Error for a task we lack, and a failure Error that says which file belongs where for a missing
/// one, or names file and line for a damaged one.
Dataset load_longbench(const LongBenchOptions& options, const Tokenizer& tokenizer);

/// Our own prompt of a task, in the form of dataset2prompt.json.
std::string longbench_wording(std::string_view task);

}  // namespace winnow::eval
