// Restoring packed rows, turning them by RoPE and transposing, against their scalar references, bit
// for bit; and the products of float rows against plain sums.
#include "kernels/restore.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "core/f16.h"
#include "kernels/dense.h"
#include "kernels/isa.h"
#include "kernels/level_rows.h"
#include "kernels/packed.h"

namespace winnow {
namespace {

class RestoreTest : public ::testing::TestWithParam<std::string> {
  protected:
    void SetUp() override {
        force_isa(GetParam());
        ASSERT_EQ(kernel_isa(), GetParam());
    }
    void TearDown() override { force_isa(""); }

    std::vector<float> numbers(std::size_t n, float size = 1.0F) {
        std::normal_distribution<float> normal(0.0F, size);
        std::vector<float> x(n);
        for (float& value : x) value = normal(random_);
        return x;
    }
    std::vector<std::uint8_t> bytes(std::size_t n) {
        std::vector<std::uint8_t> x(n);
        for (auto& value : x) value = static_cast<std::uint8_t>(random_());
        return x;
    }
    std::vector<std::uint8_t> halves(int n) {
        std::vector<std::uint8_t> x;
        for (const float value : numbers(static_cast<std::size_t>(n))) {
            const f16 half = f32_to_f16(value);
            x.push_back(static_cast<std::uint8_t>(half & 0xFF));
            x.push_back(static_cast<std::uint8_t>(half >> 8));
        }
        return x;
    }
    std::mt19937 random_{11};
};

TEST_P(RestoreTest, CodesGiveTheReferencesBits) {
    for (const int bits : {2, 3, 4, 8}) {
        for (const int count : {8, 16, 24, 32, 64, 72, 128, 256, 512}) {
            SCOPED_TRACE(std::to_string(bits) + " bits, " + std::to_string(count) + " codes");
            const int n = 5;
            const std::size_t step = static_cast<std::size_t>(bits * count / 8 + 3);
            const std::vector<std::uint8_t> data = bytes(step * n);
            const CodeRuns runs{
                .data = data.data(), .step = step, .runs = n, .count = count, .bits = bits};
            const std::size_t size = static_cast<std::size_t>(n * count);
            std::vector<float> fast(size + 1, 7.0F), plain(size + 1, 7.0F);
            const std::vector<float> levels = numbers(256);
            const std::vector<std::uint8_t> scales = halves(n), offsets = halves(n);
            restore_levels(runs, levels.data(), scales.data(), offsets.data(), fast.data());
            reference::restore_levels(runs, levels.data(), scales.data(), offsets.data(),
                                      plain.data());
            EXPECT_EQ(fast, plain) << "levels";
            // Some rows pass the range of half precision.
            const std::vector<float> offset = numbers(static_cast<std::size_t>(count)),
                                     spread = numbers(static_cast<std::size_t>(count), 30.0F),
                                     scale = numbers(n, 200.0F);
            restore_channels(runs, offset.data(), spread.data(), scale.data(), fast.data());
            reference::restore_channels(runs, offset.data(), spread.data(), scale.data(),
                                        plain.data());
            EXPECT_EQ(fast, plain) << "channels";
        }
    }
}

TEST_P(RestoreTest, BunchesGiveTheReferencesBits) {
    for (const int bunches : {1, 2, 8, 9, 16, 64}) {
        std::vector<std::uint8_t> widths;
        for (int j = 0; j < bunches; ++j) {
            const std::uint8_t known[] = {3, 0, 8, 2, 4};
            widths.push_back(known[random_() % 5]);
        }
        const std::size_t row = std::accumulate(widths.begin(), widths.end(), std::size_t{0});
        SCOPED_TRACE(std::to_string(bunches) + " bunches of " + std::to_string(row) + " bytes");
        const int n = 5;
        const std::size_t step = row + 3, count = static_cast<std::size_t>(8 * bunches);
        // Nothing lies behind the last row: a longer read would leave the buffer.
        const std::vector<std::uint8_t> data = bytes(step * (n - 1) + row);
        const BunchRuns runs{.data = data.data(),
                             .step = step,
                             .runs = n,
                             .bunches = bunches,
                             .widths = widths.data()};
        std::vector<float> fast(n * count + 1, 7.0F), plain(n * count + 1, 7.0F);
        const std::vector<float> offset = numbers(count), spread = numbers(count, 30.0F),
                                 scale = numbers(n, 200.0F);
        restore_bunches(runs, offset.data(), spread.data(), scale.data(), fast.data());
        reference::restore_bunches(runs, offset.data(), spread.data(), scale.data(), plain.data());
        EXPECT_EQ(fast, plain);
    }
}

TEST_P(RestoreTest, PanelsGiveTheReferencesBits) {
    for (const int bits : {2, 3, 4, 8}) {
        for (const int lanes : {8, 16, 24, 32, 64, 128}) {
            for (const int rows : {8, 64, 72}) {
                const auto size = static_cast<std::size_t>(rows * lanes);
                const std::vector<std::uint8_t> panel =
                    bytes(size * static_cast<std::size_t>(bits) / 8);
                const std::vector<float> scale = numbers(static_cast<std::size_t>(rows)),
                                         zero = numbers(static_cast<std::size_t>(rows));
                std::vector<float> fast(size), plain(size);
                restore_panel(panel.data(), bits, rows, lanes, scale.data(), zero.data(),
                              fast.data());
                reference::restore_panel(panel.data(), bits, rows, lanes, scale.data(), zero.data(),
                                         plain.data());
                EXPECT_EQ(fast, plain)
                    << bits << " bits, " << rows << " rows of " << lanes << " lanes";
            }
        }
    }
}

TEST_P(RestoreTest, RotationAndTranspositionGiveTheReferencesBits) {
    for (const bool together : {false, true}) {
        for (const int pairs : {0, 1, 8, 16, 20, 32, 64}) {
            const int d = 2 * pairs + 8, n = 7;
            std::vector<float> fast = numbers(static_cast<std::size_t>(n * d)), plain = fast;
            const std::vector<float> table = numbers(static_cast<std::size_t>(2 * n * pairs));
            std::vector<const float*> angles;
            for (int t = 0; t < n; ++t) angles.push_back(table.data() + 2 * t * pairs);
            rotate_rows(fast.data(), n, d, pairs, together, angles.data());
            reference::rotate_rows(plain.data(), n, d, pairs, together, angles.data());
            EXPECT_EQ(fast, plain) << pairs << " pairs, halves " << together;
        }
    }
    for (const int rows : {1, 4, 7, 32, 64}) {
        for (const int columns : {1, 5, 8, 32}) {
            const std::vector<float> from = numbers(static_cast<std::size_t>(rows * columns));
            std::vector<float> fast(from.size()), plain(from.size());
            transpose(from.data(), rows, columns, fast.data());
            reference::transpose(from.data(), rows, columns, plain.data());
            EXPECT_EQ(fast, plain) << rows << " x " << columns;
        }
    }
}

TEST_P(RestoreTest, FloatRowsMultiplyAsPlainSumsDo) {
    for (const int d : {8, 24, 64, 80, 256}) {
        for (const int heads : {1, 3, 4, 5, 7}) {
            for (const int n : {1, 3, 32}) {
                const auto size = [](int a, int b) { return static_cast<std::size_t>(a * b); };
                const std::vector<float> rows = numbers(size(n, d)), q = numbers(size(heads, d)),
                                         weights = numbers(size(heads, n + 2));
                std::vector<float> scores(size(heads, n + 2), 9.0F), out = numbers(size(heads, d));
                const std::vector<float> before = out;
                float_dot_rows(rows.data(), n, d, q.data(), heads, scores.data(),
                               static_cast<std::size_t>(n + 2));
                float_add_rows(rows.data(), n, d, weights.data(), static_cast<std::size_t>(n + 2),
                               heads, out.data());
                for (int r = 0; r < heads; ++r) {
                    for (int t = 0; t < n; ++t) {
                        double sum = 0.0;
                        for (int c = 0; c < d; ++c) {
                            sum += static_cast<double>(q[r * d + c]) *
                                   static_cast<double>(rows[t * d + c]);
                        }
                        ASSERT_NEAR(scores[r * (n + 2) + t], sum, 1e-4);
                    }
                    ASSERT_EQ(scores[r * (n + 2) + n], 9.0F) << "wrote past the row";
                    for (int c = 0; c < d; ++c) {
                        double sum = static_cast<double>(before[r * d + c]);
                        for (int t = 0; t < n; ++t) {
                            sum += static_cast<double>(weights[r * (n + 2) + t]) *
                                   static_cast<double>(rows[t * d + c]);
                        }
                        ASSERT_NEAR(out[r * d + c], sum, 1e-4);
                    }
                }
            }
        }
    }
}

TEST_P(RestoreTest, LevelsAreAddedAsTheReferenceDoes) {
    for (const int bits : {2, 3, 4, 8}) {
        for (const int count : {8, 32, 64, 72, 128, 256}) {
            for (const int heads : {1, 2, 3, 4, 7}) {
                const int n = 37, stride = n + 2;
                const std::size_t step = static_cast<std::size_t>(bits * count / 8 + 1);
                const std::vector<std::uint8_t> data = bytes(step * n);
                const CodeRuns runs{
                    .data = data.data(), .step = step, .runs = n, .count = count, .bits = bits};
                const std::vector<float> levels = numbers(256), weights = numbers(stride * heads);
                std::vector<float> fast = numbers(static_cast<std::size_t>(heads * count));
                std::vector<float> plain = fast;
                add_level_rows(runs, levels.data(), weights.data(), stride, heads, fast.data());
                reference::add_level_rows(runs, levels.data(), weights.data(), stride, heads,
                                          plain.data());
                for (std::size_t i = 0; i < fast.size(); ++i) {
                    ASSERT_NEAR(fast[i], plain[i], 1e-4)
                        << bits << " bits, " << count << " codes, " << heads << " heads";
                }
            }
        }
    }
}

TEST_P(RestoreTest, TurnedRowsMultiplyAsTheReferenceDoes) {
    for (const bool halves : {false, true}) {
        for (const int pairs : {4, 8, 16, 20, 32, 64}) {
            for (const int heads : {1, 2, 3, 5}) {
                for (const int rest : {0, 8, 16}) {
                    const int d = 2 * pairs + rest, n = 7, stride = n + 1;
                    const std::vector<float> rows = numbers(static_cast<std::size_t>(n * d)),
                                             q = numbers(static_cast<std::size_t>(heads * d)),
                                             table =
                                                 numbers(static_cast<std::size_t>(2 * n * pairs));
                    std::vector<const float*> angles;
                    for (int t = 0; t < n; ++t) angles.push_back(table.data() + 2 * t * pairs);
                    std::vector<float> fast(static_cast<std::size_t>(heads * stride), 9.0F);
                    std::vector<float> plain = fast, scratch = rows;
                    dot_turned_rows(scratch.data(), n, d, pairs, halves, angles.data(), q.data(),
                                    heads, fast.data(), stride);
                    scratch = rows;
                    reference::dot_turned_rows(scratch.data(), n, d, pairs, halves, angles.data(),
                                               q.data(), heads, plain.data(), stride);
                    for (std::size_t i = 0; i < fast.size(); ++i) {
                        ASSERT_NEAR(fast[i], plain[i], 2e-4) << pairs << " pairs, " << d;
                    }
                }
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Isas, RestoreTest, ::testing::ValuesIn(available_isas()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace winnow
