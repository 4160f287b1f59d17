// The kernels of decode attention over packed rows: fast versions of what the formats define in
// src/cache. All query heads of a group share one pass; codes go from memory to registers and are
// never written out. Run-time dispatch over SSE2 .. AVX-512 and NEON.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/f16.h"

namespace winnow {

/// A chain of blocks of affine groups, as src/cache/affine.h draws them.
struct AffineBlocks {
    const std::uint8_t* data = nullptr;
    std::size_t block_bytes = 0;
    int blocks = 0;
    int group = 0;     ///< tokens per block; tokens (axis 0) or channels (axis 1) per scale
    int head_dim = 0;  ///< D
    int bits = 0;      ///< 2, 3, 4 or 8
    int axis = 0;
    bool zero_in_codes = false;  ///< x' = (code - zero) * s instead of code * s + zero
    bool centred = false;        ///< dot, axis 0: the rounding's mean over codes is taken off
};

// q and weights, times the scales of a block, are rounded to 16 bits (32,767 is the largest of a
// head); the products with codes are exact integers.
/// scores[r][t] = q[r] . k[t]; q is [heads][D], scores rows are `stride` apart.
void affine_dot_rows(const AffineBlocks& blocks, const float* q, int heads, float* scores,
                     std::size_t stride);
/// out[r] += sum over t of weights[r][t] * v[t]; out is [heads][D].
void affine_add_rows(const AffineBlocks& blocks, const float* weights, std::size_t stride,
                     int heads, float* out);

/// The same over rows of f16 [tokens][D]; head_dim is a multiple of 8.
void f16_dot_rows(const f16* rows, int tokens, int head_dim, const float* q, int heads,
                  float* scores, std::size_t stride);
void f16_add_rows(const f16* rows, int tokens, int head_dim, const float* weights,
                  std::size_t stride, int heads, float* out);
/// The same over rows of floats, which formats restore a few tokens at a time into their scratch.
void float_dot_rows(const float* rows, int tokens, int head_dim, const float* q, int heads,
                    float* scores, std::size_t stride);
void float_add_rows(const float* rows, int tokens, int head_dim, const float* weights,
                    std::size_t stride, int heads, float* out);

namespace reference {
// Of the f16 and float rows, src/cache/rows.h has the references.
void affine_dot_rows(const AffineBlocks& blocks, const float* q, int heads, float* scores,
                     std::size_t stride);
void affine_add_rows(const AffineBlocks& blocks, const float* weights, std::size_t stride,
                     int heads, float* out);
}  // namespace reference

}  // namespace winnow
