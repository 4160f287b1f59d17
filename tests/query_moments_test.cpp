// The running mean and covariance of queries before RoPE.
#include "cache/query_moments.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "core/rope.h"

namespace winnow {
namespace {

constexpr int kHeads = 3;
constexpr int kDims = 16;

// Queries before RoPE with a common offset per channel, and the same after it.
struct Queries {
    int count;
    RopeTable rope;
    std::vector<float> plain, turned;  // [count][H][D]

    Queries(int n, bool halves, float offset)
        : count(n), rope(RopeParams{.dims = kDims - 4, .halves = halves}) {
        std::mt19937 generator(n);
        std::normal_distribution<float> normal(0.0F, 1.0F);
        for (int i = 0; i < n * kHeads; ++i) {
            float common = 0.0F;
            for (int d = 0; d < kDims; ++d) {
                const float x = normal(generator);
                common = 0.5F * common + x;  // neighbouring channels are correlated
                plain.push_back(common + offset * static_cast<float>(d % 5));
            }
        }
        turned = plain;
        for (int i = 0; i < n * kHeads; ++i) {
            rope.rotate(turned.data() + i * kDims, i / kHeads);
        }
    }
};

void expect_moments(const Queries& queries, int skip, double error) {
    QueryMoments moments(nullptr, kHeads, kDims, skip);
    moments.add(queries.turned.data(), queries.count, 0, queries.rope, 2);
    ASSERT_EQ(moments.count(), queries.count - skip);
    std::vector<float> mean, covariance;
    moments.read(mean, covariance);
    const auto at = [&](int i, int h, int d) {
        return static_cast<double>(
            queries.plain[static_cast<std::size_t>((i * kHeads + h) * kDims + d)]);
    };
    const int n = queries.count - skip;
    for (int h = 0; h < kHeads; ++h) {
        std::vector<double> mu(kDims, 0.0);
        for (int d = 0; d < kDims; ++d) {
            for (int i = skip; i < queries.count; ++i) {
                mu[d] += at(i, h, d) / n;
            }
            EXPECT_NEAR(mean[h * kDims + d], mu[d], error);
        }
        for (int a = 0; a < kDims; ++a) {
            for (int b = 0; b < kDims; ++b) {
                double want = 0.0;
                for (int i = skip; i < queries.count; ++i) {
                    want += (at(i, h, a) - mu[a]) * (at(i, h, b) - mu[b]) / n;
                }
                ASSERT_NEAR(covariance[(h * kDims + a) * kDims + b], want, error) << a << " " << b;
            }
        }
    }
}

TEST(QueryMoments, MatchTheFormula) {
    for (const bool halves : {false, true}) {
        expect_moments(Queries(5, halves, 0.0F), 4, 1e-4);
        expect_moments(Queries(300, halves, 0.0F), 4, 1e-4);
        // The offset is a hundred times the spread, as with a bias on the queries.
        expect_moments(Queries(300, halves, 30.0F), 0, 3e-3);
    }
}

TEST(QueryMoments, DoNotDependOnChunksThreadsOrCopies) {
    const Queries queries(200, true, 3.0F);
    QueryMoments whole(nullptr, kHeads, kDims, 4);
    whole.add(queries.turned.data(), 200, 0, queries.rope, 1);
    std::vector<float> mean, covariance;
    whole.read(mean, covariance);
    for (const int chunk : {1, 3, 64}) {
        QueryMoments parts(nullptr, kHeads, kDims, 4);
        for (int first = 0; first < 200; first += chunk) {
            parts = parts.clone(nullptr);
            parts.add(queries.turned.data() + static_cast<std::size_t>(first) * kHeads * kDims,
                      std::min(chunk, 200 - first), first, queries.rope, 3);
        }
        std::vector<float> other_mean, other_covariance;
        parts.read(other_mean, other_covariance);
        EXPECT_EQ(other_mean, mean) << "chunks of " << chunk;
        EXPECT_EQ(other_covariance, covariance) << "chunks of " << chunk;
    }
}

TEST(QueryMoments, AreZeroBeforeTheFirstQuery) {
    QueryMoments moments(nullptr, 1, 4, 4);
    std::vector<float> mean, covariance;
    moments.read(mean, covariance);
    EXPECT_EQ(mean, std::vector<float>(4, 0.0F));
    EXPECT_EQ(covariance, std::vector<float>(16, 0.0F));
    EXPECT_EQ(moments.bytes(), (4 + 4 + 10) * sizeof(float));
}

}  // namespace
}  // namespace winnow
