// Pinned tokens stay, by every method, in prompts and in long answers; pins that do not fit are
// refused with numbers.
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <algorithm>
#include <random>
#include <set>

#include "engine/pins.h"
#include "engine/session_impl.h"
#include "prune/select.h"
#include "support/tiny_engine.h"

namespace winnow {
namespace {

using Tokens = std::vector<std::int32_t>;

TEST(Pins, JoinAndCount) {
    Pins pins;
    for (const auto& [first, last] :
         {std::pair(10, 20), std::pair(30, 40), std::pair(5, 7), std::pair(15, 30)}) {
        pins.add(first, last);
    }
    EXPECT_EQ(pins.ranges(), (std::vector<std::pair<int, int>>{{5, 7}, {10, 40}}));
    EXPECT_EQ(pins.count(0, 1000), 32);
    EXPECT_EQ(pins.count(6, 12), 3);
    EXPECT_TRUE(pins.hold(5));
    EXPECT_FALSE(pins.hold(7));
    EXPECT_EQ(pins.among(Tokens{0, 5, 6, 7, 9, 39, 40}), (Tokens{1, 2, 5}));
}

// Pinned first, then the front, then the newest, then the best: as a sort would say it.
Tokens reference(const std::vector<float>& scores, int budget, Protected fixed,
                 const Tokens& pinned) {
    const int tokens = static_cast<int>(scores.size());
    std::vector<std::pair<std::pair<double, double>, int>> order;
    for (int t = 0; t < tokens; ++t) {
        const bool pin = std::ranges::count(pinned, t) > 0;
        const double group = pin ? 0 : t < fixed.front ? 1 : t >= tokens - fixed.back ? 2 : 3;
        const double within = group == 3 ? -static_cast<double>(scores[t]) : group == 2 ? -t : t;
        order.push_back({{group, within}, t});
    }
    std::sort(order.begin(), order.end());
    Tokens kept;
    for (int i = 0; i < std::min(budget, tokens); ++i) {
        kept.push_back(order[i].second);
    }
    std::sort(kept.begin(), kept.end());
    return kept;
}

TEST(Pins, SelectTakesThemBeforeAllElse) {
    std::mt19937 random(7);
    for (int round = 0; round < 2000; ++round) {
        const int tokens = 1 + static_cast<int>(random() % 40);
        std::vector<float> scores;
        Tokens pinned;
        for (int t = 0; t < tokens; ++t) {
            scores.push_back(static_cast<float>(random() % 8));
            if (random() % 5 == 0) {
                pinned.push_back(t);
            }
        }
        const Protected fixed{static_cast<int>(random() % 5), static_cast<int>(random() % 9)};
        const int budget = static_cast<int>(random() % (tokens + 2));
        ASSERT_EQ(select(scores, tokens, budget, fixed, pinned),
                  reference(scores, budget, fixed, pinned))
            << "round " << round;
    }
}

class PinEngine : public testing::TinyEngine<PinEngine> {
  public:
    inline static const testing::TinyModelOptions& kModel = testing::kThreeLayers;

  protected:
    static std::vector<std::string> methods() {
        std::vector<std::string> names{"layerquant", "mixed", "adakv:criticalkv:knorm",
                                       "chunkkv:h2o"};
        for (const MethodInfo& policy : policy_list()) {
            names.push_back(policy.name);
        }
        return names;
    }
    static CacheOptions options(const std::string& method) {
        CacheOptions o;
        o.method = method;
        o.max_capacity_prompts = method == "full" ? 0 : 80;
        o.nbits = method == "mixed" || method == "layerquant" ? 0 : 4;
        o.quant_end_layers = method == "layerquant" ? 2 : 0;
        o.window_size = method == "lagkv" ? 16 : 0;
        o.beta = 2;
        return o;
    }
    static void expect_held(const Session& session, int first, int last) {
        for (const KeptLayer& layer : session.kept()) {
            for (const KeptHead& head : layer.heads) {
                const std::set<int> kept(head.positions.begin(), head.positions.end());
                for (int t = first; t < last; ++t) {
                    ASSERT_EQ(kept.count(t), 1U) << "position " << t;
                }
            }
        }
    }
};

TEST_F(PinEngine, EveryMethodKeepsThemThroughPromptsAndAnswers) {
    for (const std::string& method : methods()) {
        SCOPED_TRACE(method);
        Session session(model_, options(method));
        session.pin(60, 75);
        session.pin(130, 133);
        session.prefill(prompt(300));
        expect_held(session, 60, 75);
        for (int i = 0; i < 150; ++i) {
            session.decode(i % 300);
        }
        expect_held(session, 60, 75);
        session.prefill(prompt(50, 2));
        expect_held(session, 60, 75);
        expect_held(session, 130, 133);
        if (method != "full" && method != "layerquant") {
            EXPECT_LT(session.stats().kept[0], 250.0);
        }
    }
}

// A token pinned that the policy would have dropped, and the budget is the same.
TEST_F(PinEngine, TakeThePlacesOfTheWorst) {
    for (const std::string& method : methods()) {
        if (method == "full" || method == "mixed") {
            continue;
        }
        SCOPED_TRACE(method);
        Session plain(model_, options(method));
        plain.prefill(prompt(300));
        Session pinned(model_, options(method));
        pinned.pin(100, 110);
        pinned.prefill(prompt(300));
        for (int layer = 0; layer < 3; ++layer) {
            std::size_t before = 0, after = 0;
            for (int g = 0; g < 2; ++g) {
                before += plain.kept()[layer].heads[g].positions.size();
                after += pinned.kept()[layer].heads[g].positions.size();
            }
            if (!method.starts_with("kvzip")) {  // they share out over all layers
                EXPECT_EQ(before, after) << "layer " << layer;
            }
        }
    }
}

TEST_F(PinEngine, WhatDoesNotFitIsAUsageErrorWithNumbers) {
    for (const std::string& method : methods()) {
        if (method == "full" || method == "layerquant") {
            continue;
        }
        SCOPED_TRACE(method);
        CacheOptions o = options(method);
        if (method == "mixed") {
            o.max_capacity_prompts = 0;
            o.kv_budget = "40KiB";
        }
        Session session(model_, o);
        session.pin(10, 210);
        try {
            session.prefill(prompt(300));
            FAIL() << "it fits";
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::usage);
            EXPECT_NE(std::string(error.what()).find("200 tokens"), std::string::npos)
                << error.what();
        }
        EXPECT_EQ(session.position(), 0);
    }
    Session later(model_, options("snapkv"));
    later.prefill(prompt(300));
    EXPECT_THROW(later.pin(0, 79), Error);
    later.pin(300, 310);  // tokens to come
    for (int i = 0; i < 200; ++i) {
        later.decode(i);
    }
    expect_held(later, 300, 310);
}

TEST_F(PinEngine, ABudgetOfBytesHoldsWithThem) {
    for (const char* method : {"full", "snapkv", "adakv", "h2o"}) {
        SCOPED_TRACE(method);
        CacheOptions o;
        o.method = method;
        o.kv_budget = "100KiB";
        Session session(model_, o);
        session.pin(20, 40);
        session.prefill(prompt(600));
        for (int i = 0; i < 200; ++i) {
            session.decode(i % 300);
            const CacheStats stats = session.stats();
            ASSERT_LE(stats.bytes + stats.policy_bytes, 100U << 10) << "step " << i;
        }
        expect_held(session, 20, 40);
    }
}

// Several sessions over one prefill: each its own pins, though they share scores.
TEST_F(PinEngine, SharedPrefillsKeepThemApart) {
    Session plain(model_, options("snapkv")), pinned(model_, options("snapkv"));
    pinned.pin(100, 110);
    std::vector<Session*> both{&plain, &pinned};
    Session::prefill(both, prompt(300));
    Session alone(model_, options("snapkv"));
    alone.pin(100, 110);
    alone.prefill(prompt(300));
    Session without(model_, options("snapkv"));
    without.prefill(prompt(300));
    for (int g = 0; g < 2; ++g) {
        EXPECT_EQ(pinned.kept()[1].heads[g].positions, alone.kept()[1].heads[g].positions);
        EXPECT_EQ(plain.kept()[1].heads[g].positions, without.kept()[1].heads[g].positions);
    }
}

}  // namespace
}  // namespace winnow
