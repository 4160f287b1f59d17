// Generates RULER's samples: which tasks, what they draw from, and how long each may get.
#include "eval/datasets/ruler.h"

#include <winnow/error.h>

#include <algorithm>
#include <functional>
#include <map>

#include "eval/datasets/ruler_task.h"
#include "eval/haystack.h"

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
    const std::string text =
        read_texts(folder, "\n", "--haystack, which RULER's " + std::string(task) + " needs,");
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

constexpr double kFirstUnitTokens = 64;  // more than a unit takes: the first probe is a short one
constexpr int kSpan = 8;                 // fewer units say little about what one takes

// Finds the most units that fit: an interpolation search, since tokens grow about evenly with
// units, that ends as a binary search. `unit_tokens` is what a unit takes, and is brought up to
// date.
int fit_units(const RulerTask& task, const RulerDraft& draft, int length, double& unit_tokens,
              const std::function<int(const RulerText&)>& total) {
    int low = draft.min_units;
    int low_tokens = total(draft.make(low));
    if (low_tokens > length) {
        throw usage_error("RULER's " + std::string(task.name) + " takes at least " +
                          std::to_string(low_tokens) + " tokens with this tokenizer; a length of " +
                          std::to_string(length) + " is too short.");
    }
    int high = draft.max_units + 1;  // does not fit, as far as is known
    for (int probes = 0; high - low > 1; ++probes) {
        const double more = std::min((length - low_tokens) / unit_tokens, 1e6);
        const bool halve = probes % 4 == 3 && high <= draft.max_units;
        const int probe = halve ? low + (high - low) / 2
                                : std::clamp(low + static_cast<int>(more), low + 1, high - 1);
        const int tokens = total(draft.make(probe));
        if (probe - low >= kSpan) {
            unit_tokens = std::max(1e-3, static_cast<double>(tokens - low_tokens) / (probe - low));
        }
        (tokens <= length ? low : high) = probe;
        low_tokens = low == probe ? tokens : low_tokens;
    }
    return low;
}

}  // namespace

struct RulerGenerator::Impl {
    RulerOptions options;
    Tokenizer tokenizer;
    std::vector<std::string> tasks;
    RulerSources sources;
    std::map<std::string_view, double> unit_tokens;  // by task, of its sample 0

    int total(const RulerTask& task, const RulerText& text) const {
        return tokenizer.count(text.raw()) + options.template_tokens + task.max_new_tokens;
    }

    Sample fit(const RulerTask& task, int index, double& unit) const {
        const Random random(options.seed, task.name, static_cast<std::uint64_t>(index));
        const RulerDraft draft = task.draft(sources, random, index);
        const int units = fit_units(task, draft, options.length, unit,
                                    [&](const RulerText& text) { return total(task, text); });
        RulerText text = draft.make(units);
        Sample sample;
        sample.task = task.name;
        sample.index = index;
        sample.length = total(task, text);
        sample.max_new_tokens = task.max_new_tokens;
        sample.chat_template = options.chat_template;
        sample.outputs = std::move(text.outputs);
        sample.input = options.chat_template ? std::move(text.input) : text.raw();
        if (options.chat_template) {
            sample.answer_prefix = std::move(text.answer_prefix);
        }
        return sample;
    }
};

RulerGenerator::RulerGenerator(RulerOptions options, Tokenizer tokenizer)
    : impl_(std::make_unique<Impl>()) {
    std::vector<const RulerTask*> tasks;
    for (const std::string& name : options.tasks) {
        tasks.push_back(&task_named(name));
    }
    if (tasks.empty()) {
        tasks = all_tasks();
        tasks.resize(tasks.size() - qa_tasks().size());
    }
    impl_->sources = read_sources(options, tasks);
    for (const RulerTask* task : tasks) {
        impl_->tasks.emplace_back(task->name);
    }
    impl_->options = std::move(options);
    impl_->tokenizer = std::move(tokenizer);
}

RulerGenerator::~RulerGenerator() = default;

const std::vector<std::string>& RulerGenerator::tasks() const {
    return impl_->tasks;
}

Sample RulerGenerator::sample(std::string_view name, int index) const {
    const RulerTask& task = task_named(name);
    if (std::find(impl_->tasks.begin(), impl_->tasks.end(), name) == impl_->tasks.end()) {
        throw usage_error("RULER's " + std::string(name) + " is none of the tasks asked for.");
    }
    auto unit = impl_->unit_tokens.find(task.name);
    if (unit == impl_->unit_tokens.end()) {  // where every search begins, whatever came before
        double tokens = kFirstUnitTokens;
        impl_->fit(task, 0, tokens);
        unit = impl_->unit_tokens.emplace(task.name, tokens).first;
    }
    double tokens = unit->second;
    return impl_->fit(task, index, tokens);
}

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
    const RulerGenerator generator(options, tokenizer);
    Dataset dataset;
    for (const std::string& task : generator.tasks()) {
        for (int i = 0; i < options.samples; ++i) {
            dataset.samples.push_back(generator.sample(task, i));
        }
    }
    return dataset;
}

}  // namespace winnow::eval
