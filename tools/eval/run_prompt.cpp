// One prompt under many configurations.
#include <winnow/error.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <numeric>

#include "eval/answers.h"
#include "eval/runner.h"

namespace winnow::eval {

namespace {

using Clock = std::chrono::steady_clock;

constexpr double kPrefillShare = 0.5;  // of a prompt's progress, whatever its real part

double ms_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

bool is_plain_full(const CacheOptions& o) {
    return o.method == "full" && o.quant_method == "none";
}

// Roughly what a configuration keeps of a prompt, in bytes.
double expected_bytes(const Config& config, std::size_t tokens, const ModelInfo& info) {
    const CacheOptions& o = config.options;
    auto kept = static_cast<double>(tokens);
    if (o.max_capacity_prompts > 0) {
        kept = std::min(kept, 2.0 * o.max_capacity_prompts);  // pyramidkv's first layers
    } else if (o.max_capacity_prompts_ratio > 0.0) {
        kept *= o.max_capacity_prompts_ratio;
    }
    const double bits = o.quant_method == "none" ? 16.0 : 1.0 + 0.5 * (o.nbits_k + o.nbits_v);
    const auto full = static_cast<double>(info.full_cache_bytes(tokens));
    return full * kept / static_cast<double>(tokens) * std::min(bits, 16.0) / 16.0;
}

double free_memory() {
    std::ifstream in("/proc/meminfo");
    for (std::string name; in >> name;) {
        double kib = 0.0;
        if (name == "MemAvailable:" && in >> kib) {
            return kib * 1024.0;
        }
        std::getline(in, name);
    }
    return 4e9;
}

// Runs of configurations whose caches fit into half of what is free; at least one each.
std::vector<std::size_t> cut_by_memory(const std::vector<Config>& configs, std::size_t tokens,
                                       const ModelInfo& info) {
    const double room = 0.5 * free_memory();
    std::vector<std::size_t> ends;
    double used = 0.0;
    for (std::size_t i = 0; i < configs.size(); ++i) {
        const double bytes = expected_bytes(configs[i], tokens, info);
        if (used > 0.0 && used + bytes > room) {
            ends.push_back(i);
            used = 0.0;
        }
        used += bytes;
    }
    ends.push_back(configs.size());
    return ends;
}

void stop_unless(bool go_on) {
    if (!go_on) {
        throw Error(ErrorKind::stopped, "Stopped.");
    }
}

std::vector<float> full_logits(const Session& session, const Config& config, const Prompt& prompt,
                               Forcing forcing) {
    if (!is_plain_full(config.options)) {
        throw failure(
            "fidelity is measured against the full cache, which must be the first "
            "configuration.");
    }
    Session copy = session.clone();
    return forced_logits(copy, prompt.forced, forcing);
}

}  // namespace

std::vector<Outcome> run_prompt(const std::shared_ptr<const Model>& model,
                                const std::vector<Config>& configs, const Prompt& prompt,
                                const RunnerOptions& options, const ShareCallback& progress) {
    const AnswerRules rules{.max_new_tokens = prompt.max_new_tokens,
                            .context = options.session.context > 0  ? options.session.context
                                       : options.session.allow_long ? INT32_MAX
                                                                    : model->info().trained_context,
                            .stop_at_newline = prompt.stop_at_newline};
    const int batch = options.decode_batch > 0
                          ? options.decode_batch
                          : exact_batch(model, static_cast<int>(configs.size()));
    const Forcing forcing = options.pack_decode ? Forcing::decode : Forcing::chunk;
    std::vector<Outcome> outcomes(configs.size());
    std::vector<float> full;  // logits of the full cache, where fidelity is measured
    std::size_t first = 0;
    for (const std::size_t end : cut_by_memory(configs, prompt.tokens.size(), model->info())) {
        std::vector<Session> sessions;
        std::vector<Session*> pointers;
        for (std::size_t i = first; i < end; ++i) {
            sessions.emplace_back(model, configs[i].options, options.session);
        }
        for (Session& session : sessions) {
            pointers.push_back(&session);
        }
        const double from = static_cast<double>(first) / static_cast<double>(configs.size());
        const double part = static_cast<double>(end - first) / static_cast<double>(configs.size());
        const std::vector<SessionTiming> timings =
            read_prompt(pointers, prompt, options.pin, [&](double share) {
                return !progress || progress(from + part * kPrefillShare * share);
            });
        for (std::size_t i = first; i < end; ++i) {
            outcomes[i].timing = timings[i - first];
        }
        const auto tell = [&](double of_rest) {
            stop_unless(!progress ||
                        progress(from + part * (kPrefillShare + (1.0 - kPrefillShare) * of_rest)));
        };
        if (prompt.forced.empty()) {
            const std::vector<Answer> answers = answer_all(pointers, rules, batch, tell);
            for (std::size_t i = first; i < end; ++i) {
                outcomes[i].reply = answers[i - first].reply;
                outcomes[i].generated = answers[i - first].generated;
                outcomes[i].decode_ms = answers[i - first].ms;
            }
        } else {
            for (std::size_t i = first; i < end; ++i) {
                tell(static_cast<double>(i - first) / static_cast<double>(end - first));
                if (i == 0) {
                    full = full_logits(sessions[0], configs[0], prompt, forcing);
                }
                const auto start = Clock::now();
                outcomes[i].fidelity =
                    measure_fidelity(sessions[i - first], prompt.forced, full, forcing);
                outcomes[i].decode_ms = ms_since(start);
            }
        }
        for (std::size_t i = first; i < end; ++i) {
            outcomes[i].stats = sessions[i - first].stats();
        }
        first = end;
    }
    return outcomes;
}

}  // namespace winnow::eval
