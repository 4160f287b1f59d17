// Products that read what kernels/restore.h restores without writing it out first.
#pragma once

#include <cstddef>

#include "kernels/restore.h"

namespace winnow {

/// sums[r][i] += sum over runs of weights[r][run] * levels[code], rows of weights `stride` apart,
/// rows of sums `count`. levels is [2^bits].
void add_level_rows(const CodeRuns& runs, const float* levels, const float* weights,
                    std::size_t stride, int heads, float* sums);

/// scores[r][t] = q[r] . the row t [D] turned as rotate_rows does; q is [R][D]. The rows may be
/// changed.
void dot_turned_rows(float* rows, int tokens, int head_dim, int pairs, bool halves,
                     const float* const* angles, const float* q, int heads, float* scores,
                     std::size_t stride);

/// The sum of x [n], in 16 partial sums.
float sum_of(const float* x, int n);

namespace reference {
void add_level_rows(const CodeRuns& runs, const float* levels, const float* weights,
                    std::size_t stride, int heads, float* sums);
void dot_turned_rows(float* rows, int tokens, int head_dim, int pairs, bool halves,
                     const float* const* angles, const float* q, int heads, float* scores,
                     std::size_t stride);
}  // namespace reference

}  // namespace winnow
