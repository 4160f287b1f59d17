// CriticalKV (arXiv 2502.03805): half the budget by another policy's scores, the other half by
// these times what a token's value can do to the layer's output.
#include <algorithm>
#include <limits>

#include "kernels/dense.h"
#include "prune/select.h"
#include "prune/selector.h"
#include "prune/token_rows.h"

namespace winnow {

namespace {

constexpr float kEpsilon = 1e-4F;  // added to the base score

// norms[g][t] = mean over the R query heads of norm1(W_o v), W_o being that head's columns. As many
// multiplications as the layer's own output projection.
void output_norms(const Observation& seen, std::span<std::vector<float>> norms) {
    const int dims = seen.head_dim;
    const int width = (seen.embedding + kColumnBlock - 1) / kColumnBlock * kColumnBlock;
    const int group = seen.query_heads / seen.kv_heads;
    std::vector<std::vector<float>> rows(seen.threads), out(seen.threads);
    for_each_block(seen, [&](const RowBlock& block, int thread) {
        widen_rows(seen.heads[block.g].v, block.first, block.count, dims, rows[thread]);
        std::vector<float>& product = out[thread];
        product.resize(static_cast<std::size_t>(kRowBlock) * width);
        float* norm = norms[block.g].data() + block.first;
        for (int r = 0; r < group; ++r) {
            const std::size_t head = static_cast<std::size_t>(block.g) * group + r;
            multiply(rows[thread].data(), dims, seen.output + head * dims * width, width,
                     product.data(), width, block.count, width, dims, false);
            for (int t = 0; t < block.count; ++t) {
                norm[t] += norm1(product.data() + static_cast<std::size_t>(t) * width, width) /
                           static_cast<float>(group);
            }
        }
    });
}

void score(const Observation& seen, const PolicyParams& params, std::span<float* const> scores) {
    base_scores(seen, params, scores);
    std::vector<std::vector<float>> norms;
    for (const HeadObservation& head : seen.heads) {
        norms.emplace_back(static_cast<std::size_t>(head.tokens), 0.0F);
    }
    output_norms(seen, norms);
    for (int g = 0; g < seen.kv_heads; ++g) {
        const HeadObservation& head = seen.heads[g];
        const Protected fixed = base_protect(params, head.budget, head.tokens);
        const int half = std::max(head.budget / 2, std::min(head.budget, fixed.front + fixed.back));
        const std::vector<std::int32_t> first =
            select(std::span<const float>(scores[g], head.tokens), head.tokens, half, fixed);
        for (int t = 0; t < head.tokens; ++t) {
            scores[g][t] = (scores[g][t] + kEpsilon) * norms[g][t];
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
