// Rotated per-token groups: rows are centred, turned by a Hadamard rotation, which spreads a large
// channel over all, and quantised per token. A query is turned once per call, and so is the output;
// scores do not change, since the rotation is orthonormal.
//
//   y = H (x - c), c one vector per kv head and side: the side data (cache/centre.h)
//   s = (max - min) / (2^B - 1), z = min over a group of n channels of y, code = round((y - z) / s)
//   x' = H (code * s + z) + c;   q.x' = (H q).(code * s + z) + q.c
//
// A tile is a chain of blocks of n = group_size tokens, as cache/affine.h draws them for axis 1:
//   scales [D/n][n] f16 | zeros [D/n][n] f16 | codes, a panel of [n tokens][D channels]
// Where D is no power of two, H turns pieces of the largest power of two that divides it. What
// passes half precision's range after turning is clamped. A side at 16 bits is plain f16 rows.
#include <winnow/error.h>

#include <algorithm>
#include <string>
#include <vector>

#include "cache/affine.h"
#include "cache/centre.h"
#include "cache/format.h"
#include "cache/rows.h"
#include "kernels/hadamard.h"

namespace winnow {
namespace {

using Size = std::size_t;

// Apart from thread_scratch, which the affine kernels use meanwhile.
float* turned_rows(int rows, int head_dim) {
    thread_local std::vector<float> memory;
    const Size size = static_cast<Size>(rows) * static_cast<Size>(head_dim);
    if (memory.size() < size) memory.resize(size);
    return memory.data();
}

void check(const FormatSpec& spec) {
    if (spec.key_axis != 1 || spec.value_axis != 1) {
        throw usage_error("rotated quantises per token: --key-axis is " +
                          std::to_string(spec.key_axis) + " and --value-axis is " +
                          std::to_string(spec.value_axis) + ", but both must be 1.");
    }
    affine_check(spec);
}

void pack(const FormatSpec& spec, Side side, const float* rows, int tokens, const float* side_data,
          std::uint8_t* out) {
    if (bits_of(spec, side) == 16) return f16_rows_pack(spec, side, rows, tokens, out);
    require_no_nan(spec, side, rows, tokens);
    float* turned = turned_rows(tokens, spec.head_dim);
    take_centre_off(rows, tokens, spec.head_dim, centre_of(spec, side, side_data), turned);
    hadamard(turned, tokens, spec.head_dim);
    affine_pack(spec, side, solve_min_max, turned, tokens, out);
}

void unpack(const FormatSpec& spec, Side side, const TileView& tile, float* rows) {
    if (bits_of(spec, side) == 16) return f16_rows_unpack(spec, tile, rows);
    affine_unpack(spec, side, AffineZero::value, tile, rows);
    hadamard(rows, tile.tokens, spec.head_dim);
    add_centre(rows, tile.tokens, spec.head_dim, centre_of(spec, side, tile.side_data));
}

void dot_k(const FormatSpec& spec, const TileView& tile, const float* q, int heads, float* scores,
           std::size_t stride) {
    if (spec.bits_k == 16) return f16_rows_dot_k(spec, tile, q, heads, scores, stride);
    const int d = spec.head_dim;
    const float* centre = centre_of(spec, Side::key, tile.side_data);
    float* turned = turned_rows(heads, d);
    std::copy_n(q, heads * d, turned);
    hadamard(turned, heads, d);
    affine_dot_k(spec, AffineZero::value, tile, turned, heads, scores, stride);
    add_centre_scores(q, heads, d, centre, scores, stride, tile.tokens);
}

void add_v(const FormatSpec& spec, const TileView& tile, const float* weights, std::size_t stride,
           int heads, float* out) {
    if (spec.bits_v == 16) return f16_rows_add_v(spec, tile, weights, stride, heads, out);
    const int d = spec.head_dim;
    const float* centre = centre_of(spec, Side::value, tile.side_data);
    float* turned = turned_rows(heads, d);
    std::fill_n(turned, heads * d, 0.0F);
    affine_add_v(spec, AffineZero::value, tile, weights, stride, heads, turned);
    hadamard(turned, heads, d);
    for (int i = 0; i < heads * d; ++i) out[i] += turned[i];
    add_centre_values(weights, stride, tile.tokens, heads, d, centre, out);
}

}  // namespace

extern const Format format_rotated;
const Format format_rotated{
    .name = "rotated",
    .paper = "",
    .summary = "centred, turned by a Hadamard rotation, affine groups per token",
    .departures = "llama.cpp's rotated caches do not centre, and have no zero.",
    .default_key_axis = 1,
    .default_value_axis = 1,
    .side_per_head = true,
    .check = check,
    .bytes = affine_bytes,
    .side_floats = centre_floats,
    .fit = fit_centres,
    .pack = pack,
    .unpack = unpack,
    .dot_k = dot_k,
    .add_v = add_v,
};

}  // namespace winnow
