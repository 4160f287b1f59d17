// Tiles of a storage format packed between guards, and their comparison with the double-precision
// reference and with unpack.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "cache/format.h"
#include "core/rope.h"
#include "format_reference.h"

namespace winnow {

using reference::make_rows;
using Bytes = std::vector<std::uint8_t>;

inline constexpr std::uint8_t kGuard = 0xA5;

inline FormatSpec make_spec(const Format& format, int d, int bits, int group) {
    FormatSpec spec;
    spec.format = &format;
    spec.head_dim = d;
    spec.bits_k = spec.bits_v = bits;
    spec.group_size = group;
    spec.key_axis = format.default_key_axis;
    spec.value_axis = format.default_value_axis;
    return spec;
}

inline std::vector<float> fitted(const FormatSpec& spec, const std::vector<float>& rows) {
    std::vector<float> side;
    if (spec.format->side_floats != nullptr) {
        side.resize(static_cast<std::size_t>(spec.format->side_floats(spec)));
        spec.format->fit(spec, rows, rows, side.data());
    }
    return side;
}

// Packs twice, over zeros and over ones, between guard bytes: every byte must be written, none
// beyond bytes().
inline Bytes packed(const FormatSpec& spec, Side side, const std::vector<float>& rows, int tokens,
                    const float* side_data) {
    const Format& format = *spec.format;
    const std::size_t size = format.bytes(spec, side, tokens);
    Bytes result[2];
    for (const int fill : {0, 1}) {
        Bytes buffer(size + 64, fill == 0 ? 0x00 : 0xFF);
        std::fill(buffer.begin(), buffer.begin() + 32, kGuard);
        std::fill(buffer.end() - 32, buffer.end(), kGuard);
        format.pack(spec, side, rows.data(), tokens, side_data, buffer.data() + 32);
        EXPECT_EQ(std::count(buffer.begin(), buffer.begin() + 32, kGuard), 32);
        EXPECT_EQ(std::count(buffer.end() - 32, buffer.end(), kGuard), 32);
        result[fill] = Bytes(buffer.begin() + 32, buffer.end() - 32);
    }
    EXPECT_EQ(result[0], result[1]) << "some byte of the tile is never written";
    return result[0];
}

inline TileView view(const Bytes& data, int tokens, const std::vector<float>& side_data = {}) {
    TileView tile;
    tile.data = data.data();
    tile.tokens = tokens;
    tile.side_data = side_data.data();
    return tile;
}

inline std::vector<float> unpacked(const FormatSpec& spec, Side side, const TileView& tile) {
    std::vector<float> rows(static_cast<std::size_t>(tile.tokens * spec.head_dim));
    spec.format->unpack(spec, side, tile, rows.data());
    return rows;
}

inline std::string label(const FormatSpec& spec, const std::string& more = "") {
    return std::string(spec.format->name) + " D " + std::to_string(spec.head_dim) + " bits " +
           std::to_string(spec.bits_k) + "/" + std::to_string(spec.bits_v) + " group " +
           std::to_string(spec.group_size) + " axes " + std::to_string(spec.key_axis) +
           std::to_string(spec.value_axis) + " " + more;
}

// Where two levels are equally near, float and double may choose apart: the restored value is the
// reference's, or as far from the original on its other side.
inline void expect_as_good(const std::vector<float>& got, const reference::Rows& want,
                           const std::vector<float>& rows) {
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
        const double x = reference::clamp_half(static_cast<double>(rows[i]));
        const double y = static_cast<double>(got[i]);
        const double slack =
            1e-6 * (std::fabs(x) + std::fabs(want[i])) + 2e-3 * std::fabs(want[i] - x);
        ASSERT_LE(
            std::min(std::fabs(y - want[i]), std::fabs(std::fabs(y - x) - std::fabs(want[i] - x))),
            slack + 1e-12)
            << "element " << i << ": " << rows[i] << " gave " << y << ", not " << want[i];
    }
}

// Every kind of data for small heads, a third of them for large ones.
inline std::vector<std::string> kinds_for(const FormatSpec& spec) {
    std::vector<std::string> kinds;
    for (std::size_t i = 0; i < reference::kKinds.size(); ++i) {
        const std::size_t turn = i + static_cast<std::size_t>(spec.bits_k + spec.key_axis);
        if (spec.head_dim <= 32 || turn % 3 == 0) kinds.push_back(reference::kKinds[i]);
    }
    return kinds;
}

// Calls test(spec) over widths, groups, bits and both axes.
template <typename Test>
inline void for_each_affine(const Format& format, Test test) {
    const int shapes[][2] = {{8, 8},   {16, 16}, {32, 32},  {64, 32},   {64, 64},
                             {80, 16}, {96, 32}, {128, 32}, {128, 128}, {256, 32}};
    for (const auto& [d, group] : shapes) {
        for (const int bits : {2, 3, 4, 8}) {
            for (const int axis : {0, 1}) {
                FormatSpec spec = make_spec(format, d, bits, group);
                spec.key_axis = axis;
                spec.value_axis = 1 - axis;
                SCOPED_TRACE(label(spec));
                format.check(spec);
                test(spec);
                if (testing::Test::HasFatalFailure()) return;
            }
        }
    }
}

// What kernels may lose by rounding q and weights to 16 bits: half a unit of the largest product
// for each of the `terms` codes.
inline double rounding(const std::vector<float>& rows, const std::vector<float>& x, int terms) {
    double largest = 0.0, factor = 0.0;
    for (const float value : rows) largest = std::max(largest, std::fabs(double{value}));
    for (const float value : x) factor = std::max(factor, std::fabs(double{value}));
    return largest * factor * terms * 2.0 / 65534.0;
}

// dot_k and add_v against unpack and sums in double.
inline void expect_kernels_agree(const FormatSpec& spec, const TileView& keys,
                                 const TileView& values) {
    const Format& format = *spec.format;
    const int tokens = keys.tokens, d = spec.head_dim;
    const std::size_t stride = static_cast<std::size_t>(tokens) + 3;
    std::vector<float> k = unpacked(spec, Side::key, keys);
    const std::vector<float> v = unpacked(spec, Side::value, values);
    if (format.pre_rope_keys) {
        for (int t = 0; t < tokens; ++t) keys.rope->rotate(k.data() + t * d, keys.positions[t]);
    }
    for (const int heads : {1, 3}) {
        const std::vector<float> q = make_rows("normal", heads, d, 7);
        const std::vector<float> w = make_rows("normal", heads, static_cast<int>(stride), 8);
        std::vector<float> scores(stride * static_cast<std::size_t>(heads), -77.0F);
        std::vector<float> out(static_cast<std::size_t>(heads * d), 0.5F);
        format.dot_k(spec, keys, q.data(), heads, scores.data(), stride);
        format.add_v(spec, values, w.data(), stride, heads, out.data());
        for (int r = 0; r < heads; ++r) {
            const std::size_t row = static_cast<std::size_t>(r) * stride;
            for (int t = 0; t < tokens; ++t) {
                double sum = 0.0, size = 1e-20;
                for (int c = 0; c < d; ++c) {
                    const double part = static_cast<double>(q[r * d + c]) * k[t * d + c];
                    sum += part;
                    size += std::fabs(part);
                }
                ASSERT_NEAR(scores[row + t], sum, 1e-4 * size + rounding(k, q, d))
                    << "head " << r << " token " << t;
            }
            for (std::size_t t = tokens; t < stride; ++t) ASSERT_EQ(scores[row + t], -77.0F);
            for (int c = 0; c < d; ++c) {
                double sum = 0.5, size = 0.5;
                for (int t = 0; t < tokens; ++t) {
                    const double part = static_cast<double>(w[row + t]) * v[t * d + c];
                    sum += part;
                    size += std::fabs(part);
                }
                ASSERT_NEAR(out[r * d + c], sum, 1e-4 * size + rounding(v, w, tokens))
                    << "head " << r << " channel " << c;
            }
        }
    }
}

inline double relative_error(const std::vector<float>& got, const std::vector<float>& rows, int d) {
    double mean = 0.0;  // over channels, so that a few large ones do not hide the others
    for (int c = 0; c < d; ++c) {
        double error = 0.0, size = 0.0;
        for (std::size_t i = static_cast<std::size_t>(c); i < rows.size(); i += d) {
            error += std::pow(got[i] - rows[i], 2.0);
            size += std::pow(rows[i], 2.0);
        }
        mean += std::sqrt(error / size) / d;
    }
    return mean;
}

}  // namespace winnow
