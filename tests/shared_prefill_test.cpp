// One prefill for many sessions: each ends with the bits of a prefill by itself, in its cache, its
// kept sets, what its policy remembers, and all that is decoded afterwards.
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <bit>
#include <random>

#include "engine/session_impl.h"
#include "support/gguf_refusal.h"
#include "support/tiny_gguf.h"

namespace winnow {
namespace {

using Tokens = std::vector<std::int32_t>;

constexpr int kCap = 96;

Tokens random_tokens(int count, unsigned seed) {
    std::mt19937 random(seed);
    Tokens tokens(static_cast<std::size_t>(count));
    for (std::int32_t& token : tokens) {
        token = static_cast<std::int32_t>(random() % 320U);
    }
    return tokens;
}

std::vector<float> logits_of(const Session& session) {
    return {session.logits().begin(), session.logits().end()};
}

std::string label_of(const CacheOptions& o) {
    return o.method + " " + std::to_string(o.max_capacity_prompts) + " " + o.quant_method +
           std::to_string(o.nbits) + " W " + std::to_string(o.window_size);
}

class SharedPrefill : public ::testing::Test {
  protected:
    std::shared_ptr<const Model> model(int threads = 2) {
        if (path_.empty()) {
            path_ = folder_.file("tiny.gguf");
            testing::write_tiny_gguf(path_, {.layers = 3, .query_heads = 6, .embed = 192});
        }
        return Model::load(path_, {.threads = threads});
    }
    static bool holds(const CacheOptions& options) {
        try {
            validate(options);
        } catch (const Error&) {
            return false;
        }
        return true;
    }
    // Every pruning policy, at 16 bits and with kivi, beside every format that is built.
    static std::vector<CacheOptions> grid() {
        std::vector<CacheOptions> all;
        for (const MethodInfo& policy : policy_list()) {
            for (const MethodInfo& format : format_list()) {
                const bool pair = policy.name == "snapkv" || format.name == "none" ||
                                  (format.name == "kivi" && policy.name != "layerquant");
                CacheOptions o;
                o.method = policy.name;
                o.max_capacity_prompts = policy.name == "full" ? 0 : kCap;
                o.quant_method = format.name;
                o.nbits = format.name == "none" ? 16 : 4;
                if (pair && holds(o)) {
                    all.push_back(o);
                }
            }
        }
        EXPECT_GE(all.size(), 16U);
        for (const std::string method : {"snapkv", "h2o", "pyramidkv"}) {
            CacheOptions& smaller = all.emplace_back();
            smaller.method = method;
            smaller.max_capacity_prompts = kCap / 2;
            CacheOptions& other = all.emplace_back();
            other.method = method;
            other.max_capacity_prompts = kCap;
            other.window_size = 16;
            other.gqa_score_agg = "max";
        }
        return all;
    }
    std::vector<Session> shared(const std::shared_ptr<const Model>& tiny,
                                const std::vector<CacheOptions>& grid, const Tokens& tokens) {
        std::vector<Session> sessions;
        for (const CacheOptions& options : grid) {
            sessions.emplace_back(tiny, options, SessionOptions{.batch = 128, .keep_scores = true});
        }
        Session::prefill(pointers(sessions), tokens);
        return sessions;
    }
    static std::vector<Session*> pointers(std::vector<Session>& sessions) {
        std::vector<Session*> all;
        for (Session& session : sessions) {
            all.push_back(&session);
        }
        return all;
    }

  private:
    testing::Folder folder_;
    std::string path_;
};

void expect_same_kept(const Session& a, const Session& b, const std::string& label) {
    const auto of_a = a.kept(), of_b = b.kept();
    for (std::size_t layer = 0; layer < of_a.size(); ++layer) {
        EXPECT_EQ(of_a[layer].budget, of_b[layer].budget) << label;
        for (std::size_t g = 0; g < of_a[layer].heads.size(); ++g) {
            const KeptHead &x = of_a[layer].heads[g], &y = of_b[layer].heads[g];
            EXPECT_EQ(x.positions, y.positions) << label << " layer " << layer << " head " << g;
            ASSERT_EQ(x.scores.size(), y.scores.size()) << label;
            for (std::size_t i = 0; i < x.scores.size(); ++i) {
                EXPECT_EQ(std::bit_cast<std::uint32_t>(x.scores[i]),
                          std::bit_cast<std::uint32_t>(y.scores[i]))
                    << label;
            }
        }
    }
}

// Rows as they are read back, ring of queries and running sums.
void expect_same_stores(Session& a, Session& b, const std::string& label) {
    const Hparams& h = a.impl().hparams();
    for (int layer = 0; layer < h.layers; ++layer) {
        LayerStore& x = *a.impl().layers[layer].store;
        LayerStore& y = *b.impl().layers[layer].store;
        ASSERT_EQ(x.queries(), y.queries()) << label;
        const std::size_t row = static_cast<std::size_t>(h.query_heads) * h.head_dim;
        std::vector<float> queries_x(x.queries() * row), queries_y(queries_x.size());
        x.read_queries(queries_x.data());
        y.read_queries(queries_y.data());
        EXPECT_EQ(queries_x, queries_y) << label;
        for (int g = 0; g < h.kv_heads; ++g) {
            const int n = x.tokens(g);
            ASSERT_EQ(n, y.tokens(g)) << label;
            std::vector<f16> k_x(n * h.head_dim), v_x(k_x), k_y(k_x), v_y(k_x);
            std::vector<std::int32_t> at_x(n), at_y(n);
            x.read(g, k_x.data(), v_x.data(), at_x.data());
            y.read(g, k_y.data(), v_y.data(), at_y.data());
            EXPECT_TRUE(k_x == k_y && v_x == v_y && at_x == at_y) << label << " layer " << layer;
            for (int r = 0; x.has_sums() && r < x.sum_rows(); ++r) {
                const float* sums_x = x.sums(g) + r * x.sums_stride(g);
                const float* sums_y = y.sums(g) + r * y.sums_stride(g);
                EXPECT_EQ(std::vector<float>(sums_x, sums_x + n),
                          std::vector<float>(sums_y, sums_y + n))
                    << label;
            }
        }
    }
}

TEST_F(SharedPrefill, EachSessionHasTheBitsOfItsOwnPrefill) {
    const auto tiny = model();
    const Tokens tokens = random_tokens(300, 1);
    const std::vector<CacheOptions> all = grid();
    std::vector<Session> sessions = shared(tiny, all, tokens);
    for (std::size_t i = 0; i < all.size(); ++i) {
        const std::string label = label_of(all[i]);
        Session alone(tiny, all[i], {.batch = 128, .keep_scores = true});
        alone.prefill(tokens);
        EXPECT_EQ(logits_of(alone), logits_of(sessions[i])) << label;
        EXPECT_EQ(alone.position(), sessions[i].position()) << label;
        const CacheStats x = alone.stats(), y = sessions[i].stats();
        EXPECT_EQ(x.bytes, y.bytes) << label;
        EXPECT_EQ(x.bytes_peak, y.bytes_peak) << label;
        EXPECT_EQ(x.allocated_bytes, y.allocated_bytes) << label;
        EXPECT_EQ(x.policy_bytes, y.policy_bytes) << label;
        EXPECT_EQ(x.bits_k, y.bits_k) << label;
        expect_same_kept(alone, sessions[i], label);
        expect_same_stores(alone, sessions[i], label);
        for (int token = 3; token < 8; ++token) {
            alone.decode(token);
            sessions[i].decode(token);
        }
        EXPECT_EQ(alone.logits_hash(), sessions[i].logits_hash()) << label;
    }
}

// A single session asks for sums, or no session does, or only a late one: the last layer too.
TEST_F(SharedPrefill, SumsAreTakenForWhoeverAsks) {
    const auto tiny = model(1);
    const Tokens tokens = random_tokens(300, 2);
    std::vector<CacheOptions> mixed(3);
    mixed[0].method = "snapkv";
    mixed[1].method = "full";
    mixed[2].method = "h2o";
    for (CacheOptions& o : mixed) {
        o.max_capacity_prompts = o.method == "full" ? 0 : kCap;
    }
    std::vector<Session> sessions = shared(tiny, mixed, tokens);
    for (std::size_t i = 0; i < mixed.size(); ++i) {
        Session alone(tiny, mixed[i], {.batch = 128, .keep_scores = true});
        alone.prefill(tokens);
        expect_same_stores(alone, sessions[i], mixed[i].method);
        EXPECT_EQ(logits_of(alone), logits_of(sessions[i]));
    }
}

TEST_F(SharedPrefill, StoppingLeavesAllSessionsFresh) {
    const auto tiny = model(1);
    const Tokens tokens = random_tokens(200, 3);
    std::vector<CacheOptions> two(2);
    two[0].method = two[1].method = "h2o";
    two[0].max_capacity_prompts = two[1].max_capacity_prompts = kCap;
    two[1].nbits = 4;
    std::vector<Session> sessions;
    for (const CacheOptions& options : two) {
        sessions.emplace_back(tiny, options, SessionOptions{.batch = 128});
    }
    EXPECT_THROW(Session::prefill(pointers(sessions), tokens,
                                  [](const Progress& at) { return at.layer < 2; }),
                 Error);
    for (std::size_t i = 0; i < two.size(); ++i) {
        EXPECT_EQ(sessions[i].position(), 0);
        EXPECT_EQ(sessions[i].stats().kept, std::vector<double>(3, 0.0));
        sessions[i].prefill(tokens);
        Session alone(tiny, two[i], {.batch = 128});
        alone.prefill(tokens);
        expect_same_stores(alone, sessions[i], two[i].method);
        EXPECT_EQ(alone.logits_hash(), sessions[i].logits_hash());
    }
}

TEST_F(SharedPrefill, RefusesWhatCannotShare) {
    const auto tiny = model(1);
    const Tokens tokens = random_tokens(20, 4);
    Session a(tiny), b(tiny), other(model(1)), small(tiny, {}, {.batch = 16});
    const auto refusal = [&](std::vector<Session*> sessions) {
        try {
            Session::prefill(sessions, tokens);
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::usage);
            return std::string(error.what());
        }
        return std::string("none");
    };
    EXPECT_NE(refusal({}).find("no session"), std::string::npos);
    EXPECT_NE(refusal({&a, &other}).find("different models"), std::string::npos);
    EXPECT_NE(refusal({&a, &a}).find("distinct and fresh"), std::string::npos);
    EXPECT_NE(refusal({&a, &small}).find("batches of 512 and 16"), std::string::npos);
    b.prefill(tokens);
    EXPECT_NE(refusal({&a, &b}).find("distinct and fresh"), std::string::npos);
    EXPECT_EQ(refusal({&b}), "none");  // one session may go on
    EXPECT_EQ(b.position(), 40);
}

}  // namespace
}  // namespace winnow
