// Graded channels: at an average of B bits, every channel of the keys gets 0, 2, 3, 4 or 8 bits,
// by how much its error would move the scores: the variance inside its groups times the energy of
// the queries in that channel. Values get B bits each, and groups that do not shrink their values.
//
//   K: per channel, s and z of least squared error (solve_least_squares); x' = code * s + z
//      0 bits: a straight line through the group, x'[t] = s * (t - (n - 1) / 2) + z
//   V: per token, stretched to a slope of one (solve_unbiased)
//
// The bits of a kv head's channels are fitted once: the side data, [D]. They are equal in bunches
// of 8 channels and B on average, so all heads and tiles take the same bytes. A tile of up to 512
// tokens, m blocks of n = group_size:
//   K: for 8, 4, 3 and 2 bits in turn, over the d channels that have them, ascending:
//        m times  scales [d] f16 | zeros [d] f16 | codes, a panel of [d][n]   (cache/affine.h)
//      then for the d channels of 0 bits:  m times  slopes [d] f16 | levels [d] f16
//   V: m times  scales [D/n][n] f16 | zeros [D/n][n] f16 | codes, a panel of [n][D]
// A side at 16 bits is plain f16 rows.
#include <winnow/error.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>
#include <vector>

#include "cache/affine.h"
#include "cache/bit_shares.h"
#include "cache/format.h"
#include "cache/group_fit.h"
#include "cache/rows.h"

namespace winnow {
namespace {

using Size = std::size_t;

constexpr int kMostTokens = 512;
constexpr int kWidths[] = {8, 4, 3, 2};  // the order of the parts of a tile of keys
// What a group loses at kShareBits, as a share of its variance. 0 bits: a line's own residue.
constexpr float kLoss[kShareLevels] = {1.0F, 0.1175F, 0.0345F, 0.0096F, 4e-5F};

int tile_tokens(const FormatSpec& spec) {
    return std::max(1, kMostTokens / spec.group_size) * spec.group_size;
}

void check(const FormatSpec& spec) {
    check_shape(spec);
    check_bits(spec, {2, 3, 4, 8, 16});
    check_no_outliers(spec);
    if (spec.key_axis != 0 || spec.value_axis != 1) {
        throw usage_error("graded stores keys per channel and values per token: --key-axis is " +
                          std::to_string(spec.key_axis) + " and must be 0, --value-axis is " +
                          std::to_string(spec.value_axis) + " and must be 1.");
    }
    check_axes(spec);
}

void require_tile(const FormatSpec& spec, int tokens) {
    require_whole_groups(spec, tokens);
    if (tokens > tile_tokens(spec)) {
        throw failure("graded stores tiles of at most " + std::to_string(tile_tokens(spec)) +
                      " tokens, but was given " + std::to_string(tokens) + ".");
    }
}

// The channels of one width, and the spec of their part of a tile.
struct Part {
    FormatSpec spec;
    std::vector<int> channels;

    Part(const FormatSpec& whole, const float* bits, int width) : spec(whole) {
        for (int c = 0; c < whole.head_dim; ++c) {
            if (static_cast<int>(bits[c]) == width) channels.push_back(c);
        }
        spec.head_dim = count();
        spec.bits_k = width;
        spec.key_axis = 0;
    }
    int count() const { return static_cast<int>(channels.size()); }
    Size bytes(int tokens) const {
        if (spec.bits_k > 0) return affine_bytes(spec, Side::key, tokens);
        return 4 * static_cast<Size>(count()) * static_cast<Size>(tokens / spec.group_size);
    }
    // to[i] = row[channels[i]] for `rows` rows of `stride` floats.
    void gather(const float* from, int rows, int stride, float* to) const {
        for (int r = 0; r < rows; ++r, from += stride) {
            for (const int c : channels) *to++ = from[c];
        }
    }
};

const float* bits_of_channels(const float* side_data) {
    if (side_data == nullptr) {
        throw failure("graded needs the kv head's fitted bits, but the cache has none.");
    }
    return side_data;
}

// This thread's memory, apart from thread_scratch, which the affine kernels use meanwhile.
float* scratch(Size floats) {
    thread_local std::vector<float> memory;
    if (memory.size() < floats) memory.resize(floats);
    return memory.data();
}

// Slope and level of the least squares line through x [n], `step` floats apart.
void fit_line(const float* x, int n, int step, float& slope, float& level) {
    const double mid = (n - 1) / 2.0;
    double sum = 0.0, along = 0.0, spread = 0.0;
    for (int t = 0; t < n; ++t) {
        const auto value = static_cast<double>(std::clamp(x[t * step], -kF16Max, kF16Max));
        sum += value;
        along += value * (t - mid);
        spread += (t - mid) * (t - mid);
    }
    slope = std::clamp(static_cast<float>(along / spread), -kF16Max, kF16Max);
    level = static_cast<float>(sum / n);
}

void pack_lines(const Part& part, const float* rows, int tokens, int head_dim, std::uint8_t* out) {
    const int n = part.spec.group_size, d = part.count();
    for (int first = 0; first < tokens; first += n, out += 4 * d) {
        for (int i = 0; i < d; ++i) {
            float slope, level;
            fit_line(rows + first * head_dim + part.channels[static_cast<Size>(i)], n, head_dim,
                     slope, level);
            store_f16(out + 2 * i, f32_to_f16(slope));
            store_f16(out + 2 * (d + i), f32_to_f16(level));
        }
    }
}

void pack_keys(const FormatSpec& spec, const float* rows, int tokens, const float* bits,
               std::uint8_t* out) {
    std::vector<float> gathered;
    for (const int width : kWidths) {
        const Part part(spec, bits, width);
        if (part.count() == 0) continue;
        gathered.resize(static_cast<Size>(tokens) * static_cast<Size>(part.count()));
        part.gather(rows, tokens, spec.head_dim, gathered.data());
        affine_pack(part.spec, Side::key, solve_least_squares, gathered.data(), tokens, out);
        out += part.bytes(tokens);
    }
    pack_lines(Part(spec, bits, 0), rows, tokens, spec.head_dim, out);
}

void pack(const FormatSpec& spec, Side side, const float* rows, int tokens, const float* side_data,
          std::uint8_t* out) {
    if (bits_of(spec, side) == 16) return f16_rows_pack(spec, side, rows, tokens, out);
    require_tile(spec, tokens);
    if (side == Side::value) return affine_pack(spec, side, solve_unbiased, rows, tokens, out);
    require_no_nan(spec, side, rows, tokens);
    pack_keys(spec, rows, tokens, bits_of_channels(side_data), out);
}

void unpack_lines(const Part& part, const std::uint8_t* data, int tokens, int head_dim,
                  float* rows) {
    const int n = part.spec.group_size, d = part.count();
    const float mid = static_cast<float>(n - 1) / 2.0F;
    for (int first = 0; first < tokens; first += n, data += 4 * d) {
        for (int i = 0; i < d; ++i) {
            const float slope = f16_to_f32(load_f16(data + 2 * i));
            const float level = f16_to_f32(load_f16(data + 2 * (d + i)));
            float* x = rows + first * head_dim + part.channels[static_cast<Size>(i)];
            for (int t = 0; t < n; ++t) {
                x[t * head_dim] = (static_cast<float>(t) - mid) * slope + level;
            }
        }
    }
}

void unpack(const FormatSpec& spec, Side side, const TileView& tile, float* rows) {
    if (bits_of(spec, side) == 16) return f16_rows_unpack(spec, tile, rows);
    require_tile(spec, tile.tokens);
    if (side == Side::value) return affine_unpack(spec, side, AffineZero::value, tile, rows);
    const float* bits = bits_of_channels(tile.side_data);
    const std::uint8_t* data = tile.data;
    std::vector<float> gathered;
    for (const int width : kWidths) {
        const Part part(spec, bits, width);
        if (part.count() == 0) continue;
        gathered.resize(static_cast<Size>(tile.tokens) * static_cast<Size>(part.count()));
        affine_unpack(part.spec, Side::key, AffineZero::value,
                      {.data = data, .tokens = tile.tokens}, gathered.data());
        const float* from = gathered.data();
        for (int t = 0; t < tile.tokens; ++t) {
            for (const int c : part.channels) rows[t * spec.head_dim + c] = *from++;
        }
        data += part.bytes(tile.tokens);
    }
    unpack_lines(Part(spec, bits, 0), data, tile.tokens, spec.head_dim, rows);
}

// scores[r][t] += the share of the channels of 0 bits; q is gathered, [R][d].
void dot_lines(const Part& part, const std::uint8_t* data, int tokens, const float* q, int heads,
               float* scores, Size stride) {
    const int n = part.spec.group_size, d = part.count();
    const float mid = static_cast<float>(n - 1) / 2.0F;
    float slopes[kMaxHeadDim], levels[kMaxHeadDim];
    for (int first = 0; first < tokens; first += n, data += 4 * d) {
        floats_from_f16(data, d, slopes);
        floats_from_f16(data + 2 * d, d, levels);
        for (int r = 0; r < heads; ++r) {
            const float slope = dot(q + r * d, slopes, d);
            const float start = dot(q + r * d, levels, d) - mid * slope;
            float* row = scores + static_cast<Size>(r) * stride + first;
            for (int t = 0; t < n; ++t) row[t] += start + slope * static_cast<float>(t);
        }
    }
}

void dot_k(const FormatSpec& spec, const TileView& tile, const float* q, int heads, float* scores,
           std::size_t stride) {
    if (spec.bits_k == 16) return f16_rows_dot_k(spec, tile, q, heads, scores, stride);
    require_tile(spec, tile.tokens);
    const int tokens = tile.tokens;
    const float* bits = bits_of_channels(tile.side_data);
    const std::uint8_t* data = tile.data;
    float* gathered = scratch(static_cast<Size>(heads) * static_cast<Size>(spec.head_dim + tokens));
    float* partial = gathered + heads * spec.head_dim;  // [R][T]
    for (int r = 0; r < heads; ++r) {
        std::fill_n(scores + static_cast<Size>(r) * stride, tokens, 0.0F);
    }
    for (const int width : kWidths) {
        const Part part(spec, bits, width);
        if (part.count() == 0) continue;
        part.gather(q, heads, spec.head_dim, gathered);
        affine_dot_k(part.spec, AffineZero::value, {.data = data, .tokens = tokens}, gathered,
                     heads, partial, static_cast<Size>(tokens));
        for (int r = 0; r < heads; ++r) {
            add_scaled(1.0F, partial + r * tokens, tokens, scores + static_cast<Size>(r) * stride);
        }
        data += part.bytes(tokens);
    }
    const Part lines(spec, bits, 0);
    lines.gather(q, heads, spec.head_dim, gathered);
    dot_lines(lines, data, tokens, gathered, heads, scores, stride);
}

void add_v(const FormatSpec& spec, const TileView& tile, const float* weights, std::size_t stride,
           int heads, float* out) {
    if (spec.bits_v == 16) return f16_rows_add_v(spec, tile, weights, stride, heads, out);
    require_tile(spec, tile.tokens);
    affine_add_v(spec, AffineZero::value, tile, weights, stride, heads, out);
}

std::size_t bytes(const FormatSpec& spec, Side side, int tokens) {
    if (bits_of(spec, side) == 16) return f16_rows_bytes(spec, tokens);
    FormatSpec whole = spec;
    whole.key_axis = 0;
    return affine_bytes(whole, side, tokens);  // the average is exact, and a line takes two halves
}

// Mean variance of channel c inside its groups, and about a line through each group.
void group_spread(std::span<const float> rows, int d, int c, int group, float& about_mean,
                  float& about_line) {
    const int n = static_cast<int>(rows.size()) / d;
    const int length = std::min(n, group);
    double mean_sum = 0.0, line_sum = 0.0;
    for (int first = 0; first + length <= n; first += length) {
        const float* x = rows.data() + static_cast<Size>(first) * static_cast<Size>(d) + c;
        float slope = 0.0F, level = x[0];
        if (length > 1) fit_line(x, length, d, slope, level);
        for (int t = 0; t < length; ++t) {
            const double off = static_cast<double>(std::clamp(x[t * d], -kF16Max, kF16Max)) - level;
            const double line = off - slope * (t - (length - 1) / 2.0);
            mean_sum += off * off;
            line_sum += line * line;
        }
    }
    const double count = std::max(1, n / std::max(1, length) * length);
    about_mean = static_cast<float>(mean_sum / count);
    about_line = static_cast<float>(line_sum / count);
}

// side_data holds the queries' energy per channel on entry, and zeros where it is not known: then
// the keys' own variance stands in for it.
void fit(const FormatSpec& spec, std::span<const float> k, std::span<const float> v,
         float* side_data) {
    const int d = spec.head_dim, n = static_cast<int>(k.size()) / d;
    require_no_nan(spec, Side::key, k.data(), n);
    require_no_nan(spec, Side::value, v.data(), n);
    if (spec.bits_k == 16) return;
    const bool known = std::any_of(side_data, side_data + d, [](float x) { return x > 0.0F; });
    std::vector<float> losses(static_cast<Size>(d) * kShareLevels);
    for (int c = 0; c < d && n > 0; ++c) {
        float inside, line, overall, unused;
        group_spread(k, d, c, spec.group_size, inside, line);
        group_spread(k, d, c, n, overall, unused);
        const float energy = known ? side_data[c] : overall;
        float* loss = losses.data() + static_cast<Size>(c) * kShareLevels;
        loss[0] = energy * line;
        for (int level = 1; level < kShareLevels; ++level) {
            loss[level] = energy * std::min(line, inside * kLoss[level]);
        }
    }
    const std::vector<int> bits = share_bits(losses, d, spec.bits_k);
    for (int c = 0; c < d; ++c) side_data[c] = static_cast<float>(bits[static_cast<Size>(c)]);
}

// Widths that there are, in whole bunches, and on average what the tiles were made for.
bool side_is_sound(const FormatSpec& spec, const float* side_data) {
    if (spec.bits_k == 16) return true;
    int channels[kShareLevels] = {}, sum = 0;
    for (int c = 0; c < spec.head_dim; ++c) {
        const auto* width =
            std::find_if(std::begin(kShareBits), std::end(kShareBits),
                         [&](int bits) { return side_data[c] == static_cast<float>(bits); });
        if (width == std::end(kShareBits)) return false;
        ++channels[width - std::begin(kShareBits)];
        sum += *width;
    }
    return sum == spec.bits_k * spec.head_dim &&
           std::all_of(std::begin(channels), std::end(channels),
                       [](int n) { return n % kShareBunch == 0; });
}

}  // namespace

extern const Format format_graded;
const Format format_graded{
    .name = "graded",
    .paper = "",
    .summary = "channels of K get 0 to 8 bits by their weight in the scores, B on average",
    .departures = "Our own; --group-size 64 halves the cost of its scales.",
    .default_key_axis = 0,
    .default_value_axis = 1,
    .side_per_head = true,
    .query_energy = true,
    .check = check,
    .tile_tokens = tile_tokens,
    .bytes = bytes,
    .side_floats = [](const FormatSpec& spec) { return spec.head_dim; },
    .fit = fit,
    .side_is_sound = side_is_sound,
    .pack = pack,
    .unpack = unpack,
    .dot_k = dot_k,
    .add_v = add_v,
};

}  // namespace winnow
