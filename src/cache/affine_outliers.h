// Affine groups with exact outliers beside them. A value of abs(x) > outlier_threshold leaves its
// group: the mean of the group's other values stands in its place, so that it widens nothing, and
// the value itself is stored. A tile is
//
//   blocks as in affine.h | count u32 | values [count] f16 | places [count] u16, ascending
//
// A place is token * D + channel, so a tile holds at most 65,536 numbers. How many outliers there
// are depends on the numbers: measure() says it, bytes() is a tile without any. A side at 16 bits
// is f16 rows and has none.
#pragma once

#include "cache/affine.h"

namespace winnow {

/// The fields of Format with the same names; see there for shapes and errors.
void outlier_check(const FormatSpec& spec);
int outlier_tile_tokens(const FormatSpec& spec);
std::size_t outlier_bytes(const FormatSpec& spec, Side side, int tokens);
std::size_t outlier_measure(const FormatSpec& spec, Side side, const float* rows, int tokens);
void outlier_pack(const FormatSpec& spec, Side side, GroupSolver solve, const float* rows,
                  int tokens, std::uint8_t* out);
bool outlier_tile_is_sound(const FormatSpec& spec, Side side, const std::uint8_t* data,
                           std::size_t size, int tokens);
void outlier_unpack(const FormatSpec& spec, Side side, AffineZero zero, const TileView& tile,
                    float* rows);
void outlier_dot_k(const FormatSpec& spec, AffineZero zero, const TileView& tile, const float* q,
                   int heads, float* scores, std::size_t stride);
void outlier_add_v(const FormatSpec& spec, AffineZero zero, const TileView& tile,
                   const float* weights, std::size_t stride, int heads, float* out);

}  // namespace winnow
