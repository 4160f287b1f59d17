// kvzip: two passes, one threshold over all heads and layers.
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <algorithm>

#include "engine/second_pass.h"
#include "support/repeated_attention.h"
#include "support/tiny_engine.h"

namespace winnow {
namespace {

using Tokens = std::vector<std::int32_t>;

constexpr int kCap = 40;
constexpr int kPiece = 60;

class KvZip : public testing::TinyEngine<KvZip> {
  public:
    inline static const testing::TinyModelOptions kModel{
        .query_heads = 6, .kv_heads = 3, .head_dim = 32, .embed = 64, .ff = 64};

  protected:
    static CacheOptions options(int cap = kCap, int bits = 16) {
        CacheOptions o;
        o.method = "kvzip";
        o.max_capacity_prompts = cap;
        o.nbits = bits;
        return o;
    }
    // Short pieces, so that a short prompt has several.
    static Session session(const CacheOptions& o, std::shared_ptr<const Model> model = model_) {
        Session made(std::move(model), o);
        made.impl().plan.repeat_tokens = kPiece;
        return made;
    }
    static int held(Session& session) {
        int sum = 0;
        for (const SessionLayer& layer : session.impl().layers) {
            for (int g = 0; g < layer.store->kv_heads(); ++g) {
                sum += layer.store->tokens(g);
            }
        }
        return sum;
    }
};

// One threshold over all heads and layers.
TEST_F(KvZip, KeepsWhatThePlainFormulaKeeps) {
    const Tokens tokens = prompt(150);
    const auto want =
        testing::best_of_all(testing::repeated_scores(model_, tokens, kPiece, false), 6 * kCap);
    Session found = session(options());
    found.prefill(tokens);
    EXPECT_LE(testing::different(want, found.kept()), 4)
        << "the probe's queries are rounded to f16";
    const auto [least, most] = std::ranges::minmax_element(want, {}, &Tokens::size);
    EXPECT_LT(least->size(), most->size()) << "heads and layers should differ";
    EXPECT_EQ(held(found), 6 * kCap);
}

TEST_F(KvZip, APromptWithinTheCapIsKeptWholeAndReadOnce) {
    Session full(model_), zip = session(options(100));
    int steps = 0;
    full.prefill(prompt(100));
    zip.prefill(prompt(100), [&](const Progress& at) {
        steps = std::max(steps, at.layers);
        return true;
    });
    EXPECT_EQ(steps, 2);
    EXPECT_EQ(zip.logits_hash(), full.logits_hash());
    EXPECT_EQ(held(zip), 600);
    for (int i = 0; i < 100; ++i) {
        zip.decode(i);
    }
    EXPECT_LE(held(zip), 6 * (100 + 64));
    EXPECT_GT(zip.stats().evictions, 0U);
}

TEST_F(KvZip, GivesTheSameBitsForAnyThreadCountAndBesideOthers) {
    std::string hash;
    for (const int threads : {1, 2, 3}) {
        const auto model = Model::load(path_, {.threads = threads});
        CacheOptions snap;
        snap.method = "snapkv";
        snap.max_capacity_prompts = kCap;
        Session alone = session(options(), model), shared = session(options(), model);
        Session snapkv(model, snap), snapkv_alone(model, snap);
        alone.prefill(prompt(150));
        const std::vector<Session*> sessions{&snapkv, &shared};
        Session::prefill(sessions, prompt(150));
        snapkv_alone.prefill(prompt(150));
        for (int i = 0; i < 10; ++i) {
            for (Session* s : {&alone, &shared, &snapkv, &snapkv_alone}) {
                s->decode(i);
            }
        }
        hash = hash.empty() ? alone.logits_hash() : hash;
        EXPECT_EQ(alone.logits_hash(), hash) << threads;
        EXPECT_EQ(shared.logits_hash(), hash) << threads;
        EXPECT_EQ(snapkv.logits_hash(), snapkv_alone.logits_hash());
    }
}

TEST_F(KvZip, ThePeakOfPrefillIsTheFullCacheAndTheCacheIsSmall) {
    Session zip = session(options(kCap, 4));
    zip.prefill(prompt(600));
    const CacheStats stats = zip.stats();
    EXPECT_GT(stats.prefill_peak_bytes, stats.bytes_full_f16);
    EXPECT_LT(stats.bytes, stats.bytes_full_f16 / 4);
    EXPECT_EQ(stats.bytes, stats.allocated_bytes);
    EXPECT_GT(stats.policy_bytes, 0U);
    EXPECT_EQ(zip.impl().work.now(), 0U);
}

TEST_F(KvZip, AnswersAndFurtherPromptsKeepWithinTheBudget) {
    Session zip = session(options());
    zip.prefill(prompt(150));
    const std::vector<int> budget = zip.impl().layers[1].budget;
    for (int i = 0; i < 200; ++i) {
        zip.decode((7 * i) % 300);
        for (int g = 0; g < 3; ++g) {
            ASSERT_LE(zip.impl().layers[1].store->tokens(g),
                      budget[static_cast<std::size_t>(g)] + 64);
        }
    }
    EXPECT_GT(zip.stats().evictions, 0U);
    Session copy = zip.clone();
    copy.impl().plan.repeat_tokens = kPiece;
    for (Session* s : {&zip, &copy}) {
        s->prefill(prompt(90, 2));
        s->decode(5);
    }
    EXPECT_EQ(copy.logits_hash(), zip.logits_hash());
    EXPECT_EQ(held(zip), 6 * kCap + 6);
    for (const KeptLayer& layer : zip.kept()) {
        for (const KeptHead& head : layer.heads) {
            EXPECT_TRUE(std::equal(head.positions.begin(), head.positions.begin() + 4,
                                   std::vector<std::int32_t>{0, 1, 2, 3}.begin()));
        }
    }
}

TEST_F(KvZip, StoppingInTheSecondPassLeavesTheSessionAsItWas) {
    Session zip = session(options()), other = session(options());
    const auto stop = [](const Progress& at) { return at.layer < 3; };
    EXPECT_THROW(zip.prefill(prompt(150), stop), Error);
    EXPECT_EQ(zip.position(), 0);
    EXPECT_EQ(held(zip), 0);
    for (Session* s : {&zip, &other}) {
        s->prefill(prompt(150));
    }
    EXPECT_THROW(zip.prefill(prompt(90, 3), stop), Error);
    EXPECT_EQ(zip.position(), 150);
    for (Session* s : {&zip, &other}) {
        s->decode(1);
    }
    EXPECT_EQ(zip.logits_hash(), other.logits_hash());
}

// Several sessions read the prompt twice in all, not twice each, and get the same bits.
TEST_F(KvZip, SharedPassesGiveTheSameBits) {
    const Tokens tokens = prompt(150);
    const auto made = [] {
        std::vector<Session> all;
        all.push_back(session(options()));
        all.push_back(session(options(60, 4)));
        all.push_back(session(options(200)));  // all tokens fit: no second pass
        CacheOptions snapkv = options();
        snapkv.method = "snapkv";
        all.push_back(session(snapkv));
        return all;
    };
    std::vector<Session> apart = made(), together = made();
    int alone = 0, shared = 0;
    const auto counting = [](int& layers) {
        return [&layers, last = -1](const Progress& at) mutable {
            layers += at.layer != last ? 1 : 0;
            last = at.layer;
            return true;
        };
    };
    std::vector<Session*> pointers;
    for (std::size_t i = 0; i < apart.size(); ++i) {
        apart[i].prefill(tokens, counting(alone));
        pointers.push_back(&together[i]);
    }
    Session::prefill(pointers, tokens, counting(shared));
    const int layers = model_->info().layers;
    EXPECT_EQ(alone - shared, layers * 4);  // a first pass and three pieces
    for (std::size_t i = 0; i < apart.size(); ++i) {
        for (Session* s : {&apart[i], &together[i]}) {
            for (const std::int32_t token : {5, 9, 2}) {
                s->decode(token);
            }
        }
        EXPECT_EQ(apart[i].logits_hash(), together[i].logits_hash()) << i;
        EXPECT_EQ(apart[i].stats().kept, together[i].stats().kept) << i;
    }
}

// The request ends as a turn of the chat does where the prompt is one.
TEST(KvZipRequest, EndsTheTurnInAChat) {
    const std::string path = ::testing::TempDir() + "winnow_kvzip_chat.gguf";
    testing::write_tiny_gguf(path, {.tokenizer = testing::TinyTokenizer::byte_bpe});
    const auto model = Model::load(path, {.threads = 1});
    const auto request = [&](const std::string& text, int first) {
        const Tokens tokens = model->tokenize(text, false, true);
        std::string all;
        for (const std::int32_t token : repeat_prompt(model->impl(), tokens, first, 1)) {
            all += model->piece(token, true);
        }
        return all;
    };
    const std::string chat = "<|im_start|>user\nlong ago and far away";
    EXPECT_EQ(request(chat, 0),
              "\n\nRepeat the text above word for word<|im_end|>\n<|im_start|>assistant\n"
              "<|im_start|>");
    const std::string later = request(chat, 10);
    EXPECT_NE(later.find("from behind these words: "), std::string::npos) << later;
    EXPECT_NE(later.find("<|im_end|>\n<|im_start|>assistant\n"), std::string::npos) << later;
    const std::string plain = request("long ago and far away", 0);
    EXPECT_TRUE(plain.starts_with("\n\nRepeat the text above word for word\n\nl")) << plain;
    std::remove(path.c_str());
}

// What the softmax runs over depends on the sinks, so sessions that differ there do not share.
TEST_F(KvZip, SessionsOfOtherSinksGetTheirOwnPasses) {
    CacheOptions more = options();
    more.n_sink = 9;
    Session alone = session(more), first = session(options()), second = session(more);
    alone.prefill(prompt(150));
    const std::vector<Session*> both{&first, &second};
    Session::prefill(both, prompt(150));
    for (Session* s : {&alone, &second}) {
        s->decode(5);
    }
    EXPECT_EQ(second.logits_hash(), alone.logits_hash());
}

TEST_F(KvZip, IsNoBaseForSelectors) {
    CacheOptions o = options();
    o.method = "adakv:kvzip";
    EXPECT_THROW(validate(o), Error);
}

}  // namespace
}  // namespace winnow
