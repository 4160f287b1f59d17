// kvzip_plus and kvzip_heads: what sets them apart from kvzip.
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/session_impl.h"
#include "policy_formulas.h"
#include "policy_shown.h"
#include "prune/whole_head.h"
#include "support/repeated_attention.h"
#include "support/tiny_engine.h"

namespace winnow {

extern const Policy policy_kvzip_heads;
extern const Policy policy_kvzip_plus;

namespace {

using Tokens = std::vector<std::int32_t>;

constexpr int kCap = 40;
constexpr int kPiece = 60;

class KvZipKinds : public testing::TinyEngine<KvZipKinds> {
  public:
    inline static const testing::TinyModelOptions kModel{.query_heads = 6,
                                                         .kv_heads = 3,
                                                         .head_dim = 32,
                                                         .embed = 64,
                                                         .ff = 64,
                                                         .attention_scale = 4.0F};

  protected:
    static Session session(const std::string& method, int cap = kCap,
                           std::shared_ptr<const Model> model = model_, bool hidden = false) {
        CacheOptions o;
        o.question_hidden = hidden;
        o.method = method;
        o.max_capacity_prompts = cap;
        o.nbits = 16;
        Session made(std::move(model), o, {.keep_scores = true});
        made.impl().plan.repeat_tokens = kPiece;
        return made;
    }
};

TEST_F(KvZipKinds, PlusKeepsWhatThePlainFormulaKeeps) {
    const Tokens tokens = prompt(150);
    const auto scores = testing::repeated_scores(model_, tokens, kPiece, true);
    const auto want = testing::best_of_all(scores, 6 * kCap);
    Session found = session("kvzip_plus");
    found.prefill(tokens);
    const auto kept = found.kept();
    EXPECT_LE(testing::different(want, kept), 4) << "the probe's queries are rounded to f16";
    int compared = 0;
    for (std::size_t i = 0; i < scores.size(); ++i) {
        const KeptHead& head = kept[i / 3].heads[i % 3];
        for (std::size_t at = 4; at < head.positions.size(); ++at) {
            const double plain = scores[i][static_cast<std::size_t>(head.positions[at])];
            ASSERT_NEAR(head.scores[at], plain, 0.01 * plain) << i << " " << head.positions[at];
            ++compared;
        }
    }
    EXPECT_EQ(compared, 6 * (kCap - 4));
    const auto plain =
        testing::best_of_all(testing::repeated_scores(model_, tokens, kPiece, false), 6 * kCap);
    EXPECT_GT(testing::different(plain, kept), 40) << "lengths should matter";
}

// max over query heads of the weight times |W_o v|.
TEST(KvZipPlus, MatchesTheFormula) {
    constexpr int kEmbed = 20, kPadded = 32, kDims = 8;
    const reference::Layer layer(3, {300, 280}, kDims, 7);
    std::mt19937 generator(8);
    std::normal_distribution<float> normal(0.0F, 1.0F);
    std::vector<float> output(std::size_t{6} * kDims * kPadded, 0.0F);  // [H][D][E padded]
    for (std::size_t i = 0; i < output.size(); ++i) {
        output[i] = i % kPadded < kEmbed ? normal(generator) : 0.0F;
    }
    std::vector<shown::Scores> all;
    for (const int threads : {1, 2, 3}) {
        shown::Shown shown(layer, 0, threads, true);
        shown.seen.output = output.data();
        shown.seen.embedding = kEmbed;
        all.push_back(shown::score(policy_kvzip_plus, shown.seen, {}));
        EXPECT_TRUE(shown::same_bits(all[0], all.back()));
    }
    for (std::size_t g = 0; g < 2; ++g) {
        const int tokens = layer.tokens[g];
        std::vector<double> want(static_cast<std::size_t>(tokens), 0.0);
        for (int r = 0; r < 3; ++r) {
            const int head = static_cast<int>(g) * 3 + r;
            const auto sums = reference::column_sums(layer, static_cast<int>(g), r, tokens);
            for (int t = 0; t < tokens; ++t) {
                const auto v = reference::row(layer.values[g], t, kDims);
                double squares = 0.0;
                for (int e = 0; e < kEmbed; ++e) {
                    double sum = 0.0;
                    for (int d = 0; d < kDims; ++d) {
                        sum += v[static_cast<std::size_t>(d)] *
                               output[static_cast<std::size_t>((head * kDims + d) * kPadded + e)];
                    }
                    squares += sum * sum;
                }
                const auto at = static_cast<std::size_t>(t);
                want[at] = std::max(want[at], sums[at] * std::sqrt(squares));
            }
        }
        for (std::size_t t = 0; t < want.size(); ++t) {
            ASSERT_NEAR(all[0][g][t], want[t], 1e-4 * want[t]);
        }
    }
}

// While decoding and in a question a weight counts as in the second pass: new tokens do not push
// out older ones by a score of another size.
TEST_F(KvZipKinds, PlusDividesByTheInputWhileDecodingToo) {
    const Tokens tokens = prompt(150), more = prompt(12, 9);
    for (const bool question : {false, true}) {
        Session plus = session("kvzip_plus", 60, model_, question), plain(model_);
        plus.prefill(tokens);
        plain.prefill(tokens);
        const Model::Impl& m = model_->impl();
        double most = 0.0;
        for (const std::int32_t token : more) {
            plain.decode(token);
            const float* h = m.graphs(1).hidden();
            double squares = 0.0;
            for (int e = 0; e < m.hparams.embedding; ++e) {
                squares += static_cast<double>(h[e]) * h[e];
            }
            most = std::max(most, 1.0 / std::sqrt(squares));
        }
        if (question) {
            plus.prefill(more);
        } else {
            for (const std::int32_t token : more) {
                plus.decode(token);
            }
        }
        LayerStore& store = *plus.impl().layers[1].store;
        ASSERT_EQ(store.sum_rows(), 2);
        float largest = 0.0F;
        for (int g = 0; g < 3; ++g) {
            for (int r = 0; r < 2; ++r) {
                const float* row = store.sums(g) + r * store.sums_stride(g);
                largest = std::max(largest, *std::max_element(row, row + store.tokens(g)));
            }
        }
        EXPECT_GT(largest, 0.1 * most);
        EXPECT_LT(largest, 1.001 * most) << "no weight is above 1";
    }
}

TEST_F(KvZipKinds, GiveTheSameBitsForAnyThreadCountAndBesideEachOther) {
    for (const std::string method : {"kvzip_plus", "kvzip_heads"}) {
        std::string hash;
        for (const int threads : {1, 2, 3}) {
            const auto model = Model::load(path_, {.threads = threads});
            Session alone = session(method, kCap, model), shared = session(method, kCap, model);
            Session zip = session("kvzip", kCap, model), other = session("kvzip_heads", 60, model);
            alone.prefill(prompt(150));
            const std::vector<Session*> sessions{&zip, &shared, &other};
            Session::prefill(sessions, prompt(150));
            for (int i = 0; i < 90; ++i) {
                alone.decode(i);
                shared.decode(i);
            }
            EXPECT_GT(alone.stats().evictions, 0U) << method;
            hash = hash.empty() ? alone.logits_hash() : hash;
            EXPECT_EQ(alone.logits_hash(), hash) << method << " " << threads;
            EXPECT_EQ(shared.logits_hash(), hash) << method << " " << threads;
        }
    }
}

// By hand: an eighth of the even share each, then the best by score times the mean's root.
TEST(KvZipHeads, SharesByScoreTimesTheRootOfTheMean) {
    const auto shares = [](std::vector<WholeHead> heads, std::int64_t total) {
        std::vector<int> budgets(heads.size());
        policy_kvzip_heads.share_out(heads, total, budgets);
        return budgets;
    };
    // Means 1, 4 and 2.5: the second's 4 stand above the third's 5, and both above the rest.
    const WholeHead low{.open = std::vector<float>(98, 1.0F), .kept = 2};
    const WholeHead high{.open = std::vector<float>(98, 4.0F), .kept = 2};
    WholeHead mixed{.open = std::vector<float>(98, 0.0F), .kept = 2};
    std::fill_n(mixed.open.begin() + 20, 49, 5.0F);
    EXPECT_EQ(shares({low, high, mixed}, 120), (std::vector<int>{5, 100, 15}));
    EXPECT_EQ(shares({low, high, mixed}, 144), (std::vector<int>{6, 100, 38}));
    EXPECT_EQ(shares({low, high, mixed}, 180), (std::vector<int>{29, 100, 51}));
    EXPECT_EQ(shares({low, high, mixed}, 1000), (std::vector<int>{100, 100, 100}));
    // What stays by rule may be more than the least share, or than all there is.
    const WholeHead fixed{.open = std::vector<float>(40, 9.0F), .kept = 60};
    EXPECT_EQ(shares({low, fixed}, 80), (std::vector<int>{5, 75}));
    EXPECT_EQ(shares({low, fixed}, 60), (std::vector<int>{3, 60}));
}

TEST_F(KvZipKinds, HeadsKeepWhatThePlainFormulaKeeps) {
    const Tokens tokens = prompt(150);
    auto scores = testing::repeated_scores(model_, tokens, kPiece, false);
    // The best of each head beside four sinks, and then all others by score times mean's root.
    for (std::vector<double>& head : scores) {
        const double mean = std::accumulate(head.begin() + 4, head.end(), 0.0) / 146.0;
        std::vector<double> order(head.begin() + 4, head.end());
        std::ranges::sort(order, std::ranges::greater());
        for (double& x : head) {
            x = x >= order[0] ? 1000.0 + x : x * std::sqrt(mean);
        }
    }
    const auto want = testing::best_of_all(scores, 6 * kCap);
    Session found = session("kvzip_heads"), zip = session("kvzip");
    found.prefill(tokens);
    zip.prefill(tokens);
    EXPECT_LE(testing::different(want, found.kept()), 2)
        << "the probe's queries are rounded to f16";
    EXPECT_GT(testing::different(want, zip.kept()), 8) << "means should matter";
    for (const Tokens& head : want) {
        EXPECT_GE(head.size(), 5U);
    }
}

}  // namespace
}  // namespace winnow
