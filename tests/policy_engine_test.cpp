// The policies past the paper inside the engine: budgets, short prompts, threads, long answers, and
// kept sets chosen again while decoding. Adding one to kMethods is enough.
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include "engine/output_projection.h"
#include "engine/session_impl.h"
#include "policy_formulas.h"
#include "support/tiny_engine.h"

namespace winnow {
namespace {

using Tokens = std::vector<std::int32_t>;

const std::vector<std::string> kMethods{"tova",
                                        "knorm",
                                        "keydiff",
                                        "lagkv",
                                        "adakv:snapkv",
                                        "chunkkv",
                                        "adakv:knorm",
                                        "chunkkv:h2o",
                                        "adakv:chunkkv:tova",
                                        "expected_attention",
                                        "r_kv",
                                        "criticalkv",
                                        "criticalkv:expected_attention",
                                        "adakv:criticalkv:knorm"};
constexpr int kCap = 64;

class PolicyEngine : public testing::TinyEngine<PolicyEngine> {
  public:
    inline static const testing::TinyModelOptions kModel{
        .query_heads = 6, .kv_heads = 3, .head_dim = 32, .embed = 64, .ff = 64, .context = 8192};

  protected:
    static CacheOptions options(const std::string& method, int cap = kCap, int bits = 16) {
        CacheOptions o;
        o.method = method;
        o.max_capacity_prompts = cap;
        o.nbits = bits;
        // Partitions of lagkv; the default of 128 would not fit the cap.
        o.window_size = method.find("lagkv") != std::string::npos ? 16 : 0;
        return o;
    }
    static int held(Session& session, std::size_t layer) {
        const LayerStore& store = *session.impl().layers[layer].store;
        int sum = 0;
        for (int g = 0; g < store.kv_heads(); ++g) {
            sum += store.span(g).tokens();
        }
        return sum;
    }
};

TEST_F(PolicyEngine, KeepsExactlyTheBudgetOfALayer) {
    for (const std::string& method : kMethods) {
        SCOPED_TRACE(method);
        Session session(model_, options(method));
        session.prefill(prompt(200));
        for (std::size_t layer = 0; layer < 2; ++layer) {
            EXPECT_EQ(held(session, layer), 3 * kCap);
        }
        if (method.find("adakv") == std::string::npos) {
            EXPECT_EQ(session.kept()[0].heads[0].positions.size(), std::size_t{kCap});
        }
    }
}

TEST_F(PolicyEngine, KeepsAPromptWithinTheCapWhole) {
    Session full(model_, options("full", 0));
    full.prefill(prompt(kCap));
    for (const std::string& method : kMethods) {
        Session session(model_, options(method));
        session.prefill(prompt(kCap));
        EXPECT_EQ(held(session, 0), 3 * kCap) << method;
        EXPECT_EQ(session.logits_hash(), full.logits_hash()) << method;
    }
}

TEST_F(PolicyEngine, GivesTheSameBitsForAnyThreadCount) {
    for (const std::string& method : kMethods) {
        std::string hash;
        for (const int threads : {1, 3}) {
            Session session(Model::load(path_, {.threads = threads}), options(method));
            session.prefill(prompt(200));
            for (int i = 0; i < 70; ++i) {
                session.decode(i);
            }
            hash = hash.empty() ? session.logits_hash() : hash;
            EXPECT_EQ(session.logits_hash(), hash) << method << " with " << threads << " threads";
        }
    }
}

TEST_F(PolicyEngine, TheBudgetHoldsForLongAnswersAndASecondPrompt) {
    for (const std::string& method : kMethods) {
        for (const int bits : {16, 4}) {
            SCOPED_TRACE(method + " at " + std::to_string(bits) + " bits");
            Session session(model_, options(method, kCap, bits));
            session.prefill(prompt(150));
            const int slack = std::max(64, session.impl().plan.policy->interval);
            for (int i = 0; i < 200; ++i) {
                session.decode((7 * i + i / 11) % 300);
                ASSERT_LE(held(session, 1), 3 * (kCap + slack)) << i;
            }
            EXPECT_GT(session.stats().evictions, 0U);
            session.prefill(prompt(100, 2));
            EXPECT_EQ(held(session, 0), 3 * kCap);
            EXPECT_EQ(session.stats().bytes, session.stats().allocated_bytes);
            for (int i = 0; i < 100; ++i) {
                session.decode(i);
            }
            EXPECT_LE(held(session, 0), 3 * (kCap + slack));
            ASSERT_TRUE(std::isfinite(session.logits()[0]));
        }
    }
}

// A layer's keys and values as its store holds them, positions apart.
reference::Layer stored(Session& session, std::size_t layer,
                        std::vector<std::vector<std::int32_t>>& positions) {
    const LayerStore& store = *session.impl().layers[layer].store;
    const int dims = store.layout().spec.head_dim;
    std::vector<int> tokens;
    for (int g = 0; g < store.kv_heads(); ++g) {
        tokens.push_back(store.span(g).tokens());
    }
    reference::Layer seen(store.query_heads() / store.kv_heads(), tokens, dims, 0);
    positions.assign(tokens.size(), {});
    for (int g = 0; g < store.kv_heads(); ++g) {
        positions[g].resize(tokens[g]);
        store.read(g, seen.keys[g].data(), seen.values[g].data(), positions[g].data());
    }
    return seen;
}

// While decoding, what is kept is what the plain formula keeps of the tokens that were there.
TEST_F(PolicyEngine, DecodingChoosesAgainByTheSameFormula) {
    for (const std::string method : {"knorm", "keydiff", "lagkv", "adakv:knorm", "chunkkv:knorm"}) {
        SCOPED_TRACE(method);
        Session session(model_, options(method));
        session.prefill(prompt(200));
        int compared = 0;
        for (int i = 0; i < 200; ++i) {
            std::vector<std::vector<std::int32_t>> before, after;
            const reference::Layer seen = stored(session, 1, before);
            const std::uint64_t evictions = session.stats().evictions;
            session.decode(i);
            if (session.stats().evictions == evictions) {
                continue;
            }
            ++compared;
            stored(session, 1, after);
            std::vector<std::vector<double>> scores;
            for (int g = 0; g < 3; ++g) {
                scores.push_back(method == "keydiff" ? reference::keydiff_scores(seen, g)
                                 : method == "lagkv" ? reference::lagkv_scores(seen, g, 4, 16)
                                                     : reference::knorm_scores(seen, g));
            }
            if (method == "chunkkv:knorm") {
                scores.assign(3, reference::chunk_scores(scores, 0, 0));
            }
            const auto together = reference::adakv_kept(scores, kCap, 0, 0);
            for (int g = 0; g < 3; ++g) {
                const int tokens = seen.tokens[g];
                const bool lag = method == "lagkv";
                const int back = lag ? 16 + (tokens - 4) % 16 : 0;
                const auto kept =
                    method == "adakv:knorm"
                        ? together[g]
                        : reference::keep_best(scores[g], tokens, kCap, lag ? 4 : 0, back);
                std::vector<std::int32_t> want;
                for (const std::int32_t at : kept) {
                    want.push_back(before[g][at]);
                }
                want.push_back(session.position() - 1);  // the token of this step
                EXPECT_EQ(after[g], want) << "head " << g << " step " << i;
            }
        }
        EXPECT_GE(compared, 2);
    }
}

TEST_F(PolicyEngine, TovaAndChunkKvKeepOneSetPerLayer) {
    for (const std::string method : {"tova", "chunkkv", "chunkkv:keydiff"}) {
        Session session(model_, options(method));
        session.prefill(prompt(300));
        for (int i = 0; i < 90; ++i) {
            session.decode(i);
        }
        for (const KeptLayer& layer : session.kept()) {
            EXPECT_EQ(layer.heads[0].positions, layer.heads[1].positions) << method;
            EXPECT_EQ(layer.heads[0].positions, layer.heads[2].positions) << method;
        }
    }
}

// Heads of a layer share one budget: together they take the bytes of the even split, and each the
// bytes of its own tokens, not of the longest head's.
TEST_F(PolicyEngine, AdaKvFreesTheBytesOfShortHeads) {
    Session ada(model_, options("adakv:knorm", 300)), even(model_, options("knorm", 300));
    for (Session* session : {&ada, &even}) {
        session->prefill(prompt(900));
    }
    int spread = 0;
    for (std::size_t layer = 0; layer < 2; ++layer) {
        const LayerStore& a = *ada.impl().layers[layer].store;
        const LayerStore& b = *even.impl().layers[layer].store;
        int longest = 0, shortest = 0;
        for (int g = 1; g < 3; ++g) {
            longest = a.span(g).tokens() > a.span(longest).tokens() ? g : longest;
            shortest = a.span(g).tokens() < a.span(shortest).tokens() ? g : shortest;
        }
        EXPECT_GE(a.span(shortest).tokens(), 300 / 5);
        const int more = a.span(longest).tokens() - a.span(shortest).tokens();
        const std::size_t row = 2 * 32 * sizeof(f16) + sizeof(std::int32_t);
        // Room for growth comes in steps, so a few rows more or less.
        EXPECT_NEAR(static_cast<double>(a.span(longest).bytes() - a.span(shortest).bytes()),
                    static_cast<double>(row) * more, static_cast<double>(row) * (16 + more / 16.0));
        EXPECT_LT(static_cast<double>(a.bytes()), 1.1 * static_cast<double>(b.bytes()));
        spread = std::max(spread, more);
    }
    EXPECT_GT(spread, 24) << "the heads of a random model should not share evenly";
    EXPECT_EQ(ada.stats().bytes, ada.stats().allocated_bytes);
}

TEST_F(PolicyEngine, RKvActsEvery128Tokens) {
    Session session(model_, options("r_kv"));
    session.prefill(prompt(200));
    for (int i = 0; i < 260; ++i) {
        session.decode(i);
        EXPECT_EQ(session.stats().evictions, 2U * 3U * 128U * static_cast<unsigned>(i / 128)) << i;
    }
}

TEST_F(PolicyEngine, QueryStatisticsCountAllButTheSinks) {
    Session session(model_, options("expected_attention"));
    session.prefill(prompt(200));
    for (int i = 0; i < 30; ++i) {
        session.decode(i);
    }
    const LayerStore& store = *session.impl().layers[1].store;
    EXPECT_EQ(store.moments().count(), 200 - 4 + 30);
    EXPECT_EQ(store.policy_bytes(), 6U * (32 + 32 + 32 * 33 / 2) * sizeof(float));
    EXPECT_EQ(session.stats().policy_bytes, 2 * store.policy_bytes());
    Session copy = session.clone();
    for (int i = 0; i < 60; ++i) {
        session.decode(i);
        copy.decode(i);
    }
    EXPECT_EQ(copy.logits_hash(), session.logits_hash());
}

TEST_F(PolicyEngine, TheOutputProjectionIsTheFilesTensorTurned) {
    const ggml_tensor* wo = model_->impl().weights->weights().layers[1].wo;
    ASSERT_EQ(wo->type, GGML_TYPE_F32);
    const auto* stored =
        static_cast<const float*>(model_->impl().weights->plain_data(wo));  // [E][H*D]
    const Buffer<float> output = output_projection(model_->impl(), 1, nullptr);
    ASSERT_EQ(output.size(), 6U * 32 * 64);
    for (std::size_t c = 0; c < 6 * 32; ++c) {
        for (std::size_t e = 0; e < 64; ++e) {
            ASSERT_EQ(output[c * 64 + e], stored[e * 6 * 32 + c]);
        }
    }
}

TEST_F(PolicyEngine, ResultsNameTheBaseThatRan) {
    EXPECT_EQ(Session(model_, options("adakv")).options().method, "adakv:snapkv");
    EXPECT_EQ(Session(model_, options("chunkkv:h2o")).options().window_size, 8);
    EXPECT_EQ(Session(model_, options("adakv:tova")).options().window_size, 1);
}

}  // namespace
}  // namespace winnow
