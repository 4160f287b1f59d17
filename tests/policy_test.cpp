// Every policy against the plain references of policy_reference.h.
#include "prune/policy.h"

#include <gtest/gtest.h>
#include <winnow/error.h>

#include <numeric>

#include "policy_reference.h"
#include "policy_shown.h"
#include "prune/select.h"

namespace winnow {

extern const Policy policy_full;
extern const Policy policy_streamingllm;
extern const Policy policy_h2o;
extern const Policy policy_snapkv;
extern const Policy policy_pyramidkv;
extern const Policy policy_random;

namespace {

using namespace shown;  // NOLINT: the fixtures of every test of a policy

// Scores within f32 rounding, the same bits for 1, 2 and 3 threads, and the same kept set.
void expect_snapkv(const Layer& layer, const PolicyParams& params) {
    const Scores got = score(policy_snapkv, Shown(layer, params.window_size, 1).seen, params);
    for (const int threads : {2, 3}) {
        const Shown shown(layer, params.window_size, threads);
        EXPECT_TRUE(same_bits(got, score(policy_snapkv, shown.seen, params)))
            << "with " << threads << " threads";
    }
    for (int g = 0; g < layer.kv_heads; ++g) {
        const int tokens = layer.tokens[g];
        std::vector<double> want = reference::snapkv_scores(layer, g, params);
        for (std::size_t t = 0; t < want.size(); ++t) {
            ASSERT_NEAR(got[g][t], want[t], 1e-5 * want[t] + 1e-12) << "head " << g << " t " << t;
        }
        for (std::size_t t = want.size(); t < got[g].size(); ++t) {
            EXPECT_EQ(got[g][t], 0.0F) << "a token of the window";
        }
        want.resize(tokens, 0.0);
        EXPECT_EQ(keep(policy_snapkv, params, got[g], tokens),
                  reference::keep_best(want, tokens, params.cap, 0, params.window_size));
    }
}

TEST(SnapKv, MatchesTheReference) {
    unsigned seed = 1;
    for (const int group : {1, 3, 7}) {
        for (const int window : {1, 8, 32}) {
            for (const Pooling pooling : {Pooling::max, Pooling::avg}) {
                for (const GqaAgg agg : {GqaAgg::mean, GqaAgg::max, GqaAgg::sum}) {
                    const int kernel = std::array{1, 3, 7}[seed % 3];
                    SCOPED_TRACE("R " + std::to_string(group) + " W " + std::to_string(window) +
                                 " kernel " + std::to_string(kernel));
                    const Layer layer(group, {150, 150}, 18, seed++);
                    expect_snapkv(layer, {.cap = 60,
                                          .window_size = window,
                                          .kernel_size = kernel,
                                          .pooling = pooling,
                                          .agg = agg});
                }
            }
        }
    }
}

TEST(SnapKv, SumsOverSeveralChunks) {
    for (const int tokens : {1023, 1024, 1030, 2500}) {
        expect_snapkv(Layer(3, {tokens}, 16, tokens), {.cap = 128, .window_size = 8});
    }
    expect_snapkv(Layer(2, {2100}, 8, 5),
                  {.cap = 256, .window_size = 32, .kernel_size = 63, .pooling = Pooling::avg});
}

TEST(SnapKv, HeadsMayHoldDifferentNumbersOfTokens) {
    const Layer layer(3, {1500, 90, 64, 8, 3, 1, 9}, 12, 3);
    expect_snapkv(layer, {.cap = 40, .window_size = 8});
    expect_snapkv(layer, {.cap = 40, .window_size = 8, .pooling = Pooling::avg});
}

TEST(SnapKv, ShortPrompts) {
    for (int tokens = 1; tokens <= 12; ++tokens) {
        expect_snapkv(Layer(2, {tokens, tokens}, 4, tokens), {.cap = 10, .window_size = 8});
    }
    expect_snapkv(Layer(2, {30}, 4, 1), {.cap = 10, .window_size = 8, .kernel_size = 999});
    expect_snapkv(Layer(2, {30}, 4, 1),
                  {.cap = 10, .window_size = 8, .kernel_size = 999, .pooling = Pooling::avg});
}

// Logits of +-100 and more: weights that underflow must not turn into NaN or large scores.
TEST(SnapKv, SharpAttention) {
    const Layer layer(2, {400}, 64, 11, 6.0);
    const PolicyParams params{.cap = 64, .window_size = 8, .kernel_size = 1};
    const Scores got = score(policy_snapkv, Shown(layer, 8, 1).seen, params);
    const std::vector<double> want = reference::snapkv_scores(layer, 0, params);
    for (std::size_t t = 0; t < want.size(); ++t) {
        EXPECT_NEAR(got[0][t], want[t], 1e-4 * want[t] + 1e-12);
    }
}

TEST(SnapKv, SubnormalKeysCount) {
    Layer layer(1, {100}, 8, 12);
    for (std::size_t i = 0; i < layer.keys[0].size(); ++i) {
        layer.keys[0][i] = static_cast<f16>((i % 2 << 15) | (i * 37 % 0x400));
    }
    for (float& q : layer.queries) {
        q *= 20000.0F;
    }
    expect_snapkv(layer, {.cap = 30, .window_size = 4, .kernel_size = 3});
}

// A token with a damaged key poisons the rows that see it; nothing is kept by accident of order.
TEST(SnapKv, NanKeysGiveNanScores) {
    Layer layer(1, {50}, 8, 13);
    layer.keys[0][8] = 0x7E00;
    const Scores got = score(policy_snapkv, Shown(layer, 4, 2).seen, {.cap = 9, .window_size = 4});
    EXPECT_TRUE(std::isnan(got[0][20]));
    EXPECT_EQ(keep(policy_snapkv, {.cap = 9, .window_size = 4}, got[0], 50).size(), 9U);
}

TEST(SnapKv, EvenKernelsAreRefused) {
    const Layer layer(1, {20}, 4, 1);
    const Shown shown(layer, 4, 1);
    EXPECT_THROW(score(policy_snapkv, shown.seen, {.cap = 9, .window_size = 4, .kernel_size = 4}),
                 Error);
    EXPECT_THROW(score(policy_snapkv, shown.seen, {.cap = 9, .window_size = 4, .kernel_size = 0}),
                 Error);
}

TEST(H2o, MatchesTheReference) {
    unsigned seed = 100;
    for (const int group : {1, 3, 7}) {
        for (const GqaAgg agg : {GqaAgg::mean, GqaAgg::max, GqaAgg::sum}) {
            const Layer layer(group, {120, 40, 5}, 8, seed++);
            const PolicyParams params{.cap = 30, .window_size = 8, .agg = agg};
            const Shown shown(layer, 8, 1, true);
            const Scores got = score(policy_h2o, shown.seen, params);
            for (int g = 0; g < layer.kv_heads; ++g) {
                const std::vector<double> want = reference::h2o_scores(layer, g, agg);
                for (std::size_t t = 0; t < want.size(); ++t) {
                    ASSERT_NEAR(got[g][t], want[t], 1e-6 * want[t]);
                }
                EXPECT_EQ(keep(policy_h2o, params, got[g], layer.tokens[g]),
                          reference::keep_best(want, layer.tokens[g], 30, 0, 8));
            }
        }
    }
}

TEST(StreamingLlm, KeepsSinksAndTheNewest) {
    const PolicyParams params{.cap = 7, .n_sink = 4};
    EXPECT_EQ(policy_streamingllm.score, nullptr);
    EXPECT_EQ(keep(policy_streamingllm, params, {}, 20),
              (std::vector<std::int32_t>{0, 1, 2, 3, 17, 18, 19}));
    EXPECT_EQ(keep(policy_streamingllm, {.cap = 3, .n_sink = 4}, {}, 20),
              (std::vector<std::int32_t>{0, 1, 2}));
    EXPECT_EQ(keep(policy_streamingllm, {.cap = 2, .n_sink = 0}, {}, 20),
              (std::vector<std::int32_t>{18, 19}));
    for (int tokens = 0; tokens <= 7; ++tokens) {
        EXPECT_EQ(keep(policy_streamingllm, params, {}, tokens).size(),
                  static_cast<std::size_t>(tokens));
    }
}

TEST(Full, KeepsEverything) {
    const PolicyParams params{.cap = 5};
    for (const int tokens : {0, 1, 5, 1000}) {
        EXPECT_EQ(policy_full.budget(params, 3, 4, tokens), tokens);
        EXPECT_EQ(keep(policy_full, params, {}, tokens).size(), static_cast<std::size_t>(tokens));
    }
}

TEST(Random, DependsOnSeedLayerHeadAndPositionOnly) {
    const Layer layer(2, {300, 300}, 4, 1);
    Shown shown(layer, 8, 1);
    const PolicyParams params{.cap = 50, .window_size = 8};
    const Scores got = score(policy_random, shown.seen, params);
    EXPECT_TRUE(same_bits(got, score(policy_random, shown.seen, params)));
    EXPECT_NE(got[0], got[1]);
    PolicyParams other = params;
    other.seed = 43;
    EXPECT_NE(got[0], score(policy_random, shown.seen, other)[0]);
    shown.seen.layer = 1;
    EXPECT_NE(got[0], score(policy_random, shown.seen, params)[0]);
    EXPECT_NE(got[1], score(policy_random, shown.seen, params)[0]);

    // A span that has lost tokens gives the others the scores they had.
    shown.seen.layer = 0;
    shown.heads[1].tokens = 100;
    for (int j = 0; j < 100; ++j) {
        shown.positions[1][j] = 3 * j;
    }
    const Scores again = score(policy_random, shown.seen, params);
    for (int j = 0; j < 100; ++j) {
        EXPECT_EQ(again[1][j], got[1][3 * j]);
    }
}

TEST(Random, IsUniformAndKeepsTheWindow) {
    const Layer layer(1, {20000}, 1, 1);
    const Shown shown(layer, 8, 1);
    const PolicyParams params{.cap = 5000, .window_size = 8};
    const std::vector<float> got = score(policy_random, shown.seen, params)[0];
    std::vector<int> tenths(10, 0);
    for (const float x : got) {
        ASSERT_GE(x, 0.0F);
        ASSERT_LT(x, 1.0F);
        ++tenths[static_cast<int>(x * 10.0F)];
    }
    for (const int count : tenths) {
        EXPECT_NEAR(count, 2000, 200);
    }
    const std::vector<std::int32_t> kept = keep(policy_random, params, got, 20000);
    ASSERT_EQ(kept.size(), 5000U);
    EXPECT_EQ(kept[4992], 19992);
    const auto middle = std::lower_bound(kept.begin(), kept.end(), 10000) - kept.begin();
    EXPECT_NEAR(static_cast<double>(middle), 2500.0, 150.0);
}

std::vector<int> pyramid(const PolicyParams& params, int layers, int tokens) {
    std::vector<int> budgets;
    for (int layer = 0; layer < layers; ++layer) {
        budgets.push_back(policy_pyramidkv.budget(params, layer, layers, tokens));
    }
    return budgets;
}

TEST(PyramidKv, HandComputedBudgets) {
    // m = 120 / 20 = 6, M = 240 - 6 = 234, step = 228 / 29 = 7
    const std::vector<int> small = pyramid({.cap = 128, .window_size = 8}, 30, 4096);
    for (int layer = 0; layer < 30; ++layer) {
        EXPECT_EQ(small[layer], 242 - 7 * layer);
    }
    // m = 504 / 20 = 25, M = 1008 - 25 = 983, step = 958 / 23 = 41
    const std::vector<int> large = pyramid({.cap = 512, .window_size = 8}, 24, 8192);
    EXPECT_EQ(large[0], 991);
    EXPECT_EQ(large[1], 950);
    EXPECT_EQ(large[23], 48);
    // m = 28, M = 84, step = 56 / 29 = 1
    EXPECT_EQ(pyramid({.cap = 64, .window_size = 8, .beta = 2}, 30, 500)[29], 63);
    EXPECT_EQ(pyramid({.cap = 10, .window_size = 2, .beta = 4}, 5, 99),
              (std::vector<int>{16, 13, 10, 7, 4}));  // m = 2, M = 14, step = 12 / 4 = 3
    EXPECT_EQ(pyramid({.cap = 10, .window_size = 2, .beta = 1}, 3, 99),
              (std::vector<int>{10, 10, 10}));
}

TEST(PyramidKv, ShortPrompts) {
    const PolicyParams params{.cap = 512, .window_size = 32};
    // M = 936 is clamped to 928, m = 32, step = 896 / 23 = 38: layer 0 keeps all
    const std::vector<int> clamped = pyramid(params, 24, 960);
    EXPECT_EQ(clamped[0], 960);
    EXPECT_EQ(clamped[1], 922);
    EXPECT_EQ(clamped[23], 86);
    // T < 2 (cap - W) = 960: flat
    EXPECT_EQ(pyramid(params, 24, 959), std::vector<int>(24, 512));
    EXPECT_EQ(pyramid(params, 24, 513), std::vector<int>(24, 512));
    for (const int tokens : {0, 1, 31, 32, 511, 512}) {
        for (const int budget : pyramid(params, 24, tokens)) {
            EXPECT_GE(budget, tokens);
        }
    }
}

TEST(PyramidKv, DegenerateSettings) {
    EXPECT_EQ(pyramid({.cap = 64, .window_size = 8}, 1, 1000), std::vector<int>{64});
    EXPECT_EQ(pyramid({.cap = 8, .window_size = 8}, 4, 1000), std::vector<int>(4, 8));
    EXPECT_EQ(pyramid({.cap = 8, .window_size = 32}, 4, 1000), std::vector<int>(4, 8));
    EXPECT_THROW(pyramid({.cap = 64, .window_size = 8, .beta = 0}, 4, 1000), Error);
}

TEST(PyramidKv, LayersSumToTheBudgetButForTheFlooredStep) {
    for (const int layers : {2, 3, 24, 30, 32}) {
        for (const int cap : {16, 64, 127, 512, 2048}) {
            for (const int window : {1, 8, 15}) {
                for (const int beta : {1, 2, 20, 1000}) {
                    for (const int tokens : {cap + 1, 2 * cap, 2 * cap + 3, 3 * cap, 50000}) {
                        const std::vector<int> budgets = pyramid(
                            {.cap = cap, .window_size = window, .beta = beta}, layers, tokens);
                        const int sum = std::accumulate(budgets.begin(), budgets.end(), 0);
                        EXPECT_GE(sum, layers * cap);
                        EXPECT_LE(sum, layers * cap + layers * (layers - 1) / 2);
                        EXPECT_LE(budgets.front(), tokens);
                        EXPECT_GE(budgets.back(), window);
                        EXPECT_TRUE(std::is_sorted(budgets.rbegin(), budgets.rend()));
                    }
                }
            }
        }
    }
}

TEST(PyramidKv, ScoresAsSnapKvAndKeepsTheLayersBudget) {
    const Layer layer(3, {300, 300}, 8, 21);
    const PolicyParams params{.cap = 40, .window_size = 8};
    const Shown shown(layer, 8, 2);
    const Scores got = score(policy_pyramidkv, shown.seen, params);
    EXPECT_TRUE(same_bits(got, score(policy_snapkv, shown.seen, params)));
    // m = 1, M = 63, step = 62 / 3 = 20
    for (const auto& [index, budget] : {std::pair{0, 71}, {1, 51}, {2, 31}, {3, 11}}) {
        std::vector<double> want = reference::snapkv_scores(layer, 1, params);
        want.resize(300, 0.0);
        EXPECT_EQ(keep(policy_pyramidkv, params, got[1], 300, index, 4),
                  reference::keep_best(want, 300, budget, 0, 8));
    }
}

TEST(Policies, KeepShortPromptsWholeAndExactlyTheBudgetElsewhere) {
    for (const Policy* policy : {&policy_h2o, &policy_snapkv, &policy_pyramidkv, &policy_random}) {
        for (const int tokens : {1, 5, 8, 20, 21, 60}) {
            const Layer layer(2, {tokens}, 4, tokens);
            const Shown shown(layer, 8, 1, true);
            const PolicyParams params{.cap = 20, .window_size = 8};
            const Scores got = score(*policy, shown.seen, params);
            EXPECT_EQ(keep(*policy, params, got[0], tokens).size(),
                      static_cast<std::size_t>(std::min(tokens, 20)))
                << policy->name << " with " << tokens << " tokens";
        }
    }
}

TEST(Policies, SinksAreKeptWhereAskedFor) {
    for (const Policy* policy : {&policy_h2o, &policy_snapkv, &policy_pyramidkv, &policy_random}) {
        const Protected fixed = policy->protect({.cap = 9, .window_size = 4, .n_sink = 2}, 9, 50);
        EXPECT_EQ(fixed.front, 2) << policy->name;
        EXPECT_EQ(fixed.back, 4) << policy->name;
        EXPECT_EQ(policy->default_sinks, 0) << policy->name;
        EXPECT_EQ(policy->default_window, 8) << policy->name;
    }
    EXPECT_EQ(policy_streamingllm.default_sinks, 4);
    EXPECT_EQ(policy_full.default_window, 0);
}

}  // namespace
}  // namespace winnow
