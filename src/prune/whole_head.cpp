#include "prune/whole_head.h"

#include <algorithm>

#include "prune/select.h"

namespace winnow {

void peak_scores(const Observation& seen, const PolicyParams& /*params*/,
                 std::span<float* const> scores) {
    for (int g = 0; g < seen.kv_heads; ++g) {
        std::copy_n(seen.heads[g].column_sums, seen.heads[g].tokens, scores[g]);
    }
}

void share_by_score(std::span<const WholeHead> heads, std::int64_t total, int least,
                    std::span<const float> weights, std::span<int> budgets) {
    std::vector<std::vector<std::int32_t>> settled(heads.size());
    std::size_t longest = 0;
    for (std::size_t i = 0; i < heads.size(); ++i) {
        const std::vector<float>& open = heads[i].open;
        const int best = std::max(0, std::min(least, heads[i].tokens()) - heads[i].kept);
        settled[i] = select(open, static_cast<int>(open.size()), best, {});
        budgets[i] = heads[i].kept + best;
        total -= budgets[i];
        longest = std::max(longest, open.size());
    }
    std::vector<float> values;
    std::vector<std::uint32_t> owners;
    for (std::size_t t = 0; t < longest; ++t) {
        for (std::size_t i = 0; i < heads.size(); ++i) {
            if (t < heads[i].open.size() &&
                !std::ranges::binary_search(settled[i], static_cast<std::int32_t>(t))) {
                values.push_back(heads[i].open[t] * (weights.empty() ? 1.0F : weights[i]));
                owners.push_back(static_cast<std::uint32_t>(i));
            }
        }
    }
    const auto more = static_cast<int>(std::clamp<std::int64_t>(total, 0, values.size()));
    for (const std::int32_t i : select(values, static_cast<int>(values.size()), more, {})) {
        ++budgets[owners[i]];
    }
}

}  // namespace winnow
