// Every policy on the attention of a real model over real text, against plain formulas.
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <algorithm>
#include <cstdio>
#include <iterator>

#include "engine/output_projection.h"
#include "engine/session_impl.h"
#include "kernels/dense.h"
#include "policy_formulas.h"
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

using Kept = std::vector<std::vector<std::int32_t>>;  // [G]

// What a layer's formula keeps, by the plain references alone.
class PlainLayer {
  public:
    PlainLayer(const Model& model, int layer, const reference::Layer& seen)
        : model_(model.impl()), layer_(layer), seen_(seen) {}

    Kept kept(const CacheOptions& o) const {
        const std::string& method = o.method;
        const int back = o.window_size, front = o.n_sink;
        std::vector<std::vector<double>> scores;
        for (int g = 0; g < seen_.kv_heads; ++g) {
            scores.push_back(head_scores(o, g));
            scores.back().resize(kTokens, 0.0);
        }
        if (method.starts_with("adakv")) {
            return reference::adakv_kept(scores, kCap, front, back);
        }
        if (method.starts_with("chunkkv")) {
            scores.assign(scores.size(), reference::chunk_scores(scores, front, back));
        }
        Kept out;
        for (int g = 0; g < seen_.kv_heads; ++g) {
            const bool lag = method == "lagkv";
            out.push_back(method.starts_with("criticalkv")
                              ? reference::criticalkv_kept(seen_, g, scores[g], output(),
                                                           model_.hparams.embedding, kCap, front,
                                                           back)
                              : reference::keep_best(scores[g], kTokens, kCap, front,
                                                     lag ? back + (kTokens - front) % back : back));
        }
        return out;
    }

  private:
    std::vector<double> head_scores(const CacheOptions& o, int g) const {
        const std::string base = o.method.substr(o.method.find(':') + 1);
        if (base == "knorm") return reference::knorm_scores(seen_, g);
        if (base == "keydiff") return reference::keydiff_scores(seen_, g);
        if (base == "lagkv") return reference::lagkv_scores(seen_, g, o.n_sink, o.window_size);
        if (base == "tova") return reference::tova_scores(seen_);
        if (base == "r_kv") return reference::r_kv_scores(seen_, g, params_of(o));
        if (base == "expected_attention") return expected(g, o.n_sink);
        return reference::snapkv_scores(seen_, g, params_of(o));
    }
    std::vector<double> expected(int g, int sinks) const {
        const std::size_t dims = static_cast<std::size_t>(seen_.head_dim);
        const RopeTable& rope = *model_.rope;
        std::vector<double> mean(seen_.query_heads * dims), covariance(mean.size() * dims);
        std::vector<float> row(dims);
        std::vector<std::vector<double>> all;
        for (std::size_t h = 0; h < static_cast<std::size_t>(seen_.query_heads); ++h) {
            all.clear();
            for (int t = sinks; t < kTokens; ++t) {
                const auto at = (static_cast<std::size_t>(t) * seen_.query_heads + h) * dims;
                std::copy_n(seen_.queries.begin() + static_cast<std::ptrdiff_t>(at), dims,
                            row.begin());
                rope.unrotate(row.data(), t);
                all.emplace_back(row.begin(), row.end());
                for (std::size_t d = 0; d < dims; ++d) {
                    mean[h * dims + d] += static_cast<double>(row[d]) / (kTokens - sinks);
                }
            }
            for (const std::vector<double>& q : all) {
                for (std::size_t a = 0; a < dims; ++a) {
                    for (std::size_t b = 0; b < dims; ++b) {
                        covariance[(h * dims + a) * dims + b] += (q[a] - mean[h * dims + a]) *
                                                                 (q[b] - mean[h * dims + b]) /
                                                                 (kTokens - sinks);
                    }
                }
            }
        }
        return reference::expected_scores(seen_, g, mean, covariance, sinks,
                                          [&](std::vector<double>& x, int position) {
                                              std::vector<float> turned(x.begin(), x.end());
                                              rope.rotate(turned.data(), position);
                                              x.assign(turned.begin(), turned.end());
                                          });
    }
    // W_o without its padding, [H][D][E].
    std::vector<float> output() const {
        const Buffer<float> padded = output_projection(model_, layer_, nullptr);
        const std::size_t embed = static_cast<std::size_t>(model_.hparams.embedding);
        const std::size_t width = (embed + kColumnBlock - 1) / kColumnBlock * kColumnBlock;
        std::vector<float> out;
        for (std::size_t row = 0; row < padded.size() / width; ++row) {
            out.insert(out.end(), padded.data() + row * width, padded.data() + row * width + embed);
        }
        return out;
    }

    const Model::Impl& model_;
    int layer_;
    const reference::Layer& seen_;
};

// A few layers, since the plain loops are slow.
void expect_sets(const std::shared_ptr<const Model>& model, const std::vector<std::int32_t>& tokens,
                 const std::vector<testing::ProbedLayer>& layers, const std::string& method) {
    CacheOptions options;
    options.max_capacity_prompts = kCap;
    options.method = method;
    options.window_size = method == "lagkv" ? 64 : 0;
    Session session(model, options);
    session.prefill(tokens);
    const std::vector<KeptLayer> kept = session.kept();
    int compared = 0, different = 0;
    for (std::size_t layer = 0; layer < layers.size(); layer += 13) {
        const Kept want = PlainLayer(*model, static_cast<int>(layer), layers[layer].attention)
                              .kept(session.options());
        for (std::size_t g = 0; g < want.size(); ++g) {
            std::vector<std::int32_t> alone;
            const auto& found = kept[layer].heads[g].positions;
            std::set_symmetric_difference(want[g].begin(), want[g].end(), found.begin(),
                                          found.end(), std::back_inserter(alone));
            compared += static_cast<int>(want[g].size());
            different += static_cast<int>(alone.size());
        }
    }
    std::printf("%s: %d kept, %d differ\n", session.options().method.c_str(), compared, different);
    std::fflush(stdout);
    EXPECT_LE(different, compared / 100) << method;
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
    for (const char* method :
         {"tova", "knorm", "keydiff", "lagkv", "expected_attention", "r_kv", "adakv", "adakv:knorm",
          "criticalkv", "criticalkv:expected_attention", "chunkkv"}) {
        expect_sets(model, tokens, layers, method);
    }
}

}  // namespace
}  // namespace winnow
