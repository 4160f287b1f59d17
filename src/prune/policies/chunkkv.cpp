// ChunkKV (arXiv 2502.00299): whole chunks of neighbouring tokens, the same for all heads of a
// layer.
#include <algorithm>

#include "prune/selector.h"

namespace winnow {

namespace {

constexpr int kChunkTokens = 20;

// Every token gets its chunk's mean base score, summed over heads. Chunks begin behind the tokens
// kept by rule at the front and end before those at the back; the last may be short.
void score(const Observation& seen, const PolicyParams& params, std::span<float* const> scores) {
    base_scores(seen, params, scores);
    sum_over_heads(seen, scores, 1.0F);
    for (int g = 0; g < seen.kv_heads; ++g) {
        const HeadObservation& head = seen.heads[g];
        const Protected fixed = base_protect(params, head.budget, head.tokens);
        const int end = std::max(0, head.tokens - fixed.back);
        for (int first = std::min(fixed.front, end); first < end; first += kChunkTokens) {
            const int count = std::min(kChunkTokens, end - first);
            double sum = 0.0;
            for (int t = 0; t < count; ++t) {
                sum += scores[g][first + t];
            }
            std::fill_n(scores[g] + first, count, static_cast<float>(sum / count));
        }
    }
}

}  // namespace

extern const Policy policy_chunkkv;
const Policy policy_chunkkv{
    .name = "chunkkv",
    .paper = "2502.00299",
    .summary = "chunks of 20 tokens by their mean score, the same for all heads of a layer",
    .departures =
        "the last chunk chosen is cut where the budget ends; layers do not reuse each other's "
        "chunks",
    .budget = base_budget,
    .protect = base_protect,
    .score = score,
    .default_base = "snapkv",
};

}  // namespace winnow
