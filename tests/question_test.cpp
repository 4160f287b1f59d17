// A hidden question: what is kept of the text does not depend on it, it is read whole, and another
// one finds the same text.
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <algorithm>

#include "engine/session_impl.h"
#include "eval/prompt_parts.h"
#include "kernels/dense.h"
#include "support/tiny_engine.h"

namespace winnow {
namespace {

using Tokens = std::vector<std::int32_t>;

TEST(PromptParts, AreFoundAmongTokens) {
    using namespace eval;
    const TokenText text({"<s>", "The c", "at s", "at. The", " cat", " ran."});
    EXPECT_EQ(text.range(0, 3), (TokenRange{0, 1}));
    EXPECT_EQ(text.range(3, 5), (TokenRange{1, 2}));
    EXPECT_EQ(text.range(7, 2), (TokenRange{1, 3}));
    EXPECT_EQ(pinned_ranges("system", text, 2), (std::vector<TokenRange>{{0, 2}}));
    EXPECT_EQ(pinned_ranges("4", text, 0), (std::vector<TokenRange>{{0, 4}}));
    EXPECT_EQ(pinned_ranges("4000", text, 0), (std::vector<TokenRange>{{0, 6}}));
    EXPECT_EQ(pinned_ranges("cat", text, 0), (std::vector<TokenRange>{{1, 3}, {4, 5}}));
    for (const char* what : {"", "0", "dog", "Cat"}) {
        EXPECT_THROW(pinned_ranges(what, text, 1), Error) << what;
    }
    EXPECT_THROW(pinned_ranges("system", text, 0), Error);
    EXPECT_EQ(question_start("-p", " The cat\n", text), 3);
    EXPECT_EQ(question_start("-p", "The cat", text, 20), 1);
    EXPECT_THROW(question_start("-p", "  ", text), Error);
    EXPECT_THROW(question_start("-p", "the cat", text), Error);
    EXPECT_THROW(question_start("-p", "<s>The", text), Error);
}

class Question : public testing::TinyEngine<Question> {
  public:
    inline static const testing::TinyModelOptions& kModel = testing::kThreeLayers;

  protected:
    static std::vector<std::string> methods() {
        std::vector<std::string> names{"layerquant", "mixed"};
        for (const MethodInfo& policy : policy_list()) {
            names.push_back(policy.name);
        }
        return names;
    }
    static CacheOptions hidden(const std::string& method, bool yes = true) {
        CacheOptions o;
        o.method = method;
        o.max_capacity_prompts = method == "full" ? 0 : 96;
        o.nbits = method == "mixed" || method == "layerquant" ? 0 : 4;
        o.quant_end_layers = method == "layerquant" ? 2 : 0;
        o.window_size = method == "lagkv" ? 16 : 0;
        o.question_hidden = yes;
        return o;
    }
    // Positions of the text that a head holds.
    static Tokens of_text(const KeptHead& head, int end) {
        Tokens kept;
        std::ranges::copy_if(head.positions, std::back_inserter(kept),
                             [&](std::int32_t at) { return at < end; });
        return kept;
    }
};

TEST_F(Question, DoesNotChangeWhatIsKeptOfTheText) {
    for (const std::string& method : methods()) {
        SCOPED_TRACE(method);
        Session text(model_, hidden(method));
        text.prefill(prompt(300));
        Session one = text.clone(), two = text.clone();
        one.prefill(prompt(20, 5));
        two.prefill(prompt(20, 6));
        EXPECT_NE(one.logits_hash(), two.logits_hash());
        for (int layer = 0; layer < 3; ++layer) {
            for (int g = 0; g < 2; ++g) {
                const Tokens kept = of_text(one.kept()[layer].heads[g], 300);
                EXPECT_EQ(kept, of_text(two.kept()[layer].heads[g], 300));
                if (method != "mixed") {  // it makes room for the question by the text alone
                    EXPECT_EQ(kept, text.kept()[layer].heads[g].positions);
                }
                EXPECT_EQ(one.kept()[layer].heads[g].positions.size(), kept.size() + 20);
            }
        }
    }
}

// Nothing is chosen, so it is the prefill of a second prompt.
TEST_F(Question, IsASecondPromptForTheFullCache) {
    for (const char* quant : {"none", "kivi"}) {
        CacheOptions o = hidden("full");
        o.quant_method = quant;
        o.nbits = 0;
        Session one(model_, o);
        o.question_hidden = false;
        Session two(model_, o);
        for (Session* session : {&one, &two}) {
            session->prefill(prompt(200));
            session->prefill(prompt(100, 5));
            session->decode(7);
        }
        EXPECT_EQ(one.logits_hash(), two.logits_hash()) << quant;
    }
}

// graded shares its bits out by the queries of the text; those of a question must not count.
TEST_F(Question, DoesNotChangeHowGradedSharesItsBits) {
    CacheOptions o = hidden("full");
    o.quant_method = "graded";
    o.nbits = 2;
    Session text(model_, o);
    text.prefill(prompt(120));
    Session one = text.clone(), two = text.clone();
    one.prefill(Tokens(400, 7));
    two.prefill(Tokens(400, 123));
    // The shares lie in the rows as they are read back.
    const auto rows = [](Session& session, int layer, int g) {
        const LayerStore& store = *session.impl().layers[layer].store;
        const auto floats = static_cast<std::size_t>(store.tokens(g)) * 32;
        std::vector<f16> k(floats), v(floats);
        std::vector<std::int32_t> positions(static_cast<std::size_t>(store.tokens(g)));
        store.read(g, k.data(), v.data(), positions.data());
        std::vector<float> first(64 * 32);
        widen(k.data(), first.data(), first.size());
        return first;
    };
    for (int layer = 0; layer < 3; ++layer) {
        for (int g = 0; g < 2; ++g) {
            EXPECT_EQ(rows(one, layer, g), rows(text, layer, g));
            EXPECT_EQ(rows(two, layer, g), rows(text, layer, g));
        }
    }
    // With the question in the same prompt they do depend on it.
    o.question_hidden = false;
    Session open_one(model_, o), open_two(model_, o);
    Tokens all = prompt(120), other = all;
    all.insert(all.end(), 400, 7);
    other.insert(other.end(), 400, 123);
    open_one.prefill(all);
    open_two.prefill(other);
    bool same = true;
    for (int layer = 0; layer < 3; ++layer) {
        for (int g = 0; g < 2; ++g) {
            same = same && rows(open_one, layer, g) == rows(open_two, layer, g);
        }
    }
    EXPECT_FALSE(same);
}

// The running sums of h2o: the text's stay, the question's own are those of its attention.
TEST_F(Question, LeavesTheSumsOfTheText) {
    Session session(model_, hidden("h2o"));
    session.prefill(prompt(300));
    LayerStore* store = session.impl().layers[1].store.get();
    const int held = store->tokens(0);
    const std::vector<float> before(store->sums(0), store->sums(0) + held);
    session.prefill(prompt(20, 5));
    store = session.impl().layers[1].store.get();
    const float* after = store->sums(0);
    EXPECT_EQ(before, std::vector<float>(after, after + held));
    // Of 20 queries the first question token is seen by 20, the last by one alone.
    EXPECT_GT(after[held], 0.0F);
    EXPECT_GT(after[held + 19], 0.0F);
    EXPECT_LT(after[held + 19], 1.0F);
}

TEST_F(Question, StaysWholeInALongAnswer) {
    for (const std::string& method : methods()) {
        SCOPED_TRACE(method);
        Session session(model_, hidden(method));
        session.prefill(prompt(300));
        session.prefill(prompt(30, 5));
        session.prefill(prompt(9, 6));  // another, right behind the first
        for (int i = 0; i < 200; ++i) {
            session.decode(i % 300);
        }
        for (const KeptLayer& layer : session.kept()) {
            for (const KeptHead& head : layer.heads) {
                for (int at = 300; at < 339; ++at) {
                    ASSERT_TRUE(std::ranges::binary_search(head.positions, at)) << at;
                }
            }
        }
    }
}

TEST_F(Question, KeepsWithinABudgetOfBytes) {
    for (const char* method : {"full", "snapkv", "adakv", "h2o", "r_kv", "expected_attention"}) {
        SCOPED_TRACE(method);
        CacheOptions o;
        o.method = method;
        o.kv_budget = std::string(method) == "expected_attention" ? "300KiB" : "120KiB";
        const std::uint64_t most = std::string(method) == "expected_attention" ? 300 : 120;
        o.question_hidden = true;
        Session session(model_, o);
        session.prefill(prompt(600));
        const auto fits = [&] {
            const CacheStats stats = session.stats();
            return stats.bytes + stats.policy_bytes <= most << 10;
        };
        Session other = session.clone();
        session.prefill(prompt(90, 5));
        EXPECT_TRUE(fits());
        other.prefill(prompt(90, 6));
        for (int g = 0; g < 2; ++g) {
            EXPECT_EQ(of_text(session.kept()[1].heads[g], 600),
                      of_text(other.kept()[1].heads[g], 600));
        }
        for (int i = 0; i < 150; ++i) {
            session.decode(i);
            ASSERT_TRUE(fits()) << "step " << i;
        }
        const int before = session.position();
        try {
            session.prefill(prompt(4000, 7));
            ADD_FAILURE() << "4,000 tokens fit";
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::usage);
            EXPECT_NE(std::string(error.what()).find("4000"), std::string::npos) << error.what();
        }
        EXPECT_EQ(session.position(), before);
    }
}

TEST_F(Question, StoppingLeavesTheSessionAsItWas) {
    for (const char* method : {"mixed", "h2o", "kvzip", "kvzip_plus"}) {
        Session session(model_, hidden(method));
        session.prefill(prompt(300));
        Session same = session.clone();
        EXPECT_THROW(
            session.prefill(prompt(40, 5), [](const Progress& at) { return at.layer < 1; }), Error);
        for (int i = 0; i < 80; ++i) {
            session.decode(i);
            same.decode(i);
        }
        EXPECT_EQ(session.logits_hash(), same.logits_hash()) << method;
    }
}

}  // namespace
}  // namespace winnow
