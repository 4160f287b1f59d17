// Products of quantised weights with few tokens, for decoding: every row is read once, straight
// from the file's blocks, and multiplied with 16-bit activations. The weights' bytes bound them, so
// that other costs hide behind memory. code_products.h has those of many tokens.
#pragma once

#include <cstddef>

#include "kernels/code_products.h"

namespace winnow {

/// Tokens of which one pass over the weights takes care; more are taken in turns.
inline constexpr int kRowTokens = 8;

/// Whether there are such products of `type`. The k types have small scales of their own, which
/// cost more than memory does: written alike, Q4_K and Q6_K took 1.5 times ggml's time.
constexpr bool has_row_products(CodeType type) {
    return type != CodeType::q4_k && type != CodeType::q6_k;
}

/// x [columns] -> out [rounded_floats(columns)], for weights of `type`, which has row products.
void round_for_rows(CodeType type, const float* x, int columns, float* out);

/// out[token][row] = weights row . activations of the token, for first <= row < first + rows. A
/// result has the same bits whatever the other rows and tokens of the call.
void multiply_rows(const StoredCodes& weights, int first, int rows, const float* rounded,
                   int tokens, float* out, std::size_t out_stride);

}  // namespace winnow
