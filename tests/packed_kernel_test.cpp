// The packed kernels against the scalar references of the formats, on every instruction set.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "cache/affine.h"
#include "cache/format.h"
#include "cache/rows.h"
#include "kernels/dense.h"
#include "kernels/isa.h"
#include "kernels/packed.h"

namespace winnow {
namespace {

class PackedKernelTest : public ::testing::TestWithParam<std::string> {
  protected:
    void SetUp() override {
        force_isa(GetParam());
        ASSERT_EQ(kernel_isa(), GetParam()) << "the forced instruction set did not run";
    }
    void TearDown() override { force_isa(""); }

    std::mt19937 random_{11};

    // Normal rows; `wild` adds huge channels, tiny ones and constants.
    std::vector<float> rows(int tokens, int head_dim, bool wild) {
        std::normal_distribution<float> normal;
        std::vector<float> x(static_cast<std::size_t>(tokens) * head_dim);
        for (std::size_t i = 0; i < x.size(); ++i) {
            const int channel = static_cast<int>(i) % head_dim;
            x[i] = normal(random_);
            if (wild) {
                x[i] = channel % 7 == 0 ? 300.0F + x[i] : channel % 5 == 0 ? 1e-6F * x[i] : x[i];
                x[i] = channel % 11 == 0 ? 2.5F : x[i];
            }
        }
        return x;
    }
};

constexpr double kFloat = 2e-6;  // what sums of floats may lose
// What rounding coefficients to 16 bits may lose: half a unit for each code, and the largest code
// times its scale is at most twice the largest magnitude.
constexpr double kRounded = kFloat + 2.0 / 65534.0;

// |fast - reference| relative to the sum of magnitudes, which is what rounding scales with.
void expect_close(const std::vector<float>& fast, const std::vector<float>& wanted, double size,
                  const std::string& what, double tolerance = kFloat) {
    for (std::size_t i = 0; i < fast.size(); ++i) {
        ASSERT_TRUE(std::isfinite(fast[i])) << what << " at " << i;
        ASSERT_NEAR(fast[i], wanted[i], tolerance * size + 1e-6) << what << " at " << i;
    }
}

double magnitude(const std::vector<float>& rows) {
    double largest = 0.0;
    for (float x : rows) {
        largest = std::max(largest, static_cast<double>(std::abs(x)));
    }
    return largest;
}

struct Case {
    const char* format;
    int bits, head_dim, group, heads, blocks, axis;
    bool wild;
};

std::vector<Case> cases() {
    std::vector<Case> all;
    for (const char* format : {"kivi", "hqq"}) {
        for (const int bits : {2, 3, 4, 8, 16}) {
            for (const int axis : {0, 1}) {
                for (const int head_dim : {64, 80, 128, 256}) {
                    for (const int group : {8, 16, 32, 64}) {
                        if (head_dim % group == 0 || axis == 0) {
                            const int heads = 1 + static_cast<int>(all.size()) % 9;
                            all.push_back({format, bits, head_dim, group, heads,
                                           1 + static_cast<int>(all.size()) % 3, axis,
                                           all.size() % 2 == 1});
                        }
                    }
                }
            }
        }
    }
    return all;
}

TEST_P(PackedKernelTest, EqualTheScalarReference) {
    for (const Case& c : cases()) {
        const std::string what = std::string(c.format) + " " + std::to_string(c.bits) +
                                 " bits, D " + std::to_string(c.head_dim) + ", group " +
                                 std::to_string(c.group) + ", R " + std::to_string(c.heads) +
                                 ", axis " + std::to_string(c.axis);
        FormatSpec spec{.format = &find_format(c.format),
                        .head_dim = c.head_dim,
                        .bits_k = c.bits,
                        .bits_v = c.bits,
                        .group_size = c.group,
                        .key_axis = c.axis,
                        .value_axis = c.axis};
        // hqq's codes may have any zero; the reference reads them alike.
        const AffineZero zero =
            std::string(c.format) == "hqq" ? AffineZero::code : AffineZero::value;
        const int tokens = c.group * c.blocks;
        const std::vector<float> x = rows(tokens, c.head_dim, c.wild);
        std::vector<std::uint8_t> packed(spec.format->bytes(spec, Side::key, tokens));
        spec.format->pack(spec, Side::key, x.data(), tokens, nullptr, packed.data());
        const TileView tile{.data = packed.data(), .tokens = tokens};
        const std::size_t stride = static_cast<std::size_t>(tokens) + 3;

        const std::vector<float> q = rows(c.heads, c.head_dim, false);
        std::vector<float> fast(c.heads * stride, -7.0F), wanted = fast;
        const double dot_size = magnitude(x) * magnitude(q) * c.head_dim;
        spec.format->dot_k(spec, tile, q.data(), c.heads, fast.data(), stride);
        affine_dot_k_reference(spec, zero, tile, q.data(), c.heads, wanted.data(), stride);
        expect_close(fast, wanted, dot_size, what + ", dot_k", c.bits == 16 ? kFloat : kRounded);

        if (c.bits < 16) {  // the same rounding in plain loops
            reference::affine_dot_rows(affine_blocks(spec, Side::key, zero, tile), q.data(),
                                       c.heads, wanted.data(), stride);
            expect_close(fast, wanted, dot_size, what + ", dot_k against integers");
        }
        if (c.bits < 16 && zero == AffineZero::value && c.axis == 0) {
            affine_dot_k(spec, AffineZero::centred, tile, q.data(), c.heads, fast.data(), stride);
            reference::affine_dot_rows(affine_blocks(spec, Side::key, AffineZero::centred, tile),
                                       q.data(), c.heads, wanted.data(), stride);
            expect_close(fast, wanted, dot_size, what + ", centred dot_k against integers");
        }

        spec.format->pack(spec, Side::value, x.data(), tokens, nullptr, packed.data());
        const std::vector<float> w = rows(c.heads, static_cast<int>(stride), false);
        const double add_size = magnitude(x) * magnitude(w) * tokens;
        const std::vector<float> start(static_cast<std::size_t>(c.heads) * c.head_dim, 0.5F);
        std::vector<float> out = start, sum = start;
        spec.format->add_v(spec, tile, w.data(), stride, c.heads, out.data());
        affine_add_v_reference(spec, zero, tile, w.data(), stride, c.heads, sum.data());
        expect_close(out, sum, add_size, what + ", add_v", c.bits == 16 ? kFloat : kRounded);
        if (c.bits < 16) {
            sum = start;
            reference::affine_add_rows(affine_blocks(spec, Side::value, zero, tile), w.data(),
                                       stride, c.heads, sum.data());
            expect_close(out, sum, add_size, what + ", add_v against integers");
        }
    }
}

double rms(const std::vector<double>& x) {
    double sum = 0.0;
    for (const double value : x) sum += value * value;
    return std::sqrt(sum / static_cast<double>(x.size()));
}

// What the rounding of q and of the weights adds is small beside the error of the cache itself,
// also with the outlier channels that keys have.
TEST_P(PackedKernelTest, RoundingAddsLittleToTheErrorOfTheCache) {
    constexpr int kTokens = 512, kHeads = 3, kDim = 64;
    for (const int bits : {2, 3, 4, 8}) {
        std::vector<float> x = rows(kTokens, kDim, false);
        for (std::size_t i = 0; i < x.size(); i += 16) x[i] = 20.0F + 8.0F * x[i];
        FormatSpec spec{
            .format = &find_format("kivi"), .head_dim = kDim, .bits_k = bits, .bits_v = bits};
        std::vector<std::uint8_t> k(spec.format->bytes(spec, Side::key, kTokens)), v = k;
        spec.format->pack(spec, Side::key, x.data(), kTokens, nullptr, k.data());
        spec.format->pack(spec, Side::value, x.data(), kTokens, nullptr, v.data());
        const TileView keys{.data = k.data(), .tokens = kTokens};
        const TileView values{.data = v.data(), .tokens = kTokens};
        const std::vector<float> q = rows(kHeads, kDim, false);
        std::vector<float> scores(kHeads * kTokens), exact = scores, kept(x.size());
        spec.format->dot_k(spec, keys, q.data(), kHeads, scores.data(), kTokens);
        affine_dot_k_reference(spec, AffineZero::value, keys, q.data(), kHeads, exact.data(),
                               kTokens);
        std::vector<double> own, added;
        for (int r = 0; r < kHeads; ++r) {
            for (int t = 0; t < kTokens; ++t) {
                double plain = 0.0;
                for (int c = 0; c < kDim; ++c) {
                    plain +=
                        static_cast<double>(q[r * kDim + c]) * static_cast<double>(x[t * kDim + c]);
                }
                own.push_back(static_cast<double>(exact[r * kTokens + t]) - plain);
                added.push_back(static_cast<double>(scores[r * kTokens + t]) -
                                static_cast<double>(exact[r * kTokens + t]));
            }
        }
        EXPECT_LE(rms(added), (bits == 8 ? 0.05 : 0.01) * rms(own)) << bits << " bits, scores";

        std::vector<float> w(kHeads * kTokens);  // from flat to one token that takes it all
        for (int r = 0; r < kHeads; ++r) {
            for (int t = 0; t < kTokens; ++t) {
                w[r * kTokens + t] = std::exp(-3.0F * static_cast<float>(r) *
                                              std::abs(scores[r * kTokens + t]) / 40.0F);
            }
        }
        std::vector<float> out(kHeads * kDim), wanted = out;
        spec.format->add_v(spec, values, w.data(), kTokens, kHeads, out.data());
        affine_add_v_reference(spec, AffineZero::value, values, w.data(), kTokens, kHeads,
                               wanted.data());
        own.clear();
        added.clear();
        for (int i = 0; i < kHeads * kDim; ++i) {
            double plain = 0.0;
            for (int t = 0; t < kTokens; ++t) {
                plain += static_cast<double>(w[i / kDim * kTokens + t]) *
                         static_cast<double>(x[t * kDim + i % kDim]);
            }
            own.push_back(static_cast<double>(wanted[i]) - plain);
            added.push_back(static_cast<double>(out[i]) - static_cast<double>(wanted[i]));
        }
        EXPECT_LE(rms(added), (bits == 8 ? 0.05 : 0.01) * rms(own)) << bits << " bits, output";
    }
}

// The largest codes and coefficients, of one sign, must not overflow a 32-bit sum.
TEST_P(PackedKernelTest, NothingOverflows) {
    for (const int bits : {2, 3, 4, 8}) {
        for (const auto& [head_dim, group] : {std::pair{64, 512}, {1024, 8}, {256, 64}}) {
            FormatSpec spec{.format = &find_format("kivi"),
                            .head_dim = head_dim,
                            .bits_k = bits,
                            .bits_v = bits,
                            .group_size = group,
                            .key_axis = 0,
                            .value_axis = 0};
            // One low number per channel, the rest on top.
            std::vector<float> x(static_cast<std::size_t>(head_dim) * group, 60000.0F);
            std::fill_n(x.begin(), head_dim, 0.0F);
            std::vector<std::uint8_t> packed(spec.format->bytes(spec, Side::key, group));
            spec.format->pack(spec, Side::key, x.data(), group, nullptr, packed.data());
            const TileView tile{.data = packed.data(), .tokens = group};
            const std::vector<float> q(static_cast<std::size_t>(head_dim), 1000.0F);
            std::vector<float> scores(static_cast<std::size_t>(group));
            spec.format->dot_k(spec, tile, q.data(), 1, scores.data(), scores.size());
            for (int t = 1; t < group; ++t) {
                ASSERT_NEAR(scores[t], 6e7F * static_cast<float>(head_dim),
                            1e5F * static_cast<float>(head_dim));
            }
            spec.format->pack(spec, Side::value, x.data(), group, nullptr, packed.data());
            const std::vector<float> w(static_cast<std::size_t>(group), 1.0F);
            std::vector<float> out(static_cast<std::size_t>(head_dim));
            spec.format->add_v(spec, tile, w.data(), w.size(), 1, out.data());
            for (const float value : out) {
                ASSERT_NEAR(value, 6e4F * static_cast<float>(group - 1),
                            1e2F * static_cast<float>(group));
            }
        }
    }
}

TEST_P(PackedKernelTest, F16RowsOfAnyLength) {
    for (const int head_dim : {8, 24, 64, 80, 128, 256}) {
        for (const int tokens : {1, 2, 3, 4, 5, 7, 31, 33}) {
            for (const int heads : {1, 3, 4, 7, 8}) {
                FormatSpec spec{.format = &find_format("none"), .head_dim = head_dim};
                const std::vector<float> x = rows(tokens, head_dim, tokens % 2 == 0);
                std::vector<std::uint8_t> packed(spec.format->bytes(spec, Side::key, tokens));
                spec.format->pack(spec, Side::key, x.data(), tokens, nullptr, packed.data());
                const TileView tile{.data = packed.data(), .tokens = tokens};
                const std::size_t stride = static_cast<std::size_t>(tokens);
                const std::vector<float> q = rows(heads, head_dim, false);
                std::vector<float> fast(heads * stride), wanted = fast;
                f16_rows_dot_k(spec, tile, q.data(), heads, fast.data(), stride);
                f16_rows_dot_k_reference(spec, tile, q.data(), heads, wanted.data(), stride);
                expect_close(fast, wanted, magnitude(x) * magnitude(q) * head_dim, "dot_k");
                const std::vector<float> w = rows(heads, tokens, false);
                std::vector<float> out(static_cast<std::size_t>(heads) * head_dim), sum = out;
                f16_rows_add_v(spec, tile, w.data(), stride, heads, out.data());
                f16_rows_add_v_reference(spec, tile, w.data(), stride, heads, sum.data());
                expect_close(out, sum, magnitude(x) * magnitude(w) * tokens, "add_v");
            }
        }
    }
}

// Joined blocks are one run, and a run read in parts gives the same bits.
TEST_P(PackedKernelTest, PartsOfARunGiveTheSameBits) {
    const FormatSpec spec{.format = &find_format("kivi"), .head_dim = 64, .bits_k = 4, .bits_v = 4};
    const std::vector<float> x = rows(128, 64, false);
    std::vector<std::uint8_t> packed(spec.format->bytes(spec, Side::key, 128));
    spec.format->pack(spec, Side::key, x.data(), 128, nullptr, packed.data());
    const std::vector<float> q = rows(3, 64, false);
    std::vector<float> whole(3 * 128), parts(3 * 128);
    spec.format->dot_k(spec, {.data = packed.data(), .tokens = 128}, q.data(), 3, whole.data(),
                       128);
    for (int t = 0; t < 128; t += 32) {
        spec.format->dot_k(
            spec, {.data = packed.data() + spec.format->bytes(spec, Side::key, t), .tokens = 32},
            q.data(), 3, parts.data() + t, 128);
    }
    EXPECT_EQ(whole, parts);
}

INSTANTIATE_TEST_SUITE_P(Isa, PackedKernelTest, ::testing::ValuesIn(available_isas()),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace winnow
