// The formats that fit something to a kv head's rows: rotated, kvarn and graded, against the
// formulas in double precision.
#include <gtest/gtest.h>
#include <winnow/error.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "cache/affine.h"
#include "cache/bit_shares.h"
#include "cache/format.h"
#include "cache/group_fit.h"
#include "cache/layer_store.h"
#include "core/rope.h"
#include "format_reference.h"
#include "kernels/hadamard.h"
#include "kernels/isa.h"

namespace winnow {

extern const Format format_rotated;
extern const Format format_kvarn;
extern const Format format_graded;

namespace {

using reference::make_rows;
using Bytes = std::vector<std::uint8_t>;
using Size = std::size_t;

const Format* const kFormats[] = {&format_rotated, &format_kvarn, &format_graded};

FormatSpec make_spec(const Format& format, int d, int bits, int group) {
    return {.format = &format,
            .head_dim = d,
            .bits_k = bits,
            .bits_v = bits,
            .group_size = group,
            .key_axis = format.default_key_axis,
            .value_axis = format.default_value_axis};
}

std::string label(const FormatSpec& spec, const std::string& more = "") {
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

double largest(const std::vector<float>& x) {
    double most = 0.0;
    for (const float value : x) most = std::max(most, std::fabs(static_cast<double>(value)));
    return most;
}

// dot_k and add_v against unpack and sums in double. Kernels may round q, or the weights, to 16
// bits, and a rotated row is as large as all its channels together.
void expect_kernels_agree(const Packed& tile) {
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

void for_each_shape(const std::function<void(const Format&, int d, int bits, int group)>& test) {
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

double error_between(const std::vector<float>& rows, const std::vector<float>& back) {
    double sum = 0.0;
    for (Size i = 0; i < rows.size(); ++i) {
        sum += std::pow(reference::clamp_half(rows[i]) - static_cast<double>(back[i]), 2.0);
    }
    return sum;
}

// H y in double, in pieces of hadamard_width.
reference::Rows turned(reference::Rows y, int d) {
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

reference::Rows centred_and_turned(const std::vector<float>& rows, const float* centre, int d) {
    reference::Rows y;
    for (Size i = 0; i < rows.size(); ++i) {
        y.push_back(reference::clamp_half(rows[i]) - centre[i % static_cast<Size>(d)]);
    }
    return turned(std::move(y), d);
}

std::vector<float> floats(const reference::Rows& rows) {
    return {rows.begin(), rows.end()};
}

TEST(Hadamard, EqualsTheReferenceOnEveryInstructionSetAndUndoesItself) {
    for (const std::string& isa : available_isas()) {
        force_isa(isa);
        for (const int d : {8, 16, 24, 64, 80, 96, 128, 1024}) {
            const std::vector<float> rows = make_rows("normal", 3, d);
            std::vector<float> fast = rows, plain = rows;
            hadamard(fast.data(), 3, d);
            reference::hadamard(plain.data(), 3, d);
            EXPECT_EQ(fast, plain) << isa << " D " << d;
            const reference::Rows exact = turned({rows.begin(), rows.end()}, d);
            for (Size i = 0; i < exact.size(); ++i) ASSERT_NEAR(fast[i], exact[i], 1e-5);
            hadamard(fast.data(), 3, d);
            for (Size i = 0; i < rows.size(); ++i) ASSERT_NEAR(fast[i], rows[i], 1e-5) << isa;
        }
    }
    force_isa("");
}

TEST(FittedFormats, KernelsAgreeWithUnpackOnEveryInstructionSet) {
    for (const std::string& isa : available_isas()) {
        force_isa(isa);
        for_each_shape([&](const Format& format, int d, int bits, int group) {
            if (isa != available_isas()[0] && d != 64) return;
            const FormatSpec spec = make_spec(format, d, bits, group);
            format.check(spec);
            const char* kind = bits % 2 == 0 ? "normal" : "large channels";
            SCOPED_TRACE(label(spec, isa + " " + kind));
            const std::vector<float> rows = make_rows(kind, 2 * group, d, 3);
            expect_kernels_agree(Packed(spec, rows, rows));
        });
    }
    force_isa("");
}

TEST(FittedFormats, AnyFiniteOrInfiniteInputComesBackFinite) {
    for_each_shape([](const Format& format, int d, int bits, int group) {
        for (const std::string& kind : reference::kKinds) {
            const FormatSpec spec = make_spec(format, d, bits, group);
            SCOPED_TRACE(label(spec, kind));
            const std::vector<float> rows = make_rows(kind, group, d);
            const Packed tile(spec, rows, rows);
            for (const Side side : {Side::key, Side::value}) {
                for (const float x : tile.unpacked(side)) ASSERT_TRUE(std::isfinite(x));
            }
            if (kind != "constant") continue;
            for (const Side side : {Side::key, Side::value}) {
                for (const float x : tile.unpacked(side)) ASSERT_NEAR(x, 1.2345, 1e-3);
            }
        }
    });
}

TEST(FittedFormats, NanIsAnErrorAndMissingSideDataToo) {
    for (const Format* format : kFormats) {
        const FormatSpec spec = make_spec(*format, 32, 4, 32);
        std::vector<float> rows = make_rows("normal", 32, 32);
        const Packed good(spec, rows, rows);
        Bytes out(1 << 16);
        TileView bare = good.view(Side::key);
        bare.side_data = nullptr;
        EXPECT_THROW(format->unpack(spec, Side::key, bare, rows.data()), Error) << format->name;
        rows[2 * 32 + 9] = std::numeric_limits<float>::quiet_NaN();
        for (const Side side : {Side::key, Side::value}) {
            try {
                format->pack(spec, side, rows.data(), 32, good.side.data(), out.data());
                FAIL() << format->name;
            } catch (const Error& error) {
                const std::string text = error.what();
                EXPECT_NE(text.find(format->name), std::string::npos) << text;
                EXPECT_NE(text.find("token 2"), std::string::npos) << text;
            }
        }
        if (format->pre_rope_keys) {
            TileView still = good.view(Side::key);
            still.positions = nullptr;
            EXPECT_THROW(format->dot_k(spec, still, rows.data(), 1, rows.data(), 32), Error);
        }
        std::vector<float> side(good.side.size());
        EXPECT_THROW(format->fit(spec, rows, rows, side.data()), Error);
    }
}

TEST(FittedFormats, SidesHaveTheirOwnBits) {
    for (const Format* format : kFormats) {
        for (const auto& [bits_k, bits_v] : {std::pair{3, 2}, {16, 4}, {4, 16}}) {
            FormatSpec spec = make_spec(*format, 64, 4, 32);
            spec.bits_k = bits_k;
            spec.bits_v = bits_v;
            SCOPED_TRACE(label(spec));
            format->check(spec);
            const std::vector<float> rows = make_rows("normal", 64, 64);
            const Packed tile(spec, rows, rows);
            expect_kernels_agree(tile);
            if (bits_k == 16) {
                EXPECT_EQ(tile.unpacked(Side::key)[5], reference::half(rows[5]));
            }
            if (bits_v == 16) {
                EXPECT_EQ(tile.v.size(), 64U * 64U * 2U);
            }
        }
    }
}

TEST(FittedFormats, BytesAreExact) {
    const auto bytes = [](const Format& format, Side side, int d, int bits, int group, int tokens) {
        return format.bytes(make_spec(format, d, bits, group), side, tokens);
    };
    for (const Size bits : {2U, 3U, 4U, 8U}) {
        const int b = static_cast<int>(bits);
        for (const Side side : {Side::key, Side::value}) {
            const bool key = side == Side::key;
            EXPECT_EQ(bytes(format_rotated, side, 64, b, 32, 96), 96U * (8U * bits + 8U));
            // kvarn: 2 halves per channel or token, one per token or channel.
            EXPECT_EQ(bytes(format_kvarn, side, 64, b, 32, 128),
                      1024U * bits + (key ? 64U * 4U + 128U * 2U : 128U * 4U + 64U * 2U));
            EXPECT_EQ(bytes(format_kvarn, side, 64, b, 32, 160),
                      1280U * bits + (key ? 2U * 64U * 4U + 160U * 2U : 160U * 4U + 2U * 64U * 2U));
            EXPECT_EQ(bytes(format_graded, side, 64, b, 64, 192), 192U * (8U * bits + 4U));
            EXPECT_EQ(bytes(format_graded, side, 64, b, 64, 0), 0U);
        }
    }
    EXPECT_THROW(bytes(format_kvarn, Side::key, 64, 2, 32, 33), Error);
    const FormatSpec spec = make_spec(format_kvarn, 64, 2, 32);
    std::vector<float> rows(160 * 64), side(128);
    Bytes out(1 << 16);
    EXPECT_THROW(format_kvarn.pack(spec, Side::key, rows.data(), 160, side.data(), out.data()),
                 Error);
}

TEST(FittedFormats, CheckNamesTheFlag) {
    const auto complaint = [](FormatSpec spec) -> std::string {
        try {
            spec.format->check(spec);
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::usage);
            return error.what();
        }
        return "";
    };
    for (const Format* format : kFormats) {
        FormatSpec spec = make_spec(*format, 64, 4, 32);
        EXPECT_EQ(complaint(spec), "");
        spec.key_axis = 1 - spec.key_axis;
        EXPECT_NE(complaint(spec).find("--key-axis is "), std::string::npos);
        spec = make_spec(*format, 64, 4, 32);
        spec.bits_v = 5;
        EXPECT_NE(complaint(spec).find("--nbits-v is 5"), std::string::npos);
        spec = make_spec(*format, 64, 4, 32);
        spec.outlier_threshold = 6.0F;
        EXPECT_NE(complaint(spec).find("--outlier-threshold"), std::string::npos);
    }
    EXPECT_NE(complaint(make_spec(format_rotated, 80, 4, 32)).find("--group-size is 32"),
              std::string::npos);
}

// Codes at a near tie may fall apart between float and double, so whole tiles are compared.
void expect_error_as(double got, double wanted, const std::vector<float>& rows) {
    double size = 0.0;
    for (const float x : rows) size += std::pow(reference::clamp_half(x), 2.0);
    ASSERT_NEAR(got, wanted, 0.02 * wanted + 1e-9 * size);
}

TEST(FormatRotated, EqualsTheFormulas) {
    for (const int bits : {2, 3, 4, 8}) {
        for (const auto& [d, group] : {std::pair{64, 32}, {80, 16}, {128, 64}}) {
            for (const char* kind : {"normal", "large channels", "offset", "mixed"}) {
                const FormatSpec spec = make_spec(format_rotated, d, bits, group);
                SCOPED_TRACE(label(spec, kind));
                const std::vector<float> rows = make_rows(kind, 2 * group, d);
                const Packed tile(spec, rows, rows);
                const reference::Rows y = centred_and_turned(rows, tile.side.data(), d);
                const auto restore = [&](const auto& x) {
                    return reference::affine_group(x, tile.spec.bits_k);
                };
                reference::Rows back =
                    turned(reference::by_groups(floats(y), 2 * group, d, 1, group, restore), d);
                for (Size i = 0; i < back.size(); ++i) {
                    back[i] += static_cast<double>(tile.side[i % static_cast<Size>(d)]);
                }
                for (const Side side : {Side::key, Side::value}) {
                    expect_error_as(error_between(rows, tile.unpacked(side)),
                                    error_between(rows, floats(back)), rows);
                }
                if (testing::Test::HasFatalFailure()) return;
            }
        }
    }
}

TEST(FormatRotated, LargeConstantChannelsCostNothing) {
    const std::vector<float> plain = make_rows("normal", 128, 64);
    const std::vector<float> shifted = make_rows("large channels", 128, 64);
    const FormatSpec spec = make_spec(format_rotated, 64, 4, 32);
    const double error = error_between(shifted, Packed(spec, shifted, shifted).unpacked(Side::key));
    EXPECT_LT(error, 1.05 * error_between(plain, Packed(spec, plain, plain).unpacked(Side::key)));
}

// 8 steps by turns per channel and per token; the scales that are stored apart are rounded to half.
reference::Rows kvarn_reference(const reference::Rows& y, int n, int d, bool key, int bits) {
    std::vector<double> a(static_cast<Size>(d), 1.0), b(static_cast<Size>(n), 1.0);
    for (int step = 0; step < 8; ++step) {
        std::vector<double>& scale = step % 2 == 0 ? a : b;
        for (Size line = 0; line < scale.size(); ++line) {
            double sum = 0.0;
            for (Size i = 0; i < y.size(); ++i) {
                const Size t = i / static_cast<Size>(d), c = i % static_cast<Size>(d);
                if ((step % 2 == 0 ? c : t) == line) sum += std::pow(y[i] / (a[c] * b[t]), 2.0);
            }
            const double count = step % 2 == 0 ? n : d;
            if (sum > 0.0) scale[line] *= std::sqrt(sum / count);
        }
    }
    std::vector<double>& apart = key ? b : a;
    double mean = 0.0;
    for (const double x : apart) mean += std::log2(x) / static_cast<double>(apart.size());
    for (double& x : apart) x = reference::half(x / std::exp2(mean));
    const auto at = [&](Size i) {
        return apart[key ? i / static_cast<Size>(d) : i % static_cast<Size>(d)];
    };
    std::vector<float> even;
    for (Size i = 0; i < y.size(); ++i) even.push_back(static_cast<float>(y[i] / at(i)));
    reference::Rows back =
        reference::by_groups(even, n, d, key ? 0 : 1, key ? n : d,
                             [&](const auto& x) { return reference::affine_group(x, bits); });
    // Each token of K or channel of V gets its length back.
    std::vector<double> before(apart.size(), 0.0), after(apart.size(), 0.0);
    for (Size i = 0; i < back.size(); ++i) {
        const Size line = key ? i / static_cast<Size>(d) : i % static_cast<Size>(d);
        before[line] += std::pow(static_cast<double>(even[i]), 2.0);
        after[line] += std::pow(back[i], 2.0);
    }
    for (Size line = 0; line < apart.size(); ++line) {
        if (after[line] > 0.0) apart[line] *= std::sqrt(before[line] / after[line]);
    }
    for (double& x : apart) x = reference::half(x);
    for (Size i = 0; i < back.size(); ++i) back[i] *= at(i);
    return back;
}

// A long answer packs what it keeps anew, again and again, always in another company.
TEST(FormatKvarn, PackingAnewDoesNotStretch) {
    for (const int bits : {2, 3, 4, 8}) {
        const std::vector<float> first = make_rows("normal", 128, 64);
        std::vector<float> rows = first;
        for (int round = 0; round < 60; ++round) {
            const Packed tile(make_spec(format_kvarn, 64, bits, 32), rows, rows);
            const std::vector<float> k = tile.unpacked(Side::key);
            const std::vector<float> fresh = make_rows("normal", 128, 64, 100U + round);
            for (Size i = 0; i < rows.size(); ++i) rows[i] = i / 64 % 4 == 3 ? fresh[i] : k[i];
        }
        double before = 0.0, after = 0.0;
        for (Size i = 0; i < rows.size(); ++i) {
            before += static_cast<double>(first[i]) * first[i];
            after += static_cast<double>(rows[i]) * rows[i];
        }
        EXPECT_NEAR(std::sqrt(after / before), 1.0, 0.1) << bits;
    }
}

TEST(FormatKvarn, EqualsTheFormulas) {
    for (const int bits : {2, 3, 4, 8}) {
        for (const auto& [d, group, tokens] :
             {std::tuple{64, 32, 128}, {80, 16, 48}, {16, 64, 64}}) {
            const FormatSpec spec = make_spec(format_kvarn, d, bits, group);
            SCOPED_TRACE(label(spec));
            std::vector<float> rows = make_rows("normal", tokens, d);
            for (Size i = 0; i < rows.size(); ++i) {  // uneven channels and tokens
                rows[i] *= static_cast<float>((1 + i % 5) * (1 + i / static_cast<Size>(d) % 9));
            }
            const Packed tile(spec, rows, rows);
            const reference::Rows y = centred_and_turned(rows, tile.side.data(), d);
            for (const Side side : {Side::key, Side::value}) {
                reference::Rows back =
                    turned(kvarn_reference(y, tokens, d, side == Side::key, bits), d);
                for (Size i = 0; i < back.size(); ++i) {
                    back[i] += static_cast<double>(tile.side[i % static_cast<Size>(d)]);
                }
                expect_error_as(error_between(rows, tile.unpacked(side)),
                                error_between(rows, floats(back)), rows);
            }
            if (testing::Test::HasFatalFailure()) return;
        }
    }
}

TEST(FormatKvarn, UnevenTokensCostLessThanPlainGroupsPerChannel) {
    std::vector<float> rows = make_rows("normal", 128, 64);
    for (Size i = 0; i < rows.size(); ++i) rows[i] *= i / 64 % 8 == 0 ? 12.0F : 0.5F;
    const Packed tile(make_spec(format_kvarn, 64, 2, 32), rows, rows);
    const reference::Rows plain = reference::by_groups(
        rows, 128, 64, 0, 128, [](const auto& x) { return reference::affine_group(x, 2); });
    EXPECT_LT(error_between(rows, tile.unpacked(Side::key)),
              0.7 * error_between(rows, floats(plain)));
}

TEST(GroupFit, IsNeverWorseThanTheRangeAndUnbiasedHasSlopeOne) {
    for (const int bits : {2, 3, 4, 8}) {
        for (const std::string& kind : reference::kKinds) {
            const std::vector<float> rows = make_rows(kind, 40, 64, 5);
            for (Size first = 0; first < rows.size(); first += 64) {
                float x[64];
                std::transform(rows.begin() + static_cast<long>(first),
                               rows.begin() + static_cast<long>(first) + 64, x, [](float value) {
                                   return static_cast<float>(reference::clamp_half(value));
                               });
                f16 scale, zero;
                std::uint8_t codes[64];
                solve_min_max(x, 64, bits, scale, zero, codes);
                const double plain = squared_error(x, 64, scale, zero, codes);
                solve_least_squares(x, 64, bits, scale, zero, codes);
                ASSERT_LE(squared_error(x, 64, scale, zero, codes), plain * 1.0001 + 1e-12)
                    << bits << " bits, " << kind;
                if (kind != "normal") continue;
                solve_unbiased(x, 64, bits, scale, zero, codes);
                double mean = 0.0, size = 0.0, together = 0.0;
                for (const float value : x) mean += value / 64.0;
                for (int i = 0; i < 64; ++i) {
                    const double back = codes[i] * static_cast<double>(f16_to_f32(scale)) +
                                        static_cast<double>(f16_to_f32(zero));
                    size += (x[i] - mean) * (x[i] - mean);
                    together += (x[i] - mean) * back;
                }
                ASSERT_NEAR(together / size, 1.0, 2e-3) << bits << " bits";
            }
        }
    }
}

TEST(BitShares, AreTheBestOfAllAndExactInSum) {
    constexpr int kChannels = 4 * kShareBunch;
    for (unsigned seed = 1; seed < 6; ++seed) {
        std::vector<float> losses;
        for (const float x : make_rows("normal", kChannels, 1, seed)) {
            for (int level = 0; level < kShareLevels; ++level) {
                losses.push_back(std::exp(3.0F * x) *
                                 std::exp2(-2.0F * static_cast<float>(kShareBits[level])));
            }
        }
        for (const int average : {2, 3, 4, 8}) {
            const std::vector<int> bits = share_bits(losses, kChannels, average);
            double got = 0.0, best = HUGE_VAL;
            int sum = 0;
            std::vector<Size> order(kChannels);
            for (Size c = 0; c < kChannels; ++c) {
                order[c] = c;
                sum += bits[c];
                const auto level = std::find(std::begin(kShareBits), std::end(kShareBits), bits[c]);
                got += losses[c * kShareLevels + static_cast<Size>(level - std::begin(kShareBits))];
            }
            ASSERT_EQ(sum, average * kChannels);
            std::sort(order.begin(), order.end(), [&](Size a, Size b) {
                return losses[a * kShareLevels + 1] < losses[b * kShareLevels + 1];
            });
            for (int each = 0; each < 625; ++each) {  // all levels of four bunches
                double loss = 0.0;
                int total = 0;
                for (int bunch = 0, rest = each; bunch < 4; ++bunch, rest /= 5) {
                    total += kShareBits[rest % 5];
                    for (int i = 0; i < kShareBunch; ++i) {
                        loss += losses[order[static_cast<Size>(bunch * kShareBunch + i)] *
                                           kShareLevels +
                                       static_cast<Size>(rest % 5)];
                    }
                }
                if (total == 4 * average) best = std::min(best, loss);
            }
            ASSERT_NEAR(got, best, 1e-5 * best) << "average " << average;
        }
    }
}

// Score errors under queries that look at few channels, or keys that vary in few.
TEST(FormatGraded, PutsBitsWhereScoresNeedThem) {
    std::vector<float> rows = make_rows("normal", 512, 64);
    for (Size i = 0; i < rows.size(); ++i) rows[i] *= i % 8 == 3 ? 8.0F : 0.5F;
    const FormatSpec spec = make_spec(format_graded, 64, 2, 64);
    const Packed tile(spec, rows, rows);
    for (int c = 0; c < 64; ++c) {
        if (c % 8 == 3) {
            EXPECT_EQ(tile.side[static_cast<Size>(c)], 8.0F) << c;
        }
    }
    const reference::Rows plain = reference::by_groups(
        rows, 512, 64, 0, 64, [](const auto& x) { return reference::affine_group(x, 2); });
    EXPECT_LT(error_between(rows, tile.unpacked(Side::key)),
              0.1 * error_between(rows, floats(plain)));

    // Known queries decide instead: they only look at channels 16 to 23.
    std::vector<float> side(64, 1e-6F);
    std::fill_n(side.begin() + 16, 8, 1.0F);
    const std::vector<float> even = make_rows("normal", 512, 64);
    format_graded.fit(spec, even, even, side.data());
    for (int c = 16; c < 24; ++c) EXPECT_EQ(side[static_cast<Size>(c)], 8.0F);
}

// The store hands each kv head the energy of its own queries, and a copy of it does too.
TEST(FormatGraded, TheStoreFitsOnTheQueriesOfEachHead) {
    constexpr int kTokens = 256, kDims = 64, kKvHeads = 2, kQueryHeads = 4;
    MemoryMeter cache, policy, work;
    SpanLayout layout{.spec = make_spec(format_graded, kDims, 2, 64), .residual_length = 64};
    LayerStore first(layout, kKvHeads, kQueryHeads, {}, &cache, &policy);
    // Heads 0 and 1 look at channels 0 to 7, heads 2 and 3 at channels 32 to 39.
    std::vector<float> q(static_cast<Size>(3 * kQueryHeads * kDims), 1e-3F);
    for (Size i = 0; i < q.size(); ++i) {
        const Size head = i / kDims % kQueryHeads, c = i % kDims;
        if (c / 8 == (head < 2 ? 0U : 4U)) q[i] = 1.0F;
    }
    first.note_queries(q.data(), 3);
    const auto store = first.clone(&cache, &policy);
    LayerKv kv(&work, std::vector<int>(kKvHeads, 0), kTokens, kDims);
    const std::vector<float> rows = make_rows("normal", kTokens * kKvHeads, kDims);
    kv.put(0, kTokens, rows.data(), rows.data(), 0);
    store->append(kv);
    store->note_queries(q.data(), 3);  // too late: what is packed must stay readable
    for (int g = 0; g < kKvHeads; ++g) {
        for (int c = 0; c < kDims; ++c) {
            const bool seen = c / 8 == (g == 0 ? 0 : 4);
            ASSERT_EQ(store->side_data(g)[c] == 8.0F, seen) << "head " << g << " channel " << c;
        }
    }
    EXPECT_GT(store->span(0).packed_tokens(), 0);
}

TEST(FormatGraded, ChannelsOfNoBitsFollowALine) {
    std::vector<float> rows = make_rows("normal", 64, 64);
    for (Size i = 0; i < rows.size(); ++i) {
        const Size t = i / 64, c = i % 64;
        rows[i] = c < 8 ? 0.25F * static_cast<float>(t) - 3.0F : 8.0F * rows[i];
    }
    const Packed tile(make_spec(format_graded, 64, 2, 64), rows, rows);
    const std::vector<float> back = tile.unpacked(Side::key);
    for (Size i = 0; i < rows.size(); ++i) {
        if (i % 64 < 8) {
            ASSERT_NEAR(back[i], rows[i], 5e-3);
        }
    }
    for (int c = 0; c < 8; ++c) EXPECT_EQ(tile.side[static_cast<Size>(c)], 0.0F);
    expect_kernels_agree(tile);
}

}  // namespace
}  // namespace winnow
