// The attention that policies are shown in a prefill, and the tokens they keep of it, against plain
// formulas over the layers' true queries and keys. slow/policy_real_test.cpp does so on real text.
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <random>

#include "support/attention_probe.h"
#include "support/gguf_refusal.h"
#include "support/tiny_gguf.h"

namespace winnow {
namespace {

constexpr int kTokens = 260;
constexpr int kCap = 80;

struct Prompt {
    std::shared_ptr<const Model> model;
    std::vector<std::int32_t> tokens;
    std::vector<testing::ProbedLayer> layers;
};

// One model with many prompt tokens that differ, read once for all tests.
const Prompt& prompt() {
    static const Prompt made = [] {
        const testing::Folder folder;
        const std::string path = folder.file("tiny.gguf");
        testing::write_tiny_gguf(path, {.layers = 3, .query_heads = 6, .embed = 192});
        Prompt p{Model::load(path, {.threads = 1}), {}, {}};
        std::mt19937 random(1);
        for (int i = 0; i < kTokens; ++i) {
            p.tokens.push_back(static_cast<std::int32_t>(random() % 320U));
        }
        p.layers = testing::probe_attention(p.model, p.tokens);
        return p;
    }();
    return made;
}

Session pruned(const CacheOptions& options) {
    Session session(prompt().model, options, {.batch = 100});
    session.prefill(prompt().tokens);
    return session;
}

PolicyParams params_of(const CacheOptions& options) {
    return {.cap = options.max_capacity_prompts,
            .window_size = options.window_size,
            .kernel_size = options.kernel_size,
            .pooling = options.pooling == "avg" ? Pooling::avg : Pooling::max,
            .agg = options.gqa_score_agg == "max"   ? GqaAgg::max
                   : options.gqa_score_agg == "sum" ? GqaAgg::sum
                                                    : GqaAgg::mean};
}

// Every kept set equals the reference's; where it does not, the scores are as good as equal.
void expect_kept(const CacheOptions& options, double near) {
    const Session session = pruned(options);
    const CacheOptions& o = session.options();
    const std::vector<KeptLayer> kept = session.kept();
    testing::KeptDifference found;
    ASSERT_EQ(kept.size(), prompt().layers.size());
    for (std::size_t layer = 0; layer < kept.size(); ++layer) {
        const reference::Layer& seen = prompt().layers[layer].attention;
        const int budget = o.method == "pyramidkv"
                               ? testing::pyramid_budget(kCap, o.window_size, o.beta,
                                                         static_cast<int>(layer), 3, kTokens)
                               : kCap;
        EXPECT_EQ(kept[layer].budget, budget);
        for (int g = 0; g < seen.kv_heads; ++g) {
            const auto scores = o.method == "h2o" ? reference::h2o_scores(seen, g, params_of(o).agg)
                                                  : reference::snapkv_scores(seen, g, params_of(o));
            testing::compare_kept(scores, kept[layer].heads[g], budget, o.n_sink, o.window_size,
                                  found);
        }
    }
    EXPECT_GT(found.tokens, 0);
    EXPECT_LE(found.different, found.tokens / 100);
    EXPECT_LE(found.farthest, near);
}

CacheOptions options_of(const std::string& method) {
    CacheOptions options;
    options.method = method;
    options.max_capacity_prompts = kCap;
    return options;
}

TEST(Attention, ColumnSumsEqualAPlainCausalSoftmax) {
    ASSERT_EQ(prompt().layers.size(), 3U);
    for (const testing::ProbedLayer& layer : prompt().layers) {
        // The probe's queries are rounded to f16, the engine's are not.
        EXPECT_LE(testing::column_sum_error(layer), 5e-3);
        for (int g = 0; g < layer.attention.kv_heads; ++g) {
            double total = 0.0;
            for (const float sum : layer.column_sums[g]) {
                total += sum;
            }
            EXPECT_NEAR(total, layer.attention.group() * kTokens, 1e-2);
        }
    }
}

TEST(Attention, SnapKvKeepsTheReferencesTokens) {
    for (const char* agg : {"mean", "max", "sum"}) {
        for (const char* pooling : {"max", "avg"}) {
            for (const int window : {8, 32}) {
                CacheOptions options = options_of("snapkv");
                options.gqa_score_agg = agg;
                options.pooling = pooling;
                options.window_size = window;
                expect_kept(options, 1e-5);
            }
        }
    }
}

TEST(Attention, PyramidKvKeepsTheReferencesTokens) {
    expect_kept(options_of("pyramidkv"), 1e-5);
}

TEST(Attention, H2oKeepsTheReferencesTokens) {
    for (const char* agg : {"mean", "max", "sum"}) {
        CacheOptions options = options_of("h2o");
        options.gqa_score_agg = agg;
        expect_kept(options, 2e-3);
    }
}

TEST(Attention, StreamingLlmKeepsSinksAndTheNewest) {
    std::vector<std::int32_t> expected{0, 1, 2, 3};
    for (int at = kTokens - (kCap - 4); at < kTokens; ++at) {
        expected.push_back(at);
    }
    for (const KeptLayer& layer : pruned(options_of("streamingllm")).kept()) {
        for (const KeptHead& head : layer.heads) {
            EXPECT_EQ(head.positions, expected);
        }
    }
}

TEST(Attention, ScoresOfKeptTokensAreTold) {
    CacheOptions options = options_of("snapkv");
    Session session(prompt().model, options, {.keep_scores = true});
    session.prefill(prompt().tokens);
    const KeptLayer layer = session.kept()[1];
    for (int g = 0; g < 2; ++g) {
        const auto plain =
            reference::snapkv_scores(prompt().layers[1].attention, g, params_of(session.options()));
        const KeptHead& head = layer.heads[static_cast<std::size_t>(g)];
        ASSERT_EQ(head.scores.size(), head.positions.size());
        for (std::size_t i = 0; i < head.positions.size(); ++i) {
            const auto at = static_cast<std::size_t>(head.positions[i]);
            if (at >= plain.size()) {
                EXPECT_TRUE(std::isnan(head.scores[i])) << "a token of the window";
            } else {
                EXPECT_NEAR(head.scores[i], plain[at], 1e-4 * plain[at]);
            }
        }
    }
}

}  // namespace
}  // namespace winnow
