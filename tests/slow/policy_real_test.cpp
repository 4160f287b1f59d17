// Every policy on the attention of a real model over real text, against plain formulas.
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <cstdio>

#include "support/attention_probe.h"
#include "support/test_files.h"

namespace winnow {
namespace {

constexpr int kTokens = 1200;
constexpr int kCap = 256;

PolicyParams params_of(const CacheOptions& options) {
    return {.cap = options.max_capacity_prompts,
            .window_size = options.window_size,
            .kernel_size = options.kernel_size,
            .pooling = options.pooling == "avg" ? Pooling::avg : Pooling::max};
}

void expect_kept(const std::shared_ptr<const Model>& model, const std::vector<std::int32_t>& tokens,
                 const std::vector<testing::ProbedLayer>& layers, const CacheOptions& options,
                 int step, double near) {
    Session session(model, options);
    session.prefill(tokens);
    const CacheOptions& o = session.options();
    const std::vector<KeptLayer> kept = session.kept();
    testing::KeptDifference found;
    for (std::size_t layer = 0; layer < layers.size(); layer += static_cast<std::size_t>(step)) {
        const reference::Layer& seen = layers[layer].attention;
        const int budget =
            o.method == "pyramidkv"
                ? testing::pyramid_budget(kCap, o.window_size, o.beta, static_cast<int>(layer),
                                          static_cast<int>(layers.size()), kTokens)
                : kCap;
        EXPECT_EQ(kept[layer].budget, budget) << o.method << " layer " << layer;
        for (int g = 0; g < seen.kv_heads; ++g) {
            const auto scores = o.method == "h2o" ? reference::h2o_scores(seen, g, GqaAgg::mean)
                                                  : reference::snapkv_scores(seen, g, params_of(o));
            testing::compare_kept(scores, kept[layer].heads[g], budget, o.n_sink, o.window_size,
                                  found);
        }
    }
    std::printf("%s %s W %d: %d kept, %d differ, at most %.1e from the threshold\n",
                o.method.c_str(), o.pooling.c_str(), o.window_size, found.tokens, found.different,
                found.farthest);
    EXPECT_LE(found.different, found.tokens / 200) << o.method;
    EXPECT_LE(found.farthest, near) << o.method;
}

TEST(RealAttention, KeptTokensEqualTheReferences) {
    const std::string path = testing::find_model("SmolLM2-135M");
    const std::string text = testing::english_text(std::size_t{8} * kTokens);
    if (path.empty() || text.empty()) {
        GTEST_SKIP() << testing::missing_model("SmolLM2-135M") << " and text in examples/";
    }
    const auto model = Model::load(path);
    std::vector<std::int32_t> tokens = model->tokenize(text, false, false);
    ASSERT_GE(tokens.size(), static_cast<std::size_t>(kTokens));
    tokens.resize(kTokens);
    const auto layers = testing::probe_attention(model, tokens);
    ASSERT_EQ(layers.size(), static_cast<std::size_t>(model->info().layers));

    constexpr int kSomeLayers = 10;  // the plain sums over all rows are slow
    for (std::size_t layer = 0; layer < layers.size(); layer += kSomeLayers) {
        const double error = testing::column_sum_error(layers[layer]);
        std::printf("layer %zu: column sums differ by at most %.1e\n", layer, error);
        EXPECT_LE(error, 2e-2);  // the probe's queries are rounded to f16
    }
    CacheOptions options;
    options.max_capacity_prompts = kCap;
    options.method = "snapkv";
    expect_kept(model, tokens, layers, options, 1, 1e-4);
    options.window_size = 32;
    expect_kept(model, tokens, layers, options, 1, 1e-4);
    options.pooling = "avg";
    expect_kept(model, tokens, layers, options, 1, 1e-4);
    options.method = "pyramidkv";
    options.pooling = "max";
    expect_kept(model, tokens, layers, options, 1, 1e-4);
    options.method = "h2o";
    expect_kept(model, tokens, layers, options, kSomeLayers, 1e-2);
}

}  // namespace
}  // namespace winnow
