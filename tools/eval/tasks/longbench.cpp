// LongBench (arXiv 2308.14508) from its official files.
#include "eval/datasets/longbench.h"

#include <winnow/error.h>

#include <algorithm>

#include "eval/samples.h"
#include "scoring/suites.h"

namespace winnow::eval {

namespace {

// The longest answer of the tasks that are run.
int longest_answer(const std::vector<std::string>& tasks) {
    int most = 0;
    for (const scoring::LongBenchTask& task : scoring::longbench_tasks()) {
        const bool asked =
            tasks.empty() || std::find(tasks.begin(), tasks.end(), task.name) != tasks.end();
        most = asked ? std::max(most, task.max_new_tokens) : most;
    }
    return most;
}

PromptSet open(const Settings& s, const std::shared_ptr<const Model>& model) {
    if (s.data.empty()) {
        throw usage_error("--data is missing; it names the folder of LongBench's .jsonl files.");
    }
    LongBenchOptions options;
    options.data_dir = s.data;
    options.prompt_dir = s.prompts;
    options.tasks = split_names(s.datasets);
    options.max_samples = s.max_num_examples;
    options.random_samples = s.sample_method == "random";
    options.seed = s.seed;
    options.paper_mode = s.raw_prompts;
    // The middle of what does not fit is left out; a few tokens may join where texts meet.
    constexpr int kJoints = 8;
    options.max_prompt_tokens =
        context_of(s, *model) - longest_answer(options.tasks) - template_tokens(*model) - kJoints;
    if (options.max_prompt_tokens < 1) {
        throw usage_error("the context of " + std::to_string(context_of(s, *model)) +
                          " positions has no room for a prompt and its answer; raise -c.");
    }
    PromptSet set =
        prompts_of(load_longbench(options, tokenizer_of(model)), s, model,
                   [](const Sample& sample, const std::string& reply) {
                       return scoring::longbench_score(scoring::longbench_task(sample.task), reply,
                                                       sample.outputs, sample.all_classes);
                   });
    set.settings["raw_prompts"] = s.raw_prompts;
    return set;
}

}  // namespace

extern const Suite suite_longbench;
const Suite suite_longbench{
    .name = "longbench",
    .summary = "LongBench's tasks from the official files",
    .open = open,
};

}  // namespace winnow::eval
