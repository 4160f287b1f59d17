#include "eval/runner.h"

#include <winnow/error.h>

#include <algorithm>
#include <chrono>
#include <numeric>

#include "eval/answers.h"

namespace winnow::eval {

namespace {

using Clock = std::chrono::steady_clock;

double mean(const std::vector<double>& values) {
    return values.empty() ? 0.0
                          : std::accumulate(values.begin(), values.end(), 0.0) /
                                static_cast<double>(values.size());
}

OrderedJson kv_json(const CacheStats& stats) {
    return {{"bytes", stats.bytes},
            {"bytes_peak", stats.bytes_peak},
            {"bytes_full_f16", stats.bytes_full_f16},
            {"policy_bytes", stats.policy_bytes},
            {"kept", mean(stats.kept)},
            {"bits_k", stats.bits_k},
            {"bits_v", stats.bits_v}};
}

// Work done and to do, in the weights of a prompt set, and the time that the rest will take.
class Clockwork {
  public:
    explicit Clockwork(double total) : total_(total) {}
    void finish(double weight) { done_ += weight; }
    double share(double of_prompt, double weight) const {
        return total_ > 0.0 ? (done_ + of_prompt * weight) / total_ : 1.0;
    }
    double seconds_left(double at) const {
        const std::chrono::duration<double> spent = Clock::now() - start_;
        return at > 0.01 || spent.count() > 5.0 ? spent.count() * (1.0 - at) / std::max(at, 1e-6)
                                                : -1.0;
    }

  private:
    Clock::time_point start_ = Clock::now();
    double total_;
    double done_ = 0.0;
};

}  // namespace

OrderedJson describe_run(const Suite& suite, const Settings& settings, const PromptSet& prompts,
                         const std::vector<Config>& configs, const Model& model,
                         const RunnerOptions& options) {
    const ModelInfo& info = model.info();
    OrderedJson list = OrderedJson::array();
    for (const Config& config : configs) {
        list.push_back({{"id", config.id}, {"options", options_json(config.options)}});
        if (!config.budget.empty()) {
            list.back()["budget"] = config.budget;
        }
    }
    OrderedJson run{
        {"schema", 1},
        {"suite", suite.name},
        {"version", version()},
        {"model",
         {{"name", info.name}, {"architecture", info.architecture}, {"sha256", model.sha256()}}},
        {"seed", settings.seed},
        {"wording", prompts.wording},
        {"settings", prompts.settings},
        {"configs", std::move(list)}};
    for (const auto& cache : options.foreign) {
        run["configs"].push_back({{"id", cache->id()}, {"options", cache->options()}});
    }
    run["settings"]["batch_size"] = options.session.batch;
    run["settings"]["ctx_size"] = options.session.context;
    run["settings"]["allow_long"] = options.session.allow_long;
    if (options.decode_batch > 0) {
        run["settings"]["decode_batch"] = options.decode_batch;
    }
    if (!options.pin.empty()) {
        run["settings"]["pin"] = options.pin;
    }
    // A copy of the file under another name is the same model.
    OrderedJson marked = run;
    marked["model"].erase("name");
    run["fingerprint"] = hash_text(marked.dump());
    run["command"] = options.command;
    return run;
}

OrderedJson result_line(const OrderedJson& run, const Prompt& prompt, const Config& config,
                        const Outcome& outcome, const PromptSet& prompts) {
    OrderedJson line{{"suite", run.at("suite")},
                     {"task", prompt.task},
                     {"prompt", prompt.id},
                     {"index", prompt.index},
                     {"length", prompt.length}};
    if (prompt.depth >= 0) {
        line["depth"] = prompt.depth;
    }
    line["config"] = config.id;
    line["options"] = options_json(config.options);
    line["kv"] = kv_json(outcome.stats);
    line["tokens"] = {{"prompt", prompt.tokens.size()}, {"generated", outcome.generated}};
    if (outcome.fidelity) {
        const Fidelity& f = *outcome.fidelity;
        line["fidelity"] = {{"kl_mean", f.kl_mean}, {"kl_p99", f.kl_p99},     {"top1", f.top1},
                            {"ppl", f.ppl},         {"ppl_full", f.ppl_full}, {"tokens", f.tokens}};
    } else {
        line["reply"] = outcome.reply;
        line["expected"] = prompt.expected;
        line["score"] = prompts.score(prompt, outcome.reply);
    }
    line["timing"] = {{"prefill_ms", outcome.timing.prefill_ms},
                      {"compress_ms", outcome.timing.compress_ms},
                      {"decode_ms", outcome.decode_ms}};
    line["model_sha256"] = run.at("model").at("sha256");
    for (const char* name : {"version", "seed", "wording"}) {
        line[name] = run.at(name);
    }
    return line;
}

void run_suite(const std::shared_ptr<const Model>& model, const OrderedJson& run,
               const PromptSet& prompts, const std::vector<Config>& configs,
               const RunnerOptions& options, ResultFile& file, const StatusCallback& status) {
    std::vector<std::size_t> todo;
    Status at;
    double total = 0.0;
    const auto weight = [&](std::size_t i) {
        return i < prompts.weights.size() ? prompts.weights[i] : 1.0;
    };
    for (std::size_t i = 0; i < prompts.ids.size(); ++i) {
        if (!options.shard.mine(i)) {
            continue;
        }
        ++at.total;
        if (file.done(prompts.ids[i])) {
            ++at.done;
        } else {
            todo.push_back(i);
            total += weight(i);
        }
    }
    RunnerOptions settled = options;
    if (options.decode_batch == 0 && !todo.empty() && prompts.score != nullptr) {
        settled.decode_batch = exact_batch(model, static_cast<int>(configs.size()));
    }
    Clockwork clock(total);
    for (const std::size_t i : todo) {
        const Prompt prompt = prompts.make(i);
        at.prompt = prompt.id;
        const auto tell = [&](double share) {
            at.share = clock.share(share, weight(i));
            at.seconds_left = clock.seconds_left(at.share);
            return !status || status(at);
        };
        at.finished_prompt = false;
        const std::vector<Config> fitted =
            fit_budgets(configs, *model, static_cast<int>(prompt.tokens.size()));
        const std::vector<Outcome> outcomes = run_prompt(model, fitted, prompt, settled, tell);
        std::vector<OrderedJson> lines;
        for (std::size_t c = 0; c < configs.size(); ++c) {
            lines.push_back(result_line(run, prompt, fitted[c], outcomes[c], prompts));
        }
        for (OrderedJson& line : measure_foreign(options.foreign, run, prompt, model->info())) {
            lines.push_back(std::move(line));
        }
        file.append(prompt.id, lines);
        clock.finish(weight(i));
        ++at.done;
        at.finished_prompt = true;
        if (!tell(0.0)) {
            throw Error(ErrorKind::stopped, "Stopped.");
        }
    }
}

}  // namespace winnow::eval
