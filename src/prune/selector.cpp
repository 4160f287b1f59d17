#include "prune/selector.h"

#include <algorithm>

namespace winnow {

namespace {

PolicyParams inner(const PolicyParams& params) {
    PolicyParams p = params;
    p.bases.erase(p.bases.begin());
    return p;
}

}  // namespace

void base_scores(const Observation& seen, const PolicyParams& params,
                 std::span<float* const> scores) {
    params.bases.front()->score(seen, inner(params), scores);
}

int base_budget(const PolicyParams& params, int layer, int layers, int tokens) {
    const Policy& base = *params.bases.front();
    return base.budget != nullptr ? base.budget(inner(params), layer, layers, tokens) : params.cap;
}

Protected base_protect(const PolicyParams& params, int budget, int tokens) {
    const Policy& base = *params.bases.front();
    return base.protect != nullptr ? base.protect(inner(params), budget, tokens) : Protected{};
}

Protected protect_ends(const PolicyParams& params, int budget, int /*tokens*/) {
    return {.front = std::min(params.n_sink, budget), .back = std::min(params.window_size, budget)};
}

// By true position, since a selector outside may have left the heads with different tokens.
void sum_over_heads(const Observation& seen, std::span<float* const> scores, float factor) {
    std::int32_t last = -1;
    for (const HeadObservation& head : seen.heads) {
        last = head.tokens > 0 ? std::max(last, head.positions[head.tokens - 1]) : last;
    }
    std::vector<float> sum(static_cast<std::size_t>(last) + 1, 0.0F);
    for (int g = 0; g < seen.kv_heads; ++g) {
        const HeadObservation& head = seen.heads[g];
        for (int t = 0; t < head.tokens; ++t) {
            sum[head.positions[t]] += scores[g][t];
        }
    }
    for (int g = 0; g < seen.kv_heads; ++g) {
        const HeadObservation& head = seen.heads[g];
        for (int t = 0; t < head.tokens; ++t) {
            scores[g][t] = sum[head.positions[t]] * factor;
        }
    }
}

}  // namespace winnow
