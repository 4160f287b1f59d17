// SnapKV (arXiv 2404.14469): what the last W queries look at, pooled over positions.
#include <algorithm>

#include "prune/policy.h"

namespace winnow {

namespace {

// select() clips the two ranges where together they exceed the budget.
Protected protect(const PolicyParams& params, int budget, int /*tokens*/) {
    return {.front = std::min(params.n_sink, budget), .back = std::min(params.window_size, budget)};
}

}  // namespace

extern const Policy policy_snapkv;
const Policy policy_snapkv{
    .name = "snapkv",
    .paper = "2404.14469",
    .summary = "the keys that the last W queries attend to, pooled over positions, and the last W",
    .departures =
        "scores are averaged over the query heads of a kv head; the official code "
        "repeats K and V to query heads and prunes each",
    .needs = kNeedsWindow,
    .default_window = 8,
    .protect = protect,
    .score = window_attention_scores,
    .scores_without_cap = true,
};

}  // namespace winnow
