// Which channels get how many bits.
#pragma once

#include <span>
#include <vector>

namespace winnow {

/// The numbers of bits a channel may get, ascending.
inline constexpr int kShareBits[] = {0, 2, 3, 4, 8};
inline constexpr int kShareLevels = 5;
/// Channels share a number of bits in bunches of this many.
inline constexpr int kShareBunch = 8;

/// Bits for D channels, `average` per channel and not one more or less in sum, such that the sum of
/// their losses is least. losses is [D][kShareLevels], falling along a row. Channels are bunched by
/// their loss at two bits; the best shares of the bunches are exact (by dynamic programming). Ties
/// go to fewer bits for the smaller loss. D is a multiple of kShareBunch, average 2, 3, 4 or 8.
std::vector<int> share_bits(std::span<const float> losses, int channels, int average);

/// The same where a bunch is 8 neighbouring channels: bits per bunch, [D / kShareBunch].
std::vector<int> share_bunches(std::span<const float> losses, int channels, int average);

}  // namespace winnow
