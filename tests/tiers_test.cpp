// A kv head whose tokens lie at several precisions: reading, attending, moving, counting.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "attend/decode_attention.h"
#include "cache/layer_store.h"
#include "core/rope.h"
#include "kernels/dense.h"

namespace winnow {
namespace {

constexpr int kHeads = 2;
constexpr int kGroup = 3;
constexpr int kDims = 64;
constexpr float kScale = 0.125F;

using Tiers = std::vector<std::vector<std::vector<std::int32_t>>>;  // [G][tier] kept

class TiersTest : public ::testing::Test {
  protected:
    SpanLayout layout(const char* format, int bits, int group, int residual) const {
        SpanLayout layout;
        layout.spec = {.format = &find_format(format),
                       .head_dim = kDims,
                       .bits_k = bits,
                       .bits_v = bits,
                       .group_size = group};
        layout.residual_length = residual;
        layout.exact_room = true;
        layout.rope = &rope_;
        return layout;
    }
    // f16 rows that take new tokens, then 8, 4 and 2 bits.
    std::unique_ptr<LayerStore> store(bool sums, bool squares = false) {
        const SpanLayout tiers[] = {layout("none", 16, 1, 1 << 20), layout("kivi", 8, 8, 0),
                                    layout("kivi", 4, 8, 0), layout("kivi", 2, 8, 0)};
        return std::make_unique<LayerStore>(
            tiers, kHeads, kHeads * kGroup,
            LayerMemory{.column_sums = sums, .one_row = true, .decode_squares = squares}, &cache_,
            &policy_);
    }
    // Sums over the query heads of what one query gives each token, in storage order.
    void expect_sums(bool squares) {
        auto store = this->store(true, squares);
        store->rebuild(random_kv(90), spread(90));
        const std::vector<float> q = rows(kHeads * kGroup * kDims);
        std::vector<float> out(q.size());
        DecodeAttention attention(1, kHeads * kGroup, kDims);
        const DecodeItem item{.store = store.get(), .q = q.data(), .out = out.data()};
        attention.attend(std::span(&item, 1), kScale);
        for (int g = 0; g < kHeads; ++g) {
            const std::vector<std::int32_t> order = store->by_position(g);
            std::vector<double> wanted(order.size(), 0.0), ignored;
            for (int r = 0; r < kGroup; ++r) {
                const std::vector<double> weights = naive(*store, q, g * kGroup + r, ignored);
                for (std::size_t i = 0; i < weights.size(); ++i) {
                    wanted[i] += squares ? weights[i] * weights[i] : weights[i];
                }
            }
            const double tolerance = squares ? 1e-3 : 4e-3;
            for (std::size_t i = 0; i < order.size(); ++i) {
                ASSERT_NEAR(static_cast<double>(store->sums(g)[order[i]]), wanted[i], tolerance);
            }
        }
    }
    LayerKv random_kv(int tokens) {
        LayerKv kv(nullptr, std::vector<int>(kHeads, 0), tokens, kDims);
        const auto size = static_cast<std::size_t>(tokens * kHeads * kDims);
        kv.put(0, tokens, rows(size).data(), rows(size).data(), 0);
        return kv;
    }
    // Token t of head g goes to tier (t + g) % 4, every seventh nowhere.
    static Tiers spread(int tokens) {
        Tiers kept(kHeads, std::vector<std::vector<std::int32_t>>(4));
        for (int g = 0; g < kHeads; ++g) {
            for (int t = 0; t < tokens; ++t) {
                if (t % 7 != 3) {
                    kept[g][(t + g) % 4].push_back(t);
                }
            }
        }
        return kept;
    }
    std::vector<float> rows(std::size_t n) {
        std::normal_distribution<float> normal;
        std::vector<float> x(n);
        std::generate(x.begin(), x.end(), [&] { return normal(random_); });
        return x;
    }
    void append_one(LayerStore& store, int position) {
        store.append(rows(kHeads * kDims).data(), rows(kHeads * kDims).data(), position);
    }
    // Softmax weights [S] of query head `head` by position, and its output [D].
    static std::vector<double> naive(const LayerStore& store, const std::vector<float>& q, int head,
                                     std::vector<double>& out) {
        const int g = head / kGroup;
        const auto n = static_cast<std::size_t>(store.tokens(g));
        std::vector<f16> k(n * kDims), v(n * kDims);
        std::vector<std::int32_t> positions(n);
        store.read(g, k.data(), v.data(), positions.data());
        EXPECT_TRUE(std::is_sorted(positions.begin(), positions.end()));
        std::vector<double> weights(n);
        double total = 0.0;
        for (std::size_t t = 0; t < n; ++t) {
            double score = 0.0;
            for (std::size_t d = 0; d < kDims; ++d) {
                score += static_cast<double>(q[static_cast<std::size_t>(head) * kDims + d]) *
                         static_cast<double>(f16_to_f32(k[t * kDims + d]));
            }
            total += weights[t] = std::exp(score * static_cast<double>(kScale));
        }
        out.assign(kDims, 0.0);
        for (std::size_t t = 0; t < n; ++t) {
            weights[t] /= total;
            for (std::size_t d = 0; d < kDims; ++d) {
                out[d] += weights[t] * static_cast<double>(f16_to_f32(v[t * kDims + d]));
            }
        }
        return weights;
    }
    void expect_attention(LayerStore& store) {
        const std::vector<float> q = rows(kHeads * kGroup * kDims);
        std::vector<float> out(q.size());
        for (const int threads : {1, 3}) {
            DecodeAttention attention(threads, kHeads * kGroup, kDims);
            const DecodeItem item{.store = &store, .q = q.data(), .out = out.data()};
            attention.attend(std::span(&item, 1), kScale);
            for (int head = 0; head < kHeads * kGroup; ++head) {
                std::vector<double> wanted;
                naive(store, q, head, wanted);
                for (int d = 0; d < kDims; ++d) {
                    ASSERT_NEAR(static_cast<double>(out[head * kDims + d]), wanted[d], 4e-3);
                }
            }
        }
    }

    RopeTable rope_{{.dims = 32, .original_context = 4096}};
    MemoryMeter cache_, policy_;
    std::mt19937 random_{3};
};

TEST_F(TiersTest, ReadsByPositionAndAttendsOverAll) {
    auto store = this->store(false);
    const LayerKv kv = random_kv(203);
    const Tiers kept = spread(203);
    store->rebuild(kv, kept);
    EXPECT_EQ(cache_.now(), store->bytes());
    for (int i = 0; i < 9; ++i) {
        append_one(*store, 203 + i);
    }
    EXPECT_EQ(cache_.now(), store->bytes());
    for (int g = 0; g < kHeads; ++g) {
        const auto n = static_cast<std::size_t>(store->tokens(g));
        ASSERT_EQ(n, 203U - 29U + 9U);
        std::vector<f16> k(n * kDims), v(n * kDims);
        std::vector<std::int32_t> positions(n);
        store->read(g, k.data(), v.data(), positions.data());
        std::size_t row = 0;
        double error[4] = {};
        for (int t = 0; t < 203; ++t) {
            if (t % 7 == 3) {
                continue;
            }
            ASSERT_EQ(positions[row], t);
            for (int d = 0; d < kDims; ++d) {
                const float wanted = f16_to_f32(kv.head(g).k[t * kDims + d]);
                const float found = f16_to_f32(k[row * kDims + d]);
                error[(t + g) % 4] += std::pow(static_cast<double>(found - wanted), 2);
            }
            ++row;
        }
        EXPECT_EQ(error[0], 0.0);
        EXPECT_LT(error[1], error[2] / 50.0);  // four bits less: 1/256 of the square, tails apart
        EXPECT_LT(error[2], error[3] / 5.0);
    }
    expect_attention(*store);
    MemoryMeter other;
    const auto copy = store->clone(&other, &other);
    EXPECT_EQ(other.now(), store->bytes());
    store.reset();
    expect_attention(*copy);
    EXPECT_EQ(cache_.now(), 0U);
}

TEST_F(TiersTest, OneRowOfSumsFollowsStorageOrder) {
    expect_sums(false);
}

// mixed's, which are kept while decoding alone.
TEST_F(TiersTest, SumsOfSquaresFollowStorageOrder) {
    expect_sums(true);
}

// What a token carries when it changes its tier: rows, position, running sum.
TEST_F(TiersTest, MovesTokensOneAtATime) {
    const SpanLayout tiers[] = {layout("none", 16, 1, 1 << 20), layout("none", 16, 1, 0)};
    LayerStore store(tiers, kHeads, kHeads * kGroup,
                     LayerMemory{.column_sums = true, .one_row = true}, &cache_, &policy_);
    const LayerKv kv = random_kv(40);
    std::vector<std::int32_t> all(40);
    std::iota(all.begin(), all.end(), 0);
    store.rebuild(kv, Tiers(kHeads, {all, {}}));
    const auto mark = [&] {  // a sum that names its token
        for (int g = 0; g < kHeads; ++g) {
            float* sums = store.sums(g);
            int at = 0;
            for (int tier = 1; tier <= 2; ++tier) {
                for (int i = 0; i < store.span(g, tier % 2).tokens(); ++i) {
                    sums[at++] = static_cast<float>(store.span(g, tier % 2).position(i));
                }
            }
        }
    };
    mark();
    const std::size_t peak_before = store.bytes();
    cache_.reset_peak();
    std::vector<bool> gone(40, false);
    for (int step = 0; step < 60; ++step) {
        const int from = static_cast<int>(random_() % 2);
        const int to = random_() % 5 == 0 ? -1 : 1 - from;
        const int held = store.span(0, from).tokens();
        if (held < 3) {
            continue;
        }
        std::vector<std::int32_t> some{static_cast<std::int32_t>(random_() % held)};
        if (some[0] + 2 < held) {
            some.push_back(some[0] + 2);
        }
        for (const std::int32_t at : some) {
            gone[store.span(0, from).position(at)] = to < 0;
        }
        store.move(0, from, to, some);
        EXPECT_EQ(store.bytes(), cache_.now());
        float* sums = store.sums(0);
        for (int tier = 0; tier < 2; ++tier) {
            const int first = store.first_of(0, tier);
            for (int i = 0; i < store.span(0, tier).tokens(); ++i) {
                ASSERT_EQ(sums[first + i], static_cast<float>(store.span(0, tier).position(i)));
            }
        }
    }
    EXPECT_LE(cache_.peak(), peak_before + 2 * 4 * kDims + 40 * 4 * kHeads);
    const auto n = static_cast<std::size_t>(store.tokens(0));
    EXPECT_EQ(n, static_cast<std::size_t>(std::count(gone.begin(), gone.end(), false)));
    std::vector<f16> k(n * kDims), v(n * kDims);
    std::vector<std::int32_t> positions(n);
    store.read(0, k.data(), v.data(), positions.data());
    for (std::size_t i = 0; i < n; ++i) {
        ASSERT_FALSE(gone[positions[i]]);
        for (int d = 0; d < kDims; ++d) {
            ASSERT_EQ(k[i * kDims + d], kv.head(0).k[positions[i] * kDims + d]);
            ASSERT_EQ(v[i * kDims + d], kv.head(0).v[positions[i] * kDims + d]);
        }
    }
    EXPECT_EQ(store.tokens(1), 40);
}

}  // namespace
}  // namespace winnow
