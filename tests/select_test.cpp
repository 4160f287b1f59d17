#include "prune/select.h"

#include <gtest/gtest.h>
#include <winnow/error.h>

#include <limits>
#include <numeric>
#include <random>

#include "policy_reference.h"

namespace winnow {
namespace {

using Kept = std::vector<std::int32_t>;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kTiny = std::numeric_limits<float>::denorm_min();

void expect_as_sorted(const std::vector<float>& scores) {
    const int tokens = static_cast<int>(scores.size());
    for (const Protected fixed : {Protected{}, Protected{2, 0}, Protected{0, 3}, Protected{1, 2},
                                  Protected{3, 4}, Protected{50, 1}, Protected{1, 50}}) {
        for (int budget = 0; budget <= tokens + 1; ++budget) {
            EXPECT_EQ(select(scores, tokens, budget, fixed),
                      reference::keep_best(scores, tokens, budget, fixed.front, fixed.back))
                << "budget " << budget << " front " << fixed.front << " back " << fixed.back;
        }
    }
}

TEST(Select, TiesGoToTheEarlierToken) {
    expect_as_sorted(std::vector<float>(17, 0.25F));
    EXPECT_EQ(select(std::vector<float>(9, 1.0F), 9, 4, {0, 1}), (Kept{0, 1, 2, 8}));
}

TEST(Select, SignedZerosTie) {
    expect_as_sorted({-0.0F, 0.0F, -0.0F, 0.0F, -kTiny, kTiny, 0.0F, -0.0F});
    EXPECT_EQ(select(std::vector<float>{-0.0F, 0.0F, 0.0F}, 3, 1, {}), (Kept{0}));
}

TEST(Select, NanRanksLast) {
    expect_as_sorted({kNan, -kInf, kNan, 1.0F, -kNan, -1.0F, kInf, kNan, 0.0F});
    expect_as_sorted(std::vector<float>(11, kNan));
    EXPECT_EQ(select(std::vector<float>{kNan, -kInf, -kNan}, 3, 1, {}), (Kept{1}));
}

TEST(Select, InfinitiesAndDenormals) {
    expect_as_sorted({kInf, -kInf, kInf, kTiny, 2.0F * kTiny, -kTiny, -2.0F * kTiny, 0.0F,
                      std::numeric_limits<float>::min(), std::numeric_limits<float>::max(),
                      std::numeric_limits<float>::lowest(), -kInf});
}

TEST(Select, FewDistinctRandomValues) {
    std::mt19937 generator(7);
    const std::vector<float> values{0.0F, -0.0F, 1.0F, -1.0F, kNan, kInf, -kInf, kTiny, 0.5F};
    for (int round = 0; round < 20; ++round) {
        std::vector<float> scores(1 + generator() % 40);
        for (float& x : scores) {
            x = values[generator() % values.size()];
        }
        expect_as_sorted(scores);
    }
}

TEST(Select, LongRandomScores) {
    std::mt19937 generator(8);
    std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
    std::vector<float> scores(20000);
    for (float& x : scores) {
        x = std::round(uniform(generator) * 3000.0F) / 3000.0F;  // many ties
    }
    for (const int budget : {1, 37, 512, 10000, 19999}) {
        EXPECT_EQ(select(scores, 20000, budget, {4, 32}),
                  reference::keep_best(scores, 20000, budget, 4, 32));
    }
}

TEST(Select, ProtectedRangesAreClippedToTheBudget) {
    const std::vector<float> scores(10, 1.0F);
    EXPECT_EQ(select(scores, 10, 5, {3, 4}), (Kept{0, 1, 2, 8, 9}));
    EXPECT_EQ(select(scores, 10, 2, {3, 4}), (Kept{0, 1}));
    EXPECT_EQ(select(scores, 10, 3, {0, 100}), (Kept{7, 8, 9}));
    EXPECT_EQ(select(scores, 10, 3, {-5, -5}), (Kept{0, 1, 2}));
}

TEST(Select, NeedsNoScoresWhereTheRangesDecide) {
    EXPECT_EQ(select({}, 10, 5, {2, 3}), (Kept{0, 1, 7, 8, 9}));
    EXPECT_EQ(select({}, 3, 5, {}), (Kept{0, 1, 2}));
    EXPECT_EQ(select({}, 3, 3, {}), (Kept{0, 1, 2}));
    EXPECT_TRUE(select({}, 0, 5, {4, 4}).empty());
    EXPECT_TRUE(select({}, 5, 0, {4, 4}).empty());
    EXPECT_TRUE(select({}, 5, -1, {4, 4}).empty());
}

TEST(Select, MissingScoresAreAnError) {
    try {
        select(std::vector<float>(4, 0.0F), 10, 5, {1, 1});
        FAIL() << "4 scores for 10 tokens were taken";
    } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find("4 scores for 10 tokens"), std::string::npos);
    }
}

}  // namespace
}  // namespace winnow
