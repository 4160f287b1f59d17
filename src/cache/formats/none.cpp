// No compression: rows of f16, [tokens][D], on both sides. Values beyond +-65504 are clamped.
#include "cache/format.h"
#include "cache/rows.h"

namespace winnow {
namespace {

void check(const FormatSpec& spec) {
    check_bits(spec, {16});
    check_no_outliers(spec);
    if (spec.head_dim < 1 || spec.head_dim > kMaxHeadDim) check_shape(spec);
}

}  // namespace

extern const Format format_none;
const Format format_none{
    .name = "none",
    .paper = "",
    .summary = "keys and values as f16, nothing packed",
    .departures = "",
    .default_bits = 16,
    .token_rows = true,
    .check = check,
    .bytes = [](const FormatSpec& spec, Side, int tokens) { return f16_rows_bytes(spec, tokens); },
    .pack = [](const FormatSpec& spec, Side side, const float* rows, int tokens, const float*,
               std::uint8_t* out) { f16_rows_pack(spec, side, rows, tokens, out); },
    .unpack = [](const FormatSpec& spec, Side, const TileView& tile,
                 float* rows) { f16_rows_unpack(spec, tile, rows); },
    .dot_k = f16_rows_dot_k,
    .add_v = f16_rows_add_v,
};

}  // namespace winnow
