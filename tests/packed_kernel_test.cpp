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

// |fast - reference| relative to the sum of magnitudes, which is what rounding scales with.
void expect_close(const std::vector<float>& fast, const std::vector<float>& wanted, double size,
                  const std::string& what) {
    for (std::size_t i = 0; i < fast.size(); ++i) {
        ASSERT_TRUE(std::isfinite(fast[i])) << what << " at " << i;
        ASSERT_NEAR(fast[i], wanted[i], 2e-6 * size + 1e-6) << what << " at " << i;
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
        spec.format->dot_k(spec, tile, q.data(), c.heads, fast.data(), stride);
        affine_dot_k_reference(spec, zero, tile, q.data(), c.heads, wanted.data(), stride);
        expect_close(fast, wanted, magnitude(x) * magnitude(q) * c.head_dim, what + ", dot_k");

        const std::vector<float> w = rows(c.heads, static_cast<int>(stride), false);
        std::vector<float> out(static_cast<std::size_t>(c.heads) * c.head_dim, 0.5F), sum = out;
        spec.format->add_v(spec, tile, w.data(), stride, c.heads, out.data());
        affine_add_v_reference(spec, zero, tile, w.data(), stride, c.heads, sum.data());
        expect_close(out, sum, magnitude(x) * magnitude(w) * tokens, what + ", add_v");
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
