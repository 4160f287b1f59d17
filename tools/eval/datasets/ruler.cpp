// Generates RULER's samples: which tasks, what they draw from, and how long each may get.
#include "eval/datasets/ruler.h"

#include <winnow/error.h>

#include <algorithm>

#include "eval/datasets/haystack.h"
#include "eval/datasets/ruler_task.h"

namespace winnow::eval {

namespace {

std::vector<const RulerTask*> all_tasks() {
    std::vector<const RulerTask*> tasks;
    for (const auto& group : {niah_tasks(), list_tasks(), qa_tasks()}) {
        for (const RulerTask& task : group) {
            tasks.push_back(&task);
        }
    }
    return tasks;
}

const RulerTask& task_named(std::string_view name) {
    std::string names;
    for (const RulerTask* task : all_tasks()) {
        if (task->name == name) {
            return *task;
        }
        names += (names.empty() ? "" : ", ") + std::string(task->name);
    }
    throw usage_error("'" + std::string(name) + "' is no RULER task; there are " + names + ".");
}

bool needs(const RulerTask& task, RulerNeed need) {
    return task.need == need || (task.need == RulerNeed::essay_and_words &&
                                 (need == RulerNeed::essay || need == RulerNeed::words));
}

// The words of the essays, white space and line ends gone.
std::vector<std::string> read_essay(const std::string& folder, std::string_view task) {
    if (folder.empty()) {
        throw failure("RULER's " + std::string(task) +
                      " hides its needles in essays: name a folder of .txt files with --haystack.");
    }
    const std::string text = read_haystack(folder, "RULER's " + std::string(task));
    std::vector<std::string> words;
    std::size_t at = 0;
    while ((at = text.find_first_not_of(" \t\r\n\f\v", at)) != std::string::npos) {
        const std::size_t end = std::min(text.find_first_of(" \t\r\n\f\v", at), text.size());
        words.push_back(text.substr(at, end - at));
        at = end;
    }
    return words;
}

const std::string& question_file(const std::string& path, const char* task, const char* what,
                                 const char* option) {
    if (path.empty()) {
        throw failure(std::string("RULER's ") + task + " takes its questions from " + what +
                      ": name that file with " + option + ".");
    }
    return path;
}

RulerSources read_sources(const RulerOptions& options, std::span<const RulerTask* const> tasks) {
    RulerSources sources;
    sources.length = options.length;
    for (const RulerTask* task : tasks) {
        if (needs(*task, RulerNeed::essay) && sources.essay.empty()) {
            sources.essay = read_essay(options.haystack_dir, task->name);
        }
        if (needs(*task, RulerNeed::words) && sources.words.all.empty()) {
            sources.words =
                options.words_file.empty() ? builtin_words() : read_words(options.words_file);
        }
        if (needs(*task, RulerNeed::squad)) {
            sources.squad = read_squad(
                question_file(options.squad_file, "qa_1", "SQuAD's dev-v2.0.json", "--squad"));
        }
        if (needs(*task, RulerNeed::hotpotqa)) {
            sources.hotpotqa = read_hotpotqa(
                question_file(options.hotpotqa_file, "qa_2",
                              "HotpotQA's hotpot_dev_distractor_v1.json", "--hotpotqa"));
        }
    }
    return sources;
}

// Finds the most units that fit: an interpolation search, since tokens grow about evenly with
// units, that ends as a binary search. It begins from what a unit of the sample before took.
class Fitter {
  public:
    Fitter(const RulerTask& task, const RulerOptions& options, const Tokenizer& tokenizer)
        : task_(task), options_(options), tokenizer_(tokenizer) {}

    Sample fit(const RulerDraft& draft) {
        int low = draft.min_units;  // fits
        int low_tokens = total(draft, low);
        if (low_tokens > options_.length) {
            throw usage_error("RULER's " + std::string(task_.name) + " takes at least " +
                              std::to_string(low_tokens) +
                              " tokens with this tokenizer; a length of " +
                              std::to_string(options_.length) + " is too short.");
        }
        int high = draft.max_units + 1;  // does not fit, as far as is known
        for (int probes = 0; high - low > 1; ++probes) {
            const int middle = low + (high - low) / 2;
            const double more = (options_.length - low_tokens) / unit_tokens_;
            const int guess = low + static_cast<int>(std::min(more, 1e6));
            const int probe = probes % 4 == 3 && high <= draft.max_units
                                  ? middle
                                  : std::clamp(guess, low + 1, high - 1);
            const int tokens = total(draft, probe);
            if (probe - low >= kSpan) {  // a unit alone says little
                unit_tokens_ =
                    std::max(1e-3, static_cast<double>(tokens - low_tokens) / (probe - low));
            }
            (tokens <= options_.length ? low : high) = probe;
            low_tokens = low == probe ? tokens : low_tokens;
        }
        return sample(draft.make(low));
    }

  private:
    static constexpr int kSpan = 8;

    int total(const RulerText& text) const {
        return tokenizer_.count(text.raw()) + options_.template_tokens + task_.max_new_tokens;
    }
    int total(const RulerDraft& draft, int units) const { return total(draft.make(units)); }

    Sample sample(RulerText text) const {
        Sample sample;
        sample.task = task_.name;
        sample.length = total(text);
        sample.max_new_tokens = task_.max_new_tokens;
        sample.chat_template = options_.chat_template;
        sample.outputs = std::move(text.outputs);
        sample.input = options_.chat_template ? std::move(text.input) : text.raw();
        if (options_.chat_template) {
            sample.answer_prefix = std::move(text.answer_prefix);
        }
        return sample;
    }

    const RulerTask& task_;
    const RulerOptions& options_;
    const Tokenizer& tokenizer_;
    double unit_tokens_ = 64;  // more than a unit takes: the first probe is a short one
};

}  // namespace

std::vector<std::string> ruler_tasks() {
    std::vector<std::string> names;
    for (const RulerTask* task : all_tasks()) {
        names.emplace_back(task->name);
    }
    return names;
}

int ruler_new_tokens(std::string_view task) {
    return task_named(task).max_new_tokens;
}

Dataset generate_ruler(const RulerOptions& options, const Tokenizer& tokenizer) {
    std::vector<const RulerTask*> tasks;
    for (const std::string& name : options.tasks) {
        tasks.push_back(&task_named(name));
    }
    if (tasks.empty()) {
        tasks = all_tasks();
        tasks.resize(tasks.size() - qa_tasks().size());
    }
    const RulerSources sources = read_sources(options, tasks);
    Dataset dataset;
    for (const RulerTask* task : tasks) {
        Fitter fitter(*task, options, tokenizer);
        for (int i = 0; i < options.samples; ++i) {
            const Random random(options.seed, task->name, static_cast<std::uint64_t>(i));
            dataset.samples.push_back(fitter.fit(task->draft(sources, random, i)));
            dataset.samples.back().index = i;
        }
    }
    return dataset;
}

}  // namespace winnow::eval
