// Non-uniform levels: a vector without its largest values is normalised, and the codebook of one
// layer and side is fitted to such vectors by one-dimensional k-means.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/f16.h"

namespace winnow {

inline constexpr int kMaxVector = 1024;
inline constexpr int kMaxExact = (kMaxVector + 99) / 100;

/// How one vector is normalised, and the places of its exact values.
struct Normal {
    f16 offset = 0;  ///< (low + high) / 2 of what is not exact
    f16 scale = 0;   ///< (high - low) / 2
    int exact = 0;
    int place[kMaxExact] = {};  ///< [exact], ascending

    bool is_exact(int i) const { return std::binary_search(place, place + exact, i); }
};

/// Takes out up to `slots` values of x [length], the largest in magnitude among those above
/// `threshold` (ties: the earlier), and measures the range of the others; slots < length.
Normal normalise(const float* x, int length, int slots, float threshold);

/// Fits 2^bits levels to `samples` (finite; sorted in place), ascending and each a value that half
/// precision holds. Deterministic: Lloyd's steps from a start between quantiles and an even grid.
/// Without samples the levels are even over [-1, 1].
void fit_codebook(std::vector<float>& samples, int bits, float* levels);

/// A number to fit to, and how much its error counts (0 or more).
struct WeightedSample {
    float value;
    float weight;
};
/// The same for samples of different weight; weights that are all 0 count alike.
void fit_codebook(std::vector<WeightedSample>& samples, int bits, float* levels);

/// The nearest level of a value, by the midpoints between levels.
class Nearest {
  public:
    Nearest(const float* levels, int bits);
    /// The index of the level nearest to `value`; the lower one at a tie.
    std::uint8_t operator()(float value) const;

  private:
    int count_;  // of midpoints, 2^bits - 1
    float midpoint_[255];
};

}  // namespace winnow
