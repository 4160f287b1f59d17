// KVarN (2606.03458): rotated rows whose channels and tokens are brought to one size before they
// are quantised, keys per channel and values per token. Keys are kept before RoPE, where a model's
// bias on K is one vector that centring takes off; after RoPE it turns with the position, and the
// rotation would spread it over all channels.
//
//   y = H (x - c), c one vector per kv head and side: the side data (cache/centre.h)
//   8 steps, by turns per channel and per token: divide by the root mean square, whose logarithms
//   add up to log2 a[channel] and log2 b[token]
//   K: y / b[token] by affine groups of one channel of the tile; a is folded into their scales
//   V: y / a[channel] by affine groups of one token; b is folded likewise
//   the stored b of K and a of V are then stretched to give each token or channel its length back
//
// A tile of up to 128 tokens (T; whole groups of group_size, so shorter while decoding, where its
// scales weigh more; --group-size 128 keeps tiles whole and the tail that much longer):
//   K: scales [D] f16 | zeros [D] f16 | codes, a panel of [D][T] | b [T] f16
//   V: scales [T] f16 | zeros [T] f16 | codes, a panel of [T][D] | a [D] f16
// All but a and b is one block of cache/affine.h on axis 0, for V with tokens in the channels'
// place. A side at 16 bits is plain f16 rows.
#include <winnow/error.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "cache/affine.h"
#include "cache/centre.h"
#include "cache/format.h"
#include "cache/rope_keys.h"
#include "cache/rows.h"
#include "kernels/hadamard.h"
#include "kernels/restore.h"

namespace winnow {
namespace {

using Size = std::size_t;

constexpr int kTileTokens = 128;
constexpr int kSteps = 8;
constexpr int kTurned = 32;        // tokens at once: their rows stay in the first cache
constexpr float kMostLog = 12.0F;  // of a and b: what half precision holds with all its digits

int tile_tokens(const FormatSpec& spec) {
    return std::max(1, kTileTokens / spec.group_size) * spec.group_size;
}

// The affine block inside a tile: kernels sum over its rows, which are channels of K or tokens of
// V, and hold its lanes.
FormatSpec block_spec(const FormatSpec& spec, Side side, int tokens) {
    FormatSpec block = spec;
    block.key_axis = 0;
    block.bits_k = bits_of(spec, side);
    block.head_dim = side == Side::key ? spec.head_dim : tokens;
    block.group_size = side == Side::key ? tokens : spec.head_dim;
    return block;
}

Size block_bytes(const FormatSpec& block) {
    return affine_bytes(block, Side::key, block.group_size);
}

void check(const FormatSpec& spec) {
    check_shape(spec);
    check_bits(spec, {2, 3, 4, 8, 16});
    check_no_outliers(spec);
    if (spec.key_axis != 0 || spec.value_axis != 1) {
        throw usage_error("kvarn stores keys per channel and values per token: --key-axis is " +
                          std::to_string(spec.key_axis) + " and must be 0, --value-axis is " +
                          std::to_string(spec.value_axis) + " and must be 1.");
    }
    if (spec.head_dim > kMaxGroupSize) {
        throw usage_error("the model's head_dim is " + std::to_string(spec.head_dim) +
                          "; kvarn takes at most " + std::to_string(kMaxGroupSize) + ".");
    }
}

void require_tile(const FormatSpec& spec, int tokens) {
    require_whole_groups(spec, tokens);
    if (tokens > tile_tokens(spec)) {
        throw failure("kvarn stores tiles of at most " + std::to_string(tile_tokens(spec)) +
                      " tokens, but was given " + std::to_string(tokens) + ".");
    }
}

// Divides out the root mean square of every line of y ([count] lines `step` apart, their elements
// `inner` apart) and adds its logarithm to log_scale. A line of zeros stays.
void normalise_lines(float* y, int count, int step, int length, int inner, float* log_scale) {
    for (int i = 0; i < count; ++i) {
        float* line = y + i * step;
        double sum = 0.0;
        for (int j = 0; j < length; ++j)
            sum += static_cast<double>(line[j * inner]) * line[j * inner];
        if (sum == 0.0) continue;
        const double rms = std::sqrt(sum / length);
        const auto factor = static_cast<float>(1.0 / rms);
        for (int j = 0; j < length; ++j) line[j * inner] *= factor;
        log_scale[i] += static_cast<float>(std::log2(rms));
    }
}

// The scales that are stored apart, a of V or b of K, from logarithms around their mean.
std::vector<f16> stored_scales(const std::vector<float>& logs) {
    double mean = 0.0;
    for (const float x : logs) mean += static_cast<double>(x) / static_cast<double>(logs.size());
    std::vector<f16> scales;
    for (const float x : logs) {
        const float log = std::clamp(x - static_cast<float>(mean), -kMostLog, kMostLog);
        scales.push_back(f32_to_f16(std::exp2(log)));
    }
    return scales;
}

std::vector<f16> fit_scales(Side side, const std::vector<float>& rows, int tokens, int d) {
    std::vector<float> y = rows;
    std::vector<float> channels(static_cast<Size>(d), 0.0F), rest(static_cast<Size>(tokens), 0.0F);
    for (int step = 0; step < kSteps; ++step) {
        if (step % 2 == 0) {
            normalise_lines(y.data(), d, 1, tokens, d, channels.data());
        } else {
            normalise_lines(y.data(), tokens, d, d, 1, rest.data());
        }
    }
    return stored_scales(side == Side::key ? rest : channels);
}

// Gives every line of `lanes`, a token of K or a channel of V, its length back, which rounding to a
// few levels stretches: by an eighth at 2 bits. A long answer packs what it keeps anew, again and
// again, and the stretch would grow without bound.
void keep_lengths(const FormatSpec& block, const std::uint8_t* codes,
                  const std::vector<float>& lanes, std::vector<f16>& scales) {
    std::vector<float> rounded(lanes.size());
    affine_unpack(block, Side::key, AffineZero::value, {.data = codes, .tokens = block.group_size},
                  rounded.data());
    const Size length = lanes.size() / scales.size();
    for (Size i = 0; i < scales.size(); ++i) {
        const float *x = lanes.data() + i * length, *y = rounded.data() + i * length;
        const double before = std::inner_product(x, x + length, x, 0.0);
        const double after = std::inner_product(y, y + length, y, 0.0);
        if (before > 0.0 && after > 0.0) {
            const double factor = std::sqrt(before / after);
            scales[i] = f32_to_f16(f16_to_f32(scales[i]) * static_cast<float>(factor));
        }
    }
}

void pack(const FormatSpec& spec, Side side, const float* rows, int tokens, const float* side_data,
          std::uint8_t* out) {
    if (bits_of(spec, side) == 16) return f16_rows_pack(spec, side, rows, tokens, out);
    require_tile(spec, tokens);
    require_no_nan(spec, side, rows, tokens);
    if (tokens == 0) return;
    const int d = spec.head_dim;
    std::vector<float> y(static_cast<Size>(tokens) * static_cast<Size>(d));
    take_centre_off(rows, tokens, d, centre_of(spec, side, side_data), y.data());
    hadamard(y.data(), tokens, d);
    std::vector<f16> scales = fit_scales(side, y, tokens, d);
    std::vector<float> lanes(y.size());  // [lanes][rows] of the affine block
    for (int t = 0; t < tokens; ++t) {
        for (int c = 0; c < d; ++c) {
            const bool key = side == Side::key;
            const float scale = f16_to_f32(scales[static_cast<Size>(key ? t : c)]);
            lanes[static_cast<Size>(key ? t * d + c : c * tokens + t)] = y[t * d + c] / scale;
        }
    }
    const FormatSpec block = block_spec(spec, side, tokens);
    affine_pack(block, Side::key, solve_min_max, lanes.data(), block.group_size, out);
    keep_lengths(block, out, lanes, scales);
    out += block_bytes(block);
    for (const f16 scale : scales) {
        store_f16(out, scale);
        out += sizeof(f16);
    }
}

// This thread's memory, apart from thread_scratch, which the affine kernels use meanwhile.
float* scratch(Size floats) {
    thread_local std::vector<float> memory;
    if (memory.size() < floats) memory.resize(floats);
    return memory.data();
}

// Turns rows [n][D] back: out of the rotation, by the scale of each token, and off the centre.
void turn_back(float* rows, int n, int d, const float* scale, const float* centre) {
    hadamard(rows, n, d);
    for (int t = 0; t < n; ++t, rows += d) {
        for (int c = 0; c < d; ++c) rows[c] = rows[c] * scale[t] + centre[c];
    }
}

void unpack(const FormatSpec& spec, Side side, const TileView& tile, float* rows) {
    if (bits_of(spec, side) == 16) return f16_rows_unpack(spec, tile, rows);
    require_tile(spec, tile.tokens);
    if (tile.tokens == 0) return;
    const int d = spec.head_dim, tokens = tile.tokens;
    const FormatSpec block = block_spec(spec, side, tokens);
    const TileView codes{.data = tile.data, .tokens = block.group_size};
    const float* centre = centre_of(spec, side, tile.side_data);
    float scale[kMaxHeadDim];  // tile_tokens() and D are both at most kMaxGroupSize
    floats_from_f16(tile.data + block_bytes(block), side == Side::key ? tokens : d, scale);
    if (side == Side::key) {
        affine_unpack(block, Side::key, AffineZero::value, codes, rows);
        return turn_back(rows, tokens, d, scale, centre);
    }
    float* lanes = scratch(static_cast<Size>(tokens) * static_cast<Size>(d));
    affine_unpack(block, Side::key, AffineZero::value, codes, lanes);
    transpose(lanes, d, tokens, rows);
    for (int t = 0; t < tokens; ++t) {
        for (int c = 0; c < d; ++c) rows[t * d + c] *= scale[c];
    }
    hadamard(rows, tokens, d);
    add_centre(rows, tokens, d, centre);
}

// Keys have to be turned to their positions, so a tile of them is restored, once for all heads.
void dot_k(const FormatSpec& spec, const TileView& tile, const float* q, int heads, float* scores,
           std::size_t stride) {
    require_rope(spec, tile);
    if (spec.bits_k == 16) return dot_f16_turned(spec, tile, q, heads, scores, stride);
    require_tile(spec, tile.tokens);
    if (tile.tokens == 0) return;
    const int d = spec.head_dim, tokens = tile.tokens;
    const FormatSpec block = block_spec(spec, Side::key, tokens);
    const float* centre = centre_of(spec, Side::key, tile.side_data);
    float scale[kMaxGroupSize];
    floats_from_f16(tile.data + block_bytes(block), tokens, scale);
    float* rows = scratch(static_cast<Size>(tokens) * static_cast<Size>(d));
    affine_unpack(block, Side::key, AffineZero::value, {.data = tile.data, .tokens = tokens}, rows);
    for (int first = 0; first < tokens; first += kTurned, rows += kTurned * d) {
        const int n = std::min(kTurned, tokens - first);
        turn_back(rows, n, d, scale + first, centre);
        dot_turned(*tile.rope, tile.positions + first, n, d, rows, q, heads, scores + first,
                   stride);
    }
}

void add_v(const FormatSpec& spec, const TileView& tile, const float* weights, std::size_t stride,
           int heads, float* out) {
    if (spec.bits_v == 16) return f16_rows_add_v(spec, tile, weights, stride, heads, out);
    require_tile(spec, tile.tokens);
    if (tile.tokens == 0) return;
    const int d = spec.head_dim, tokens = tile.tokens;
    const FormatSpec block = block_spec(spec, Side::value, tokens);
    float* w = scratch(static_cast<Size>(heads * (tokens + d) + d));  // [R][T], close together
    float* sums = w + heads * tokens;                                 // [R][D]
    float* scale = sums + heads * d;
    for (int r = 0; r < heads; ++r) {
        std::copy_n(weights + static_cast<Size>(r) * stride, tokens, w + r * tokens);
    }
    affine_dot_k(block, AffineZero::centred, {.data = tile.data, .tokens = d}, w, heads, sums,
                 static_cast<Size>(d));
    floats_from_f16(tile.data + block_bytes(block), d, scale);
    for (int r = 0; r < heads; ++r) {
        for (int c = 0; c < d; ++c) sums[r * d + c] *= scale[c];
    }
    hadamard(sums, heads, d);
    for (int i = 0; i < heads * d; ++i) out[i] += sums[i];
    add_centre_values(weights, stride, tokens, heads, d,
                      centre_of(spec, Side::value, tile.side_data), out);
}

std::size_t bytes(const FormatSpec& spec, Side side, int tokens) {
    if (bits_of(spec, side) == 16) return f16_rows_bytes(spec, tokens);
    const int most = tile_tokens(spec);
    Size total = 0;
    for (int left = tokens; left > 0; left -= most) {
        const int n = std::min(left, most);
        require_whole_groups(spec, n);
        const int apart = side == Side::key ? n : spec.head_dim;
        total += block_bytes(block_spec(spec, side, n)) + sizeof(f16) * static_cast<Size>(apart);
    }
    return total;
}

}  // namespace

extern const Format format_kvarn;
const Format format_kvarn{
    .name = "kvarn",
    .paper = "2606.03458",
    .summary = "rotated, channels and tokens brought to one size, keys per channel",
    .departures =
        "Keys before RoPE, centred per kv head; the root mean square takes the standard "
        "deviation's place, and rounding gives lengths back. Tiles "
        "packed while decoding hold group_size tokens, not 128.",
    .default_key_axis = 0,
    .default_value_axis = 1,
    .pre_rope_keys = true,
    .side_per_head = true,
    .check = check,
    .tile_tokens = tile_tokens,
    .bytes = bytes,
    .side_floats = centre_floats,
    .fit = fit_centres,
    .pack = pack,
    .unpack = unpack,
    .dot_k = dot_k,
    .add_v = add_v,
};

}  // namespace winnow
