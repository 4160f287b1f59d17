#include "eval/foreign.h"

#include <chrono>

#include "eval/fidelity.h"
#include "eval/runner.h"

namespace winnow::eval {

std::vector<OrderedJson> measure_foreign(const ForeignCaches& caches, const OrderedJson& run,
                                         const Prompt& prompt, const ModelInfo& model) {
    std::vector<OrderedJson> lines;
    std::vector<float> full;
    const std::size_t tokens = prompt.tokens.size();
    for (const auto& cache : caches) {
        const auto start = std::chrono::steady_clock::now();
        const bool first = full.empty();
        FidelityMeter meter(prompt.forced, full);
        cache->force(prompt.tokens, prompt.forced, [&](int i, std::span<const float> logits) {
            if (first) {
                full.insert(full.end(), logits.begin(), logits.end());
            } else {
                meter.add(i, logits);
            }
        });
        if (first) {
            meter = FidelityMeter(prompt.forced, full);
            const std::size_t vocabulary = full.size() / (prompt.forced.size() - 1);
            for (std::size_t i = 0; i + 1 < prompt.forced.size(); ++i) {
                meter.add(static_cast<int>(i), std::span(full).subspan(i * vocabulary, vocabulary));
            }
        }
        const std::chrono::duration<double, std::milli> spent =
            std::chrono::steady_clock::now() - start;
        const auto whole = static_cast<double>(model.full_cache_bytes(tokens));
        Outcome outcome;
        outcome.fidelity = meter.result();
        outcome.decode_ms = spent.count();
        outcome.stats.bytes_full_f16 = model.full_cache_bytes(tokens);
        outcome.stats.bytes = static_cast<std::uint64_t>(whole * cache->bits() / 16.0);
        outcome.stats.bytes_peak = outcome.stats.bytes;
        outcome.stats.bits_k = outcome.stats.bits_v = cache->bits();
        outcome.stats.kept.assign(1, static_cast<double>(tokens));
        Config config;
        config.id = cache->id();
        OrderedJson line = result_line(run, prompt, config, outcome, {});
        line["options"] = cache->options();
        lines.push_back(std::move(line));
    }
    return lines;
}

}  // namespace winnow::eval
