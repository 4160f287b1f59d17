// knorm, keydiff, lagkv, tova, expected_attention and r_kv against plain formulas.
#include <gtest/gtest.h>

#include "core/rope.h"
#include "policy_formulas.h"
#include "policy_shown.h"

namespace winnow {

extern const Policy policy_knorm;
extern const Policy policy_keydiff;
extern const Policy policy_lagkv;
extern const Policy policy_tova;
extern const Policy policy_expected_attention;
extern const Policy policy_r_kv;

namespace {

using namespace shown;  // NOLINT: the fixtures of every test of a policy

constexpr int kCap = 100;

// Scores within `error`, the same bits for 1, 2 and 3 threads, and the same kept set.
template <class Formula>
void expect_scores(const Policy& policy, const Layer& layer, const PolicyParams& params,
                   double error, const Formula& formula) {
    const Scores got = score(policy, Shown(layer, params.window_size, 1).seen, params);
    for (const int threads : {2, 3}) {
        EXPECT_TRUE(
            same_bits(got, score(policy, Shown(layer, params.window_size, threads).seen, params)))
            << policy.name << " with " << threads << " threads";
    }
    for (int g = 0; g < layer.kv_heads; ++g) {
        const int tokens = layer.tokens[g];
        const std::vector<double> want = formula(g);
        const Protected fixed = policy.protect(params, params.cap, tokens);
        for (int t = fixed.front; t < tokens - fixed.back; ++t) {
            ASSERT_NEAR(got[g][t], want[t], error) << policy.name << " head " << g << " t " << t;
        }
        EXPECT_EQ(keep(policy, params, got[g], tokens),
                  reference::keep_best(want, tokens, params.cap, fixed.front, fixed.back))
            << policy.name << " head " << g;
    }
}

TEST(KNorm, MatchesTheFormula) {
    for (const int tokens : {50, 100, 101, 300, 1300}) {
        const Layer layer(2, {tokens, std::max(1, tokens - 30)}, 18, tokens);
        expect_scores(policy_knorm, layer, {.cap = kCap}, 1e-4,
                      [&](int g) { return reference::knorm_scores(layer, g); });
        expect_scores(policy_knorm, layer, {.cap = kCap, .window_size = 8, .n_sink = 4}, 1e-4,
                      [&](int g) { return reference::knorm_scores(layer, g); });
    }
}

TEST(KNorm, TiesGoToTheEarlierToken) {
    Layer layer(1, {40}, 8, 1);
    std::fill(layer.keys[0].begin(), layer.keys[0].end(), f32_to_f16(0.5F));
    const Scores got = score(policy_knorm, Shown(layer, 0, 1).seen, {.cap = 3});
    EXPECT_EQ(keep(policy_knorm, {.cap = 3}, got[0], 40), (std::vector<std::int32_t>{0, 1, 2}));
}

TEST(KeyDiff, MatchesTheFormula) {
    for (const int tokens : {50, 101, 300, 1300}) {
        const Layer layer(3, {tokens, std::max(1, tokens - 30)}, 18, tokens + 1);
        expect_scores(policy_keydiff, layer, {.cap = kCap}, 3e-6,
                      [&](int g) { return reference::keydiff_scores(layer, g); });
    }
}

TEST(KeyDiff, KeysOfNoLengthAreNeitherNearNorFar) {
    Layer layer(1, {60}, 8, 3);
    std::fill_n(layer.keys[0].begin() + 5 * 8, 8, f16{0});
    const Scores got = score(policy_keydiff, Shown(layer, 0, 1).seen, {.cap = 20});
    EXPECT_EQ(got[0][5], 0.0F);
    for (const float x : got[0]) {
        EXPECT_TRUE(std::isfinite(x));
    }
}

TEST(LagKv, MatchesTheFormula) {
    unsigned seed = 9;
    for (const auto& [tokens, lag, sinks] : {std::tuple{300, 32, 4},
                                             {292, 32, 4},
                                             {291, 32, 4},
                                             {700, 128, 4},
                                             {200, 16, 0},
                                             {68, 32, 4}}) {
        SCOPED_TRACE(tokens);
        const Layer layer(1, {tokens, tokens - 7}, 10, seed++);
        const PolicyParams params{.cap = kCap, .window_size = lag, .n_sink = sinks};
        // A rank is a whole number over lag: it is right or off by far more than this.
        expect_scores(policy_lagkv, layer, params, 1e-6, [&, s = sinks, w = lag](int g) {
            return reference::lagkv_scores(layer, g, s, w);
        });
    }
}

TEST(LagKv, KeepsTheSinksAndTheLastPartition) {
    const PolicyParams params{.cap = 200, .window_size = 32, .n_sink = 4};
    // 300 = 4 + 9 * 32 + 8: the ninth partition and the 8 tokens behind it
    EXPECT_EQ(policy_lagkv.protect(params, 200, 300).front, 4);
    EXPECT_EQ(policy_lagkv.protect(params, 200, 300).back, 32 + 8);
    // Fewer than two partitions: nothing is ranked, the newest are kept.
    EXPECT_EQ(policy_lagkv.protect(params, 200, 67).back, 63);
    EXPECT_EQ(policy_lagkv.protect(params, 200, 68).back, 32);
    EXPECT_EQ(policy_lagkv.default_window, 128);
    EXPECT_EQ(policy_lagkv.default_sinks, 4);
}

TEST(LagKv, ConstantChannelsAreNoNumbersToFear) {
    Layer layer(1, {200}, 8, 4);
    for (std::size_t i = 0; i < layer.keys[0].size(); i += 8) {
        layer.keys[0][i] = f32_to_f16(3.0F);
    }
    const PolicyParams params{.cap = 90, .window_size = 16, .n_sink = 4};
    const Scores got = score(policy_lagkv, Shown(layer, 16, 1).seen, params);
    std::vector<int> seen(16, 0);
    for (int t = 4; t < 20; ++t) {
        ++seen[static_cast<std::size_t>(std::lround(got[0][t] * 16.0F))];
    }
    EXPECT_EQ(seen, std::vector<int>(16, 1)) << "the ranks of one partition are 0 to 15";
}

TEST(Tova, MatchesTheFormulaAndIsOneSetPerLayer) {
    for (const int group : {1, 3}) {
        for (const int window : {1, 8}) {
            const Layer layer(group, {230, 230, 230}, 18, 30U + group);
            const PolicyParams params{.cap = kCap, .window_size = window};
            expect_scores(policy_tova, layer, params, 1e-6,
                          [&](int) { return reference::tova_scores(layer); });
            const Scores got = score(policy_tova, Shown(layer, window, 1).seen, params);
            EXPECT_EQ(got[0], got[1]);
            EXPECT_EQ(got[0], got[2]);
        }
    }
    EXPECT_EQ(policy_tova.default_window, 1);
}

// Random statistics of the queries: a mean of its own for every head, and a covariance A A^T.
struct Statistics {
    std::vector<double> mean, covariance;
    std::vector<float> mean_f, covariance_f;

    Statistics(int heads, int dims, unsigned seed) {
        std::mt19937 generator(seed);
        std::normal_distribution<double> normal(0.0, 1.0);
        for (int h = 0; h < heads; ++h) {
            std::vector<double> a(static_cast<std::size_t>(dims) * dims);
            for (double& x : a) {
                x = normal(generator) / 3.0;
            }
            for (int i = 0; i < dims; ++i) {
                mean.push_back(normal(generator));
                for (int j = 0; j < dims; ++j) {
                    double sum = 0.0;
                    for (int c = 0; c < dims; ++c) {
                        sum += a[i * dims + c] * a[j * dims + c];
                    }
                    covariance.push_back(sum);
                }
            }
        }
        mean_f.assign(mean.begin(), mean.end());
        covariance_f.assign(covariance.begin(), covariance.end());
    }
};

TEST(ExpectedAttention, MatchesTheFormula) {
    unsigned seed = 40;
    for (const bool halves : {false, true}) {
        for (const auto& [tokens, sinks] : {std::pair{120, 4}, {310, 4}, {310, 0}}) {
            constexpr int kDims = 12, kTurned = 8;  // the last four channels are not rotated
            const Layer layer(3, {tokens, tokens}, kDims, seed, 0.7);
            const Statistics statistics(6, kDims, seed++);
            const RopeTable rope(RopeParams{.dims = kTurned, .halves = halves});
            const PolicyParams params{.cap = kCap, .n_sink = sinks};
            // Straight from the definition of rotary embedding.
            const auto turn = [&](std::vector<double>& x, int position) {
                for (int p = 0; p < kTurned / 2; ++p) {
                    const double angle = position * std::pow(10000.0, -2.0 * p / kTurned);
                    double& a = x[halves ? p : 2 * p];
                    double& b = x[halves ? p + kTurned / 2 : 2 * p + 1];
                    const double turned = a * std::cos(angle) - b * std::sin(angle);
                    b = a * std::sin(angle) + b * std::cos(angle);
                    a = turned;
                }
            };
            std::vector<Scores> all;
            for (const int threads : {1, 2, 3}) {
                Shown shown(layer, 0, threads);
                shown.seen.queries = {.count = 99,
                                      .mean = statistics.mean_f.data(),
                                      .covariance = statistics.covariance_f.data()};
                shown.seen.rope = &rope;
                shown.seen.next_position = tokens;
                all.push_back(score(policy_expected_attention, shown.seen, params));
                EXPECT_TRUE(same_bits(all[0], all.back())) << threads << " threads";
            }
            for (int g = 0; g < 2; ++g) {
                const std::vector<double> want = reference::expected_scores(
                    layer, g, statistics.mean, statistics.covariance, sinks, turn);
                for (int t = sinks; t < tokens; ++t) {
                    ASSERT_NEAR(all[0][g][t], want[t], 2e-4 * want[t]) << "t " << t;
                }
                EXPECT_EQ(keep(policy_expected_attention, params, all[0][g], tokens),
                          reference::keep_best(want, tokens, kCap, sinks, 0));
            }
        }
    }
    EXPECT_EQ(policy_expected_attention.default_sinks, 4);
}

TEST(RKv, MatchesTheFormula) {
    for (const auto& [tokens, likeness] :
         {std::pair{130, 0.0F}, {300, 0.0F}, {300, 1.0F}, {520, 0.4F}}) {
        Layer layer(2, {tokens, tokens - 20}, 12, 50U + tokens);
        // A common direction, so that many, some or few keys are similar to others.
        for (std::vector<f16>& keys : layer.keys) {
            for (std::size_t i = 0; i < keys.size(); ++i) {
                keys[i] =
                    f32_to_f16(f16_to_f32(keys[i]) + likeness * static_cast<float>(1 + i % 12 % 3));
            }
        }
        const PolicyParams params{.cap = kCap, .window_size = 8};
        // Importance and redundancy are of the size 1 / T; the differences that decide are smaller.
        expect_scores(policy_r_kv, layer, params, 3e-7,
                      [&](int g) { return reference::r_kv_scores(layer, g, params); });
    }
    EXPECT_EQ(policy_r_kv.interval, 128);
    EXPECT_EQ(policy_r_kv.default_window, 8);
}

TEST(RKv, DropsRepeatedKeysFirst) {
    Layer layer(1, {60}, 64, 5);
    std::fill(layer.queries.begin(), layer.queries.end(), 0.0F);  // all equally important
    for (int t = 10; t < 30; ++t) {
        std::copy_n(layer.keys[0].begin(), 64, layer.keys[0].begin() + t * 64);
    }
    const PolicyParams params{.cap = 39, .window_size = 8};
    const Scores got = score(policy_r_kv, Shown(layer, 8, 1).seen, params);
    const auto kept = keep(policy_r_kv, params, got[0], 60);
    const auto repeated = std::count_if(
        kept.begin(), kept.end(), [](std::int32_t t) { return t == 0 || (t >= 10 && t < 30); });
    EXPECT_EQ(repeated, 1) << "of 21 equal keys one should stay";
    EXPECT_TRUE(std::find(kept.begin(), kept.end(), 29) != kept.end()) << "the newest of them";
}

TEST(Policies, KeepShortPromptsWhole) {
    for (const Policy* policy :
         {&policy_knorm, &policy_keydiff, &policy_lagkv, &policy_tova, &policy_r_kv}) {
        for (const int tokens : {1, 2, 5, 19, 20, 21}) {
            const Layer layer(2, {tokens, tokens}, 4, tokens);
            const PolicyParams params{
                .cap = 20, .window_size = policy->default_window, .n_sink = policy->default_sinks};
            const Shown shown(layer, params.window_size, 1);
            const Scores got = score(*policy, shown.seen, params);
            EXPECT_EQ(keep(*policy, params, got[0], tokens).size(),
                      static_cast<std::size_t>(std::min(tokens, 20)))
                << policy->name << " with " << tokens << " tokens";
        }
    }
}

}  // namespace
}  // namespace winnow
