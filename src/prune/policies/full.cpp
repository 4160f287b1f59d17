// Keeps every token: the identity test of the cache, and the base of formats used alone.
#include <algorithm>

#include "prune/policy.h"

namespace winnow {

namespace {

int budget(const PolicyParams& /*params*/, int /*layer*/, int /*layers*/, int tokens) {
    return tokens;
}

Protected protect(const PolicyParams& /*params*/, int budget, int tokens) {
    return {.front = 0, .back = std::min(budget, tokens)};
}

}  // namespace

extern const Policy policy_full;
const Policy policy_full{
    .name = "full",
    .paper = "",
    .summary = "keep every token",
    .departures = "",
    .needs = kNeedsNothing,
    .budget = budget,
    .protect = protect,
};

}  // namespace winnow
