// Selectors, which turn the scores of another policy into their own choice.
#include <gtest/gtest.h>
#include <winnow/error.h>

#include "policy_formulas.h"
#include "policy_shown.h"

namespace winnow {

extern const Policy policy_adakv;
extern const Policy policy_chunkkv;
extern const Policy policy_criticalkv;
extern const Policy policy_knorm;
extern const Policy policy_pyramidkv;
extern const Policy policy_snapkv;
extern const Policy policy_tova;

namespace {

using namespace shown;  // NOLINT: the fixtures of every test of a policy

std::vector<std::vector<double>> widened(const Scores& scores) {
    std::vector<std::vector<double>> out;
    for (const std::vector<float>& head : scores) {
        out.emplace_back(head.begin(), head.end());
    }
    return out;
}

PolicyParams with_base(const Policy& base, int cap, int window, int sinks = 0) {
    return {.cap = cap, .window_size = window, .n_sink = sinks, .bases = {&base}};
}

std::vector<int> head_budgets(const Observation& seen, const PolicyParams& params, Scores& scores,
                              int budget) {
    std::vector<float*> rows;
    for (std::vector<float>& head : scores) {
        rows.push_back(head.data());
    }
    std::vector<int> out(scores.size(), -1);
    policy_adakv.head_budgets(seen, params, rows, budget, out);
    return out;
}

TEST(ChunkKv, MatchesTheFormula) {
    for (const auto& [tokens, window, sinks] :
         {std::tuple{300, 8, 0}, {308, 8, 0}, {295, 16, 4}, {90, 8, 0}}) {
        const Layer layer(2, {tokens, tokens}, 12, 60U + tokens);
        const PolicyParams params = with_base(policy_snapkv, 75, window, sinks);
        const Scores got = score(policy_chunkkv, Shown(layer, window, 1, false, 75).seen, params);
        EXPECT_TRUE(
            same_bits(got, score(policy_chunkkv, Shown(layer, window, 3, false, 75).seen, params)));
        std::vector<std::vector<double>> base;
        for (int g = 0; g < 2; ++g) {
            base.push_back(reference::snapkv_scores(layer, g, params));
            base.back().resize(tokens, 0.0);
        }
        const std::vector<double> want = reference::chunk_scores(base, sinks, window);
        for (int t = sinks; t < tokens - window; ++t) {
            ASSERT_NEAR(got[0][t], want[t], 1e-5 * want[t] + 1e-12) << t;
        }
        EXPECT_EQ(got[0], got[1]);
        const auto kept = keep(policy_chunkkv, params, got[0], tokens);
        EXPECT_EQ(kept, reference::keep_best(got[0], tokens, 75, sinks, window));
        // Whole chunks of 20 but for the last that fits.
        int cut = 0;
        for (int first = sinks; first + 20 <= tokens - window; first += 20) {
            const auto in = std::count_if(kept.begin(), kept.end(), [&](std::int32_t t) {
                return t >= first && t < first + 20;
            });
            cut += in != 0 && in != 20 ? 1 : 0;
        }
        EXPECT_LE(cut, 1);
    }
}

TEST(ChunkKv, HeadsOfDifferentTokensAreJoinedByPosition) {
    const Layer layer(1, {100, 60}, 8, 5);
    Shown shown(layer, 4, 1, false, 30);
    for (int j = 0; j < 60; ++j) {
        shown.positions[1][j] = j + 40;
    }
    const PolicyParams params = with_base(policy_knorm, 30, 4);
    const Scores got = score(policy_chunkkv, shown.seen, params);
    const std::vector<double> a = reference::knorm_scores(layer, 0);
    const std::vector<double> b = reference::knorm_scores(layer, 1);
    double lone = 0.0, joined = 0.0;
    for (int t = 0; t < 20; ++t) {
        lone += a[t] / 20;
        joined += (a[40 + t] + b[t]) / 20;
    }
    EXPECT_NEAR(got[0][0], lone, 1e-4);
    EXPECT_NEAR(got[0][40], joined, 1e-4);
    EXPECT_NEAR(got[1][0], joined, 1e-4);
}

TEST(AdaKv, MatchesTheFormula) {
    unsigned seed = 70;
    for (const Policy* base : {&policy_snapkv, &policy_knorm}) {
        for (const int window : {0, 8}) {
            for (const int budget : {20, 64, 150}) {
                // Heads of very different spread, so that some are held up by their fifth.
                Layer layer(2, {200, 200, 200, 200}, 8, seed++);
                for (f16& k : layer.keys[1]) {
                    k = f32_to_f16(f16_to_f32(k) * 4.0F);
                }
                for (f16& k : layer.keys[2]) {
                    k = f32_to_f16(f16_to_f32(k) * 0.25F);
                }
                const PolicyParams params =
                    with_base(*base, budget, base == &policy_snapkv ? std::max(1, window) : window);
                const Shown shown(layer, params.window_size, 2, false, budget);
                Scores scores = score(policy_adakv, shown.seen, params);
                EXPECT_TRUE(same_bits(scores, score(*base, shown.seen, params)));
                const auto want =
                    reference::adakv_kept(widened(scores), budget, 0, params.window_size);
                const std::vector<int> found = head_budgets(shown.seen, params, scores, budget);
                int sum = 0, least = 1 << 30, most = 0;
                for (std::size_t g = 0; g < found.size(); ++g) {
                    sum += found[g];
                    least = std::min(least, found[g]);
                    most = std::max(most, found[g]);
                    const Protected fixed = policy_adakv.protect(params, found[g], 200);
                    EXPECT_EQ(select(scores[g], 200, found[g], fixed), want[g]) << "head " << g;
                }
                EXPECT_EQ(sum, 4 * budget);
                EXPECT_GE(least, budget / 5);
                EXPECT_LT(least, most) << "the heads should differ";
            }
        }
    }
}

TEST(AdaKv, TiesGoToTheEarlierTokenThenTheLowerHead) {
    Layer layer(1, {50, 50, 50}, 8, 1);
    for (std::vector<f16>& keys : layer.keys) {
        std::fill(keys.begin(), keys.end(), f32_to_f16(1.0F));
    }
    const PolicyParams params = with_base(policy_knorm, 10, 0);
    const Shown shown(layer, 0, 1, false, 10);
    Scores scores = score(policy_adakv, shown.seen, params);
    EXPECT_EQ(head_budgets(shown.seen, params, scores, 10), (std::vector<int>{10, 10, 10}));
    EXPECT_EQ(head_budgets(shown.seen, params, scores, 11), (std::vector<int>{11, 11, 11}));
    scores[2].assign(50, 1.0F);  // all of head 2, and the fifth of the others
    EXPECT_EQ(head_budgets(shown.seen, params, scores, 10), (std::vector<int>{2, 2, 26}));
    scores[2].assign(50, std::nanf(""));
    EXPECT_EQ(head_budgets(shown.seen, params, scores, 10), (std::vector<int>{14, 14, 2}));
}

TEST(AdaKv, WhereAllTokensFitTheRestIsSharedOut) {
    const Layer layer(1, {30, 3, 10}, 8, 1);
    const PolicyParams params = with_base(policy_knorm, 20, 0);
    const Shown shown(layer, 0, 1, false, 20);
    Scores scores = score(policy_adakv, shown.seen, params);
    EXPECT_EQ(head_budgets(shown.seen, params, scores, 20), (std::vector<int>{36, 9, 15}));
    EXPECT_EQ(head_budgets(shown.seen, params, scores, 15), (std::vector<int>{31, 4, 10}));
}

TEST(CriticalKv, MatchesTheFormula) {
    unsigned seed = 90;
    constexpr int kEmbed = 20, kPadded = 32, kDims = 8;
    for (const int group : {1, 3}) {
        for (const auto& [budget, window, sinks] : {std::tuple{60, 8, 0}, {61, 1, 4}, {20, 8, 4}}) {
            Layer layer(group, {300, 280}, kDims, seed++);
            std::mt19937 generator(seed);
            std::normal_distribution<float> normal(0.0F, 1.0F);
            std::vector<float> plain, output;  // [H][D][E], and with padded rows
            for (int row = 0; row < 2 * group * kDims; ++row) {
                for (int e = 0; e < kPadded; ++e) {
                    output.push_back(e < kEmbed ? normal(generator) : 0.0F);
                    if (e < kEmbed) {
                        plain.push_back(output.back());
                    }
                }
            }
            // Values of very different length, so that the norms decide.
            for (std::size_t i = 0; i < layer.values[0].size(); ++i) {
                const float factor = i / kDims % 7 == 3 ? 20.0F : 1.0F;
                layer.values[0][i] = f32_to_f16(f16_to_f32(layer.values[0][i]) * factor);
            }
            const PolicyParams params = with_base(policy_snapkv, budget, window, sinks);
            std::vector<Scores> all;
            for (const int threads : {1, 2, 3}) {
                Shown shown(layer, window, threads, false, budget);
                shown.seen.output = output.data();
                shown.seen.embedding = kEmbed;
                all.push_back(score(policy_criticalkv, shown.seen, params));
                EXPECT_TRUE(same_bits(all[0], all.back()));
            }
            for (int g = 0; g < 2; ++g) {
                const int tokens = layer.tokens[g];
                std::vector<double> base = reference::snapkv_scores(layer, g, params);
                base.resize(tokens, 0.0);
                const auto want = reference::criticalkv_kept(layer, g, base, plain, kEmbed, budget,
                                                             sinks, window);
                EXPECT_EQ(keep(policy_criticalkv, params, all[0][g], tokens), want)
                    << "head " << g << " budget " << budget;
                EXPECT_NE(want, reference::keep_best(base, tokens, budget, sinks, window))
                    << "the norms should matter";
            }
        }
    }
}

TEST(Selectors, TakeTheBudgetAndTheRulesOfTheirBase) {
    const PolicyParams params = with_base(policy_pyramidkv, 64, 8, 2);
    for (const Policy* policy : {&policy_adakv, &policy_chunkkv, &policy_criticalkv}) {
        for (int layer = 0; layer < 4; ++layer) {
            EXPECT_EQ(policy->budget(params, layer, 4, 1000),
                      policy_pyramidkv.budget(params, layer, 4, 1000));
        }
        EXPECT_EQ(policy->protect(params, 64, 1000).front, 2);
        EXPECT_EQ(policy->protect(params, 64, 1000).back, 8);
        EXPECT_EQ(policy->budget(with_base(policy_tova, 64, 1), 0, 4, 1000), 64);
    }
}

std::string names(const std::string& method) {
    std::string text;
    for (const Policy* policy : find_policies(method)) {
        text += std::string(text.empty() ? "" : " ") + policy->name;
    }
    return text;
}

TEST(Selectors, NamesAreResolved) {
    EXPECT_EQ(names("snapkv"), "snapkv");
    EXPECT_EQ(names("adakv"), "adakv snapkv");
    EXPECT_EQ(names("adakv:knorm"), "adakv knorm");
    EXPECT_EQ(names("adakv:chunkkv"), "adakv chunkkv snapkv");
    EXPECT_EQ(names("adakv:chunkkv:h2o"), "adakv chunkkv h2o");
    EXPECT_EQ(names("criticalkv:expected_attention"), "criticalkv expected_attention");
    EXPECT_EQ(names("adakv:criticalkv"), "adakv criticalkv snapkv");
    EXPECT_EQ(needs_of(find_policies("criticalkv:expected_attention")),
              kNeedsKeys | kNeedsValues | kNeedsOutput | kNeedsQueryStats);
    EXPECT_EQ(&find_policy("adakv:tova"), &policy_adakv);
    EXPECT_EQ(needs_of(find_policies("adakv:h2o")), unsigned{kNeedsColumnSums});
    EXPECT_EQ(needs_of(find_policies("adakv")), unsigned{kNeedsWindow});
}

TEST(Selectors, NamesThatMeanNothingAreRefused) {
    for (const auto& [method, word] : {std::pair{"snapkv:h2o", "takes no other method"},
                                       {"adakv:full", "has no scores"},
                                       {"adakv:streamingllm", "has no scores"},
                                       {"chunkkv:adakv", "has no scores"},
                                       {"adakv:", "is not known"},
                                       {":snapkv", "is not known"},
                                       {"adakv::snapkv", "not known"},
                                       {"adakv:snapk", "did you mean 'snapkv'"},
                                       {"adakv:layerquant", "is not known"}}) {
        try {
            find_policies(method);
            ADD_FAILURE() << method << " was taken";
        } catch (const Error& error) {
            EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
            EXPECT_EQ(error.kind(), ErrorKind::usage);
        }
    }
}

}  // namespace
}  // namespace winnow
