// The formats that fit something to a kv head's rows, rotated, kvarn and graded: what holds for all
// of them, and rotated and kvarn against the formulas in double precision.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "fitted_tiles.h"
#include "kernels/isa.h"
#include "winnow/error.h"

namespace winnow {
namespace {

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

}  // namespace
}  // namespace winnow
