// KIVI (2402.02750): affine groups, keys per channel and values per token.
//
//   s = (max - min) / (2^B - 1), z = min, both rounded to f16 first
//   code = clamp(round((x - z) / s), 0, 2^B - 1),  x' = code * s + z
//
// A tile is a chain of blocks of n = group_size tokens (cache/affine.h draws them):
//   K, axis 0:  scales [D] f16 | zeros [D] f16 | panel [D][n], B bits each
//   V, axis 1:  scales [D/n][n] f16 | zeros [D/n][n] f16 | panel [n][D], B bits each
// Either axis may be chosen on either side. A constant group has s = 0 and restores z.
#include "cache/affine.h"
#include "cache/format.h"

namespace winnow {

extern const Format format_kivi;
const Format format_kivi{
    .name = "kivi",
    .paper = "2402.02750",
    .summary = "affine groups, keys per channel and values per token",
    .departures =
        "Values are grouped inside one kv head; the official command line has key_axis 1 and group "
        "64, and groups values over heads and tokens. K and V share one f16 tail; KIVI's tails "
        "differ.",
    .default_key_axis = 0,
    .default_value_axis = 1,
    .check = affine_check,
    .bytes = affine_bytes,
    .pack = [](const FormatSpec& spec, Side side, const float* rows, int tokens, const float*,
               std::uint8_t* out) { affine_pack(spec, side, solve_min_max, rows, tokens, out); },
    .unpack = [](const FormatSpec& spec, Side side, const TileView& tile,
                 float* rows) { affine_unpack(spec, side, AffineZero::value, tile, rows); },
    .dot_k =
        [](const FormatSpec& spec, const TileView& tile, const float* q, int heads, float* scores,
           std::size_t stride) {
            affine_dot_k(spec, AffineZero::value, tile, q, heads, scores, stride);
        },
    .add_v =
        [](const FormatSpec& spec, const TileView& tile, const float* weights, std::size_t stride,
           int heads, float* out) {
            affine_add_v(spec, AffineZero::value, tile, weights, stride, heads, out);
        },
};

}  // namespace winnow
