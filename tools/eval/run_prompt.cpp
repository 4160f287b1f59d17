// One prompt under many configurations.
#include <winnow/error.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <numeric>

#include "eval/runner.h"
#include "text/utf8.h"

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

// The greedy answer, as `winnow run -n N` (and -r "\n" where a newline ends it) gives it.
void answer(Session& session, const Prompt& prompt, int context, Outcome& outcome,
            const std::function<void()>& check) {
    const Model& model = session.model();
    Utf8Stream characters;
    StopMatcher stops(prompt.stop_at_newline ? std::vector<std::string>{"\n"}
                                             : std::vector<std::string>{});
    const auto start = Clock::now();
    while (outcome.generated < prompt.max_new_tokens && session.position() < context) {
        check();
        const std::span<const float> logits = session.logits();
        const auto token = static_cast<std::int32_t>(
            std::max_element(logits.begin(), logits.end()) - logits.begin());
        if (model.is_end_of_generation(token)) {
            break;
        }
        ++outcome.generated;
        outcome.reply += stops.push(characters.push(model.piece(token)));
        session.decode(token);  // also the last one, as a run does: the cache holds what was seen
        if (stops.stopped()) {
            break;
        }
    }
    outcome.reply += stops.push(characters.finish()) + stops.finish();
    outcome.decode_ms = ms_since(start);
}

}  // namespace

std::vector<Outcome> run_prompt(const std::shared_ptr<const Model>& model,
                                const std::vector<Config>& configs, const Prompt& prompt,
                                const RunnerOptions& options, const ShareCallback& progress) {
    const auto tell = [&](double share) { stop_unless(!progress || progress(share)); };
    const int context = options.session.context > 0  ? options.session.context
                        : options.session.allow_long ? INT32_MAX
                                                     : model->info().trained_context;
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
        Session::prefill(pointers, prompt.tokens, [&](const Progress& at) {
            const double layer = at.layer + static_cast<double>(at.tokens) / at.tokens_total;
            return !progress || progress(from + part * kPrefillShare * layer / at.layers);
        });
        for (std::size_t i = first; i < end; ++i) {
            Session& session = sessions[i - first];
            Outcome& outcome = outcomes[i];
            const double done = static_cast<double>(i - first) / static_cast<double>(end - first);
            const double share = from + part * (kPrefillShare + (1.0 - kPrefillShare) * done);
            tell(share);
            outcome.timing = session.timing();
            if (!prompt.forced.empty()) {
                const auto start = Clock::now();
                if (i == 0) {
                    if (!is_plain_full(configs[0].options)) {
                        throw failure(
                            "fidelity is measured against the full cache, which must "
                            "be the first configuration.");
                    }
                    Session copy = session.clone();
                    full = forced_logits(copy, prompt.forced, forcing);
                }
                outcome.fidelity = measure_fidelity(session, prompt.forced, full, forcing);
                outcome.decode_ms = ms_since(start);
            } else {
                answer(session, prompt, context, outcome, [&] { tell(share); });
            }
            outcome.stats = session.stats();
        }
        first = end;
    }
    return outcomes;
}

}  // namespace winnow::eval
