// KeyDiff (arXiv 2504.15364): the keys that differ most in direction from the others.
#include <cmath>

#include "prune/selector.h"
#include "prune/token_rows.h"

namespace winnow {

namespace {

constexpr float kTiny = 1e-12F;  // a key of no length has no direction and counts as zero

// -cos(k_j, mean of k / norm2(k)), after RoPE: two passes over the keys, no matrix of pairs.
void score(const Observation& seen, const PolicyParams& /*params*/,
           std::span<float* const> scores) {
    const int dims = seen.head_dim;
    std::vector<std::vector<float>> rows(seen.threads);
    std::vector<std::vector<float>> parts(seen.kv_heads);  // [blocks][D] sums of unit keys
    for (int g = 0; g < seen.kv_heads; ++g) {
        const int blocks = (seen.heads[g].tokens + kRowBlock - 1) / kRowBlock;
        parts[g].resize(static_cast<std::size_t>(blocks) * dims);
    }
    for_each_block(seen, [&](const RowBlock& block, int thread) {
        widen_rows(seen.heads[block.g].k, block.first, block.count, dims, rows[thread]);
        float* sum = parts[block.g].data() + static_cast<std::size_t>(block.block) * dims;
        for (int t = 0; t < block.count; ++t) {
            const float* k = rows[thread].data() + static_cast<std::size_t>(t) * dims;
            const float norm = std::sqrt(dot_rows(k, k, dims));
            scores[block.g][block.first + t] = norm;
            for (int d = 0; d < dims; ++d) {
                sum[d] += k[d] / (norm < kTiny ? kTiny : norm);
            }
        }
    });
    std::vector<std::vector<float>> anchors(seen.kv_heads);  // of length 1
    for (int g = 0; g < seen.kv_heads; ++g) {
        std::vector<float>& anchor = anchors[g];
        anchor.assign(dims, 0.0F);
        for (std::size_t i = 0; i < parts[g].size(); ++i) {
            anchor[i % dims] += parts[g][i];
        }
        const float norm = std::sqrt(dot_rows(anchor.data(), anchor.data(), dims));
        for (float& x : anchor) {
            x /= norm < kTiny ? kTiny : norm;
        }
    }
    for_each_block(seen, [&](const RowBlock& block, int thread) {
        widen_rows(seen.heads[block.g].k, block.first, block.count, dims, rows[thread]);
        for (int t = 0; t < block.count; ++t) {
            const float* k = rows[thread].data() + static_cast<std::size_t>(t) * dims;
            float& out = scores[block.g][block.first + t];  // the norm until here
            out = -dot_rows(k, anchors[block.g].data(), dims) / (out < kTiny ? kTiny : out);
        }
    });
}

}  // namespace

extern const Policy policy_keydiff;
const Policy policy_keydiff{
    .name = "keydiff",
    .paper = "2504.15364",
    .summary =
        "the keys that differ most in direction from the mean key; nothing is kept by rule "
        "unless asked for",
    .departures = "the prompt is pruned once at its end, not block by block as it is read",
    .needs = kNeedsKeys,
    .protect = protect_ends,
    .score = score,
    .scores_without_cap = true,
};

}  // namespace winnow
