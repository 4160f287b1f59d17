// The whole grid under a long answer: 3,000 tokens under a cap of 512 or a budget of bytes, looked
// at after every one.
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "cache/format.h"
#include "engine/session_impl.h"
#include "prune/policy.h"
#include "support/tiny_gguf.h"

namespace winnow {
namespace {

constexpr int kCap = 512;
constexpr int kPrompt = 700;
constexpr int kGenerated = 3000;

std::vector<std::string> pruning_methods() {
    std::vector<std::string> names;
    for (const Policy* policy : policies()) {
        if (std::string(policy->name) != "full") {
            names.emplace_back(policy->name);
        }
    }
    return names;
}

bool in_paper(const std::string& method) {
    const std::set<std::string> names{"streamingllm", "h2o", "snapkv", "pyramidkv", "random"};
    return names.contains(method);
}

class LongAnswerModel : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        const std::string path = ::testing::TempDir() + "winnow_long_answer_test.gguf";
        testing::write_tiny_gguf(path, {.query_heads = 4,
                                        .kv_heads = 2,
                                        .head_dim = 32,
                                        .embed = 32,
                                        .ff = 32,
                                        .context = 8192});
        model_ = Model::load(path, {.threads = 1});
        std::remove(path.c_str());
    }
    static void TearDownTestSuite() { model_.reset(); }

    static std::shared_ptr<const Model> model_;
};

std::shared_ptr<const Model> LongAnswerModel::model_;

class LongAnswer : public LongAnswerModel, public ::testing::WithParamInterface<std::string> {
  protected:
    struct Run {
        std::string name;
        std::unique_ptr<Session> session;
        bool failed = false;
    };

    // A session for each format at each width it has; for the methods beyond the paper's grid at
    // 2 bits alone, where an error is largest.
    static std::vector<Run> all_formats(const std::string& method) {
        std::vector<Run> runs;
        std::vector<std::string> names{"layerquant"};
        for (const Format* format : formats()) {
            names.emplace_back(format->name);
        }
        for (const std::string& format : names) {
            for (const int bits : {16, 8, 4, 2}) {
                const bool skipped = !in_paper(method) && bits != 2 && bits != 16;
                if (skipped || (format == "none") != (bits == 16)) {
                    continue;
                }
                CacheOptions o;
                o.method = method;
                o.max_capacity_prompts = kCap;
                o.quant_method = format;
                o.nbits = bits;
                if (format == "layerquant") {
                    o.quant_layers_bits = bits == 2 ? 4 : 2;
                    o.quant_end_layers = 1;
                }
                try {
                    runs.push_back({format + " " + std::to_string(bits),
                                    std::make_unique<Session>(model_, o)});
                } catch (const Error&) {
                    std::printf("  not offered: %s at %d bits\n", format.c_str(), bits);
                }
            }
        }
        return runs;
    }
};

// Tokens a span may hold beyond its budget before the policy runs again.
int slack_of(const Session& session) {
    const CacheOptions filled = session.options();
    const int own = filled.residual_length + filled.group_size;
    // r_kv's paper acts every 128 tokens.
    return std::max(own, filled.method == "r_kv" ? 128 : 0);
}

// Nothing above its budget, and the budgets together no more than the cap.
bool within_budget(const Session& session, const Session::Impl& impl) {
    const int slack = slack_of(session);
    long total = 0, allowed = 0;
    for (const SessionLayer& layer : impl.layers) {
        const int bits = layer.store->layout().spec.bits_k;
        // layerquant keeps as many bytes as cap tokens at 16 bits.
        const int share = session.options().quant_method == "layerquant" ? 16 / bits : 1;
        for (int g = 0; g < layer.store->kv_heads(); ++g) {
            if (layer.store->tokens(g) > layer.budget[g] + slack) {
                return false;
            }
            total += layer.budget[g];
            allowed += kCap * share;
        }
    }
    return total <= allowed;
}

TEST_P(LongAnswer, NeverPassesCapResidualAndAGroup) {
    std::vector<Run> runs = all_formats(GetParam());
    std::vector<Session*> sessions;
    std::set<std::string> offered;
    for (Run& run : runs) {
        sessions.push_back(run.session.get());
        offered.insert(run.name);
    }
    for (const std::string format : {"kivi", "hqq", "kvquant", "layerquant"}) {
        for (const char* bits : {" 8", " 4", " 2"}) {
            const bool asked = in_paper(GetParam()) || bits == std::string(" 2");
            EXPECT_EQ(offered.contains(format + bits), asked) << format << bits;
        }
    }
    EXPECT_TRUE(offered.contains("none 16"));

    std::mt19937 random(7);
    std::vector<std::int32_t> prompt(kPrompt), step(sessions.size());
    for (std::int32_t& token : prompt) {
        token = static_cast<std::int32_t>(random() % 300);
    }
    Session::prefill(sessions, prompt);
    for (int i = 0; i < kGenerated; ++i) {
        std::fill(step.begin(), step.end(), static_cast<std::int32_t>(random() % 300));
        Session::decode(sessions, step);
        for (Run& run : runs) {
            if (!run.failed && !within_budget(*run.session, run.session->impl())) {
                ADD_FAILURE() << run.name << " passed its budget at token " << i;
                run.failed = true;
            }
        }
    }
    for (const Run& run : runs) {
        const CacheStats stats = run.session->stats();
        EXPECT_GT(stats.evictions, 0U) << run.name;
        EXPECT_EQ(stats.allocated_bytes, stats.bytes) << run.name;
        EXPECT_EQ(run.session->position(), kPrompt + kGenerated);
    }
}

// Budgets of bytes, meters and their peaks: no token and no moment between two passes one.
TEST_F(LongAnswerModel, NeverPassesItsBytes) {
    struct Case {
        const char* method;
        int share;  // of the full cache of the prompt
    };
    const std::uint64_t full = model_->info().full_cache_bytes(kPrompt);
    for (const auto& [method, share] :
         {Case{"mixed", 8}, Case{"mixed", 24}, Case{"r_kv", 3}, Case{"h2o", 3}}) {
        const std::uint64_t bytes = full / static_cast<std::uint64_t>(share);
        SCOPED_TRACE(std::string(method) + " in 1/" + std::to_string(share));
        CacheOptions o;
        o.method = method;
        o.kv_budget = std::to_string(bytes);
        Session session(model_, o);
        Session::Impl& s = session.impl();
        std::mt19937 random(11);
        std::vector<std::int32_t> prompt(kPrompt);
        for (std::int32_t& token : prompt) {
            token = static_cast<std::int32_t>(random() % 300);
        }
        session.prefill(prompt);
        std::uint64_t most = s.cache.now() + s.policy.now();
        for (int i = 0; i < kGenerated; ++i) {
            s.memory.reset_peak();
            s.cache.reset_peak();
            s.policy.reset_peak();
            session.decode(static_cast<std::int32_t>(random() % 300));
            // Two upper bounds of the peak of their sum.
            most = std::max<std::uint64_t>(
                most, std::min(s.cache.peak() + s.policy.peak(), s.memory.peak()));
            ASSERT_LE(most, bytes) << "at token " << i;
        }
        const CacheStats stats = session.stats();
        EXPECT_GT(stats.evictions, 0U);
        EXPECT_GT(most, bytes * 6 / 10) << "the budget is left unused";
        EXPECT_EQ(stats.demotions > 0, std::string(method) == "mixed");
    }
}

INSTANTIATE_TEST_SUITE_P(Methods, LongAnswer, ::testing::ValuesIn(pruning_methods()),
                         [](const auto& each) { return each.param; });

}  // namespace
}  // namespace winnow
