// Rows of K or V widened a block of tokens at a time, for policies that look at them one by one.
#pragma once

#include <functional>
#include <vector>

#include "prune/policy.h"

namespace winnow {

inline constexpr int kRowBlock = 256;  ///< tokens of a block; does not depend on the thread count

/// Tokens [first, first + count) of kv head g, block number `block` of that head.
struct RowBlock {
    int g = 0;
    int block = 0;
    int first = 0;
    int count = 0;
};

/// Calls body(block, thread) for all blocks of all heads, on seen.threads threads, in no order.
void for_each_block(const Observation& seen,
                    const std::function<void(const RowBlock& block, int thread)>& body);

/// Rows [first, first + count) of `from` [T][D] as floats.
void widen_rows(const f16* from, int first, int count, int head_dim, std::vector<float>& rows);

/// Sum of a[i] * b[i], of abs(x[i]), and the root of the sum of squares, in a fixed order.
float dot_rows(const float* a, const float* b, int n);
float norm1(const float* x, int n);
float norm2(const float* x, int n);

/// [H] of [T]: norm(W_o v), what each token's value can add to the layer's output through each
/// query head, W_o being that head's columns. As many multiplications as the layer's own output
/// projection.
std::vector<std::vector<float>> output_norms(const Observation& seen,
                                             float (*norm)(const float* x, int n));

}  // namespace winnow
