#include "cache/affine_outliers.h"

#include <winnow/error.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "cache/rows.h"

namespace winnow {
namespace {

using Size = std::size_t;

constexpr int kMostNumbers = 1 << 16;  // places are 16 bits
constexpr int kTileTokens = 512;       // a thread's piece of a long span

// The sparse part of a tile.
struct Outliers {
    std::uint32_t count = 0;
    const std::uint8_t* values = nullptr;
    const std::uint8_t* places = nullptr;

    Outliers(const FormatSpec& spec, Side side, const TileView& tile) {
        if (bits_of(spec, side) == 16 || tile.tokens == 0) return;
        const std::uint8_t* at = tile.data + affine_bytes(spec, side, tile.tokens);
        std::memcpy(&count, at, sizeof count);
        values = at + sizeof count;
        places = values + sizeof(f16) * count;
    }
    float value(std::uint32_t i) const { return f16_to_f32(load_f16(values + sizeof(f16) * i)); }
    int place(std::uint32_t i) const {
        std::uint16_t place;
        std::memcpy(&place, places + sizeof place * i, sizeof place);
        return place;
    }
};

bool is_outlier(const FormatSpec& spec, float x) {
    return std::fabs(x) > spec.outlier_threshold;
}

// Puts the mean of the others in the place of a group's outliers; element i is x[i * step].
void fill_in(const FormatSpec& spec, float* x, int step) {
    float sum = 0.0F;
    int others = 0;
    for (int i = 0; i < spec.group_size; ++i) {
        if (is_outlier(spec, x[i * step])) continue;
        sum += x[i * step];
        ++others;
    }
    if (others == spec.group_size) return;
    const float mean = others == 0 ? 0.0F : sum / static_cast<float>(others);
    for (int i = 0; i < spec.group_size; ++i) {
        if (is_outlier(spec, x[i * step])) x[i * step] = mean;
    }
}

// The rows [tokens][D] without their outliers.
std::vector<float> without_outliers(const FormatSpec& spec, Side side, const float* rows,
                                    int tokens) {
    const int d = spec.head_dim, group = spec.group_size;
    std::vector<float> rest(rows, rows + static_cast<Size>(tokens) * static_cast<Size>(d));
    const bool per_channel = (side == Side::key ? spec.key_axis : spec.value_axis) == 0;
    for (int first = 0; per_channel && first < tokens; first += group) {
        for (int c = 0; c < d; ++c) fill_in(spec, rest.data() + first * d + c, d);
    }
    for (int at = 0; !per_channel && at < tokens * d; at += group) {
        fill_in(spec, rest.data() + at, 1);
    }
    return rest;
}

// Calls use(token, channel, what the blocks give less than the exact value) for every outlier.
template <class Use>
void correct(const FormatSpec& spec, Side side, AffineZero zero, const TileView& tile, Use use) {
    const Outliers exact(spec, side, tile);
    for (std::uint32_t i = 0; i < exact.count; ++i) {
        const int token = exact.place(i) / spec.head_dim, channel = exact.place(i) % spec.head_dim;
        const float restored = affine_value(spec, side, zero, tile.data, token, channel);
        use(token, channel, exact.value(i) - restored);
    }
}

}  // namespace

void outlier_check(const FormatSpec& spec) {
    if (!(spec.outlier_threshold > 0.0F)) {
        throw usage_error("--outlier-threshold is " + std::to_string(spec.outlier_threshold) +
                          "; it must be above 0.");
    }
    FormatSpec plain = spec;
    plain.outlier_threshold = 0.0F;
    affine_check(plain);
    if (spec.group_size * spec.head_dim > kMostNumbers) {
        throw usage_error("--group-size is " + std::to_string(spec.group_size) +
                          ", but with --outlier-threshold and a head_dim of " +
                          std::to_string(spec.head_dim) + " it must be at most " +
                          std::to_string(kMostNumbers / spec.head_dim) + ".");
    }
}

int outlier_tile_tokens(const FormatSpec& spec) {
    const int most = std::min(kTileTokens, kMostNumbers / spec.head_dim);
    return std::max(1, most / spec.group_size) * spec.group_size;
}

std::size_t outlier_bytes(const FormatSpec& spec, Side side, int tokens) {
    const Size count = bits_of(spec, side) == 16 || tokens == 0 ? 0 : sizeof(std::uint32_t);
    return affine_bytes(spec, side, tokens) + count;
}

std::size_t outlier_measure(const FormatSpec& spec, Side side, const float* rows, int tokens) {
    const Size least = outlier_bytes(spec, side, tokens);
    if (bits_of(spec, side) == 16) return least;
    const auto count = std::count_if(rows, rows + static_cast<Size>(tokens) * spec.head_dim,
                                     [&](float x) { return is_outlier(spec, x); });
    return least + (sizeof(f16) + sizeof(std::uint16_t)) * static_cast<Size>(count);
}

void outlier_pack(const FormatSpec& spec, Side side, GroupSolver solve, const float* rows,
                  int tokens, std::uint8_t* out) {
    if (bits_of(spec, side) == 16 || tokens == 0) {
        return affine_pack(spec, side, solve, rows, tokens, out);
    }
    require_no_nan(spec, side, rows, tokens);
    const std::vector<float> rest = without_outliers(spec, side, rows, tokens);
    affine_pack(spec, side, solve, rest.data(), tokens, out);
    std::uint8_t* at = out + affine_bytes(spec, side, tokens);
    const int numbers = tokens * spec.head_dim;
    std::vector<std::uint16_t> places;
    for (int i = 0; i < numbers; ++i) {
        if (is_outlier(spec, rows[i])) places.push_back(static_cast<std::uint16_t>(i));
    }
    const auto count = static_cast<std::uint32_t>(places.size());
    std::memcpy(at, &count, sizeof count);
    at += sizeof count;
    for (const std::uint16_t place : places) {
        store_f16(at, f32_to_f16(std::clamp(rows[place], -kF16Max, kF16Max)));
        at += sizeof(f16);
    }
    std::copy_n(reinterpret_cast<const std::uint8_t*>(places.data()), sizeof(places[0]) * count,
                at);
}

bool outlier_tile_is_sound(const FormatSpec& spec, Side side, const std::uint8_t* data,
                           std::size_t size, int tokens) {
    const Size least = outlier_bytes(spec, side, tokens);
    if (size < least || bits_of(spec, side) == 16 || tokens == 0) {
        return size == least;
    }
    const Outliers exact(spec, side, {.data = data, .tokens = tokens});
    const Size each = sizeof(f16) + sizeof(std::uint16_t);
    if (exact.count > (size - least) / each || size != least + each * exact.count) {
        return false;
    }
    for (std::uint32_t i = 0; i < exact.count; ++i) {
        if (exact.place(i) >= tokens * spec.head_dim) return false;
    }
    return true;
}

void outlier_unpack(const FormatSpec& spec, Side side, AffineZero zero, const TileView& tile,
                    float* rows) {
    affine_unpack(spec, side, zero, tile, rows);
    const Outliers exact(spec, side, tile);
    for (std::uint32_t i = 0; i < exact.count; ++i) rows[exact.place(i)] = exact.value(i);
}

void outlier_dot_k(const FormatSpec& spec, AffineZero zero, const TileView& tile, const float* q,
                   int heads, float* scores, std::size_t stride) {
    affine_dot_k(spec, zero, tile, q, heads, scores, stride);
    correct(spec, Side::key, zero, tile, [&](int token, int channel, float missing) {
        for (int r = 0; r < heads; ++r) {
            scores[static_cast<Size>(r) * stride + static_cast<Size>(token)] +=
                q[r * spec.head_dim + channel] * missing;
        }
    });
}

void outlier_add_v(const FormatSpec& spec, AffineZero zero, const TileView& tile,
                   const float* weights, std::size_t stride, int heads, float* out) {
    affine_add_v(spec, zero, tile, weights, stride, heads, out);
    correct(spec, Side::value, zero, tile, [&](int token, int channel, float missing) {
        for (int r = 0; r < heads; ++r) {
            out[r * spec.head_dim + channel] +=
                weights[static_cast<Size>(r) * stride + static_cast<Size>(token)] * missing;
        }
    });
}

}  // namespace winnow
