// The true queries and keys of every layer of a prompt, and kept sets recomputed from them.
#pragma once

#include <winnow/winnow.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "policy_reference.h"

namespace winnow::testing {

struct ProbedLayer {
    reference::Layer attention;                   ///< queries of all tokens, and keys
    std::vector<std::vector<float>> column_sums;  ///< [G] of [R][T], as the engine summed them
};

/// Reads the prompt under a policy of the tests' own that records what it is shown. What is pruned
/// changes nothing for the prompt's other tokens, so this is what every policy sees. Queries are
/// as the engine remembers them, rounded to f16. One call at a time.
std::vector<ProbedLayer> probe_attention(std::shared_ptr<const Model> model,
                                         const std::vector<std::int32_t>& tokens);

/// Largest difference between the engine's column sums and those of a plain causal softmax over
/// the layer's queries and keys, relative to the plain sum.
double column_sum_error(const ProbedLayer& layer);

/// What a comparison of kept tokens found.
struct KeptDifference {
    int tokens = 0;         ///< compared
    int different = 0;      ///< kept by one side alone
    double farthest = 0.0;  ///< of those, the largest distance from the threshold, relative
};

/// Compares one kv head's kept tokens with the best of `scores` by the plain reference.
void compare_kept(const std::vector<double>& scores, const KeptHead& kept, int budget, int front,
                  int back, KeptDifference& found);

/// PyramidKV's budget of layer l of L for a span of T tokens, straight from its formula.
int pyramid_budget(int cap, int window, int beta, int layer, int layers, int tokens);

}  // namespace winnow::testing
