// The affine storage formats against the double-precision reference, and what holds for all.
#include <gtest/gtest.h>
#include <winnow/error.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "cache/code_pack.h"
#include "format_tiles.h"

namespace winnow {

extern const Format format_none;
extern const Format format_kivi;
extern const Format format_hqq;
extern const Format format_kvquant;

namespace {

TEST(CodePack, EveryWidthAndLengthComesBack) {
    for (const int bits : {2, 3, 4, 8}) {
        for (int count = 8; count <= 96; count += 8) {
            Bytes codes(static_cast<std::size_t>(count));
            for (int i = 0; i < count; ++i)
                codes[i] = static_cast<std::uint8_t>(i * 37 % (1 << bits));
            Bytes run(packed_bytes(bits, count)), back(codes.size());
            std::vector<float> floats(codes.size());
            pack_codes(bits, codes.data(), count, run.data());
            unpack_codes(bits, run.data(), count, back.data());
            unpack_codes(bits, run.data(), count, floats.data());
            EXPECT_EQ(back, codes) << bits << " bits, " << count;
            EXPECT_EQ(std::vector<float>(codes.begin(), codes.end()), floats);
        }
    }
}

TEST(CodePack, LowNibblesAreTheFirstHalf) {
    const Bytes codes{1, 2, 3, 4, 5, 6, 7, 8};
    Bytes run(4);
    pack_codes(4, codes.data(), 8, run.data());
    EXPECT_EQ(run, (Bytes{0x51, 0x62, 0x73, 0x84}));
}

TEST(FormatNone, RestoresHalvesAndCountsBytes) {
    const FormatSpec spec = make_spec(format_none, 80, 16, 32);
    format_none.check(spec);
    for (const std::string& kind : reference::kKinds) {
        SCOPED_TRACE(kind);
        const std::vector<float> rows = make_rows(kind, 7, 80);
        const Bytes data = packed(spec, Side::key, rows, 7, nullptr);
        EXPECT_EQ(data.size(), 7U * 80U * 2U);
        const std::vector<float> back = unpacked(spec, Side::key, view(data, 7));
        for (std::size_t i = 0; i < rows.size(); ++i) {
            ASSERT_EQ(back[i], reference::half(reference::clamp_half(rows[i])));
        }
        expect_kernels_agree(spec, view(data, 7), view(data, 7));
    }
}

TEST(FormatKivi, EqualsTheReferenceAndKeepsItsBound) {
    for_each_affine(format_kivi, [](const FormatSpec& spec) {
        const int tokens = spec.group_size, d = spec.head_dim, bits = spec.bits_k;
        for (const std::string& kind : kinds_for(spec)) {
            SCOPED_TRACE(kind);
            const std::vector<float> rows = make_rows(kind, tokens, d);
            const int axis = spec.key_axis;
            const Bytes data = packed(spec, Side::key, rows, tokens, nullptr);
            const std::vector<float> back = unpacked(spec, Side::key, view(data, tokens));
            const auto by = [&](auto restore) {
                return reference::by_groups(rows, tokens, d, axis, spec.group_size, restore);
            };
            expect_as_good(
                back, by([&](const auto& x) { return reference::affine_group(x, bits); }), rows);
            const reference::Rows bound = by([&](const auto& x) {
                return std::vector<double>(x.size(), reference::affine_bound(x, bits));
            });
            for (std::size_t i = 0; i < rows.size(); ++i) {
                const double x = reference::clamp_half(rows[i]);
                ASSERT_LE(std::fabs(back[i] - x), bound[i] * 1.001 + std::fabs(x) * 1e-6 + 1e-12);
            }
            if (testing::Test::HasFatalFailure()) return;
        }
    });
}

TEST(FormatKivi, ConstantAndTinyGroupsRestoreTheZero) {
    FormatSpec spec = make_spec(format_kivi, 32, 2, 32);
    for (const float value : {0.0F, -3.3F, 1e-9F, 70000.0F, -1e30F}) {
        std::vector<float> rows(32 * 32, value);
        rows[5] += 1e-9F;  // a range below half precision's smallest
        const Bytes data = packed(spec, Side::key, rows, 32, nullptr);
        for (const float x : unpacked(spec, Side::key, view(data, 32))) {
            ASSERT_EQ(x, reference::half(reference::clamp_half(value)));
        }
    }
}

TEST(FormatAffine, KernelsAgreeWithUnpack) {
    for (const Format* format : {&format_kivi, &format_hqq}) {
        for_each_affine(*format, [](const FormatSpec& spec) {
            const int tokens = 2 * spec.group_size;
            for (const char* kind : {"normal", "large channels"}) {
                const std::vector<float> rows = make_rows(kind, tokens, spec.head_dim, 3);
                const Bytes k = packed(spec, Side::key, rows, tokens, nullptr);
                const Bytes v = packed(spec, Side::value, rows, tokens, nullptr);
                expect_kernels_agree(spec, view(k, tokens), view(v, tokens));
                if (testing::Test::HasFatalFailure()) return;
            }
        });
    }
}

TEST(FormatAffine, TilesLaidEndToEndAreOneLongerTile) {
    for (const Format* format : {&format_kivi, &format_hqq}) {
        ASSERT_EQ(format->tile_tokens, nullptr);
        for_each_affine(*format, [](const FormatSpec& spec) {
            if (spec.head_dim > 80) return;
            const int group = spec.group_size, tokens = 3 * group;
            const std::vector<float> rows = make_rows("normal", tokens, spec.head_dim, 5);
            for (const Side side : {Side::key, Side::value}) {
                Bytes joined;
                for (int t = 0; t < tokens; t += group) {
                    const auto first = rows.begin() + t * spec.head_dim;
                    const std::vector<float> part(first, first + group * spec.head_dim);
                    const Bytes block = packed(spec, side, part, group, nullptr);
                    joined.insert(joined.end(), block.begin(), block.end());
                }
                ASSERT_EQ(joined, packed(spec, side, rows, tokens, nullptr));
            }
        });
    }
}

TEST(FormatAffine, BytesAreCodesPlusTwoHalvesPerGroup) {
    for_each_affine(format_kivi, [](const FormatSpec& spec) {
        const int tokens = 4 * spec.group_size;
        const std::size_t elements = static_cast<std::size_t>(tokens * spec.head_dim);
        const std::size_t want = elements * static_cast<std::size_t>(spec.bits_k) / 8 +
                                 elements / static_cast<std::size_t>(spec.group_size) * 4;
        for (const Side side : {Side::key, Side::value}) {
            EXPECT_EQ(format_kivi.bytes(spec, side, tokens), want);
            EXPECT_EQ(format_hqq.bytes(spec, side, tokens), want);
            EXPECT_EQ(format_kivi.bytes(spec, side, 0), 0U);
        }
    });
}

TEST(FormatAffine, SidesHaveTheirOwnBits) {
    for (const Format* format : {&format_kivi, &format_hqq, &format_kvquant}) {
        const RopeTable rope(RopeParams{.dims = 64});
        const std::vector<float> rows = make_rows("normal", 64, 64);
        std::vector<std::int32_t> positions(64);
        std::iota(positions.begin(), positions.end(), 100);
        for (const auto& [bits_k, bits_v] : {std::pair{8, 2}, {16, 4}, {4, 16}, {16, 16}}) {
            FormatSpec spec = make_spec(*format, 64, 4, 32);
            spec.bits_k = bits_k;
            spec.bits_v = bits_v;
            SCOPED_TRACE(label(spec));
            format->check(spec);
            const std::vector<float> side = fitted(spec, rows);
            const Bytes k = packed(spec, Side::key, rows, 64, side.data());
            const Bytes v = packed(spec, Side::value, rows, 64, side.data());
            TileView keys = view(k, 64, side), values = view(v, 64, side);
            keys.positions = positions.data();
            keys.rope = &rope;
            expect_kernels_agree(spec, keys, values);
            if (bits_k == 16) {
                EXPECT_EQ(k.size(), 64U * 64U * 2U);
                EXPECT_EQ(unpacked(spec, Side::key, keys)[5], reference::half(rows[5]));
            }
        }
    }
}
TEST(FormatKivi, TwoBitKeysPerChannelDoNotCollapse) {
    const std::vector<float> rows = make_rows("large channels", 256, 64);
    FormatSpec spec = make_spec(format_kivi, 64, 2, 32);
    double error[2] = {};
    for (const int axis : {0, 1}) {
        spec.key_axis = axis;
        const Bytes data = packed(spec, Side::key, rows, 256, nullptr);
        error[axis] = relative_error(unpacked(spec, Side::key, view(data, 256)), rows, 64);
    }
    EXPECT_LT(error[0], 0.5);
    EXPECT_LT(error[0] * 10.0, error[1]);
}

// The solver's objective, by group: the mean absolute error never exceeds that of its own start,
// and follows the double-precision solver.
TEST(FormatHqq, FollowsTheSolver) {
    for_each_affine(format_hqq, [](const FormatSpec& spec) {
        const int tokens = spec.group_size, d = spec.head_dim, bits = spec.bits_k;
        if (d * tokens > 64 * 64) return;
        for (const std::string& kind : kinds_for(spec)) {
            SCOPED_TRACE(kind);
            const std::vector<float> rows = make_rows(kind, tokens, d);
            const Bytes data = packed(spec, Side::key, rows, tokens, nullptr);
            const std::vector<float> back = unpacked(spec, Side::key, view(data, tokens));
            const reference::Rows want =
                reference::by_groups(rows, tokens, d, spec.key_axis, spec.group_size,
                                     [&](const auto& x) { return reference::hqq_group(x, bits); });
            double got_error = 0.0, want_error = 0.0, size = 0.0;
            for (std::size_t i = 0; i < rows.size(); ++i) {
                const double x = reference::clamp_half(rows[i]);
                ASSERT_TRUE(std::isfinite(back[i]));
                got_error += std::fabs(back[i] - x);
                want_error += std::fabs(want[i] - x);
                size += std::fabs(x);
            }
            // A step more or less at a near tie changes single groups, not their sum.
            ASSERT_NEAR(got_error, want_error, 0.01 * want_error + 1e-6 * size);
        }
    });
}

TEST(FormatHqq, BeatsPlainAffineOnHeavyTails) {
    for (const int bits : {2, 3, 4}) {
        std::vector<float> rows = make_rows("normal", 256, 64);
        for (float& x : rows) x = x * x * x;
        double error[2] = {};
        for (const Format* format : {&format_kivi, &format_hqq}) {
            const FormatSpec spec = make_spec(*format, 64, bits, 64);
            const Bytes data = packed(spec, Side::key, rows, 256, nullptr);
            const std::vector<float> back = unpacked(spec, Side::key, view(data, 256));
            for (std::size_t i = 0; i < rows.size(); ++i) {
                error[format == &format_hqq ? 1 : 0] += std::fabs(back[i] - rows[i]);
            }
        }
        EXPECT_LT(error[1], error[0] * 0.98) << bits << " bits";
    }
}

TEST(Formats, NanIsAnErrorThatNamesFormatAndSide) {
    for (const Format* format : {&format_none, &format_kivi, &format_hqq, &format_kvquant}) {
        const int bits = format == &format_none ? 16 : 4;
        const FormatSpec spec = make_spec(*format, 32, bits, 32);
        std::vector<float> rows = make_rows("normal", 32, 32);
        const std::vector<float> side = fitted(spec, rows);
        rows[2 * 32 + 9] = std::numeric_limits<float>::quiet_NaN();
        Bytes out(1 << 16);
        for (const Side which : {Side::key, Side::value}) {
            try {
                format->pack(spec, which, rows.data(), 32, side.data(), out.data());
                FAIL() << format->name;
            } catch (const Error& error) {
                const std::string text = error.what();
                EXPECT_EQ(error.kind(), ErrorKind::failure);
                EXPECT_NE(text.find(format->name), std::string::npos) << text;
                EXPECT_NE(text.find(which == Side::key ? "keys" : "values"), std::string::npos);
                EXPECT_NE(text.find("token 2"), std::string::npos) << text;
                EXPECT_NE(text.find("channel 9"), std::string::npos) << text;
            }
        }
        if (format->fit != nullptr) {
            std::vector<float> levels(side.size());
            EXPECT_THROW(format->fit(spec, rows, rows, levels.data()), Error);
        }
    }
}

// The text of the usage Error of check(), or "" where it passes.
std::string complaint(const FormatSpec& spec) {
    try {
        spec.format->check(spec);
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::usage);
        return error.what();
    }
    return "";
}

TEST(Formats, CheckNamesTheFlag) {
    const auto changed = [](const Format& format, auto change) {
        FormatSpec spec = make_spec(format, 80, 4, 16);
        change(spec);
        return complaint(spec);
    };
    const auto has = [](const std::string& text, const std::string& part) {
        return text.find(part) != std::string::npos;
    };
    for (const Format* format : {&format_kivi, &format_hqq, &format_kvquant}) {
        EXPECT_EQ(changed(*format, [](FormatSpec&) {}), "");
        EXPECT_TRUE(has(changed(*format, [](FormatSpec& s) { s.bits_k = 5; }), "--nbits-k is 5"));
        EXPECT_TRUE(has(changed(*format, [](FormatSpec& s) { s.bits_v = 1; }), "--nbits-v is 1"));
        EXPECT_TRUE(
            has(changed(*format, [](FormatSpec& s) { s.group_size = 12; }), "--group-size"));
        EXPECT_TRUE(
            has(changed(*format, [](FormatSpec& s) { s.key_axis = 2; }), "--key-axis is 2"));
        EXPECT_TRUE(has(changed(*format, [](FormatSpec& s) { s.head_dim = 20; }), "head_dim"));
    }
    const std::string group = changed(format_kivi, [](FormatSpec& s) { s.group_size = 32; });
    EXPECT_TRUE(has(group, "--group-size is 32") && has(group, "head_dim of 80")) << group;
    EXPECT_EQ(changed(format_kivi,
                      [](FormatSpec& s) {
                          s.group_size = 32;
                          s.value_axis = 0;
                      }),
              "");
    EXPECT_TRUE(has(changed(format_kivi, [](FormatSpec& s) { s.outlier_threshold = 6.0F; }),
                    "--outlier-threshold"));
    EXPECT_TRUE(has(changed(format_kvquant, [](FormatSpec& s) { s.outlier_threshold = -1.0F; }),
                    "--outlier-threshold"));
    EXPECT_TRUE(has(changed(format_kvquant, [](FormatSpec& s) { s.key_axis = 1; }), "--key-axis"));
    EXPECT_TRUE(has(complaint(make_spec(format_none, 64, 8, 32)), "--nbits-k is 8"));
}

TEST(Formats, PartialGroupsAreRefused) {
    for (const Format* format : {&format_kivi, &format_hqq, &format_kvquant}) {
        const FormatSpec spec = make_spec(*format, 32, 4, 32);
        EXPECT_THROW(format->bytes(spec, Side::key, 33), Error);
    }
    EXPECT_THROW(format_kvquant.bytes(make_spec(format_kvquant, 32, 4, 32), Side::key, 544), Error);
}

}  // namespace
}  // namespace winnow
