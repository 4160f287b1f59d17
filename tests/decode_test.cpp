// Decoding over a compressed cache: agreement with score(), batches, budgets, later prompts.
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "engine/session_impl.h"
#include "support/tiny_engine.h"

namespace winnow {
namespace {

using Tokens = std::vector<std::int32_t>;

class Decode : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        const std::string path = ::testing::TempDir() + "winnow_decode_test.gguf";
        testing::write_tiny_gguf(path, {.query_heads = 6,
                                        .kv_heads = 2,
                                        .head_dim = 32,
                                        .embed = 64,
                                        .ff = 64,
                                        .context = 8192});
        model_ = Model::load(path, {.threads = 1});
        std::remove(path.c_str());
    }
    static void TearDownTestSuite() { model_.reset(); }

    static Tokens prompt(int n, unsigned seed = 1) { return testing::random_prompt(n, seed); }
    static CacheOptions options(const std::string& method, int cap, const std::string& format,
                                int bits) {
        CacheOptions o;
        o.method = method;
        o.max_capacity_prompts = cap;
        o.quant_method = format;
        o.nbits = bits;
        return o;
    }
    static std::int32_t best(const Session& session) {
        const auto logits = session.logits();
        return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) -
                                         logits.begin());
    }
    static double farthest(std::span<const float> a, std::span<const float> b) {
        double most = 0.0;
        for (std::size_t i = 0; i < a.size(); ++i) {
            most = std::max(most, std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
        }
        return most;
    }
    static const LayerStore& store(Session& session, std::size_t layer) {
        return *session.impl().layers[layer].store;
    }

    static std::shared_ptr<const Model> model_;
};

std::shared_ptr<const Model> Decode::model_;

TEST_F(Decode, OneTokenEqualsItsScore) {
    for (const char* format : {"none", "kivi", "kvquant", "rotated", "kvarn", "graded"}) {
        const bool exact = std::string(format) == "none";
        Session session(model_, options("full", 0, format, exact ? 16 : 4));
        session.prefill(prompt(150));
        for (int i = 0; i < 5; ++i) {
            const std::int32_t token = best(session);
            std::vector<float> scored;
            session.score(std::span(&token, 1), [&](int, std::span<const float> logits) {
                scored.assign(logits.begin(), logits.end());
            });
            session.decode(token);
            // score() reads the packed rows through f16.
            EXPECT_LT(farthest(scored, session.logits()), exact ? 1e-4 : 2e-2) << format;
        }
    }
}

TEST_F(Decode, ABatchGivesEachSessionWhatItGetsAlone) {
    const std::vector<CacheOptions> all{
        options("full", 0, "none", 16), options("snapkv", 64, "kivi", 4),
        options("h2o", 48, "hqq", 8), options("streamingllm", 40, "kvquant", 4),
        options("pyramidkv", 64, "kivi", 2)};
    std::vector<Session> alone, together;
    for (std::size_t i = 0; i < all.size(); ++i) {
        for (std::vector<Session>* sessions : {&alone, &together}) {
            sessions->emplace_back(model_, all[i]);
            sessions->back().prefill(prompt(30 + 60 * static_cast<int>(i), 3));
        }
    }
    for (int step = 0; step < 120; ++step) {
        std::vector<Session*> batch;
        Tokens tokens;
        for (std::size_t i = 0; i < all.size(); ++i) {
            ASSERT_LT(farthest(alone[i].logits(), together[i].logits()), 2e-3) << all[i].method;
            tokens.push_back(best(alone[i]));
            alone[i].decode(tokens.back());
            batch.push_back(&together[i]);
        }
        Session::decode(batch, tokens);
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
        EXPECT_EQ(alone[i].stats().bytes, together[i].stats().bytes);
        EXPECT_EQ(alone[i].position(), together[i].position());
    }
}

// Every step of a long answer under a budget; returns the session for more questions.
void expect_budget_holds(const std::shared_ptr<const Model>& model, const CacheOptions& options,
                         const Tokens& prompt, int generated) {
    SCOPED_TRACE(options.method + " " + options.quant_method);
    Session session(model, options);
    session.prefill(prompt);
    const CacheOptions filled = session.options();
    const int slack = filled.residual_length + filled.group_size;
    const Session::Impl& s = session.impl();
    std::size_t most = 0;
    for (int i = 0; i < generated; ++i) {
        session.decode((7 * i + i / 11) % 300);
        for (const SessionLayer& layer : s.layers) {
            for (int g = 0; g < layer.store->kv_heads(); ++g) {
                ASSERT_LE(layer.store->span(g).tokens(), layer.budget[g] + slack) << i;
                if (options.method != "pyramidkv") {
                    // layerquant keeps as many bytes as max_capacity_prompts tokens at 16 bits.
                    const int bits = layer.store->layout().spec.bits_k;
                    const int share = filled.quant_method == "layerquant" ? 16 / bits : 1;
                    ASSERT_EQ(layer.budget[g], options.max_capacity_prompts * share);
                }
            }
        }
        most = std::max<std::size_t>(most, session.stats().bytes);
    }
    const CacheStats stats = session.stats();
    EXPECT_EQ(stats.bytes_peak, most);
    EXPECT_EQ(stats.allocated_bytes, stats.bytes);
    EXPECT_GT(stats.evictions, 0U);
    EXPECT_GT(stats.repackings, 0U);
    // f16 rows and positions of the most tokens a head may hold, a tail's reserve and a little
    // room.
    const ModelInfo& info = model->info();
    std::size_t limit = 0;
    for (const SessionLayer& layer : s.layers) {
        limit += static_cast<std::size_t>((layer.budget[0] + slack + filled.group_size) *
                                          info.kv_heads * (4 * info.head_dim + 4));
    }
    EXPECT_LE(stats.bytes_peak, limit + limit / 16);
    for (std::size_t layer = 0; layer < s.layers.size(); ++layer) {
        const Span& span = s.layers[layer].store->span(0);
        for (int i = 0; i < filled.n_sink; ++i) {
            EXPECT_EQ(span.position(i), i) << "a sink was dropped";
        }
        for (int i = 1; i <= std::max(1, filled.window_size); ++i) {
            EXPECT_EQ(span.position(span.tokens() - i), session.position() - i)
                << "the window was dropped";
        }
    }
}

TEST_F(Decode, TheBudgetHoldsForAnswersOfAnyLength) {
    for (const char* method : {"streamingllm", "h2o", "snapkv", "pyramidkv", "random"}) {
        for (const char* format : {"none", "kivi", "kvquant", "rotated", "kvarn", "graded"}) {
            const int bits = std::string(format) == "none" ? 16 : 4;
            expect_budget_holds(model_, options(method, 64, format, bits), prompt(200), 300);
        }
    }
}

TEST_F(Decode, ThreeThousandTokensUnderACapOf512) {
    for (const char* method : {"streamingllm", "h2o", "snapkv", "pyramidkv", "random"}) {
        expect_budget_holds(model_, options(method, 512, "kivi", 4), prompt(40), 3000);
    }
    for (const char* format : {"none", "hqq", "kvquant"}) {
        const int bits = std::string(format) == "none" ? 16 : 2;
        expect_budget_holds(model_, options("snapkv", 512, format, bits), prompt(40), 3000);
    }
    CacheOptions layerquant = options("snapkv", 512, "layerquant", 8);  // 1,024 tokens at 8 bits
    layerquant.quant_layers_bits = 4;                                   // and 2,048 at 4
    layerquant.quant_end_layers = 1;
    expect_budget_holds(model_, layerquant, prompt(40), 3000);
}

// Head g of G keeps a (g + 1)th of twice the budget.
const Policy kUneven{
    .name = "uneven",
    .paper = "",
    .summary = "",
    .departures = "",
    .protect = [](const PolicyParams&, int, int) { return Protected{.front = 0, .back = 8}; },
    .score =
        [](const Observation& seen, const PolicyParams&, std::span<float* const> scores) {
            for (std::size_t g = 0; g < seen.heads.size(); ++g) {
                for (int t = 0; t < seen.heads[g].tokens; ++t) {
                    scores[g][t] = static_cast<float>((t * 37) % 101);
                }
            }
        },
    .head_budgets =
        [](const Observation& seen, const PolicyParams&, std::span<float* const>, int budget,
           std::span<int> out) {
            for (int g = 0; g < seen.kv_heads; ++g) {
                out[g] = budget / (2 * g + 1);
            }
        }};

TEST_F(Decode, HeadsOfDifferentLengthsReallyFreeMemory) {
    const CacheOptions o = options("snapkv", 120, "kivi", 4);
    Session even(model_, o), uneven(model_, o);
    uneven.impl().plan.policy = &kUneven;
    for (Session* session : {&even, &uneven}) {
        session->prefill(prompt(400));
    }
    const LayerStore& first = store(uneven, 0);
    EXPECT_EQ(first.span(0).tokens(), 120);
    EXPECT_EQ(first.span(1).tokens(), 40);
    EXPECT_LT(static_cast<double>(uneven.stats().bytes),
              0.85 * static_cast<double>(even.stats().bytes));
    EXPECT_EQ(uneven.stats().bytes, uneven.stats().allocated_bytes);
    for (int i = 0; i < 200; ++i) {
        uneven.decode(i);
        EXPECT_LE(store(uneven, 1).span(0).tokens(), 120 + 64);
        EXPECT_LE(store(uneven, 1).span(1).tokens(), 40 + 64);
        ASSERT_TRUE(std::isfinite(uneven.logits()[0]));
    }
    Session copy = uneven.clone();
    copy.decode(3);
    uneven.decode(3);
    EXPECT_EQ(farthest(copy.logits(), uneven.logits()), 0.0);
}

TEST_F(Decode, ACloneOutlivesItsOriginal) {
    auto session = std::make_unique<Session>(model_, options("snapkv", 64, "kvquant", 4));
    session->prefill(prompt(200));
    Session copy = session->clone();
    session->decode(5);
    const std::vector<float> wanted(session->logits().begin(), session->logits().end());
    session.reset();
    copy.decode(5);
    EXPECT_EQ(farthest(copy.logits(), wanted), 0.0);
}

TEST_F(Decode, ASecondPromptIsPrunedAgain) {
    for (const char* format : {"none", "kivi", "kvquant", "rotated", "kvarn", "graded"}) {
        Session session(model_,
                        options("snapkv", 64, format, std::string(format) == "none" ? 16 : 4));
        session.prefill(prompt(200, 1));
        const std::uint64_t before = session.stats().repackings;
        EXPECT_EQ(before, 0U);
        session.prefill(prompt(100, 2));
        const CacheStats stats = session.stats();
        EXPECT_EQ(stats.tokens_seen, 300U);
        for (const double kept : stats.kept) {
            EXPECT_EQ(kept, 64.0);
        }
        EXPECT_EQ(stats.repackings,
                  static_cast<std::uint64_t>(model_->info().layers * model_->info().kv_heads));
        EXPECT_EQ(session.kept()[0].heads[0].positions.back(), 299);
        session.decode(1);
        ASSERT_TRUE(std::isfinite(session.logits()[0]));
    }
}

TEST_F(Decode, ASecondPromptRepacksNothingThatStays) {
    Session session(model_, options("full", 0, "kivi", 4));
    session.prefill(prompt(200, 1));
    const Span& span = store(session, 1).span(1);
    const std::vector<std::uint8_t> k(span.packed_k(), span.packed_k() + span.k_bytes());
    const std::vector<std::uint8_t> v(span.packed_v(), span.packed_v() + span.v_bytes());
    ASSERT_FALSE(k.empty());
    session.prefill(prompt(150, 2));
    const Span& after = store(session, 1).span(1);
    EXPECT_EQ(after.tokens(), 350);
    ASSERT_GT(after.k_bytes(), k.size());
    EXPECT_TRUE(std::equal(k.begin(), k.end(), after.packed_k()));
    EXPECT_TRUE(std::equal(v.begin(), v.end(), after.packed_v()));
    EXPECT_EQ(session.stats().repackings, 0U);
    EXPECT_EQ(session.stats().evictions, 0U);
}

}  // namespace
}  // namespace winnow
