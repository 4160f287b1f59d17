// Ada-KV (arXiv 2407.11550): one budget for all heads of a layer, spent where the scores are best.
#include <algorithm>
#include <cmath>

#include "prune/select.h"
#include "prune/selector.h"

namespace winnow {

namespace {

constexpr int kSafeShare = 5;  // every head keeps at least a fifth of the mean budget

// Where all tokens fit, each head keeps its own, and what is left is shared out evenly.
bool all_fit(const Observation& seen, int budget, std::span<int> out) {
    int left = budget * seen.kv_heads;
    for (const HeadObservation& head : seen.heads) {
        left -= head.tokens;
    }
    for (int g = 0; left >= 0 && g < seen.kv_heads; ++g) {
        const int share = left / seen.kv_heads + (g < left % seen.kv_heads ? 1 : 0);
        out[g] = seen.heads[g].tokens + share;
    }
    return left >= 0;
}

// What a head keeps in any case: its tokens kept by rule, then its best, up to a fifth of the
// budget. The others compete; ties go to the earlier token, then to the lower head.
void head_budgets(const Observation& seen, const PolicyParams& params,
                  std::span<float* const> scores, int budget, std::span<int> out) {
    if (all_fit(seen, budget, out)) {
        return;
    }
    struct Candidate {
        std::int32_t token;
        int head;
    };
    std::vector<Candidate> candidates;
    int open = budget * seen.kv_heads;
    for (int g = 0; g < seen.kv_heads; ++g) {
        const int tokens = seen.heads[g].tokens;
        const Protected fixed = base_protect(params, budget, tokens);
        const int safe = std::clamp(fixed.front + fixed.back, budget / kSafeShare, budget);
        const std::vector<std::int32_t> kept =
            select(std::span<const float>(scores[g], tokens), tokens, safe, fixed);
        out[g] = static_cast<int>(kept.size());
        open -= out[g];
        auto next = kept.begin();
        for (std::int32_t t = 0; t < tokens; ++t) {
            if (next != kept.end() && *next == t) {
                ++next;
            } else {
                candidates.push_back({t, g});
            }
        }
    }
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
    std::vector<float> values;
    for (const Candidate& c : candidates) {
        values.push_back(scores[c.head][c.token]);
    }
    for (const std::int32_t i : select(values, static_cast<int>(values.size()), open, {})) {
        ++out[candidates[i].head];
    }
}

}  // namespace

extern const Policy policy_adakv;
const Policy policy_adakv{
    .name = "adakv",
    .paper = "2407.11550",
    .summary = "the best scores over all heads of a layer; every head keeps a fifth of its share",
    .departures =
        "the fifth is each head's own best tokens; the official code mixes a fifth of the even "
        "budget into each head's count",
    .budget = base_budget,
    .protect = base_protect,
    .score = base_scores,
    .head_budgets = head_budgets,
    .default_base = "snapkv",
};

}  // namespace winnow
