// A uniform random choice: the control that every method must beat.
#include <algorithm>

#include "prune/policy.h"

namespace winnow {

namespace {

// The finaliser of splitmix64: every input bit reaches every output bit.
std::uint64_t mix(std::uint64_t x) {
    x += 0x9E3779B97F4A7C15U;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9U;
    x = (x ^ x >> 27) * 0x94D049BB133111EBU;
    return x ^ x >> 31;
}

// A function of seed, layer, head and true position alone, so a token keeps its score when a span
// is scored again, and the kept set stays a uniform choice while decoding.
void score(const Observation& seen, const PolicyParams& params, std::span<float* const> scores) {
    for (int g = 0; g < seen.kv_heads; ++g) {
        const HeadObservation& head = seen.heads[g];
        const std::uint64_t place =
            static_cast<std::uint64_t>(seen.layer) << 32 | static_cast<std::uint32_t>(g);
        const std::uint64_t key = mix(mix(params.seed) ^ place);
        for (int j = 0; j < head.tokens; ++j) {
            const auto position = static_cast<std::uint32_t>(head.positions[j]);
            const auto bits = static_cast<std::uint32_t>(mix(key ^ position) >> 40);
            scores[g][j] = static_cast<float>(bits) * 0x1p-24F;  // 24 bits, exact in [0, 1)
        }
    }
}

// select() clips the two ranges where together they exceed the budget.
Protected protect(const PolicyParams& params, int budget, int /*tokens*/) {
    return {.front = std::min(params.n_sink, budget), .back = std::min(params.window_size, budget)};
}

}  // namespace

extern const Policy policy_random;
const Policy policy_random{
    .name = "random",
    .paper = "",
    .summary = "a seeded uniform choice, and the last W: the control for every other method",
    .departures = "",
    .needs = kNeedsNothing,
    .default_window = 8,
    .protect = protect,
    .score = score,
    .scores_without_cap = true,
};

}  // namespace winnow
