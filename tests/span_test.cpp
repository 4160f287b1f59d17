// Spans and layer stores: what is appended, dropped and read back, in every format.
#include "cache/span.h"

#include <gtest/gtest.h>
#include <winnow/error.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "cache/layer_store.h"
#include "core/rope.h"
#include "kernels/dense.h"

namespace winnow {
namespace {

struct Case {
    const char* format;
    int bits_k, bits_v, group, residual, head_dim, head;
};

std::string name_of(const Case& c) {
    return std::string(c.format) + "_k" + std::to_string(c.bits_k) + "_v" +
           std::to_string(c.bits_v) + "_group" + std::to_string(c.group) + "_residual" +
           std::to_string(c.residual) + "_d" + std::to_string(c.head_dim) + "_head" +
           std::to_string(c.head);
}

std::vector<Case> cases() {
    std::vector<Case> all{{"none", 16, 16, 32, 32, 64, 0}, {"none", 16, 16, 8, 0, 80, 3}};
    for (const char* format : {"kivi", "hqq", "kvquant"}) {
        for (const int bits : {2, 3, 4, 8}) {
            all.push_back({format, bits, bits, 32, 32, 64, 0});
            all.push_back({format, bits, bits, 16, 0, 32, 5});
        }
        all.push_back({format, 8, 2, 64, 100, 128, 4});
        all.push_back({format, 4, 16, 8, 7, 64, 1});
    }
    return all;
}

/// What the store must hold: plain lists.
struct Model {
    std::vector<std::vector<float>> k, v;  // [S][D], as rounded to f16
    std::vector<std::int32_t> positions;
};

class SpanTest : public ::testing::TestWithParam<Case> {
  protected:
    static constexpr int kHeads = 3;

    SpanLayout layout() const {
        const Case& c = GetParam();
        const Format& format = find_format(c.format);
        SpanLayout layout;
        layout.spec = {.format = &format,
                       .head_dim = c.head_dim,
                       .bits_k = c.bits_k,
                       .bits_v = c.bits_v,
                       .group_size = c.group,
                       .key_axis = format.default_key_axis,
                       .value_axis = format.default_value_axis};
        layout.head_tokens = std::max(c.head, format.exact_head);
        layout.residual_length = c.residual;
        layout.rope = &rope_;
        return layout;
    }
    std::unique_ptr<LayerStore> new_store() {
        return std::make_unique<LayerStore>(layout(), kHeads, 2 * kHeads, LayerMemory{}, &cache_,
                                            &policy_);
    }

    // One token's rows; what is stored of them goes to the model.
    void add_token(LayerStore& store, std::vector<Model>& heads) {
        const std::size_t d = static_cast<std::size_t>(GetParam().head_dim);
        const std::vector<float> k = rows(1), v = rows(1);
        store.append(k.data(), v.data(), position_);
        for (std::size_t g = 0; g < heads.size(); ++g) {
            note(heads[g], k.data() + g * d, v.data() + g * d);
        }
        ++position_;
    }
    // Many tokens, as prefill adds them: the older rows come back through the store.
    void add_many(LayerStore& store, std::vector<Model>& heads, int n) {
        const std::size_t d = static_cast<std::size_t>(GetParam().head_dim);
        LayerKv kv = opened(store, n);
        const std::vector<float> k = rows(n), v = rows(n);
        kv.put(0, n, k.data(), v.data(), position_);
        for (int t = 0; t < n; ++t, ++position_) {
            for (std::size_t g = 0; g < heads.size(); ++g) {
                const std::size_t at = (static_cast<std::size_t>(t) * kHeads + g) * d;
                note(heads[g], k.data() + at, v.data() + at);
            }
        }
        store.append(kv);
    }
    // Keeps a random part of every head, of different sizes.
    void drop_some(LayerStore& store, std::vector<Model>& heads) {
        const std::size_t d = static_cast<std::size_t>(GetParam().head_dim);
        const LayerKv kv = opened(store, 0);
        std::vector<std::vector<std::int32_t>> kept(kHeads);
        for (int g = 0; g < kHeads; ++g) {
            const int percent = 30 + 25 * g;
            Model next;
            for (std::int32_t i = 0; i < kv.head(g).tokens; ++i) {
                if (static_cast<int>(random_() % 100) >= percent) {
                    continue;
                }
                // Survivors are packed again from what the store still knew of them.
                const auto at = static_cast<std::size_t>(i);
                kept[g].push_back(i);
                next.positions.push_back(heads[g].positions[at]);
                next.k.emplace_back(d);
                next.v.emplace_back(d);
                widen(kv.head(g).k + at * d, next.k.back().data(), d);
                widen(kv.head(g).v + at * d, next.v.back().data(), d);
            }
            heads[g] = std::move(next);
        }
        store.rebuild(kv, kept);
    }
    static LayerKv opened(const LayerStore& store, int fresh) {
        std::vector<int> held;
        for (int g = 0; g < kHeads; ++g) {
            held.push_back(store.span(g).tokens());
        }
        LayerKv kv(nullptr, held, fresh, store.layout().spec.head_dim);
        for (int g = 0; g < kHeads; ++g) {
            store.read(g, kv.head(g).k, kv.head(g).v, kv.head(g).positions);
        }
        return kv;
    }

    void check(const LayerStore& store, const std::vector<Model>& heads) {
        EXPECT_EQ(store.bytes(), cache_.now());
        for (int g = 0; g < kHeads; ++g) {
            check_shape(store.span(g), heads[g]);
            check_rows(store, g, heads[g]);
        }
    }
    void check_shape(const Span& span, const Model& head) const {
        const SpanLayout wanted = layout();
        const int tokens = static_cast<int>(head.positions.size());
        ASSERT_EQ(span.tokens(), tokens);
        EXPECT_EQ(span.head_tokens(), std::min(tokens, wanted.head_tokens));
        EXPECT_EQ(span.packed_tokens() % GetParam().group, 0);
        EXPECT_LE(span.tail_tokens(), wanted.tail_capacity());
        if (span.packed_tokens() > 0) {
            EXPECT_GE(span.tail_tokens(), wanted.residual_length);
        }
        bool gapless = true;
        for (int i = 0; i < tokens; ++i) {
            ASSERT_EQ(span.position(i), head.positions[static_cast<std::size_t>(i)]);
            gapless = gapless && span.position(i) == i;
        }
        if (gapless && tokens > 0 && !dropped_) {
            EXPECT_TRUE(span.contiguous());
        }
        const int most = wanted.spec.format->tile_tokens == nullptr
                             ? span.packed_tokens()
                             : wanted.spec.format->tile_tokens(wanted.spec);
        int packed = 0;
        for (const Span::Tile& tile : span.tiles()) {
            EXPECT_EQ(tile.first, packed);
            EXPECT_LE(tile.tokens, most);
            packed += tile.tokens;
        }
        EXPECT_EQ(packed, span.packed_tokens());
    }
    // Exact in head and tail; in between within the format's error of a normal variable, which was
    // measured (see format_test for the bounds) and is given here with room.
    void check_rows(const LayerStore& store, int g, const Model& head) const {
        const Span& span = store.span(g);
        const std::size_t d = static_cast<std::size_t>(GetParam().head_dim);
        std::vector<f16> k(head.positions.size() * d), v(k.size());
        std::vector<std::int32_t> positions(head.positions.size());
        store.read(g, k.data(), v.data(), positions.data());
        EXPECT_EQ(positions, head.positions);
        double error[2] = {0.0, 0.0}, size[2] = {0.0, 0.0};
        for (int i = 0; i < span.tokens(); ++i) {
            const auto at = static_cast<std::size_t>(i);
            const bool packed =
                i >= span.head_tokens() && i < span.head_tokens() + span.packed_tokens();
            for (std::size_t c = 0; c < d; ++c) {
                const float from[2] = {head.k[at][c], head.v[at][c]};
                const float back[2] = {f16_to_f32(k[at * d + c]), f16_to_f32(v[at * d + c])};
                for (int side = 0; side < 2; ++side) {
                    if (!packed) {
                        ASSERT_EQ(back[side], from[side]) << "token " << i << " side " << side;
                    }
                    error[side] += packed ? std::pow(back[side] - from[side], 2) : 0.0;
                    size[side] += packed ? std::pow(from[side], 2) : 0.0;
                }
            }
        }
        for (int side = 0; side < 2 && span.packed_tokens() > 0; ++side) {
            const int bits = side == 0 ? GetParam().bits_k : GetParam().bits_v;
            const double most = bits == 16 ? 1e-3 : bits == 8 ? 2e-2 : bits == 4 ? 0.16 : 0.6;
            EXPECT_LE(std::sqrt(error[side] / size[side]), most) << "side " << side;
        }
    }

    RopeTable rope_{{.dims = 32, .original_context = 4096}};
    MemoryMeter cache_, policy_;
    std::mt19937 random_{11};
    std::int32_t position_ = 0;
    bool dropped_ = false;

  private:
    std::vector<float> rows(int n) {
        std::normal_distribution<float> normal;
        std::vector<float> x(static_cast<std::size_t>(n * kHeads * GetParam().head_dim));
        for (float& value : x) {
            value = normal(random_);
        }
        return x;
    }
    void note(Model& head, const float* k, const float* v) const {
        const auto rounded = [&](const float* row) {
            std::vector<float> out(row, row + GetParam().head_dim);
            for (float& value : out) {
                value = f16_to_f32(f32_to_f16(value));
            }
            return out;
        };
        head.k.push_back(rounded(k));
        head.v.push_back(rounded(v));
        head.positions.push_back(position_);
    }
};

TEST_P(SpanTest, OneTokenAtATime) {
    const auto store = new_store();
    std::vector<Model> heads(kHeads);
    const SpanLayout shape = layout();
    const int count = shape.head_tokens + shape.tail_capacity() + 3 * GetParam().group + 1;
    for (int i = 0; i < count; ++i) {
        add_token(*store, heads);
        check_shape(store->span(0), heads[0]);
        EXPECT_EQ(store->bytes(), cache_.now());
    }
    EXPECT_GE(store->span(0).packed_tokens(), 3 * GetParam().group);
    EXPECT_TRUE(store->span(0).contiguous());
    check(*store, heads);
}

TEST_P(SpanTest, APromptIsPackedAtOnceAndKeepsItsTail) {
    for (const int tokens : {1, GetParam().group, 700}) {
        position_ = 0;
        const auto store = new_store();
        std::vector<Model> heads(kHeads);
        add_many(*store, heads, tokens);
        check(*store, heads);
        EXPECT_TRUE(store->span(0).contiguous());
    }
    EXPECT_EQ(cache_.now(), 0U);
}

TEST_P(SpanTest, RandomSequencesOfAllOperations) {
    const auto operations = [&](LayerStore& store, std::vector<Model>& heads, int steps) {
        for (int step = 0; step < steps; ++step) {
            const auto what = random_() % 8;
            if (what < 4) {
                for (auto n = random_() % 40; n > 0; --n) {
                    add_token(store, heads);
                }
            } else if (what < 7) {
                add_many(store, heads, 1 + static_cast<int>(random_() % 150));
            } else if (store.longest() > 0) {
                dropped_ = true;
                drop_some(store, heads);
            }
        }
    };
    auto store = new_store();
    std::vector<Model> heads(kHeads);
    for (int round = 0; round < 4; ++round) {
        operations(*store, heads, 5);
        check(*store, heads);
    }
    // A copy goes on by itself and is counted by its own meters.
    MemoryMeter cache, policy;
    const auto copy = store->clone(&cache, &policy);
    EXPECT_EQ(cache.now(), copy->bytes());
    const std::size_t before = store->bytes();
    auto copied = heads;
    operations(*copy, copied, 3);
    EXPECT_EQ(cache.now(), copy->bytes());
    EXPECT_EQ(store->bytes(), before);
    store.reset();
    EXPECT_EQ(cache_.now(), 0U);
    for (int g = 0; g < kHeads; ++g) {
        check_shape(copy->span(g), copied[g]);
    }
}

INSTANTIATE_TEST_SUITE_P(Formats, SpanTest, ::testing::ValuesIn(cases()),
                         [](const auto& test) { return name_of(test.param); });

// Large buffers move their pages: a cache that grows is neither copied nor held twice.
TEST(Buffer, GrowsAndShrinksInPlace) {
    MemoryMeter meter;
    constexpr std::size_t kSize = 300'001;
    Buffer<std::uint8_t> buffer(&meter, kSize);
    for (std::size_t i = 0; i < kSize; ++i) {
        buffer[i] = static_cast<std::uint8_t>(i % 251 + 1);
    }
    std::size_t held = kSize;
    for (const std::size_t size : {5'000'000, 280'000, 280'100, 1'000'000, 1'000, 400'000}) {
        const bool in_place = buffer.resizes_in_place(size);
        EXPECT_EQ(in_place, buffer.size() >= 262'144 && size >= 262'144);
        meter.reset_peak();
        const std::size_t before = buffer.size();
        buffer.resize(size);
        EXPECT_EQ(meter.now(), size);
        EXPECT_EQ(meter.peak(), in_place ? std::max(before, size) : before + size);
        held = std::min(held, size);
        for (std::size_t i = 0; i < size; ++i) {
            ASSERT_EQ(buffer[i], i < held ? i % 251 + 1 : 0) << size << " bytes, at " << i;
        }
    }
}

}  // namespace
}  // namespace winnow
