// PyramidKV (arXiv 2406.02069): SnapKV's scores, with budgets that fall from layer to layer.
#include <winnow/error.h>

#include <algorithm>
#include <string>

#include "prune/policy.h"

namespace winnow {

namespace {

// All divisions are integer divisions, as in the official code. The step is floored, so over all
// layers the budgets sum to at least L * cap and at most L * cap + L * (L - 1) / 2.
int budget(const PolicyParams& params, int layer, int layers, int tokens) {
    if (params.beta < 1) {
        throw usage_error("--beta is " + std::to_string(params.beta) +
                          "; pyramidkv needs a whole number of at least 1");
    }
    if (tokens <= params.cap) {
        return tokens;
    }
    const int window = params.window_size;
    const int mean = params.cap - window;
    // One layer has no slope, and a prompt this short no room for one.
    if (layers < 2 || mean <= 0 || tokens < 2 * mean) {
        return params.cap;
    }
    int low = mean / params.beta;
    int high = 2 * mean - low;
    if (high > tokens - window) {
        high = tokens - window;
        low = 2 * mean - high;
    }
    const int step = (high - low) / (layers - 1);
    return high - layer * step + window;
}

// select() clips the two ranges where together they exceed the budget.
Protected protect(const PolicyParams& params, int budget, int /*tokens*/) {
    return {.front = std::min(params.n_sink, budget), .back = std::min(params.window_size, budget)};
}

}  // namespace

extern const Policy policy_pyramidkv;
const Policy policy_pyramidkv{
    .name = "pyramidkv",
    .paper = "2406.02069",
    .summary = "snapkv with more tokens in the lower layers and fewer in the upper ones",
    .departures =
        "scores as in snapkv; a model of one layer keeps cap tokens, where the official "
        "code divides by zero",
    .needs = kNeedsWindow,
    .default_window = 8,
    .budget = budget,
    .protect = protect,
    .score = window_attention_scores,
    .scores_without_cap = true,
};

}  // namespace winnow
