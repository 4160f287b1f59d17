// Solvers of affine groups that look for a better scale and zero than the range gives.
#pragma once

#include <cstdint>

#include "core/f16.h"

namespace winnow {

/// The scale and zero of the least squared error among a few shrunken ranges, each refitted twice
/// to its own codes by least squares; never worse than solve_min_max. Right for keys. A GroupSolver
/// (cache/affine.h): x' = code * s + zero; count is a multiple of 8, at most 512.
void solve_least_squares(const float* x, int count, int bits, f16& scale, f16& zero,
                         std::uint8_t* codes);

/// The same codes, stretched about the group's mean until x' explains x with a slope of one. Least
/// squares alone shrinks every group towards its mean, and in a sum over many tokens that shrinkage
/// stays while other errors cancel. Right for values. At most doubled.
void solve_unbiased(const float* x, int count, int bits, f16& scale, f16& zero,
                    std::uint8_t* codes);

/// Sum of squared errors of codes * s + z.
double squared_error(const float* x, int count, f16 scale, f16 zero, const std::uint8_t* codes);

}  // namespace winnow
