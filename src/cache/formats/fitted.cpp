// Levels fitted to a head's own prompt: one offset and one spread per channel serve all tokens of a
// kv head, so a token takes its codes, one byte of scale and nothing else, and tokens may change
// their bits one at a time.
//
//   u_d = (x_d - offset_d) / spread_d                      K before RoPE, V as it is
//   code_d = clamp(round(u_d / (s * step_d) + (2^b_d - 1) / 2), 0, 2^b_d - 1)
//   x'_d = offset_d + spread_d * s * step_d * (code_d - (2^b_d - 1) / 2)
//
// Offset and spread are the mean and the standard deviation of the channel over the rows that fit()
// sees, as f16. s is chosen per token among the 256 steps 2^((i - 128) / 8).
//   V: b = B and step 1; s is the best of a few between what a normal variable wants and what
//      reaches the largest value.
//   K: eight neighbouring channels share b = 0, 2, 3, 4 or 8 bits, B on average, by what their
//      error would do to the scores: the spread's square times the energy of the prompt's queries,
//      times the loss at b bits. step is that of a normal variable at b bits. Of the best s, the
//      next one is stored that gives the row its length back: a key of few bits would else score
//      lower than an exact one.
//
// A row, K and V apart:  scale [1] | codes.  V's are B bits each, as cache/code_pack.h stripes
// them; K's lie bunch by bunch (kernels/restore.h).  At 16 bits: f16 rows. Side data of a kv head:
// K offsets [D] f16 | K spreads [D] | V offsets | V spreads
//   | bits of K's bunches where B is 2, 3 and 4, [3][D / 8] bytes
#include <winnow/error.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <numeric>
#include <vector>

#include "cache/bit_shares.h"
#include "cache/bunched_row.h"
#include "cache/code_pack.h"
#include "cache/format.h"
#include "cache/rope_keys.h"
#include "cache/rows.h"
#include "kernels/level_rows.h"
#include "kernels/packed.h"
#include "kernels/restore.h"

namespace winnow {
namespace {

using Size = std::size_t;

constexpr float kLeastSpread = 1e-5F;
constexpr int kTokens = 32;  // read at once: their rows stay in the first cache

void check(const FormatSpec& spec) {
    FormatSpec shape = spec;
    shape.group_size = 8;  // tokens are stored one by one: any group will do
    check_shape(shape);
    check_bits(spec, {2, 3, 4, 8, 16});
    check_no_outliers(spec);
}

Size row_bytes(const FormatSpec& spec, Side side) {
    const int bits = bits_of(spec, side);
    return bits == 16 ? f16_rows_bytes(spec, 1) : 1 + packed_bytes(bits, spec.head_dim);
}

// Four rows of halves, and three of bits.
int side_floats(const FormatSpec& spec) {
    return 2 * spec.head_dim + (3 * spec.head_dim / kShareBunch + 3) / 4;
}

// The bits of K's bunches, [D / 8].
const std::uint8_t* key_bits(const FormatSpec& spec, const float* side_data) {
    static const std::vector<std::uint8_t> eight(kMaxHeadDim / kShareBunch, 8);
    if (spec.bits_k == 8) return eight.data();
    const auto d = static_cast<Size>(spec.head_dim);
    return reinterpret_cast<const std::uint8_t*>(side_data + 2 * d) +
           static_cast<Size>(spec.bits_k - 2) * (d / kShareBunch);
}

// Offsets and spreads of one side, widened.
struct Channels {
    float offset[kMaxHeadDim];
    float spread[kMaxHeadDim];
    const std::uint8_t* bits = nullptr;  // of K's bunches

    Channels(const FormatSpec& spec, Side side, const float* side_data) {
        const int d = spec.head_dim;
        const auto* halves = reinterpret_cast<const std::uint8_t*>(side_data) +
                             (side == Side::key ? 0 : 4 * static_cast<Size>(d));
        floats_from_f16(halves, d, offset);
        floats_from_f16(halves + 2 * static_cast<Size>(d), d, spread);
    }
    // What read_rows() multiplies K's codes by.
    void take_steps(const FormatSpec& spec, const float* side_data) {
        bits = key_bits(spec, side_data);
        for (int i = 0; i < spec.head_dim; ++i) spread[i] *= kNormalStep[bits[i / kShareBunch]];
    }
};

// Squared error of u at scale s, in units of the spread.
float error_at(const float* u, int d, int bits, float s) {
    const float most = static_cast<float>((1 << bits) - 1), half = most / 2.0F;
    float sum = 0.0F;
    for (int i = 0; i < d; ++i) {
        const float code = std::clamp(std::nearbyint(u[i] / s + half), 0.0F, most);
        const float e = u[i] - s * (code - half);
        sum += e * e;
    }
    return sum;
}

std::uint8_t best_scale(const float* u, int d, int bits) {
    float square = 0.0F, most = 0.0F;
    for (int i = 0; i < d; ++i) {
        square += u[i] * u[i];
        most = std::max(most, std::abs(u[i]));
    }
    const float spread = std::sqrt(square / static_cast<float>(d));
    // Optimal uniform steps of a normal variable, from 2 to 8 bits, less a third; see Max (1960).
    const float step = bits == 2 ? 0.7F : bits == 3 ? 0.4F : bits == 4 ? 0.22F : 0.02F;
    const int low = nearest_scale_byte(spread * step);
    const int high =
        std::max(low, nearest_scale_byte(2.0F * most / static_cast<float>((1 << bits) - 1)));
    int best = high;
    float least = error_at(u, d, bits, scale_bytes()[high]);
    for (int byte = low; byte < high; ++byte) {
        const float error = error_at(u, d, bits, scale_bytes()[byte]);
        if (error < least) {
            least = error;
            best = byte;
        }
    }
    return static_cast<std::uint8_t>(best);
}

void pack_value(const FormatSpec& spec, const float* u, std::uint8_t* out) {
    const int bits = spec.bits_v, d = spec.head_dim;
    const float most = static_cast<float>((1 << bits) - 1), half = most / 2.0F;
    std::uint8_t codes[kMaxHeadDim];
    out[0] = best_scale(u, d, bits);
    const float s = scale_bytes()[out[0]];
    for (int i = 0; i < d; ++i) {
        codes[i] =
            static_cast<std::uint8_t>(std::clamp(std::nearbyint(u[i] / s + half), 0.0F, most));
    }
    pack_codes(bits, codes, d, out + 1);
}

void pack(const FormatSpec& spec, Side side, const float* rows, int tokens, const float* side_data,
          std::uint8_t* out) {
    const int d = spec.head_dim;
    if (bits_of(spec, side) == 16) return f16_rows_pack(spec, side, rows, tokens, out);
    require_no_nan(spec, side, rows, tokens);
    const Channels channels(spec, side, side_data);
    float u[kMaxHeadDim];
    const auto each_row = [&](const auto& pack_row) {
        for (int t = 0; t < tokens; ++t, rows += d, out += row_bytes(spec, side)) {
            for (int i = 0; i < d; ++i) {
                const float x = std::clamp(rows[i], -65504.0F, 65504.0F);
                u[i] = (x - channels.offset[i]) / channels.spread[i];
            }
            pack_row();
        }
    };
    if (side == Side::value) return each_row([&] { pack_value(spec, u, out); });
    const BunchedRow key(key_bits(spec, side_data), d);
    each_row([&] { out[0] = key.pack(u, out + 1); });
}

// `tokens` rows as stored, [tokens][D]; at most kTokens of them.
void read_rows(const FormatSpec& spec, Side side, const Channels& channels,
               const std::uint8_t* data, int tokens, float* rows) {
    const Size step = row_bytes(spec, side);
    float scale[kTokens];
    for (int t = 0; t < tokens; ++t) scale[t] = scale_bytes()[data[static_cast<Size>(t) * step]];
    if (side == Side::key) {
        return restore_bunches({.data = data + 1,
                                .step = step,
                                .runs = tokens,
                                .bunches = spec.head_dim / kShareBunch,
                                .widths = channels.bits},
                               channels.offset, channels.spread, scale, rows);
    }
    restore_channels({.data = data + 1,
                      .step = step,
                      .runs = tokens,
                      .count = spec.head_dim,
                      .bits = bits_of(spec, side)},
                     channels.offset, channels.spread, scale, rows);
}

void unpack(const FormatSpec& spec, Side side, const TileView& tile, float* rows) {
    if (bits_of(spec, side) == 16) return f16_rows_unpack(spec, tile, rows);
    Channels channels(spec, side, tile.side_data);
    if (side == Side::key) channels.take_steps(spec, tile.side_data);
    const Size step = row_bytes(spec, side), d = static_cast<Size>(spec.head_dim);
    for (int first = 0; first < tile.tokens; first += kTokens) {
        read_rows(spec, side, channels, tile.data + static_cast<Size>(first) * step,
                  std::min(kTokens, tile.tokens - first), rows + static_cast<Size>(first) * d);
    }
}

void dot_k(const FormatSpec& spec, const TileView& tile, const float* q, int heads, float* scores,
           std::size_t stride) {
    require_rope(spec, tile);
    if (spec.bits_k == 16) return dot_f16_turned(spec, tile, q, heads, scores, stride);
    Channels channels(spec, Side::key, tile.side_data);
    channels.take_steps(spec, tile.side_data);
    const int d = spec.head_dim;
    float* rows = thread_scratch(kTokens * static_cast<Size>(d));
    for (int first = 0; first < tile.tokens; first += kTokens) {
        const int n = std::min(kTokens, tile.tokens - first);
        read_rows(spec, Side::key, channels,
                  tile.data + static_cast<Size>(first) * row_bytes(spec, Side::key), n, rows);
        dot_turned(*tile.rope, tile.positions + first, n, d, rows, q, heads, scores + first,
                   stride);
    }
}

// Whether a restored value of these rows may pass half precision's range, where it is clamped.
bool may_clamp(const Channels& channels, int d, float most_scale, int bits) {
    float offset = 0.0F, spread = 0.0F;
    for (int i = 0; i < d; ++i) {
        offset = std::max(offset, std::abs(channels.offset[i]));
        spread = std::max(spread, channels.spread[i]);
    }
    const float half = static_cast<float>((1 << bits) - 1) / 2.0F;
    return !(offset + spread * most_scale * half < 65504.0F);
}

// Rows whose values may be clamped are restored first.
void add_restored(const FormatSpec& spec, const Channels& channels, const std::uint8_t* data,
                  int tokens, const float* weights, std::size_t stride, int heads, float* out) {
    float* rows = thread_scratch(kTokens * static_cast<Size>(spec.head_dim));
    const Size step = row_bytes(spec, Side::value);
    for (int first = 0; first < tokens; first += kTokens) {
        const int n = std::min(kTokens, tokens - first);
        read_rows(spec, Side::value, channels, data + static_cast<Size>(first) * step, n, rows);
        float_add_rows(rows, n, spec.head_dim, weights + first, stride, heads, out);
    }
}

// Codes are multiplied as they are read: weights take their token's scale, the sums their channel's
// spread, and the offsets the sum of the weights.
void add_v(const FormatSpec& spec, const TileView& tile, const float* weights, std::size_t stride,
           int heads, float* out) {
    if (spec.bits_v == 16) return f16_rows_add_v(spec, tile, weights, stride, heads, out);
    const Channels channels(spec, Side::value, tile.side_data);
    const int d = spec.head_dim, bits = spec.bits_v, tokens = tile.tokens;
    const Size step = row_bytes(spec, Side::value), n = static_cast<Size>(tokens);
    float* scale = thread_scratch(n + static_cast<Size>(heads) * (n + static_cast<Size>(d)));
    float* scaled = scale + n;                            // [R][T]
    float* sums = scaled + static_cast<Size>(heads) * n;  // [R][D]
    float most = 0.0F;
    for (Size t = 0; t < n; ++t) {
        scale[t] = scale_bytes()[tile.data[t * step]];
        most = std::max(most, scale[t]);
    }
    if (bits > 4 || may_clamp(channels, d, most, bits)) {
        return add_restored(spec, channels, tile.data, tokens, weights, stride, heads, out);
    }
    float levels[16];
    for (int i = 0; i < 1 << bits; ++i) {
        levels[i] = static_cast<float>(i) - static_cast<float>((1 << bits) - 1) / 2.0F;
    }
    std::fill_n(sums, heads * d, 0.0F);
    for (int r = 0; r < heads; ++r) {
        const float* w = weights + static_cast<Size>(r) * stride;
        float* to = scaled + static_cast<Size>(r) * n;
        for (Size t = 0; t < n; ++t) to[t] = w[t] * scale[t];
    }
    add_level_rows({.data = tile.data + 1, .step = step, .runs = tokens, .count = d, .bits = bits},
                   levels, scaled, n, heads, sums);
    for (int r = 0; r < heads; ++r, out += d, sums += d) {
        const float total = sum_of(weights + static_cast<Size>(r) * stride, tokens);
        for (int i = 0; i < d; ++i) {
            out[i] += channels.spread[i] * sums[i] + channels.offset[i] * total;
        }
    }
}

// Mean and standard deviation per channel of rows [n][D], as halves.
void fit_side(const FormatSpec& spec, Side side, std::span<const float> rows, std::uint8_t* out) {
    const int d = spec.head_dim, n = static_cast<int>(rows.size()) / d;
    require_no_nan(spec, side, rows.data(), n);
    for (int i = 0; i < d; ++i) {
        double sum = 0.0, square = 0.0;
        for (int t = 0; t < n; ++t) {
            sum += static_cast<double>(rows[static_cast<Size>(t) * d + i]);
        }
        const double mean = n > 0 ? sum / n : 0.0;
        for (int t = 0; t < n; ++t) {
            const double x = static_cast<double>(rows[static_cast<Size>(t) * d + i]) - mean;
            square += x * x;
        }
        const double spread = n > 0 ? std::sqrt(square / n) : 1.0;
        const float limited = std::clamp(static_cast<float>(mean), -65504.0F, 65504.0F);
        store_f16(out + 2 * i, f32_to_f16(limited));
        store_f16(out + 2 * (d + i),
                  f32_to_f16(std::clamp(static_cast<float>(spread), kLeastSpread, 65504.0F)));
    }
}

// Where no queries are known, all channels count alike by their spread.
void fit_key_bits(const FormatSpec& spec, const std::vector<float>& energy, float* side_data) {
    const int d = spec.head_dim;
    const bool known = std::ranges::any_of(energy, [](float x) { return x > 0.0F; });
    const Channels channels(spec, Side::key, side_data);
    std::vector<float> losses;
    for (int i = 0; i < d; ++i) {
        const float variance = channels.spread[i] * channels.spread[i];
        for (const int bits : kShareBits) {
            losses.push_back((known ? energy[i] : 1.0F) * variance * kNormalLoss[bits]);
        }
    }
    auto* out = reinterpret_cast<std::uint8_t*>(side_data + 2 * static_cast<Size>(d));
    for (int average = 2; average <= 4; ++average) {
        for (const int bits : share_bunches(losses, d, average)) {
            *out++ = static_cast<std::uint8_t>(bits);
        }
    }
}

void fit(const FormatSpec& spec, std::span<const float> k, std::span<const float> v,
         float* side_data) {
    const std::vector<float> energy(side_data, side_data + spec.head_dim);
    auto* halves = reinterpret_cast<std::uint8_t*>(side_data);
    fit_side(spec, Side::key, k, halves);
    fit_side(spec, Side::value, v, halves + 4 * static_cast<Size>(spec.head_dim));
    fit_key_bits(spec, energy, side_data);
}

// The bits that the kernels know, as many in sum as a row has room for.
bool side_is_sound(const FormatSpec& spec, const float* side_data) {
    const int bunches = spec.head_dim / kShareBunch;
    for (int average = 2; average <= 4; ++average) {
        FormatSpec at = spec;
        at.bits_k = average;
        const std::uint8_t* bits = key_bits(at, side_data);
        const bool known = std::all_of(bits, bits + bunches, [](int b) {
            return std::ranges::find(kShareBits, b) != std::end(kShareBits);
        });
        if (!known || std::accumulate(bits, bits + bunches, 0) != average * bunches) return false;
    }
    return true;
}

}  // namespace

extern const Format format_fitted;
const Format format_fitted{
    .name = "fitted",
    .paper = "",
    .summary =
        "levels per channel fitted to the head's prompt, one byte of scale per token; channels of "
        "K "
        "get 0 to 8 bits by their weight in the scores",
    .departures = "",
    .pre_rope_keys = true,
    .token_rows = true,
    .side_per_head = true,
    .query_energy = true,
    .check = check,
    .bytes = [](const FormatSpec& spec, Side side,
                int tokens) { return row_bytes(spec, side) * static_cast<Size>(tokens); },
    .side_floats = side_floats,
    .fit = fit,
    .side_is_sound = side_is_sound,
    .pack = pack,
    .unpack = unpack,
    .dot_k = dot_k,
    .add_v = add_v,
};

}  // namespace winnow
