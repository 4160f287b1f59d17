// HQQ: half-quadratic quantisation. The scale is the range's, and the zero, which lives in code
// units, is moved so that a heavy tail costs the bulk of a group less (an l_p norm with p < 1).
//
//   s = (max - min) / (2^B - 1), zero starts at -min / s,  x' = (code - zero) * s
//   step: code = clamp(round(x / s + zero)),  e = shrink(x - x'),  zero = mean(code - (x - e) / s)
//   shrink(x) = sign(x) relu(|x| - |x|^(p-1) / beta)
//
// The layout is kivi's (cache/affine.h draws it), with `zeros` in code units:
//   axis 0:  scales [D] f16 | zeros [D] f16 | a panel of codes
//   axis 1:  scales [D/n][n] f16 | zeros [D/n][n] f16 | a panel of codes
// A constant group has s = its value, zero = -1 and codes 0.
//
// With --outlier-threshold, values beyond it are exact: cache/affine_outliers.h draws that tile.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "cache/affine.h"
#include "cache/affine_outliers.h"
#include "cache/format.h"
#include "cache/rows.h"

namespace winnow {
namespace {

constexpr int kSteps = 20;
constexpr float kNorm = 0.7F;  // p
constexpr float kBeta = 10.0F;
constexpr float kBetaGrowth = 1.01F;
// Half precision must hold the zero: below max|x| / 30000 the scale is no longer f16's own step.
constexpr float kLargestZero = 30000.0F;

// A code as a float; truncation rounds, as it is never negative.
float code_of(float x, float scale, float zero, float top) {
    const float code = std::min(std::max(x / scale + zero, 0.0F), top);
    return static_cast<float>(static_cast<std::int32_t>(code + 0.5F));
}

float sum_of(const float* x, int count) {
    float part[8] = {};  // groups are multiples of 8
    for (int i = 0; i < count; i += 8) {
        for (int lane = 0; lane < 8; ++lane) part[lane] += x[i + lane];
    }
    return ((part[0] + part[4]) + (part[1] + part[5])) +
           ((part[2] + part[6]) + (part[3] + part[7]));
}

// x^(p-1) for x > 0: Newton's steps on y^-10 = x^3, from a guess on its bits.
// Within 1e-6 of std::pow, and vector code.
float inverse_power(float x) {
    static_assert(kNorm == 0.7F);
    const float bits = static_cast<float>(std::bit_cast<std::int32_t>(x));
    float y = std::bit_cast<float>(static_cast<std::int32_t>(1.3844e9F - 0.3F * bits));
    for (int i = 0; i < 3; ++i) {
        const float y2 = y * y, y4 = y2 * y2;
        y *= 1.1F - 0.1F * (x * x * x) * (y4 * y4 * y2);
    }
    return y;
}

// The zero of the next step, from the codes and errors of this one.
float next_zero(const float* x, int count, float scale, float zero, float top, float beta) {
    // shrink() is 0 up to here. Larger errors lose kRest more, so that it is 0 exactly in spite of
    // rounding (in a tiny group 1e-8 counts) and the loop needs no branch.
    const float cutoff = std::pow(beta, -1.0F / (2.0F - kNorm));
    constexpr float kRest = 1e-6F;
    float part[kMaxGroupSize];
    for (int i = 0; i < count; ++i) {
        const float code = code_of(x[i], scale, zero, top);
        const float error = x[i] - (code - zero) * scale;
        const float size = std::max(std::fabs(error), cutoff);
        const float kept = std::max(size - inverse_power(size) / beta - kRest, 0.0F);
        part[i] = code - (x[i] - std::copysign(kept, error)) / scale;
    }
    return sum_of(part, count) / static_cast<float>(count);
}

float mean_abs_error(const float* x, int count, float scale, float zero, float top) {
    float part[kMaxGroupSize];
    for (int i = 0; i < count; ++i) {
        part[i] = std::fabs(x[i] - (code_of(x[i], scale, zero, top) - zero) * scale);
    }
    return sum_of(part, count) / static_cast<float>(count);
}

void solve(const float* x, int count, int bits, f16& scale, f16& zero, std::uint8_t* codes) {
    const auto [low, high] = std::minmax_element(x, x + count);
    const float top = static_cast<float>((1 << bits) - 1);
    const float largest = std::max(std::fabs(*low), std::fabs(*high));
    scale = f32_to_f16(std::max((*high - *low) / top, largest / kLargestZero));
    const float s = f16_to_f32(scale);
    if (*low == *high || s == 0.0F) {
        scale = f32_to_f16(*low + (*high - *low) / 2.0F);
        zero = f32_to_f16(-1.0F);
        std::fill(codes, codes + count, std::uint8_t{0});
        return;
    }
    float best = round_to_f16(-*low / s);
    float best_error = mean_abs_error(x, count, s, best, top);
    float candidate = best;
    float beta = kBeta;
    for (int step = 0; step < kSteps; ++step, beta *= kBetaGrowth) {
        candidate = round_to_f16(next_zero(x, count, s, candidate, top, beta));
        const float error = mean_abs_error(x, count, s, candidate, top);
        if (!(error < best_error)) break;
        best = candidate;
        best_error = error;
    }
    zero = f32_to_f16(best);
    for (int i = 0; i < count; ++i)
        codes[i] = static_cast<std::uint8_t>(code_of(x[i], s, best, top));
}

constexpr const char* kSummary =
    "affine groups whose zero is solved for (half-quadratic), any axis";
constexpr const char* kDepartures =
    "The solver stops group by group and keeps the best zero, which is f16 at every step; the "
    "official code stops for a whole tensor and may round the zero to an integer. "
    "--outlier-threshold keeps larger magnitudes exactly, at 4 bytes each.";

const Format kWithOutliers{
    .name = "hqq",
    .paper = "",
    .summary = kSummary,
    .departures = kDepartures,
    .default_key_axis = 0,
    .default_value_axis = 1,
    .check = outlier_check,
    .tile_tokens = outlier_tile_tokens,
    .bytes = outlier_bytes,
    .measure = outlier_measure,
    .tile_is_sound = outlier_tile_is_sound,
    .pack = [](const FormatSpec& spec, Side side, const float* rows, int tokens, const float*,
               std::uint8_t* out) { outlier_pack(spec, side, solve, rows, tokens, out); },
    .unpack = [](const FormatSpec& spec, Side side, const TileView& tile,
                 float* rows) { outlier_unpack(spec, side, AffineZero::code, tile, rows); },
    .dot_k =
        [](const FormatSpec& spec, const TileView& tile, const float* q, int heads, float* scores,
           std::size_t stride) {
            outlier_dot_k(spec, AffineZero::code, tile, q, heads, scores, stride);
        },
    .add_v =
        [](const FormatSpec& spec, const TileView& tile, const float* weights, std::size_t stride,
           int heads, float* out) {
            outlier_add_v(spec, AffineZero::code, tile, weights, stride, heads, out);
        },
};

}  // namespace

extern const Format format_hqq;
const Format format_hqq{
    .name = "hqq",
    .paper = "",
    .summary = kSummary,
    .departures = kDepartures,
    .default_key_axis = 0,
    .default_value_axis = 1,
    .check = affine_check,
    .bytes = affine_bytes,
    .with_outliers = &kWithOutliers,
    .pack = [](const FormatSpec& spec, Side side, const float* rows, int tokens, const float*,
               std::uint8_t* out) { affine_pack(spec, side, solve, rows, tokens, out); },
    .unpack = [](const FormatSpec& spec, Side side, const TileView& tile,
                 float* rows) { affine_unpack(spec, side, AffineZero::code, tile, rows); },
    .dot_k =
        [](const FormatSpec& spec, const TileView& tile, const float* q, int heads, float* scores,
           std::size_t stride) {
            affine_dot_k(spec, AffineZero::code, tile, q, heads, scores, stride);
        },
    .add_v =
        [](const FormatSpec& spec, const TileView& tile, const float* weights, std::size_t stride,
           int heads,
           float* out) { affine_add_v(spec, AffineZero::code, tile, weights, stride, heads, out); },
};

}  // namespace winnow
