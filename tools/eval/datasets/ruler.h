// RULER (arXiv 2404.06654): samples generated for any tokenizer, length and seed, and files of
// samples.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/dataset.h"

namespace winnow::eval {

struct RulerOptions {
    /// Empty: the eleven tasks that need no question files. All names: ruler_tasks().
    std::vector<std::string> tasks;
    int length = 4096;  ///< tokens of a prompt with room for its answer
    int samples = 500;  ///< of each task
    std::uint64_t seed = 42;
    /// Tokens that the caller's chat template adds around a prompt; part of `length`.
    int template_tokens = 0;
    bool chat_template = true;  ///< false: raw prompts, the answer's opening at their end
    std::string haystack_dir;   ///< folder of *.txt, for the tasks that hide needles in essays
    std::string words_file;     ///< one word a line; empty: the built-in list (wonderwords)
    std::string squad_file;     ///< SQuAD's JSON, for qa_1
    std::string hotpotqa_file;  ///< HotpotQA's distractor JSON, for qa_2
};

/// The names of all 13 tasks.
std::vector<std::string> ruler_tasks();

/// New tokens that a task's reply may have. Throws a usage Error where there is no such task.
int ruler_new_tokens(std::string_view task);

/// Makes samples in our own words, one at a time and in any order; by one thread. A sample depends
/// on the options, the files, the tokenizer, its task and its index alone, and is the same bytes on
/// every machine. Each is as long as fits into `length` by whole units of its haystack;
/// Sample::length is what it takes.
class RulerGenerator {
  public:
    /// Reads the files. Throws a usage Error for a task we lack, and a failure Error that says
    /// which file is needed for what.
    RulerGenerator(RulerOptions options, Tokenizer tokenizer);
    ~RulerGenerator();

    /// The tasks asked for, or the eleven.
    const std::vector<std::string>& tasks() const;
    /// Throws a usage Error where the length is too short for the task.
    Sample sample(std::string_view task, int index) const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

/// All samples, task by task.
Dataset generate_ruler(const RulerOptions& options, const Tokenizer& tokenizer);

/// Writes <folder>/<task>.jsonl, one object a line with index, input, outputs and length as the
/// official files have them, and with answer_prefix and wording. `input` holds the whole raw
/// prompt, the answer's opening included. Makes the folder; files are replaced whole. Returns their
/// paths.
std::vector<std::string> write_ruler(const std::string& folder, std::span<const Sample> samples,
                                     const std::string& wording);

/// Reads such files, the official ones among them: `path` is a file whose name starts with its
/// task, or a folder of <task>.jsonl, <task>_<anything>.jsonl or <task>/validation.jsonl. `tasks`
/// empty: all that are there. At most `samples` of each task; 0: all. With `chat_template` the
/// opening of the answer at the end of an official prompt is split off into Sample::answer_prefix.
Dataset load_ruler(const std::string& path, const std::vector<std::string>& tasks, int samples,
                   bool chat_template);

}  // namespace winnow::eval
