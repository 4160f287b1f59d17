// What a session tells about its cache.
#include "engine/stats.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <utility>

#include "engine/session_impl.h"

namespace winnow {

namespace {

// Mean stored bits per number of the packed region; 16 where nothing is packed.
double packed_bits(std::size_t bytes, std::size_t numbers) {
    return numbers == 0 ? 16.0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(numbers);
}

// Tokens and bytes of one precision, into the list that is ordered by bits.
void add_precision(std::vector<PrecisionStats>& list, const PrecisionStats& more) {
    if (more.tokens == 0) {
        return;
    }
    const auto order = [](const PrecisionStats& p) { return std::pair(-p.bits_k, -p.bits_v); };
    auto at = std::find_if(list.begin(), list.end(),
                           [&](const PrecisionStats& p) { return order(p) >= order(more); });
    if (at == list.end() || order(*at) != order(more)) {
        at = list.insert(at, {.bits_k = more.bits_k, .bits_v = more.bits_v});
    }
    at->tokens += more.tokens;
    at->bytes += more.bytes;
}

// Bits of the token at index i of a span, mean of K's and V's.
float bits_at(const Span& span, const SpanLayout& layout, int i) {
    const int packed = i - span.head_tokens();
    if (packed < 0 || packed >= span.packed_tokens()) {
        return 16.0F;
    }
    return static_cast<float>(layout.spec.bits_k + layout.spec.bits_v) / 2.0F;
}

}  // namespace

void add_precisions(const LayerStore& store, std::vector<PrecisionStats>& list) {
    for (int g = 0; g < store.kv_heads(); ++g) {
        for (int tier = 0; tier < store.tiers(); ++tier) {
            const Span& span = store.span(g, tier);
            const FormatSpec& spec = store.layout(tier).spec;
            const auto exact = static_cast<std::uint64_t>(span.head_tokens() + span.tail_tokens());
            add_precision(list, {.tokens = exact, .bytes = exact * 4U * spec.head_dim});
            add_precision(list, {.bits_k = spec.bits_k,
                                 .bits_v = spec.bits_v,
                                 .tokens = static_cast<std::uint64_t>(span.packed_tokens()),
                                 .bytes = span.k_bytes() + span.v_bytes()});
        }
    }
}

double mean_tokens(const LayerStore& store) {
    double tokens = 0.0;
    for (int g = 0; g < store.kv_heads(); ++g) {
        tokens += store.tokens(g);
    }
    return tokens / store.kv_heads();
}

CacheStats Session::stats() const {
    const Impl& s = *impl_;
    CacheStats stats;
    std::size_t k_bytes = 0, v_bytes = 0, numbers = 0;
    for (const SessionLayer& layer : s.layers) {
        const LayerStore& store = *layer.store;
        add_precisions(store, stats.precisions);
        for (int g = 0; g < store.kv_heads(); ++g) {
            for (int tier = 0; tier < store.tiers(); ++tier) {
                const Span& span = store.span(g, tier);
                k_bytes += span.k_bytes();
                v_bytes += span.v_bytes();
                numbers += static_cast<std::size_t>(span.packed_tokens()) * s.hparams().head_dim;
            }
        }
        stats.kept.push_back(mean_tokens(store));
        stats.dropped_mass += layer.dropped_mass / static_cast<double>(s.layers.size());
        stats.dropped_mass_worst = std::max(stats.dropped_mass_worst, layer.dropped_mass);
        stats.policy_bytes += store.policy_bytes();
    }
    stats.bytes = s.cache_bytes();
    stats.budget_bytes = s.plan.budget_bytes();
    stats.guard_raised = s.plan.mixed.raised;
    stats.bytes_peak = s.bytes_peak;
    stats.bytes_full_f16 = s.m().info.full_cache_bytes(static_cast<std::uint64_t>(s.position));
    stats.allocated_bytes = s.cache.now();
    stats.prefill_peak_bytes = s.prefill_peak;
    stats.bits_k = packed_bits(k_bytes, numbers);
    stats.bits_v = packed_bits(v_bytes, numbers);
    stats.tokens_seen = static_cast<std::uint64_t>(s.position);
    stats.evictions = s.evictions;
    stats.repackings = s.repackings;
    stats.demotions = s.demotions;
    return stats;
}

std::vector<KeptLayer> Session::kept() const {
    std::vector<KeptLayer> layers;
    for (const SessionLayer& from : impl_->layers) {
        KeptLayer& layer = layers.emplace_back();
        // A policy without a limit allows what there is.
        layer.budget = from.budget.empty() ? 0 : from.budget.front();
        layer.budget = layer.budget == INT_MAX ? impl_->position : layer.budget;
        const LayerStore& store = *from.store;
        for (int g = 0; g < store.kv_heads(); ++g) {
            KeptHead& head = layer.heads.emplace_back();
            std::vector<std::int32_t> positions;  // by storage
            std::vector<float> bits;
            for (int tier = 1; tier <= store.tiers(); ++tier) {
                const Span& span = store.span(g, tier % store.tiers());
                for (int i = 0; i < span.tokens(); ++i) {
                    positions.push_back(span.position(i));
                    bits.push_back(bits_at(span, store.layout(tier % store.tiers()), i));
                }
            }
            for (const std::int32_t at : store.by_position(g)) {
                head.positions.push_back(positions[at]);
                head.bits.push_back(bits[at]);
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
