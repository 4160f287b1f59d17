// KVzip (arXiv 2505.23416), its budget shared out by heads first: those that the repetition reads
// most keep more of it.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "prune/selector.h"
#include "prune/whole_head.h"

namespace winnow {

namespace {

constexpr int kShare = 8;  // each head keeps at least this part of an even share

// A model copies through a few of its heads, and a token is of use to the answer only where all of
// them have it. One threshold alone takes tokens out of each of them.
void share_out(std::span<const WholeHead> heads, std::int64_t total, std::span<int> budgets) {
    const auto share = total / static_cast<std::int64_t>(heads.size());
    std::vector<float> weights;
    for (const WholeHead& head : heads) {
        const double sum = std::accumulate(head.open.begin(), head.open.end(), 0.0);
        const auto tokens = static_cast<double>(std::max<std::size_t>(head.open.size(), 1));
        weights.push_back(static_cast<float>(std::sqrt(sum / tokens)));
    }
    share_by_score(heads, total, static_cast<int>(share / kShare), weights, budgets);
}

}  // namespace

extern const Policy policy_kvzip_heads;
const Policy policy_kvzip_heads{
    .name = "kvzip_heads",
    .paper = "2505.23416",
    .summary =
        "kvzip's scores times the root of their head's mean, so that the heads that the repetition "
        "reads most keep more; each head at least an eighth of an even share; the sinks",
    .departures =
        "the paper has one threshold over the scores alone, or whole heads by each head's largest "
        "score and a window for the others; the rest as kvzip",
    .needs = kNeedsPeaks,
    .default_sinks = 4,
    .protect = protect_ends,
    .score = peak_scores,
    .share_out = share_out,
};

}  // namespace winnow
