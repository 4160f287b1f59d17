// Rows in codes of 0 to 8 bits: what is lost, the slope, and rows that are not normal.
#include "cache/bunched_row.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/restore.h"

namespace winnow {
namespace {

constexpr int kDims = 64;

struct Row {
    std::vector<std::uint8_t> bits;
    std::vector<std::uint8_t> codes;
    std::vector<float> back;
    std::uint8_t scale = 0;

    Row(std::vector<std::uint8_t> of_bunches, const std::vector<float>& u)
        : bits(std::move(of_bunches)),
          codes(std::accumulate(bits.begin(), bits.end(), std::size_t{0})),
          back(u.size()) {
        scale = BunchedRow(bits.data(), kDims).pack(u.data(), codes.data());
        restore(scale);
    }
    void restore(int byte) {
        std::vector<float> zero(kDims), step(kDims);
        for (int i = 0; i < kDims; ++i) step[i] = kNormalStep[bits[i / 8]];
        reference::restore_bunches({.data = codes.data(),
                                    .step = codes.size(),
                                    .runs = 1,
                                    .bunches = kDims / 8,
                                    .widths = bits.data()},
                                   zero.data(), step.data(), scale_bytes() + byte, back.data());
    }
    double weight(int i) const { return bits[i / 8] == 0 ? 0.0 : 1.0 / kNormalLoss[bits[i / 8]]; }
    double error(const std::vector<float>& u) const {
        double sum = 0.0;
        for (int i = 0; i < kDims; ++i) sum += weight(i) * std::pow(u[i] - back[i], 2.0);
        return sum;
    }
    double slope(const std::vector<float>& u) const {
        double along = 0.0, whole = 0.0;
        for (int i = 0; i < kDims; ++i) {
            along += weight(i) * static_cast<double>(u[i]) * back[i];
            whole += weight(i) * static_cast<double>(u[i]) * u[i];
        }
        return along / whole;
    }
};

std::vector<float> normal_row(unsigned seed, float size) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0F, size);
    std::vector<float> u(kDims);
    for (float& x : u) x = normal(random);
    return u;
}

const std::vector<std::vector<std::uint8_t>> kShares = {{2, 2, 2, 2, 2, 2, 2, 2},
                                                        {3, 3, 3, 3, 3, 3, 3, 3},
                                                        {8, 4, 2, 2, 0, 0, 0, 0},
                                                        {4, 4, 3, 3, 2, 2, 8, 8},
                                                        {8, 8, 8, 8, 8, 8, 8, 8}};

TEST(BunchedRow, LosesLittleMoreThanTheBestStepsAndHasASlopeOfOne) {
    for (const auto& shares : kShares) {
        for (const float size : {1.0F, 0.01F, 300.0F}) {
            double error = 0.0, expected = 0.0, slope = 0.0;
            const int rows = 40;
            for (int seed = 1; seed <= rows; ++seed) {
                const std::vector<float> u = normal_row(static_cast<unsigned>(seed), size);
                const Row row(shares, u);
                error += row.error(u);
                slope += row.slope(u) / rows;
                // The scale is one of 8 an octave, so mostly within a 23rd of what it should be.
                ASSERT_NEAR(row.slope(u), 1.0, 0.06);
                for (int i = 0; i < kDims; ++i) {
                    expected += row.weight(i) * kNormalLoss[shares[i / 8]] * size * size;
                }
            }
            SCOPED_TRACE("first bunches " + std::to_string(shares[0]) + " " +
                         std::to_string(shares[1]) + ", size " + std::to_string(size));
            EXPECT_NEAR(slope, 1.0, 0.01);
            EXPECT_LT(error, 1.5 * expected);
            EXPECT_GT(error, 0.3 * expected) << "better than it can be";
        }
    }
}

// A value that stands out takes a larger scale only as far as it pays.
TEST(BunchedRow, NoOtherScaleOfTheSameCodesIsMuchBetter) {
    for (const auto& shares : kShares) {
        for (unsigned seed = 1; seed < 20; ++seed) {
            std::vector<float> u = normal_row(seed, 1.0F);
            u[seed] *= 6.0F;
            Row row(shares, u);
            const double got = row.error(u);
            double best = HUGE_VAL;
            for (int byte = 0; byte < 256; ++byte) {
                row.restore(byte);
                best = std::min(best, row.error(u));
            }
            EXPECT_LT(got, 1.6 * best + 1e-6) << "the slope costs more than it should";
        }
    }
}

TEST(BunchedRow, RowsThatAreNotNormalStayFinite) {
    for (const auto& shares : kShares) {
        for (const float x : {0.0F, 1e-30F, 1e-3F, 6.5e9F, -6.5e9F}) {
            const Row row(shares, std::vector<float>(kDims, x));
            for (const float back : row.back) ASSERT_TRUE(std::isfinite(back)) << x;
        }
    }
}

}  // namespace
}  // namespace winnow
