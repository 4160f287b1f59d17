// Key norms (arXiv 2406.11430): keys of a small L2 norm tend to receive the most attention.
#include <cmath>

#include "prune/selector.h"
#include "prune/token_rows.h"

namespace winnow {

namespace {

// -norm2(k)
void score(const Observation& seen, const PolicyParams& /*params*/,
           std::span<float* const> scores) {
    const int dims = seen.head_dim;
    std::vector<std::vector<float>> rows(seen.threads);
    for_each_block(seen, [&](const RowBlock& block, int thread) {
        widen_rows(seen.heads[block.g].k, block.first, block.count, dims, rows[thread]);
        for (int t = 0; t < block.count; ++t) {
            const float* k = rows[thread].data() + static_cast<std::size_t>(t) * dims;
            scores[block.g][block.first + t] = -std::sqrt(dot_rows(k, k, dims));
        }
    });
}

}  // namespace

extern const Policy policy_knorm;
const Policy policy_knorm{
    .name = "knorm",
    .paper = "2406.11430",
    .summary = "the keys of the smallest norm; nothing is kept by rule unless asked for",
    .departures = "every layer is pruned; the paper leaves the first two whole",
    .needs = kNeedsKeys,
    .protect = protect_ends,
    .score = score,
    .scores_without_cap = true,
};

}  // namespace winnow
