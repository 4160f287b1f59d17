// The whole grid of the paper on a tiny model, and the options that make no sense.
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "support/tiny_gguf.h"

namespace winnow {
namespace {

constexpr int kPrompt = 300;
constexpr int kForced = 24;
constexpr int kCap = 96;

class Grid : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        const std::string path = ::testing::TempDir() + "winnow_grid_test.gguf";
        testing::write_tiny_gguf(
            path, {.query_heads = 4, .kv_heads = 2, .head_dim = 32, .embed = 128, .ff = 128});
        model_ = Model::load(path, {.threads = 1});
        std::remove(path.c_str());
        std::mt19937 random(2);
        for (int i = 0; i < kPrompt + kForced; ++i) {
            tokens_.push_back(static_cast<std::int32_t>(random() % 300));
        }
        full_ = forced_logits({});
    }
    static void TearDownTestSuite() {
        model_.reset();
        tokens_.clear();
        full_.clear();
    }

    static std::vector<std::vector<float>> forced_logits(const CacheOptions& options,
                                                         CacheStats* stats = nullptr) {
        Session session(model_, options);
        session.prefill(std::span(tokens_).first(kPrompt));
        std::vector<std::vector<float>> all;
        for (int i = 0; i < kForced; ++i) {
            session.decode(tokens_[static_cast<std::size_t>(kPrompt + i)]);
            all.emplace_back(session.logits().begin(), session.logits().end());
        }
        if (stats != nullptr) {
            *stats = session.stats();
        }
        return all;
    }
    // Mean over the forced tokens, in nats.
    static double divergence(const std::vector<std::vector<float>>& other) {
        double total = 0.0;
        for (std::size_t i = 0; i < full_.size(); ++i) {
            const auto log_sum = [](const std::vector<float>& x) {
                double sum = 0.0;
                for (const float value : x) {
                    sum += std::exp(static_cast<double>(value));
                }
                return std::log(sum);
            };
            const double p_sum = log_sum(full_[i]), q_sum = log_sum(other[i]);
            for (std::size_t v = 0; v < full_[i].size(); ++v) {
                const double p = static_cast<double>(full_[i][v]) - p_sum;
                const double q = static_cast<double>(other[i][v]) - q_sum;
                total += std::exp(p) * (p - q);
            }
        }
        return total / static_cast<double>(full_.size());
    }

    static CacheOptions options(const std::string& method, const std::string& format, int bits) {
        CacheOptions o;
        o.method = method;
        o.max_capacity_prompts = method == "full" ? 0 : kCap;
        o.quant_method = format;
        o.nbits = bits;
        if (format == "layerquant") {
            o.quant_layers_bits = bits;
            o.quant_end_layers = 1;
            o.nbits = 4;
        }
        return o;
    }

    static std::shared_ptr<const Model> model_;
    static std::vector<std::int32_t> tokens_;
    static std::vector<std::vector<float>> full_;
};

std::shared_ptr<const Model> Grid::model_;
std::vector<std::int32_t> Grid::tokens_;
std::vector<std::vector<float>> Grid::full_;

const std::vector<std::string> kMethods{"full",      "streamingllm", "h2o",       "snapkv",
                                        "pyramidkv", "random",       "layerquant"};

// What the message must name.
void expect_usage_error(const std::function<void()>& body, const std::string& needle) {
    try {
        body();
        ADD_FAILURE() << "no error that names " << needle;
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::usage) << error.what();
        EXPECT_NE(std::string(error.what()).find(needle), std::string::npos) << error.what();
    }
}

TEST_F(Grid, EveryMethodWithEveryFormatAtEveryWidth) {
    for (const std::string& method : kMethods) {
        for (const std::string format : {"none", "kivi", "hqq", "kvquant", "layerquant"}) {
            for (const int bits : {16, 8, 4, 3, 2}) {
                SCOPED_TRACE(method + " " + format + " " + std::to_string(bits));
                const CacheOptions o = options(method, format, bits);
                if (method == "layerquant" && format != "layerquant") {
                    expect_usage_error([&] { validate(o); }, "--quant-method");
                    continue;
                }
                if (format == "none" && bits != 16) {
                    expect_usage_error([&] { validate(o); }, "--nbits");
                    continue;
                }
                validate(o);
                CacheStats stats;
                const auto logits = forced_logits(o, &stats);
                for (const std::vector<float>& row : logits) {
                    for (const float value : row) {
                        ASSERT_TRUE(std::isfinite(value));
                    }
                }
                EXPECT_EQ(stats.tokens_seen, static_cast<std::uint64_t>(kPrompt + kForced));
                EXPECT_EQ(stats.allocated_bytes, stats.bytes);
                EXPECT_GE(stats.bytes_peak, stats.bytes);
                EXPECT_EQ(stats.bytes_full_f16, model_->info().full_cache_bytes(kPrompt + kForced));
                ASSERT_EQ(stats.kept.size(), static_cast<std::size_t>(model_->info().layers));
                if (method == "full") {
                    EXPECT_EQ(stats.kept[1], kPrompt + kForced);
                } else if (format != "layerquant" && method != "pyramidkv") {
                    EXPECT_EQ(stats.kept[1], kCap + kForced);
                    EXPECT_LT(stats.bytes, stats.bytes_full_f16 / 2);
                }
                if (format != "layerquant") {
                    EXPECT_NEAR(stats.bits_k, bits, bits == 16 ? 0.0 : 3.5);
                    EXPECT_GE(stats.bits_k, bits);
                    EXPECT_GE(stats.bits_v, bits);
                }
                if (method == "full" && bits == 16 && format != "layerquant") {
                    EXPECT_EQ(logits, full_);
                }
            }
        }
    }
}

TEST_F(Grid, MoreBitsAreCloserToTheFullCache) {
    for (const std::string format : {"kivi", "hqq", "kvquant", "layerquant"}) {
        std::map<int, double> far;
        for (const int bits : {16, 8, 4, 3, 2}) {
            far[bits] = divergence(forced_logits(options("full", format, bits)));
        }
        SCOPED_TRACE(format);
        EXPECT_LE(far[16], format == "layerquant" ? far[8] * 1.2 : 1e-12);
        EXPECT_LE(far[8], far[4] * 1.2);
        EXPECT_LT(far[4], far[2]);
        EXPECT_LT(far[4], 0.1);
    }
}

TEST_F(Grid, MoreTokensAreCloserToTheFullCacheThanAtRandom) {
    CacheOptions all = options("snapkv", "none", 16);
    all.max_capacity_prompts = kPrompt;
    EXPECT_LT(divergence(forced_logits(all)), 1e-12) << "a prompt within the cap is kept whole";
    EXPECT_GT(divergence(forced_logits(options("snapkv", "none", 16))), 0.0);
}

TEST_F(Grid, EqualBytesOfLayerquantMeanMoreTokensAtFewerBits) {
    CacheStats stats;
    CacheOptions o = options("layerquant", "layerquant", 2);
    o.max_capacity_prompts = 24;
    forced_logits(o, &stats);
    EXPECT_EQ(stats.kept[0], 24 * 8 + kForced);  // 16 / 2
    EXPECT_EQ(stats.kept[1], 24 * 4 + kForced);  // 16 / 4
}

TEST_F(Grid, WrongOptionsNameTheirFlag) {
    const auto refuse = [](const std::string& flag, auto&& change) {
        CacheOptions o = options("snapkv", "kivi", 4);
        change(o);
        expect_usage_error([&] { Session(model_, o); }, flag);
    };
    refuse("--max-capacity-prompts", [](CacheOptions& o) {
        o.method = "streamingllm";
        o.max_capacity_prompts = 10;
        o.n_sink = 4;
        o.window_size = 8;
    });
    refuse("--max-capacity-prompts", [](CacheOptions& o) { o.max_capacity_prompts = -1; });
    refuse("--max-capacity-prompts-ratio", [](CacheOptions& o) {
        o.max_capacity_prompts = 0;
        o.max_capacity_prompts_ratio = 1.5;
    });
    refuse("--nbits is 5", [](CacheOptions& o) { o.nbits = 5; });
    refuse("--nbits-k is 6", [](CacheOptions& o) { o.nbits_k = 6; });
    refuse("--nbits-v is 32", [](CacheOptions& o) { o.nbits_v = 32; });
    refuse("--group-size", [](CacheOptions& o) { o.group_size = 24; });
    refuse("--group-size", [](CacheOptions& o) { o.group_size = 64; });  // D is 32
    refuse("--group-size", [](CacheOptions& o) { o.group_size = 0; });
    refuse("--key-axis", [](CacheOptions& o) { o.key_axis = 2; });
    refuse("--key-axis", [](CacheOptions& o) {
        o.quant_method = "kvquant";
        o.key_axis = 1;
    });
    refuse("--residual-length", [](CacheOptions& o) { o.residual_length = -1; });
    refuse("--kernel-size", [](CacheOptions& o) { o.kernel_size = 4; });
    refuse("--pooling", [](CacheOptions& o) { o.pooling = "min"; });
    refuse("--gqa-score-agg", [](CacheOptions& o) { o.gqa_score_agg = "median"; });
    refuse("--beta", [](CacheOptions& o) { o.beta = 0; });
    refuse("--outlier-threshold", [](CacheOptions& o) { o.outlier_threshold = 6.0; });
    refuse("--quant-end-layers", [](CacheOptions& o) {
        o.quant_method = "layerquant";
        o.quant_end_layers = 3;
    });
    refuse("--quant-layers-bits", [](CacheOptions& o) {
        o.quant_method = "layerquant";
        o.quant_layers_bits = 1;
    });
    refuse("snapkv", [](CacheOptions& o) { o.method = "snapvk"; });
    refuse("pyramidkv", [](CacheOptions& o) { o.method = "pyramid"; });
    refuse("kvquant", [](CacheOptions& o) { o.quant_method = "kvquand"; });
}

}  // namespace
}  // namespace winnow
