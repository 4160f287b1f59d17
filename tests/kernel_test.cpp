// The dense kernels against their scalar references, on every instruction set this machine has.
#include <gtest/gtest.h>
#include <winnow/error.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/dense.h"
#include "kernels/isa.h"

namespace winnow {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Forces each set through WINNOW_ISA, as a user does.
class KernelTest : public ::testing::TestWithParam<std::string> {
  protected:
    void SetUp() override {
        setenv("WINNOW_ISA", GetParam().c_str(), 1);
        apply_forced_isa();
        ASSERT_EQ(kernel_isa(), GetParam()) << "the forced instruction set did not run";
    }
    void TearDown() override {
        unsetenv("WINNOW_ISA");
        force_isa("");
    }

    std::mt19937 random_{7};
    std::normal_distribution<float> normal_;

    std::vector<float> floats(std::size_t n, float scale = 1.0F) {
        std::vector<float> x(n);
        for (float& value : x) {
            value = scale * normal_(random_);
        }
        return x;
    }
};

TEST_P(KernelTest, MultiplyEqualsItsReference) {
    for (const int rows : {1, 2, 3, 5, 6, 7, 8, 13, 64}) {
        for (const int depth : {0, 1, 2, 31, 32, 65, 128}) {
            for (const int columns : {kColumnBlock, 3 * kColumnBlock}) {
                const std::size_t a_stride = static_cast<std::size_t>(depth) + 3;
                const std::size_t stride = static_cast<std::size_t>(columns) + 5;
                const auto a = floats(static_cast<std::size_t>(rows) * a_stride);
                const auto b = floats(static_cast<std::size_t>(depth + 1) * stride);
                const auto start = floats(static_cast<std::size_t>(rows) * stride);
                for (const bool accumulate : {false, true}) {
                    auto c = start, wanted = start;
                    multiply(a.data(), a_stride, b.data(), stride, c.data(), stride, rows, columns,
                             depth, accumulate);
                    reference::multiply(a.data(), a_stride, b.data(), stride, wanted.data(), stride,
                                        rows, columns, depth, accumulate);
                    for (std::size_t i = 0; i < c.size(); ++i) {
                        ASSERT_NEAR(c[i], wanted[i], 1e-6F * static_cast<float>(depth + 4))
                            << rows << " x " << columns << " x " << depth << " at " << i;
                    }
                }
            }
        }
    }
}

TEST_P(KernelTest, MultiplyGivesARowTheSameBitsInAnyBlocking) {
    constexpr int kRows = 23, kDepth = 96;
    const auto a = floats(kRows * kDepth);
    const auto b = floats(kDepth * kColumnBlock);
    std::vector<float> together(kRows * kColumnBlock), alone(kColumnBlock);
    multiply(a.data(), kDepth, b.data(), kColumnBlock, together.data(), kColumnBlock, kRows,
             kColumnBlock, kDepth, false);
    for (int row = 0; row < kRows; ++row) {
        multiply(a.data() + row * kDepth, kDepth, b.data(), kColumnBlock, alone.data(),
                 kColumnBlock, 1, kColumnBlock, kDepth, false);
        EXPECT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + row * kColumnBlock));
    }
}

TEST_P(KernelTest, MaxOfIsExact) {
    EXPECT_EQ(max_of(nullptr, 0), -kInfinity);
    for (int n = 1; n < 70; ++n) {
        auto x = floats(static_cast<std::size_t>(n), 1e30F);
        EXPECT_EQ(max_of(x.data(), n), reference::max_of(x.data(), n));
        for (const float value : {kInfinity, std::numeric_limits<float>::max(), -kInfinity}) {
            x[static_cast<std::size_t>(n) / 2] = value;
            EXPECT_EQ(max_of(x.data(), n), reference::max_of(x.data(), n)) << n << " " << value;
        }
        std::fill(x.begin(), x.end(), -kInfinity);
        EXPECT_EQ(max_of(x.data(), n), -kInfinity);
    }
}

TEST_P(KernelTest, ExpAndSumStaysWithinAFewUlps) {
    for (const float spread : {0.1F, 4.0F, 30.0F, 200.0F}) {
        for (int n = 0; n < 70; ++n) {
            auto x = floats(static_cast<std::size_t>(n), spread);
            if (n > 3) {
                x[1] = -kInfinity;  // a masked score
            }
            const float most = n == 0 ? 0.0F : reference::max_of(x.data(), n);
            auto wanted = x;
            const float sum = exp_and_sum(x.data(), n, most);
            const float wanted_sum = reference::exp_and_sum(wanted.data(), n, most);
            EXPECT_NEAR(sum, wanted_sum, 2e-6F * wanted_sum);
            for (std::size_t i = 0; i < x.size(); ++i) {
                // Below exp's range the kernels may flush to 0.
                ASSERT_NEAR(x[i], wanted[i], 1e-6F * wanted[i] + 1e-37F) << spread << " " << i;
            }
        }
    }
}

TEST_P(KernelTest, ScaleAndAddScaledEqualPlainLoops) {
    for (int n = 0; n < 70; ++n) {
        const auto x = floats(static_cast<std::size_t>(n));
        auto out = floats(static_cast<std::size_t>(n) + 1);
        const auto before = out;
        add_scaled(out.data(), x.data(), n, 0.37F);
        for (int i = 0; i < n; ++i) {
            EXPECT_NEAR(out[i], before[i] + 0.37F * x[i], 1e-6F);
        }
        EXPECT_EQ(out.back(), before.back()) << "wrote past the end";
        auto scaled = x;
        scaled.push_back(5.0F);
        scale_by(scaled.data(), n, -3.0F);
        for (int i = 0; i < n; ++i) {
            EXPECT_EQ(scaled[i], -3.0F * x[i]);
        }
        EXPECT_EQ(scaled.back(), 5.0F) << "wrote past the end";
    }
}

TEST_P(KernelTest, WidenIsExactForEveryFiniteHalf) {
    std::vector<f16> halves;
    for (int code = 0; code < 0x7C00; ++code) {
        halves.push_back(static_cast<f16>(code));
        halves.push_back(static_cast<f16>(code | 0x8000));
    }
    std::vector<float> wide(halves.size()), wanted(halves.size());
    widen(halves.data(), wide.data(), halves.size());
    reference::widen(halves.data(), wanted.data(), halves.size());
    for (std::size_t i = 0; i < wide.size(); ++i) {
        ASSERT_EQ(wide[i], wanted[i]) << halves[i];
        ASSERT_EQ(std::signbit(wide[i]), std::signbit(wanted[i])) << halves[i];
    }
    for (std::size_t n = 0; n < 40; ++n) {  // tails of any length, nothing behind them
        std::vector<float> out(n + 1, 1.5F);
        widen(halves.data() + 777, out.data(), n);
        EXPECT_TRUE(std::equal(out.begin(), out.end() - 1, wanted.begin() + 777));
        EXPECT_EQ(out.back(), 1.5F);
    }
}

TEST_P(KernelTest, NarrowRoundsToTheNearestEven) {
    std::vector<float> x{0.0F,          -0.0F,          65504.0F,       -65504.0F, 65519.0F,
                         65520.0F,      1e9F,           -1e30F,         kInfinity, -kInfinity,
                         5.9604645e-8F, 2.98023224e-8F, 2.98023259e-8F, 1e-30F,    -1e-40F,
                         6.0975552e-5F, 6.1035156e-5F};
    for (int code = 0; code < 0x7BFF; ++code) {  // each half, and the middle to the next one
        const float low = f16_to_f32(static_cast<f16>(code));
        const float high = f16_to_f32(static_cast<f16>(code + 1));
        const float middle = 0.5F * (low + high);
        for (const float value :
             {low, middle, std::nextafter(middle, low), std::nextafter(middle, high)}) {
            x.push_back(value);
            x.push_back(-value);
        }
    }
    std::vector<f16> halves(x.size()), wanted(x.size());
    narrow(x.data(), halves.data(), x.size());
    reference::narrow(x.data(), wanted.data(), x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
        ASSERT_EQ(halves[i], wanted[i]) << x[i];
    }
    for (std::size_t n = 0; n < 40; ++n) {  // tails of any length, nothing behind them
        std::vector<f16> out(n + 1, 0x1234);
        narrow(x.data(), out.data(), n);
        EXPECT_TRUE(std::equal(out.begin(), out.end() - 1, wanted.begin()));
        EXPECT_EQ(out.back(), 0x1234);
    }
}

TEST_P(KernelTest, WidenTransposedFillsThePadding) {
    constexpr int kPadded = 64;
    for (const int head_dim : {8, 32, 80, 128, 256, 520}) {
        for (const int tokens : {0, 1, 7, 8, 9, 63, 64}) {
            const std::size_t size = static_cast<std::size_t>(head_dim) * kPadded;
            const auto rows = floats(size);
            std::vector<f16> halves(size);
            narrow(rows.data(), halves.data(), size);
            std::vector<float> out(size, kInfinity), wanted(size);
            widen_transposed(halves.data(), tokens, head_dim, out.data(), kPadded);
            reference::widen_transposed(halves.data(), tokens, head_dim, wanted.data(), kPadded);
            ASSERT_EQ(out, wanted) << head_dim << " channels, " << tokens << " tokens";
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Isas, KernelTest, ::testing::ValuesIn(available_isas()),
                         [](const auto& test) { return test.param; });

TEST(KernelIsa, AnUnknownOneIsRefusedByName) {
    setenv("WINNOW_ISA", "ALTIVEC", 1);
    try {
        apply_forced_isa();
        ADD_FAILURE() << "no error";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::usage);
        EXPECT_NE(std::string(error.what()).find("WINNOW_ISA is ALTIVEC"), std::string::npos);
        EXPECT_NE(std::string(error.what()).find(available_isas().front()), std::string::npos);
    }
    unsetenv("WINNOW_ISA");
}

TEST(KernelIsa, ThereIsMoreThanOneOnX86) {
#if defined(__x86_64__)
    EXPECT_GE(available_isas().size(), 2U);
#endif
    EXPECT_FALSE(available_isas().empty());
}

}  // namespace
}  // namespace winnow
