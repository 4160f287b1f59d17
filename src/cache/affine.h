// Affine group quantisation on either axis, shared by the formats that store a scale and a zero
// per group. A side at 16 bits is f16 rows; otherwise a tile is a chain of blocks of group_size
// tokens, so tiles laid end to end read as one longer tile. n = group_size, all numbers f16 or
// packed codes (code_pack.h), no padding:
//
//   axis 0, per channel     scales [D] | zeros [D] | codes
//     A group is the n tokens of one channel.
//   axis 1, per token       scales [D/n][n] | zeros [D/n][n] | codes
//     A group is n channels of one token; scales of a channel group are adjacent over tokens.
//
// The codes are one panel (code_pack.h): [D channels][n tokens] for keys, [n tokens][D channels]
// for values, on either axis. What a kernel sums over are its rows, so nothing is ever summed
// across lanes: scores of n tokens, or D channels of the output, stay in registers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cache/format.h"
#include "kernels/packed.h"

namespace winnow {

/// What a stored zero means.
enum class AffineZero {
    value,  ///< x' = code * s + zero
    code,   ///< x' = (code - zero) * s
    /// As value; products of keys per channel round about the middle code, so that their error is
    /// not alike in all lanes. For whoever rotates the lanes, which would gather it in one.
    centred,
};

/// Chooses scale, zero and codes for x [count], finite and within +-65504; codes must be computed
/// with the rounded scale and zero.
using GroupSolver = void (*)(const float* x, int count, int bits, f16& scale, f16& zero,
                             std::uint8_t* codes);

/// The plain solver: s = (max - min) / (2^B - 1), zero = min, nearest code. AffineZero::value.
void solve_min_max(const float* x, int count, int bits, f16& scale, f16& zero, std::uint8_t* codes);

/// The fields of Format with the same names; see there for shapes and errors.
void affine_check(const FormatSpec& spec);
std::size_t affine_bytes(const FormatSpec& spec, Side side, int tokens);
void affine_pack(const FormatSpec& spec, Side side, GroupSolver solve, const float* rows,
                 int tokens, std::uint8_t* out);
void affine_unpack(const FormatSpec& spec, Side side, AffineZero zero, const TileView& tile,
                   float* rows);
void affine_dot_k(const FormatSpec& spec, AffineZero zero, const TileView& tile, const float* q,
                  int heads, float* scores, std::size_t stride);
void affine_add_v(const FormatSpec& spec, AffineZero zero, const TileView& tile,
                  const float* weights, std::size_t stride, int heads, float* out);

/// One restored element: token `token` of the tile, channel `channel`. For a packed side only.
float affine_value(const FormatSpec& spec, Side side, AffineZero zero, const std::uint8_t* tile,
                   int token, int channel);

/// A packed side's tile as the kernels of kernels/packed.h read it.
AffineBlocks affine_blocks(const FormatSpec& spec, Side side, AffineZero zero,
                           const TileView& tile);

// The scalar references of the two kernels: plain floats over restored rows.
void affine_dot_k_reference(const FormatSpec& spec, AffineZero zero, const TileView& tile,
                            const float* q, int heads, float* scores, std::size_t stride);
void affine_add_v_reference(const FormatSpec& spec, AffineZero zero, const TileView& tile,
                            const float* weights, std::size_t stride, int heads, float* out);

}  // namespace winnow
