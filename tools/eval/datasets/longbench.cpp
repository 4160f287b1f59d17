#include "eval/datasets/longbench.h"

#include <winnow/error.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "eval/datasets/json_file.h"
#include "eval/datasets/prompt_format.h"
#include "eval/datasets/random.h"
#include "scoring/suites.h"

namespace winnow::eval {

namespace {

namespace fs = std::filesystem;
using scoring::LongBenchTask;

constexpr const char* kPromptFile = "dataset2prompt.json";
constexpr const char* kLengthFile = "dataset2maxlen.json";

// The two official files as far as they are there.
struct Official {
    Json prompts;  // null: our words
    Json lengths;  // null: the built-in table
    std::string prompt_path, length_path;
};

bool is_file(const fs::path& path) {
    std::error_code none;
    return fs::is_regular_file(path, none);
}

Json read_object(const std::string& path) {
    Json object = read_json(path);
    if (!object.is_object()) {
        throw failure("The file '" + path + "' must hold one object, from task to value.");
    }
    return object;
}

Official read_official(const LongBenchOptions& options) {
    std::vector<fs::path> folders = {options.prompt_dir};
    if (options.prompt_dir.empty()) {
        folders = {fs::path(options.data_dir), fs::path(options.data_dir) / "config"};
    } else if (!is_file(fs::path(options.prompt_dir) / kPromptFile)) {
        throw failure("The folder '" + options.prompt_dir + "' has no " + kPromptFile +
                      "; it belongs there, and " + kLengthFile +
                      " beside it, as LongBench's config folder has them.");
    }
    Official official;
    for (const fs::path& folder : folders) {
        if (official.prompts.is_null() && is_file(folder / kPromptFile)) {
            official.prompt_path = (folder / kPromptFile).string();
            official.prompts = read_object(official.prompt_path);
        }
        if (official.lengths.is_null() && is_file(folder / kLengthFile)) {
            official.length_path = (folder / kLengthFile).string();
            official.lengths = read_object(official.length_path);
        }
    }
    return official;
}

std::string data_file(const LongBenchOptions& options, std::string_view task) {
    return (fs::path(options.data_dir) / (std::string(task) + ".jsonl")).string();
}

// The tasks asked for in the tables' order, or those that have a file.
std::vector<const LongBenchTask*> chosen_tasks(const LongBenchOptions& options) {
    for (const std::string& name : options.tasks) {
        const LongBenchTask& task = scoring::longbench_task(name);
        if (!is_file(data_file(options, task.name))) {
            throw failure("LongBench's " + name + " is missing: " + name +
                          ".jsonl of the official data belongs in '" + options.data_dir + "'.");
        }
    }
    std::vector<const LongBenchTask*> tasks;
    for (const LongBenchTask& task : scoring::longbench_tasks()) {
        const bool asked =
            std::find(options.tasks.begin(), options.tasks.end(), task.name) != options.tasks.end();
        const bool found = options.tasks.empty() && !scoring::needs_segmenter(task.metric) &&
                           is_file(data_file(options, task.name));
        if (asked || found) {
            tasks.push_back(&task);
        }
    }
    if (tasks.empty()) {
        throw failure("There is no LongBench task in '" + options.data_dir +
                      "'; the official files, such as multi_news.jsonl, belong there.");
    }
    return tasks;
}

std::string prompt_format_of(const Official& official, const LongBenchTask& task) {
    if (official.prompts.is_null()) {
        return longbench_wording(task.name);
    }
    return text_field(official.prompts, std::string(task.name).c_str(), official.prompt_path);
}

int new_tokens_of(const Official& official, const LongBenchTask& task) {
    if (official.lengths.is_null()) {
        return task.max_new_tokens;
    }
    const int tokens =
        int_field(official.lengths, std::string(task.name).c_str(), 0, official.length_path);
    if (tokens < 1) {
        throw failure(official.length_path + ": \"" + std::string(task.name) +
                      "\" must be the number of new tokens, 1 or more.");
    }
    return tokens;
}

Sample sample_of(const Json& row, const std::string& where, const std::string& format,
                 const LongBenchTask& task) {
    text_field(row, "context", where);
    text_field(row, "input", where);
    Sample sample;
    sample.task = task.name;
    sample.input = format_prompt(format, row, where);
    sample.outputs = texts_field(row, "answers", where);
    sample.length = int_field(row, "length", 0, where);
    if (sample.outputs.empty()) {
        throw failure(where + ": the field \"answers\" is empty; it must hold an answer or more.");
    }
    if (task.metric == scoring::Metric::classification) {
        sample.all_classes = texts_field(row, "all_classes", where);
    }
    return sample;
}

// Positions of the samples to keep, in file order.
std::vector<int> chosen_rows(const LongBenchOptions& options, std::string_view task, int rows) {
    std::vector<int> order(static_cast<std::size_t>(rows));
    std::iota(order.begin(), order.end(), 0);
    const int most = options.max_samples > 0 ? std::min(options.max_samples, rows) : rows;
    if (options.random_samples && most < rows) {
        Random random(options.seed, task, 0);
        random.shuffle(order);
    }
    order.resize(static_cast<std::size_t>(most));
    std::sort(order.begin(), order.end());
    return order;
}

}  // namespace

Dataset load_longbench(const LongBenchOptions& options, const Tokenizer& tokenizer) {
    const std::vector<const LongBenchTask*> tasks = chosen_tasks(options);
    const Official official = read_official(options);
    Dataset dataset;
    dataset.wording = official.prompts.is_null() ? "ours" : "official";
    for (const LongBenchTask* task : tasks) {
        const std::string format = prompt_format_of(official, *task);
        const int new_tokens = new_tokens_of(official, *task);
        const int room = options.context_tokens - new_tokens;
        if (options.context_tokens > 0 && room < 1) {
            throw usage_error("A context of " + std::to_string(options.context_tokens) +
                              " tokens has no room for a prompt of LongBench's " +
                              std::string(task->name) + ", whose reply may take " +
                              std::to_string(new_tokens) + "; raise -c.");
        }
        const bool only_first = options.max_samples > 0 && !options.random_samples;
        std::vector<Sample> samples;
        read_jsonl(data_file(options, task->name), [&](const Json& row, const std::string& where) {
            samples.push_back(sample_of(row, where, format, *task));
            samples.back().index = static_cast<int>(samples.size()) - 1;
            return !only_first || static_cast<int>(samples.size()) < options.max_samples;
        });
        if (samples.empty()) {
            throw failure("The file '" + data_file(options, task->name) +
                          "' has no rows; LongBench's official file has.");
        }
        for (const int i : chosen_rows(options, task->name, static_cast<int>(samples.size()))) {
            Sample& sample = samples[static_cast<std::size_t>(i)];
            sample.max_new_tokens = new_tokens;
            sample.chat_template = task->chat_template && !options.paper_mode;
            sample.stop_at_newline = task->stop_at_newline;
            if (options.context_tokens > 0) {
                sample.input = truncate_middle(sample.input, room, tokenizer);
            }
            dataset.samples.push_back(std::move(sample));
        }
    }
    return dataset;
}

}  // namespace winnow::eval
