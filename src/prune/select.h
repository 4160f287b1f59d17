// The only top-k of the project.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "prune/policy.h"

namespace winnow {

/// Indices of the tokens to keep, ascending: the protected ranges, then the best-scored others
/// until `budget` tokens are kept. Ties go to the earlier token; NaN scores rank last. Tokens of
/// `pinned` (ascending) come before all of these.
/// `scores` has T entries, or is empty where the protected ranges alone fill the budget.
/// If T <= budget everything is kept. Deterministic; O(T log T) time, O(T) memory.
std::vector<std::int32_t> select(std::span<const float> scores, int tokens, int budget,
                                 Protected fixed, std::span<const std::int32_t> pinned = {});

}  // namespace winnow
