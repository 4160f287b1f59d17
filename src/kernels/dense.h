// Dense single-precision kernels of prefill attention: small matrix products, softmax pieces and
// half-precision conversion. Run-time dispatch over SSE2 .. AVX-512 and NEON; each has a scalar
// reference of the same name in namespace `reference`, which defines what is right.
#pragma once

#include <cstddef>

#include "core/f16.h"

namespace winnow {

/// Columns of a product are handled in blocks of this many; rows of B and C are padded to it.
inline constexpr int kColumnBlock = 32;

/// c[m][n] (+)= sum over k of a[m][k] * b[k][n]. `columns` is a multiple of kColumnBlock; row
/// strides in elements. Every element sums k in order, whatever the blocking.
void multiply(const float* a, std::size_t a_stride, const float* b, std::size_t b_stride, float* c,
              std::size_t c_stride, int rows, int columns, int depth, bool accumulate);

float max_of(const float* x, int n);                 ///< -inf for n = 0
float exp_and_sum(float* x, int n, float subtract);  ///< x = exp(x - subtract); returns the sum
void scale_by(float* x, int n, float factor);        ///< x *= factor
void add_scaled(float* out, const float* x, int n, float factor);  ///< out += factor * x

void widen(const f16* from, float* to, std::size_t n);   ///< f16 -> f32, exact for finite halves
void narrow(const float* from, f16* to, std::size_t n);  ///< f32 -> f16, nearest even

/// to[d][t] = from[t][d] for t < tokens; the columns up to `padded` are zeroed.
void widen_transposed(const f16* from, int tokens, int head_dim, float* to, int padded);

/// The name of the instruction set the kernels run on, e.g. "AVX2". WINNOW_ISA forces one.
const char* kernel_isa();

namespace reference {
void multiply(const float* a, std::size_t a_stride, const float* b, std::size_t b_stride, float* c,
              std::size_t c_stride, int rows, int columns, int depth, bool accumulate);
float max_of(const float* x, int n);
float exp_and_sum(float* x, int n, float subtract);
void widen(const f16* from, float* to, std::size_t n);
void narrow(const float* from, f16* to, std::size_t n);
void widen_transposed(const f16* from, int tokens, int head_dim, float* to, int padded);
}  // namespace reference

}  // namespace winnow
