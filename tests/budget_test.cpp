// --kv-budget: what is understood, what is refused, and that no moment of decode passes it.
#include "engine/budget.h"

#include <gtest/gtest.h>
#include <winnow/plan.h>
#include <winnow/winnow.h>

#include <cmath>
#include <cstdio>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "engine/session_impl.h"
#include "support/tiny_engine.h"

namespace winnow {
namespace {

TEST(Bytes, AreReadWithTheirUnits) {
    const auto read = [](const char* text) { return parse_bytes("kv-budget", text); };
    EXPECT_EQ(read("65536"), 65536U);
    EXPECT_EQ(read("24MiB"), 24U << 20);
    EXPECT_EQ(read("24 mib"), 24U << 20);
    EXPECT_EQ(read("1.5GB"), 1500000000U);
    EXPECT_EQ(read("2GiB"), 2ULL << 30);
    EXPECT_EQ(read("10KiB"), 10240U);
    EXPECT_EQ(read("10kB"), 10000U);
    for (const char* text : {"", "x", "24 MiX", "-1", "0", "nan", "1e30", "MiB", "0.5"}) {
        EXPECT_THROW(read(text), Error) << text;
    }
}

class Budget : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        const std::string path = ::testing::TempDir() + "winnow_budget_test.gguf";
        testing::write_tiny_gguf(path, {.layers = 3,
                                        .query_heads = 6,
                                        .kv_heads = 2,
                                        .head_dim = 32,
                                        .embed = 64,
                                        .ff = 64,
                                        .context = 8192});
        model_ = Model::load(path, {.threads = 1});
        path_ = path;
    }
    static void TearDownTestSuite() {
        model_.reset();
        std::remove(path_.c_str());
    }

    static std::vector<std::int32_t> prompt(int n, unsigned seed = 1) {
        return testing::random_prompt(n, seed);
    }
    static std::uint64_t full_bytes(int tokens) {
        return model_->info().full_cache_bytes(static_cast<std::uint64_t>(tokens));
    }
    static CacheOptions within(std::uint64_t bytes, const std::string& method = "full") {
        CacheOptions o;
        o.method = method;
        o.kv_budget = std::to_string(bytes);
        return o;
    }
    static std::size_t now(const Session::Impl& s) { return s.cache.now() + s.policy.now(); }

    // A prompt, a long answer and a second prompt; the meters are read after every step, their
    // peaks too, so that no moment between steps escapes.
    static CacheStats expect_within(const CacheOptions& options, std::uint64_t bytes, int tokens,
                                    int generated) {
        SCOPED_TRACE(options.method + " " + options.quant_method + " in " + std::to_string(bytes));
        Session session(model_, options);
        Session::Impl& s = session.impl();
        session.prefill(prompt(tokens));
        EXPECT_LE(now(s), bytes);
        EXPECT_EQ(s.cache.now(), session.stats().bytes);
        EXPECT_EQ(s.policy.now(), session.stats().policy_bytes);
        for (int i = 0; i < generated; ++i) {
            s.memory.reset_peak();
            s.cache.reset_peak();
            s.policy.reset_peak();
            session.decode((7 * i + i / 11) % 300);
            EXPECT_LE(now(s), bytes) << i;
            // Two upper bounds of the peak of their sum: the tighter one will do.
            EXPECT_LE(std::min(s.cache.peak() + s.policy.peak(), s.memory.peak()), bytes) << i;
            EXPECT_TRUE(std::isfinite(session.logits()[0]));
            if (::testing::Test::HasFailure()) {
                break;
            }
        }
        session.prefill(prompt(50, 9));
        EXPECT_LE(now(s), bytes);
        session.decode(1);
        EXPECT_LE(now(s), bytes);
        return session.stats();
    }

    static std::shared_ptr<const Model> model_;
    static std::string path_;
};

std::shared_ptr<const Model> Budget::model_;
std::string Budget::path_;

TEST_F(Budget, MixedHoldsItForALongAnswer) {
    for (const int share : {3, 12}) {
        const std::uint64_t bytes = full_bytes(600) / static_cast<std::uint64_t>(share);
        const CacheStats stats = expect_within(within(bytes), bytes, 600, 200);
        EXPECT_GT(stats.demotions, 0U);
        EXPECT_GT(stats.evictions, 0U);
        EXPECT_GE(stats.precisions.size(), 2U);
        EXPECT_GT(stats.bytes + stats.policy_bytes, bytes * 8 / 10) << "the budget is left unused";
    }
}

TEST_F(Budget, OneWidthIsHeldFixed) {
    CacheOptions o = within(full_bytes(400) / 8);
    o.nbits = 4;
    const CacheStats stats = expect_within(o, full_bytes(400) / 8, 400, 100);
    for (const PrecisionStats& at : stats.precisions) {
        EXPECT_TRUE(at.bits_k == 4 || at.bits_k == 16);
    }
}

TEST_F(Budget, EveryMethodHoldsIt) {
    for (const char* method : {"snapkv", "pyramidkv", "h2o", "streamingllm", "random"}) {
        for (const char* format : {"none", "kivi"}) {
            CacheOptions o = within(full_bytes(500) / 3, method);
            o.quant_method = format;
            const CacheStats stats = expect_within(o, full_bytes(500) / 3, 500, 80);
            EXPECT_GT(stats.evictions, 0U) << method << " " << format;
        }
    }
}

TEST_F(Budget, AShortPromptStaysExact) {
    Session session(model_, within(full_bytes(400)));
    session.prefill(prompt(100));
    ASSERT_EQ(session.stats().precisions.size(), 1U);
    EXPECT_EQ(session.stats().precisions[0].bits_k, 16);
    for (const double kept : session.stats().kept) {
        EXPECT_EQ(kept, 100.0);
    }
}

TEST_F(Budget, ACapFixesTheTokensAndBitsFollow) {
    CacheOptions o = within(0, "snapkv");
    o.max_capacity_prompts = 256;
    o.kv_budget = std::to_string(full_bytes(4000));
    EXPECT_EQ(Session(model_, o).options().nbits, 16);
    o.kv_budget = std::to_string(full_bytes(170));
    const CacheOptions planned = Session(model_, o).options();
    EXPECT_EQ(planned.max_capacity_prompts, 256);
    EXPECT_LT(planned.nbits, 16);
}

TEST_F(Budget, TooSmallNamesTheSmallestThatWorks) {
    for (const char* method : {"full", "snapkv", "streamingllm"}) {
        try {
            Session session(model_, within(2000, method));
            FAIL() << method << " took 2000 bytes";
        } catch (const Error& error) {
            const std::string text = error.what();
            const auto at = text.find("needs at least ");
            ASSERT_NE(at, std::string::npos) << text;
            const std::uint64_t least = std::stoull(text.substr(at + 15));
            EXPECT_THROW(Session(model_, within(least - 1, method)), Error);
            expect_within(within(least, method), least, 200, 60);
        }
    }
}

TEST_F(Budget, APlanSaysWhatASessionDoes) {
    for (const char* method : {"full", "snapkv", "pyramidkv"}) {
        const CacheOptions o = within(full_bytes(600) / 4, method);
        const CachePlan plan = plan_cache(path_, o, 600);
        ASSERT_EQ(plan.layers.size(), 3U);
        EXPECT_LE(plan.bytes, full_bytes(600) / 4);
        EXPECT_EQ(plan.full_bytes, full_bytes(600));
        Session session(model_, o);
        session.prefill(prompt(600));
        const CacheStats stats = session.stats();
        EXPECT_LE(stats.bytes + stats.policy_bytes, plan.bytes);
        EXPECT_EQ(session.options().max_capacity_prompts, plan.cache.max_capacity_prompts);
        for (std::size_t l = 0; l < 3; ++l) {
            EXPECT_LE(plan.layers[l].tokens_exact, stats.kept[l]) << method;
            EXPECT_GE(plan.layers[l].tokens_most + 1, stats.kept[l]) << method;
        }
        EXPECT_GT(stats.dropped_mass, 0.0);
        EXPECT_LT(stats.dropped_mass, 1.0);
        EXPECT_GE(stats.dropped_mass_worst, stats.dropped_mass);
    }
    EXPECT_THROW(plan_cache(path_, within(2000), 600), Error);
}

// Equal bytes for comparisons: the largest cap of which a cache right after its prefill, without
// room for growth, holds no more.
TEST_F(Budget, EqualBytesAreThoseOfTheCacheAfterPrefill) {
    for (const char* method : {"streamingllm", "h2o", "snapkv", "pyramidkv"}) {
        for (const int nbits : {16, 4}) {
            for (const int residual : {0, 32}) {
                CacheOptions o;
                o.method = method;
                o.nbits = nbits;
                o.residual_length = residual;
                o.window_size = 8;
                const std::uint64_t bytes = full_bytes(500) / 3;
                const auto held = [&](const CacheOptions& options) {
                    Session session(model_, options);
                    session.impl().plan.memory.exact_room = true;
                    session.prefill(prompt(500));
                    const CacheStats stats = session.stats();
                    std::uint64_t used = stats.policy_bytes;
                    for (const PrecisionStats& at : stats.precisions) {
                        used += at.bytes;
                    }
                    for (const double kept : stats.kept) {
                        used += static_cast<std::uint64_t>(kept) * 2 * sizeof(std::int32_t);
                    }
                    EXPECT_NEAR(static_cast<double>(used),
                                static_cast<double>(bytes_after_prefill(
                                    session.impl().plan, model_->impl().hparams, 500)),
                                0.01 * static_cast<double>(bytes))
                        << method << " " << nbits << " " << residual;
                    return used;
                };
                CacheOptions fitted = plan_equal_bytes(*model_, o, 500, bytes);
                EXPECT_LE(static_cast<double>(held(fitted)), 1.01 * static_cast<double>(bytes));
                fitted.max_capacity_prompts += 34;  // a group more
                EXPECT_GT(held(fitted), bytes);
            }
        }
    }
}

TEST_F(Budget, TheGuardRaisesItUpToItsLimit) {
    CacheOptions o = within(full_bytes(600) / 12);
    Session plain(model_, o);
    plain.prefill(prompt(600));
    EXPECT_FALSE(plain.stats().guard_raised);
    o.guard = plain.stats().dropped_mass / 2.0;
    o.kv_budget_max = std::to_string(full_bytes(600) / 3);
    Session guarded(model_, o);
    guarded.prefill(prompt(600));
    const CacheStats stats = guarded.stats();
    EXPECT_TRUE(stats.guard_raised);
    EXPECT_LT(stats.dropped_mass, plain.stats().dropped_mass);
    EXPECT_GT(stats.budget_bytes, full_bytes(600) / 12);
    EXPECT_LE(stats.budget_bytes, full_bytes(600) / 3 + 1);
    EXPECT_LE(stats.bytes + stats.policy_bytes, stats.budget_bytes);
    o.kv_budget_max.clear();
    EXPECT_THROW(validate(o), Error);
}

TEST_F(Budget, PinnedTokensAreNeverDropped) {
    const std::uint64_t bytes = full_bytes(400) / 10;
    Session session(model_, within(bytes));
    session.pin(50, 70);
    session.prefill(prompt(400));
    for (int i = 0; i < 200; ++i) {
        session.decode(i % 300);
    }
    for (const KeptLayer& layer : session.kept()) {
        for (const KeptHead& head : layer.heads) {
            const std::set<int> kept(head.positions.begin(), head.positions.end());
            for (int t = 50; t < 70; ++t) {
                ASSERT_EQ(kept.count(t), 1U) << t;
            }
        }
    }
}

TEST_F(Budget, TheSameBitsForAnyNumberOfThreads) {
    Session one(model_, within(full_bytes(300) / 8));
    Session two = one.clone();
    one.prefill(prompt(300));
    two.prefill(prompt(300));
    for (int i = 0; i < 40; ++i) {
        one.decode(i);
        two.decode(i);
    }
    EXPECT_EQ(one.logits_hash(), two.logits_hash());
    Session copy = two.clone();
    copy.decode(5);
    two.decode(5);
    EXPECT_EQ(copy.logits_hash(), two.logits_hash());
}

}  // namespace
}  // namespace winnow
