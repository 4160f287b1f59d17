// What the policies that read a prompt twice share: their scores, and one budget for the kv heads
// of all layers.
#pragma once

#include "prune/policy.h"

namespace winnow {

/// The peaks as they are: the largest attention a key got from any query and query head as the
/// prompt was repeated, and while decoding. A Policy's score where it needs peaks of one row.
void peak_scores(const Observation& seen, const PolicyParams& params,
                 std::span<float* const> scores);

/// A kv head of any layer, after a prompt.
struct WholeHead {
    std::vector<float> open;  ///< scores of the tokens that may go, in their order
    int kept = 0;             ///< tokens that stay by rule: protected or pinned ones

    int tokens() const { return kept + static_cast<int>(open.size()); }
};

/// budgets[i] of heads[i], together at most `total`: what stays by rule, then each head's best up
/// to `least` tokens, then the best of all others by their scores times weights[i] (empty: 1). Ties
/// go to the earlier token, then to the lower layer and head.
void share_by_score(std::span<const WholeHead> heads, std::int64_t total, int least,
                    std::span<const float> weights, std::span<int> budgets);

}  // namespace winnow
