// LongBench (arXiv 2308.14508) from its official files.
#include "eval/datasets/longbench.h"

#include <winnow/error.h>

#include <algorithm>

#include "eval/samples.h"
#include "scoring/suites.h"

namespace winnow::eval {

namespace {

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
    options.context_tokens = std::max(1, context_of(s, *model) - template_tokens(*model) - kJoints);
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
