// CriticalKV (arXiv 2502.03805): half the budget by another policy's scores, the other half by
// these times what a token's value can do to the layer's output.
#include <algorithm>
#include <limits>

#include "prune/select.h"
#include "prune/selector.h"
#include "prune/token_rows.h"

namespace winnow {

namespace {

constexpr float kEpsilon = 1e-4F;  // added to the base score

void score(const Observation& seen, const PolicyParams& params, std::span<float* const> scores) {
    base_scores(seen, params, scores);
    const std::vector<std::vector<float>> norms = output_norms(seen, norm1);
    const int group = seen.query_heads / seen.kv_heads;
    for (int g = 0; g < seen.kv_heads; ++g) {
        const HeadObservation& head = seen.heads[g];
        const Protected fixed = base_protect(params, head.budget, head.tokens);
        const int half = std::max(head.budget / 2, std::min(head.budget, fixed.front + fixed.back));
        const std::vector<std::int32_t> first =
            select(std::span<const float>(scores[g], head.tokens), head.tokens, half, fixed);
        for (int t = 0; t < head.tokens; ++t) {
            float norm = 0.0F;  // the mean over the R query heads
            for (int r = 0; r < group; ++r) {
                norm += norms[g * group + r][t] / static_cast<float>(group);
            }
            scores[g][t] = (scores[g][t] + kEpsilon) * norm;
        }
        for (const std::int32_t t : first) {
            scores[g][t] = std::numeric_limits<float>::max();
        }
    }
}

}  // namespace

extern const Policy policy_criticalkv;
const Policy policy_criticalkv{
    .name = "criticalkv",
    .paper = "2502.03805",
    .summary =
        "half the budget by another policy's scores, the rest by (score + 1e-4) x norm1(W_o v)",
    .departures =
        "the first half counts the tokens that are kept by rule; norms are averaged over the query "
        "heads of a kv head; over expected_attention the value's length counts in both factors",
    .needs = kNeedsValues | kNeedsOutput,
    .budget = base_budget,
    .protect = base_protect,
    .score = score,
    .default_base = "snapkv",
};

}  // namespace winnow
