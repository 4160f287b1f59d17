// What a session tells about its cache.
#include <cmath>
#include <limits>

#include "engine/session_impl.h"

namespace winnow {

namespace {

// Mean stored bits per number of the packed region; 16 where nothing is packed.
double packed_bits(std::size_t bytes, std::size_t numbers) {
    return numbers == 0 ? 16.0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(numbers);
}

}  // namespace

CacheStats Session::stats() const {
    const Impl& s = *impl_;
    CacheStats stats;
    std::size_t k_bytes = 0, v_bytes = 0, numbers = 0;
    for (const SessionLayer& layer : s.layers) {
        const LayerStore& store = *layer.store;
        double tokens = 0.0;
        for (int g = 0; g < store.kv_heads(); ++g) {
            const Span& span = store.span(g);
            tokens += span.tokens();
            k_bytes += span.k_bytes();
            v_bytes += span.v_bytes();
            numbers += static_cast<std::size_t>(span.packed_tokens()) * s.hparams().head_dim;
        }
        stats.kept.push_back(tokens / store.kv_heads());
        stats.policy_bytes += store.policy_bytes();
    }
    stats.bytes = s.cache_bytes();
    stats.bytes_peak = s.bytes_peak;
    stats.bytes_full_f16 = s.m().info.full_cache_bytes(static_cast<std::uint64_t>(s.position));
    stats.allocated_bytes = s.cache.now();
    stats.prefill_peak_bytes = s.prefill_peak;
    stats.bits_k = packed_bits(k_bytes, numbers);
    stats.bits_v = packed_bits(v_bytes, numbers);
    stats.tokens_seen = static_cast<std::uint64_t>(s.position);
    stats.evictions = s.evictions;
    stats.repackings = s.repackings;
    return stats;
}

std::vector<KeptLayer> Session::kept() const {
    std::vector<KeptLayer> layers;
    for (const SessionLayer& from : impl_->layers) {
        KeptLayer& layer = layers.emplace_back();
        layer.budget = from.budget.empty() ? 0 : from.budget.front();
        for (int g = 0; g < from.store->kv_heads(); ++g) {
            KeptHead& head = layer.heads.emplace_back();
            const Span& span = from.store->span(g);
            for (int i = 0; i < span.tokens(); ++i) {
                head.positions.push_back(span.position(i));
            }
            // Tokens that came after the selection are kept by rule.
            head.scores.assign(head.positions.size(), std::nanf(""));
            if (g < static_cast<int>(from.scores.size())) {
                const std::vector<float>& scores = from.scores[g];
                std::copy_n(scores.begin(), std::min(scores.size(), head.scores.size()),
                            head.scores.begin());
            }
        }
    }
    return layers;
}

}  // namespace winnow
