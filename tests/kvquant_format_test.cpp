// kvquant and its codebooks against the double-precision reference.
#include <gtest/gtest.h>
#include <winnow/error.h>

#include <cmath>
#include <string>
#include <vector>

#include "cache/codebook.h"
#include "format_tiles.h"

namespace winnow {

extern const Format format_kvquant;

namespace {

TEST(Codebook, FindsSeparatedClusters) {
    std::vector<float> samples;
    for (int i = 0; i < 400; ++i) {
        const float centre = std::vector<float>{-0.75F, -0.25F, 0.5F, 1.0F}[i % 4];
        samples.push_back(centre + 0.01F * static_cast<float>(i / 4 % 3 - 1));
    }
    float levels[4];
    fit_codebook(samples, 2, levels);
    EXPECT_NEAR(levels[0], -0.75, 2e-3);
    EXPECT_NEAR(levels[1], -0.25, 2e-3);
    EXPECT_NEAR(levels[2], 0.5, 2e-3);
    EXPECT_NEAR(levels[3], 1.0, 2e-3);
    std::vector<float> none;
    fit_codebook(none, 2, levels);
    EXPECT_LT(levels[0], levels[3]);
}

class FormatKvquant : public testing::TestWithParam<float> {};

TEST_P(FormatKvquant, EqualsTheReferenceAndItsKernelsAgree) {
    for (const auto& [d, group, tokens] : {std::tuple{8, 8, 16},
                                           {32, 16, 48},
                                           {64, 32, 512},
                                           {80, 32, 64},
                                           {128, 64, 256},
                                           {256, 32, 288}}) {
        for (const int bits : {2, 3, 4, 8}) {
            const std::string kind = reference::kKinds[static_cast<std::size_t>(d / 8 + bits) %
                                                       reference::kKinds.size()];
            for (const std::string& each : {std::string("normal"), kind}) {
                FormatSpec spec = make_spec(format_kvquant, d, bits, group);
                spec.outlier_threshold = GetParam();
                SCOPED_TRACE(label(spec, each));
                const std::vector<float> rows = make_rows(each, tokens, d);
                const std::vector<float> side = fitted(spec, rows);
                for (const float level : side) ASSERT_EQ(level, reference::half(level));
                const Bytes k = packed(spec, Side::key, rows, tokens, side.data());
                const Bytes v = packed(spec, Side::value, rows, tokens, side.data());
                TileView keys = view(k, tokens, side), values = view(v, tokens, side);
                const auto restore = [&](const float* levels) {
                    return [&spec, levels](const auto& x) {
                        return reference::kvquant_vector(x, levels, spec.bits_k,
                                                         spec.outlier_threshold);
                    };
                };
                expect_as_good(
                    unpacked(spec, Side::key, keys),
                    reference::by_groups(rows, tokens, d, 0, tokens, restore(side.data())), rows);
                expect_as_good(
                    unpacked(spec, Side::value, values),
                    reference::by_groups(rows, tokens, d, 1, d, restore(side.data() + (1 << bits))),
                    rows);
                for (const bool halves : {false, true}) {
                    const RopeTable rope(RopeParams{.dims = d / 4 * 2, .halves = halves});
                    std::vector<std::int32_t> positions;
                    for (int t = 0; t < tokens; ++t) positions.push_back(t * 3 + 1);
                    keys.positions = positions.data();
                    keys.rope = &rope;
                    expect_kernels_agree(spec, keys, values);
                }
                if (testing::Test::HasFatalFailure()) return;
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Threshold, FormatKvquant, testing::Values(0.0F, 2.5F));

TEST(FormatKvquantRules, TheLargestComeBackExactly) {
    for (const float threshold : {0.0F, 6.0F}) {
        FormatSpec spec = make_spec(format_kvquant, 64, 2, 32);
        spec.outlier_threshold = threshold;
        std::vector<float> rows = make_rows("normal", 256, 64);
        for (int c = 0; c < 64; ++c) {  // two spikes a channel; at most one for each token
            rows[static_cast<std::size_t>(c * 64 + c)] = 20.123F;
            rows[static_cast<std::size_t>((c + 128) * 64 + c)] = -31.77F;
        }
        const std::vector<float> side = fitted(spec, rows);
        const Bytes k = packed(spec, Side::key, rows, 256, side.data());
        const Bytes v = packed(spec, Side::value, rows, 256, side.data());
        const std::vector<float> keys = unpacked(spec, Side::key, view(k, 256, side));
        const std::vector<float> values = unpacked(spec, Side::value, view(v, 256, side));
        for (std::size_t i = 0; i < rows.size(); ++i) {
            if (std::fabs(rows[i]) < 19.0F) continue;
            EXPECT_EQ(keys[i], reference::half(rows[i]));
            EXPECT_EQ(values[i], reference::half(rows[i]));
        }
    }
}

TEST(FormatKvquantRules, BytesAreExact) {
    const FormatSpec spec = make_spec(format_kvquant, 64, 4, 32);
    // K: 64 channels of 256 tokens: 4 + 128 + 3 x (2 + 2) bytes; V: 4 + 32 + (2 + 1) each.
    EXPECT_EQ(format_kvquant.bytes(spec, Side::key, 256), 64U * (4 + 128 + 3 * 4));
    EXPECT_EQ(format_kvquant.bytes(spec, Side::value, 256), 256U * (4 + 32 + 3));
    EXPECT_EQ(format_kvquant.tile_tokens(spec), 512);
    EXPECT_EQ(format_kvquant.side_floats(spec), 32);
    EXPECT_EQ(format_kvquant.tile_tokens(make_spec(format_kvquant, 64, 4, 48)), 480);
}

TEST(FormatKvquantRules, LevelsBeatEvenOnes) {
    for (const int bits : {2, 3, 4, 8}) {
        const FormatSpec spec = make_spec(format_kvquant, 64, bits, 32);
        const std::vector<float> rows = make_rows("normal", 1024, 64);
        const std::vector<float> tile(rows.begin(), rows.begin() + 512 * 64);
        const std::vector<float> side = fitted(spec, rows);
        std::vector<float> even(side.size());
        for (std::size_t i = 0; i < even.size(); ++i) {
            const auto levels = static_cast<float>(1 << bits);
            const auto at = static_cast<float>(i % (std::size_t{1} << bits));
            even[i] = -1.0F + 2.0F * at / (levels - 1.0F);
        }
        double error[2] = {};
        for (const int which : {0, 1}) {
            const std::vector<float>& levels = which == 0 ? side : even;
            const Bytes k = packed(spec, Side::key, tile, 512, levels.data());
            error[which] =
                relative_error(unpacked(spec, Side::key, view(k, 512, levels)), tile, 64);
        }
        EXPECT_LT(error[0], error[1] * 0.95) << bits << " bits";
    }
}

TEST(FormatKvquantRules, WhatIsMissingIsNamed) {
    const FormatSpec spec = make_spec(format_kvquant, 32, 4, 32);
    const std::vector<float> rows = make_rows("normal", 32, 32);
    const std::vector<float> side = fitted(spec, rows);
    const Bytes k = packed(spec, Side::key, rows, 32, side.data());
    float scores[32];
    EXPECT_THROW(format_kvquant.dot_k(spec, view(k, 32, side), rows.data(), 1, scores, 32), Error);
    EXPECT_THROW(unpacked(spec, Side::key, view(k, 32)), Error);
}

}  // namespace
}  // namespace winnow
