// H2O (arXiv 2306.14048): heavy hitters, the keys that received the most attention from all
// queries so far, beside the newest tokens.
#include <algorithm>

#include "prune/policy.h"

namespace winnow {

namespace {

// select() clips the two ranges where together they exceed the budget.
Protected protect(const PolicyParams& params, int budget, int /*tokens*/) {
    return {.front = std::min(params.n_sink, budget), .back = std::min(params.window_size, budget)};
}

// The column sums of the R query heads, aggregated: scores[g][j].
void score(const Observation& seen, const PolicyParams& params, std::span<float* const> scores) {
    const int group = seen.query_heads / seen.kv_heads;
    for (int g = 0; g < seen.kv_heads; ++g) {
        const std::size_t tokens = seen.heads[g].tokens;
        const float* sums = seen.heads[g].column_sums;  // [R][T]
        float* out = scores[g];
        std::copy_n(sums, tokens, out);
        for (int r = 1; r < group; ++r) {
            const float* more = sums + r * tokens;
            for (std::size_t j = 0; j < tokens; ++j) {
                out[j] = params.agg == GqaAgg::max ? std::max(out[j], more[j]) : out[j] + more[j];
            }
        }
        if (params.agg == GqaAgg::mean) {
            for (std::size_t j = 0; j < tokens; ++j) {
                out[j] /= static_cast<float>(group);
            }
        }
    }
}

}  // namespace

extern const Policy policy_h2o;
const Policy policy_h2o{
    .name = "h2o",
    .paper = "2306.14048",
    .summary = "the keys that all queries together attended to most, and the last W",
    .departures =
        "the sums are causal; the code of arXiv 2412.12706 masks only the last W x W "
        "block. Scores are averaged over the query heads of a kv head",
    .needs = kNeedsColumnSums,
    .default_window = 8,
    .protect = protect,
    .score = score,
    .scores_without_cap = true,
};

}  // namespace winnow
