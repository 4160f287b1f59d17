// TOVA (arXiv 2401.06104): what the last query attends to, one set of tokens per layer.
#include <algorithm>

#include "prune/selector.h"

namespace winnow {

namespace {

// The newest query alone, whatever the window; its attention averaged over all heads.
void score(const Observation& seen, const PolicyParams& params, std::span<float* const> scores) {
    Observation last = seen;
    last.window = std::min(1, seen.window);
    last.window_queries +=
        static_cast<std::size_t>(seen.window - last.window) * seen.query_heads * seen.head_dim;
    PolicyParams plain = params;
    plain.kernel_size = 1;
    plain.agg = GqaAgg::mean;
    window_attention_scores(last, plain, scores);
    sum_over_heads(seen, scores, 1.0F / static_cast<float>(seen.kv_heads));
}

}  // namespace

extern const Policy policy_tova;
const Policy policy_tova{
    .name = "tova",
    .paper = "2401.06104",
    .summary =
        "the keys that the last query attends to, one set of tokens for all heads of a layer",
    .departures =
        "the newest token is always kept; the prompt is pruned once at its end, where the paper "
        "drops one token per step. --gqa-score-agg changes nothing",
    .needs = kNeedsWindow,
    .default_window = 1,
    .protect = protect_ends,
    .score = score,
    .scores_without_cap = true,
};

}  // namespace winnow
