// Layer-major prefill: the same bits for any number of threads, the same cache for any chunk size,
// nothing lost where nothing is pruned, and a session that survives being stopped.
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "support/gguf_refusal.h"
#include "support/tiny_gguf.h"

namespace winnow {
namespace {

using Tokens = std::vector<std::int32_t>;

const std::vector<std::string> kPruning{"h2o", "pyramidkv", "random", "snapkv", "streamingllm"};

Tokens random_tokens(int count, unsigned seed) {
    std::mt19937 random(seed);
    Tokens tokens(static_cast<std::size_t>(count));
    for (std::int32_t& token : tokens) {
        token = static_cast<std::int32_t>(random() % 320U);
    }
    return tokens;
}

CacheOptions pruned(const std::string& method, int cap) {
    CacheOptions options;
    options.method = method;
    options.max_capacity_prompts = cap;
    return options;
}

/// A tiny model in a folder of its own, loaded with any number of threads.
class Prefill : public ::testing::Test {
  protected:
    std::shared_ptr<const Model> model(int threads) {
        if (path_.empty()) {
            path_ = folder_.file("tiny.gguf");
            testing::write_tiny_gguf(path_, {.layers = 3, .query_heads = 6, .embed = 192});
        }
        return Model::load(path_, {.threads = threads});
    }

  private:
    testing::Folder folder_;
    std::string path_;
};

void expect_same_kept(const Session& a, const Session& b, const std::string& label) {
    const auto of_a = a.kept(), of_b = b.kept();
    ASSERT_EQ(of_a.size(), of_b.size());
    for (std::size_t layer = 0; layer < of_a.size(); ++layer) {
        for (std::size_t g = 0; g < of_a[layer].heads.size(); ++g) {
            EXPECT_EQ(of_a[layer].heads[g].positions, of_b[layer].heads[g].positions)
                << label << " layer " << layer << " head " << g;
        }
    }
}

std::vector<float> logits_of(const Session& session) {
    return {session.logits().begin(), session.logits().end()};
}

float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
    float most = a.size() == b.size() ? 0.0F : HUGE_VALF;
    for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
        most = std::max(most, std::abs(a[i] - b[i]));
    }
    return most;
}

// The share of a's kept tokens that b keeps too.
double common_share(const Session& a, const Session& b) {
    const auto of_a = a.kept(), of_b = b.kept();
    std::size_t common = 0, all = 0;
    for (std::size_t layer = 0; layer < of_a.size(); ++layer) {
        for (std::size_t g = 0; g < of_a[layer].heads.size(); ++g) {
            const auto& x = of_a[layer].heads[g].positions;
            const auto& y = of_b[layer].heads[g].positions;
            all += x.size();
            for (const std::int32_t position : x) {
                common += std::binary_search(y.begin(), y.end(), position) ? 1U : 0U;
            }
        }
    }
    return static_cast<double>(common) / static_cast<double>(all);
}

TEST_F(Prefill, SameBitsForAnyNumberOfThreads) {
    const Tokens tokens = random_tokens(300, 1);
    const Tokens second = random_tokens(40, 2);
    for (const std::string& method : kPruning) {
        for (const int bits : method == "snapkv" ? std::vector<int>{16, 4} : std::vector<int>{16}) {
            CacheOptions options = pruned(method, 96);
            options.nbits = bits;
            Session one(model(1), options);
            one.prefill(tokens);
            const std::vector<float> first_logits = logits_of(one);
            one.prefill(second);
            one.decode(5);
            for (const int threads : {2, 3}) {
                const std::string label = method + " threads " + std::to_string(threads);
                Session many(model(threads), options);
                many.prefill(tokens);
                EXPECT_EQ(logits_of(many), first_logits) << label;
                many.prefill(second);
                many.decode(5);
                EXPECT_EQ(logits_of(many), logits_of(one)) << label;
                EXPECT_EQ(many.logits_hash(), one.logits_hash()) << label;
                EXPECT_EQ(many.stats().bytes, one.stats().bytes) << label;
                expect_same_kept(one, many, label);
            }
        }
    }
}

TEST_F(Prefill, ChunkSizesAgree) {
    const auto tiny = model(1);
    const Tokens tokens = random_tokens(700, 3);
    for (const std::string& method : kPruning) {
        Session whole(tiny, pruned(method, 160), {.batch = 1024});
        whole.prefill(tokens);
        for (const int batch : {1, 7, 64, 512}) {
            Session chunked(tiny, pruned(method, 160), {.batch = batch});
            chunked.prefill(tokens);
            const std::string label = method + " batch " + std::to_string(batch);
            EXPECT_LE(largest_difference(logits_of(whole), logits_of(chunked)), 1e-3F) << label;
            EXPECT_GE(common_share(whole, chunked), 0.995) << label;
        }
    }
}

// What is kept decides what a decoded token sees, so an answer within the cap is compared too.
TEST_F(Prefill, ShortPromptsEqualTheFullCacheBitForBit) {
    const auto tiny = model(1);
    for (const int count : {1, 2, 200, 256}) {
        const Tokens tokens = random_tokens(count, 4);
        Session full(tiny);
        full.prefill(tokens);
        for (const std::string& method : kPruning) {
            const std::string label = method + " with " + std::to_string(count) + " tokens";
            Session session(tiny, pruned(method, 256));
            session.prefill(tokens);
            EXPECT_EQ(logits_of(session), logits_of(full)) << label;
            expect_same_kept(session, full, label);
            Session copy = full.clone();
            for (const std::int32_t token : random_tokens(std::min(120, 256 - count), 5)) {
                session.decode(token);
                copy.decode(token);
            }
            EXPECT_EQ(logits_of(session), logits_of(copy)) << label;
        }
    }
}

TEST_F(Prefill, KeepsExactlyTheBudget) {
    const auto tiny = model(1);
    for (const std::string& method : kPruning) {
        Session session(tiny, pruned(method, 64));
        session.prefill(random_tokens(300, 6));
        for (const KeptLayer& layer : session.kept()) {
            EXPECT_LT(layer.budget, 300) << method;
            for (const KeptHead& head : layer.heads) {
                EXPECT_EQ(static_cast<int>(head.positions.size()), layer.budget) << method;
                EXPECT_EQ(head.positions.back(), 299) << method;
                EXPECT_TRUE(std::is_sorted(head.positions.begin(), head.positions.end()));
            }
        }
        EXPECT_EQ(session.position(), 300);
        EXPECT_EQ(session.stats().tokens_seen, 300U);
    }
}

TEST_F(Prefill, OneToken) {
    const auto tiny = model(2);
    for (const char* method : {"full", "snapkv"}) {
        CacheOptions options;
        options.method = method;
        options.nbits = 4;
        Session session(tiny, options);
        session.prefill(Tokens{3});
        EXPECT_EQ(session.logits().size(), 320U);
        EXPECT_EQ(session.kept()[0].heads[0].positions, std::vector<std::int32_t>{0});
        session.prefill(Tokens{4});
        session.decode(5);
        EXPECT_EQ(session.position(), 3);
        EXPECT_EQ(session.kept()[2].heads[1].positions, (std::vector<std::int32_t>{0, 1, 2}));
    }
}

// Two prompts through the full cache are one prompt; pruned, the second works and keeps the budget.
TEST_F(Prefill, ASecondPromptContinues) {
    const auto tiny = model(2);
    const Tokens tokens = random_tokens(300, 7);
    Session whole(tiny), parts(tiny);
    whole.prefill(tokens);
    parts.prefill(std::span(tokens).first(170));
    parts.prefill(std::span(tokens).subspan(170));
    EXPECT_LE(largest_difference(logits_of(whole), logits_of(parts)), 1e-3F);
    EXPECT_EQ(parts.position(), 300);
    expect_same_kept(whole, parts, "full");
    for (const std::string& method : kPruning) {
        Session session(tiny, pruned(method, 64));
        session.prefill(std::span(tokens).first(170));
        session.prefill(std::span(tokens).subspan(170));
        for (const KeptLayer& layer : session.kept()) {
            for (const KeptHead& head : layer.heads) {
                EXPECT_EQ(static_cast<int>(head.positions.size()), layer.budget) << method;
                EXPECT_EQ(head.positions.back(), 299) << method;
            }
        }
    }
}

// Stops at the first report of `layer`.
ProgressCallback stop_at(int layer) {
    return [layer](const Progress& at) { return at.layer < layer; };
}

void expect_stopped(Session& session, const Tokens& tokens, int layer) {
    try {
        session.prefill(tokens, stop_at(layer));
        ADD_FAILURE() << "was not stopped";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::stopped) << error.what();
    }
}

TEST_F(Prefill, StoppingLeavesTheSessionAsItWas) {
    const auto tiny = model(1);
    const Tokens tokens = random_tokens(200, 8);
    const Tokens second = random_tokens(90, 9);
    for (const char* method : {"full", "h2o", "pyramidkv", "snapkv"}) {
        for (const int layer : {0, 2}) {
            CacheOptions options = pruned(method, 64);
            options.nbits = 4;
            const std::string label = std::string(method) + " layer " + std::to_string(layer);
            Session calm(tiny, options), stopped(tiny, options);
            const std::size_t empty = stopped.stats().allocated_bytes;
            expect_stopped(stopped, tokens, layer);
            EXPECT_EQ(stopped.position(), 0) << label;
            EXPECT_TRUE(stopped.logits().empty()) << label;
            EXPECT_EQ(stopped.stats().allocated_bytes, empty) << label;
            EXPECT_TRUE(stopped.kept()[0].heads[0].positions.empty()) << label;

            calm.prefill(tokens);
            stopped.prefill(tokens);
            EXPECT_EQ(logits_of(calm), logits_of(stopped)) << label;
            expect_stopped(stopped, second, layer);
            EXPECT_EQ(stopped.position(), 200) << label;
            EXPECT_EQ(logits_of(calm), logits_of(stopped)) << label;
            EXPECT_EQ(stopped.stats().allocated_bytes, calm.stats().allocated_bytes) << label;
            EXPECT_EQ(stopped.stats().policy_bytes, calm.stats().policy_bytes) << label;
            expect_same_kept(calm, stopped, label);

            calm.prefill(second);
            stopped.prefill(second);
            for (const std::int32_t token : random_tokens(5, 10)) {
                calm.decode(token);
                stopped.decode(token);
            }
            EXPECT_EQ(calm.logits_hash(), stopped.logits_hash()) << label;
            expect_same_kept(calm, stopped, label);
        }
    }
}

TEST_F(Prefill, ProgressCountsEveryLayerAndToken) {
    Session session(model(1), {}, {.batch = 64});
    std::vector<int> tokens_of_layer(3, 0);
    session.prefill(random_tokens(150, 11), [&](const Progress& at) {
        EXPECT_EQ(at.layers, 3);
        EXPECT_EQ(at.tokens_total, 150);
        EXPECT_GT(at.tokens, tokens_of_layer.at(at.layer));
        tokens_of_layer.at(at.layer) = at.tokens;
        return true;
    });
    EXPECT_EQ(tokens_of_layer, (std::vector<int>{150, 150, 150}));
}

TEST_F(Prefill, WrongPromptsAreRefusedAndChangeNothing) {
    Session session(model(1), {}, {.context = 100});
    session.prefill(random_tokens(60, 12));
    const std::vector<float> before = logits_of(session);
    for (const Tokens& wrong : {Tokens{}, Tokens{320}, Tokens{-1}, random_tokens(41, 13)}) {
        try {
            session.prefill(wrong);
            ADD_FAILURE() << "a prompt of " << wrong.size() << " tokens was taken";
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::usage) << error.what();
        }
    }
    EXPECT_EQ(session.position(), 60);
    EXPECT_EQ(logits_of(session), before);
    session.prefill(random_tokens(40, 13));
    EXPECT_THROW(session.decode(1), Error);
}

}  // namespace
}  // namespace winnow
