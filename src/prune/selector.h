// What selectors (adakv, criticalkv, chunkkv) share: the policy they score by.
#pragma once

#include "prune/policy.h"

namespace winnow {

/// The scores of params.bases.front(), which sees the bases behind it as its own.
void base_scores(const Observation& seen, const PolicyParams& params,
                 std::span<float* const> scores);

/// The base's budget and protected ranges: a selector has none of its own.
int base_budget(const PolicyParams& params, int layer, int layers, int tokens);
Protected base_protect(const PolicyParams& params, int budget, int tokens);

/// The first n_sink and the last W tokens; select() clips them to the budget.
Protected protect_ends(const PolicyParams& params, int budget, int tokens);

/// Scores summed over the heads of a layer: every head gets, per token, the sum over the heads that
/// hold its position, in head order. `factor` scales the result.
void sum_over_heads(const Observation& seen, std::span<float* const> scores, float factor);

}  // namespace winnow
