// A head's rows packed by a format that fits something to them, and their comparison with unpack
// and with formulas in double precision.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "cache/format.h"
#include "core/rope.h"
#include "format_reference.h"
#include "kernels/hadamard.h"

namespace winnow {

extern const Format format_rotated;
extern const Format format_kvarn;
extern const Format format_graded;

using reference::make_rows;
using Bytes = std::vector<std::uint8_t>;
using Size = std::size_t;

inline const Format* const kFormats[] = {&format_rotated, &format_kvarn, &format_graded};

inline FormatSpec make_spec(const Format& format, int d, int bits, int group) {
    return {.format = &format,
            .head_dim = d,
            .bits_k = bits,
            .bits_v = bits,
            .group_size = group,
            .key_axis = format.default_key_axis,
            .value_axis = format.default_value_axis};
}

inline std::string label(const FormatSpec& spec, const std::string& more = "") {
    return std::string(spec.format->name) + " D " + std::to_string(spec.head_dim) + " bits " +
           std::to_string(spec.bits_k) + " group " + std::to_string(spec.group_size) + " " + more;
}

// A head's packed rows, with the side data fitted to them.
struct Packed {
    FormatSpec spec;
    int tokens;
    std::vector<float> side;
    std::vector<std::int32_t> positions;
    RopeTable rope;
    Bytes k, v;

    Packed(const FormatSpec& with, const std::vector<float>& keys, const std::vector<float>& values)
        : spec(with),
          tokens(static_cast<int>(keys.size()) / with.head_dim),
          rope(RopeParams{.dims = with.head_dim / 4 * 2, .halves = with.bits_k % 2 == 0}) {
        for (int t = 0; t < tokens; ++t) positions.push_back(3 * t + 1);
        side.resize(static_cast<Size>(spec.format->side_floats(spec)));
        spec.format->fit(spec, keys, values, side.data());
        k = packed(Side::key, keys);
        v = packed(Side::value, values);
    }
    // Over zeros and over ones, between guards: every byte is written and none beyond.
    Bytes packed(Side which, const std::vector<float>& rows) const {
        constexpr int kGuard = 32;
        const Size size = spec.format->bytes(spec, which, tokens);
        Bytes result[2];
        for (const std::uint8_t fill : {std::uint8_t{0x00}, std::uint8_t{0xFF}}) {
            Bytes buffer(size + 2 * kGuard, fill);
            spec.format->pack(spec, which, rows.data(), tokens, side.data(),
                              buffer.data() + kGuard);
            EXPECT_EQ(std::count(buffer.begin(), buffer.begin() + kGuard, fill), kGuard);
            EXPECT_EQ(std::count(buffer.end() - kGuard, buffer.end(), fill), kGuard);
            result[fill & 1] = Bytes(buffer.begin() + kGuard, buffer.end() - kGuard);
        }
        EXPECT_EQ(result[0], result[1]) << "some byte is never written";
        return result[0];
    }
    TileView view(Side which) const {
        return {.data = (which == Side::key ? k : v).data(),
                .tokens = tokens,
                .side_data = side.data(),
                .positions = positions.data(),
                .rope = &rope};
    }
    std::vector<float> unpacked(Side which) const {
        std::vector<float> rows(static_cast<Size>(tokens * spec.head_dim));
        spec.format->unpack(spec, which, view(which), rows.data());
        return rows;
    }
};

inline double largest(const std::vector<float>& x) {
    double most = 0.0;
    for (const float value : x) most = std::max(most, std::fabs(static_cast<double>(value)));
    return most;
}

// dot_k and add_v against unpack and sums in double. Kernels may round q, or the weights, to 16
// bits, and a rotated row is as large as all its channels together.
inline void expect_kernels_agree(const Packed& tile) {
    const FormatSpec& spec = tile.spec;
    const int d = spec.head_dim, n = tile.tokens;
    const Size stride = static_cast<Size>(n) + 3;
    std::vector<float> k = tile.unpacked(Side::key);
    const std::vector<float> v = tile.unpacked(Side::value);
    for (int t = 0; t < n && spec.format->pre_rope_keys; ++t) {
        tile.rope.rotate(k.data() + t * d, tile.positions[static_cast<Size>(t)]);
    }
    for (const int heads : {1, 4}) {
        const std::vector<float> q = make_rows("normal", heads, d, 7);
        const std::vector<float> w = make_rows("normal", heads, static_cast<int>(stride), 8);
        std::vector<float> scores(stride * static_cast<Size>(heads), -77.0F);
        std::vector<float> out(static_cast<Size>(heads * d), 0.5F);
        spec.format->dot_k(spec, tile.view(Side::key), q.data(), heads, scores.data(), stride);
        spec.format->add_v(spec, tile.view(Side::value), w.data(), stride, heads, out.data());
        for (int r = 0; r < heads; ++r) {
            const float* weights = w.data() + static_cast<Size>(r) * stride;
            for (int t = 0; t < n; ++t) {
                double sum = 0.0;
                for (int c = 0; c < d; ++c) sum += static_cast<double>(q[r * d + c]) * k[t * d + c];
                ASSERT_NEAR(scores[static_cast<Size>(r) * stride + static_cast<Size>(t)], sum,
                            2e-4 * largest(k) * d)
                    << "head " << r << " token " << t;
            }
            for (Size t = static_cast<Size>(n); t < stride; ++t) {
                ASSERT_EQ(scores[static_cast<Size>(r) * stride + t], -77.0F);
            }
            for (int c = 0; c < d; ++c) {
                double sum = 0.5;
                for (int t = 0; t < n; ++t) sum += static_cast<double>(weights[t]) * v[t * d + c];
                ASSERT_NEAR(out[r * d + c], sum, 2e-4 * largest(v) * n + 1e-4)
                    << "head " << r << " channel " << c;
            }
        }
    }
}

inline void for_each_shape(
    const std::function<void(const Format&, int d, int bits, int group)>& test) {
    const int shapes[][2] = {{8, 8}, {32, 16}, {64, 32}, {64, 64}, {80, 16}, {128, 32}};
    for (const Format* format : kFormats) {
        for (const auto& [d, group] : shapes) {
            for (const int bits : {2, 3, 4, 8}) {
                test(*format, d, bits, group);
                if (testing::Test::HasFatalFailure()) return;
            }
        }
    }
}

inline double error_between(const std::vector<float>& rows, const std::vector<float>& back) {
    double sum = 0.0;
    for (Size i = 0; i < rows.size(); ++i) {
        sum += std::pow(reference::clamp_half(rows[i]) - static_cast<double>(back[i]), 2.0);
    }
    return sum;
}

// H y in double, in pieces of hadamard_width.
inline reference::Rows turned(reference::Rows y, int d) {
    const Size width = static_cast<Size>(hadamard_width(d));
    for (Size first = 0; first < y.size(); first += width) {
        for (Size step = 1; step < width; step *= 2) {
            for (Size i = 0; i < width; ++i) {
                if ((i & step) != 0) continue;
                const double a = y[first + i], b = y[first + i + step];
                y[first + i] = a + b;
                y[first + i + step] = a - b;
            }
        }
        for (Size i = 0; i < width; ++i) y[first + i] /= std::sqrt(static_cast<double>(width));
    }
    return y;
}

inline reference::Rows centred_and_turned(const std::vector<float>& rows, const float* centre,
                                          int d) {
    reference::Rows y;
    for (Size i = 0; i < rows.size(); ++i) {
        y.push_back(reference::clamp_half(rows[i]) - centre[i % static_cast<Size>(d)]);
    }
    return turned(std::move(y), d);
}

inline std::vector<float> floats(const reference::Rows& rows) {
    return {rows.begin(), rows.end()};
}

// Codes at a near tie may fall apart between float and double, so whole tiles are compared.
inline void expect_error_as(double got, double wanted, const std::vector<float>& rows) {
    double size = 0.0;
    for (const float x : rows) size += std::pow(reference::clamp_half(x), 2.0);
    ASSERT_NEAR(got, wanted, 0.02 * wanted + 1e-9 * size);
}

}  // namespace winnow
