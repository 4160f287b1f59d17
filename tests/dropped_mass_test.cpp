// The receipt's dropped attention mass and the losses that `mixed` weighs, against plain loops in
// double precision.
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "engine/mixed_loss.h"
#include "engine/session_impl.h"
#include "support/tiny_gguf.h"

namespace winnow {
namespace {

/// A layer's K, V and newest queries.
struct Layer {
    LayerKv kv;
    LayerView view;
};

/// The plain softmax of query w of head h over head g's tokens, none later than itself.
std::vector<double> softmax(const Layer& layer, const Hparams& h, int w, int head) {
    const LayerKv::Head& rows = layer.kv.head(head / (h.query_heads / h.kv_heads));
    const int visible = rows.tokens - layer.view.window + w + 1;
    std::vector<double> a(static_cast<std::size_t>(rows.tokens), 0.0);
    double best = -1e300, total = 0.0;
    const auto size = static_cast<std::size_t>(h.head_dim);
    for (int t = 0; t < visible; ++t) {
        const float* q = layer.view.window_queries.data() +
                         (static_cast<std::size_t>(w) * h.query_heads + head) * size;
        double dot = 0.0;
        for (std::size_t i = 0; i < size; ++i) {
            dot +=
                static_cast<double>(q[i]) * static_cast<double>(f16_to_f32(rows.k[t * size + i]));
        }
        a[t] = dot / std::sqrt(static_cast<double>(h.head_dim));
        best = std::max(best, a[t]);
    }
    for (int t = 0; t < visible; ++t) {
        a[t] = std::exp(a[t] - best);
        total += a[t];
    }
    for (double& x : a) {
        x /= total;
    }
    return a;
}

double reference_mass(const Layer& layer, const Hparams& h,
                      const std::vector<std::vector<std::int32_t>>& kept) {
    double sum = 0.0;
    for (int head = 0; head < h.query_heads; ++head) {
        const std::vector<std::int32_t>& of = kept[head / (h.query_heads / h.kv_heads)];
        for (int w = 0; w < layer.view.window; ++w) {
            const std::vector<double> a = softmax(layer, h, w, head);
            double held = 0.0;
            for (const std::int32_t t : of) {
                held += a[t];
            }
            sum += 1.0 - held;
        }
    }
    return sum / (h.query_heads * layer.view.window);
}

class DroppedMass : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        const std::string path = ::testing::TempDir() + "winnow_dropped_mass_test.gguf";
        testing::write_tiny_gguf(path, {.layers = 2,
                                        .query_heads = 6,
                                        .kv_heads = 2,
                                        .head_dim = 32,
                                        .embed = 64,
                                        .ff = 64,
                                        .context = 4096});
        model_ = Model::load(path, {.threads = 2});
        path_ = path;
    }
    static void TearDownTestSuite() {
        model_.reset();
        std::remove(path_.c_str());
    }
    static const Hparams& shape() { return model_->impl().hparams; }

    // Random rows and queries; some tokens' keys are long, so that the softmax has peaks.
    static Layer random_layer(int tokens, int window) {
        const Hparams& h = shape();
        std::mt19937 random(7);
        std::normal_distribution<float> normal;
        Layer layer{.kv = LayerKv(nullptr, std::vector<int>(h.kv_heads, tokens), 0, h.head_dim),
                    .view = {}};
        for (int g = 0; g < h.kv_heads; ++g) {
            const LayerKv::Head& head = layer.kv.head(g);
            for (int i = 0; i < tokens * h.head_dim; ++i) {
                const float size = i / h.head_dim % 37 == 5 ? 3.0F : 1.0F;
                head.k[i] = f32_to_f16(size * normal(random));
                head.v[i] = f32_to_f16(normal(random));
            }
            for (int t = 0; t < tokens; ++t) {
                head.positions[t] = t;
            }
        }
        layer.view.window = window;
        for (int i = 0; i < window * h.query_heads * h.head_dim; ++i) {
            layer.view.window_queries.push_back(normal(random));
        }
        return layer;
    }

    static std::shared_ptr<const Model> model_;
    static std::string path_;
};

std::shared_ptr<const Model> DroppedMass::model_;
std::string DroppedMass::path_;

// Lengths on both sides of the blocks that keys are read in, windows beside those of queries.
TEST_F(DroppedMass, EqualsAPlainSoftmax) {
    Session session(model_, {.method = "streamingllm"});
    std::mt19937 random(3);
    for (const auto& [tokens, window] :
         {std::pair(9, 9), {511, 8}, {512, 1}, {513, 20}, {1100, 8}}) {
        Layer layer = random_layer(tokens, window);
        layer.view.kv = &layer.kv;
        std::vector<std::vector<std::int32_t>> kept(2);
        for (int t = 0; t < tokens; ++t) {
            for (std::vector<std::int32_t>& head : kept) {
                if (random() % 3 == 0) {
                    head.push_back(t);
                }
            }
        }
        EXPECT_NEAR(dropped_mass(session.impl(), layer.view, kept),
                    reference_mass(layer, shape(), kept), 1e-5)
            << tokens << " " << window;
    }
}

TEST_F(DroppedMass, LossesEqualPlainSums) {
    Session session(model_, {.method = "mixed"});
    const Hparams& h = shape();
    for (const int tokens : {40, 700}) {
        Layer layer = random_layer(tokens, 12);
        layer.view.kv = &layer.kv;
        const int g = 1, group = h.query_heads / h.kv_heads, d = h.head_dim;
        const TokenLoss seen = observe_head(session.impl(), layer.view, g);
        const f16* v = layer.kv.head(g).v;
        std::vector<double> weight(tokens), drop(tokens), mass(tokens);
        for (int head = g * group; head < (g + 1) * group; ++head) {
            for (int w = 0; w < layer.view.window; ++w) {
                const std::vector<double> a = softmax(layer, h, w, head);
                std::vector<double> o(d, 0.0);
                for (int t = 0; t < tokens; ++t) {
                    for (int i = 0; i < d; ++i) {
                        o[i] += a[t] * static_cast<double>(f16_to_f32(v[t * d + i]));
                    }
                }
                for (int t = 0; t < tokens; ++t) {
                    double away = 0.0;
                    for (int i = 0; i < d; ++i) {
                        const double e = static_cast<double>(f16_to_f32(v[t * d + i])) - o[i];
                        away += e * e;
                    }
                    mass[t] += a[t];
                    weight[t] += a[t] * a[t];
                    drop[t] += a[t] * a[t] * away;
                }
            }
        }
        for (int t = 0; t < tokens; ++t) {
            EXPECT_NEAR(seen.mass[t], mass[t], 1e-5 + 1e-4 * mass[t]) << t;
            EXPECT_NEAR(seen.weight[t], weight[t], 1e-6 + 1e-4 * weight[t]) << t;
            EXPECT_NEAR(seen.drop[t], drop[t], 1e-5 + 1e-4 * drop[t]) << t;
        }
    }
}

// What a session reports is of the last queries of its prompt, in every layer.
TEST_F(DroppedMass, TheReceiptIsOfThePromptsLastQueries) {
    std::vector<std::int32_t> prompt;
    for (int i = 0; i < 600; ++i) {
        prompt.push_back((i * 37 + i / 7) % 300);
    }
    const Hparams& h = shape();
    constexpr int kWindow = 8;
    Session whole(model_,
                  {.method = "snapkv", .max_capacity_prompts = 4096, .window_size = kWindow});
    whole.prefill(prompt);
    for (const char* method : {"streamingllm", "knorm", "random", "snapkv", "mixed"}) {
        CacheOptions options{.method = method, .max_capacity_prompts = 64};
        options.window_size = kWindow;
        Session session(model_, options);
        session.prefill(prompt);
        const std::vector<KeptLayer> kept_layers = session.kept();
        double mean = 0.0, worst = 0.0;
        for (int l = 0; l < h.layers; ++l) {
            const LayerStore& store = *whole.impl().layers[l].store;
            Layer layer{.kv = LayerKv(nullptr, std::vector<int>(h.kv_heads, 600), 0, h.head_dim),
                        .view = {.window = kWindow}};
            std::vector<std::vector<std::int32_t>> kept;
            for (int g = 0; g < h.kv_heads; ++g) {
                const LayerKv::Head& head = layer.kv.head(g);
                store.read(g, head.k, head.v, head.positions);
                kept.push_back(kept_layers[l].heads[g].positions);
            }
            layer.view.window_queries.resize(static_cast<std::size_t>(kWindow) * h.query_heads *
                                             h.head_dim);
            store.read_queries(layer.view.window_queries.data());
            const double mass = reference_mass(layer, h, kept);
            mean += mass / h.layers;
            worst = std::max(worst, mass);
        }
        // `mixed` looks at more queries than these.
        const double room = std::string(method) == "mixed" ? 0.1 : 1e-4;
        EXPECT_NEAR(session.stats().dropped_mass, mean, room) << method;
        EXPECT_NEAR(session.stats().dropped_mass_worst, worst, room) << method;
        EXPECT_GT(mean, 0.05) << method;
    }
}

}  // namespace
}  // namespace winnow
