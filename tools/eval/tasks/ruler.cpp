// RULER (arXiv 2404.06654): made by the model's own tokenizer, or read from files of samples.
#include "eval/datasets/ruler.h"

#include <winnow/error.h>

#include <algorithm>
#include <filesystem>

#include "eval/lengths.h"
#include "eval/samples.h"
#include "scoring/suites.h"

namespace winnow::eval {

namespace {

namespace fs = std::filesystem;

constexpr int kLength = 4096;
constexpr int kSamples = 500;

Dataset generated(const Settings& s, const std::shared_ptr<const Model>& model) {
    Dataset all;
    const std::vector<int> lengths = lengths_of(s, *model, {kLength}, 0);
    for (std::size_t i = 0; i < lengths.size(); ++i) {
        RulerOptions options;
        options.tasks = split_names(s.datasets);
        options.length = lengths[i];
        options.samples = s.max_num_examples > 0 ? s.max_num_examples : kSamples;
        options.seed = s.seed;
        options.chat_template = model->has_chat_template() && !s.raw_prompts;
        options.template_tokens = options.chat_template ? template_tokens(*model) : 0;
        options.haystack_dir = s.haystack;
        options.words_file = s.word_list;
        options.squad_file = s.squad;
        options.hotpotqa_file = s.hotpotqa;
        Dataset part = generate_ruler(options, tokenizer_of(model));
        all.wording = part.wording;
        if (!s.write_samples.empty()) {
            const fs::path folder = s.write_samples;
            const fs::path own = folder / std::to_string(lengths[i]);
            write_ruler(lengths.size() == 1 ? folder : own, part.samples, part.wording);
        }
        for (Sample& sample : part.samples) {
            sample.length = lengths[i];
            // A second length goes on counting, so that every prompt has a name of its own.
            sample.index += static_cast<int>(i) * options.samples;
            all.samples.push_back(std::move(sample));
        }
    }
    return all;
}

PromptSet open(const Settings& s, const std::shared_ptr<const Model>& model) {
    if (!s.write_samples.empty() && !s.data.empty()) {
        throw usage_error(
            "--write-samples writes samples that are made, but --data names a folder of samples to "
            "read; leave one of them out.");
    }
    Dataset dataset = s.data.empty()
                          ? generated(s, model)
                          : load_ruler(s.data, split_names(s.datasets), s.max_num_examples,
                                       model->has_chat_template() && !s.raw_prompts);
    for (Sample& sample : dataset.samples) {
        sample.asks_last = true;
    }
    PromptSet set = prompts_of(std::move(dataset), s, model,
                               [](const Sample& sample, const std::string& reply) {
                                   return scoring::ruler_score(sample.task, reply, sample.outputs);
                               });
    set.settings["s_len"] = s.s_len;
    set.settings["e_len"] = s.e_len;
    set.settings["step"] = s.step;
    set.settings["raw_prompts"] = s.raw_prompts;
    return set;
}

}  // namespace

extern const Suite suite_ruler;
const Suite suite_ruler{
    .name = "ruler",
    .summary = "RULER's 13 tasks, made for the model's tokenizer or read from files",
    .open = open,
};

}  // namespace winnow::eval
