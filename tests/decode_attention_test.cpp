// Attention over packed groups, head and tail against a plain double-precision one over the rows
// that Span::read gives, for every format and shape.
#include "attend/decode_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "core/rope.h"

namespace winnow {
namespace {

struct Kind {
    const char* format;
    int bits_k, bits_v;
};

class DecodeAttentionTest
    : public ::testing::TestWithParam<std::tuple<Kind, int, int>> {  // format, R, D
  protected:
    static constexpr int kHeads = 3;

    Kind kind() const { return std::get<0>(GetParam()); }
    int group() const { return std::get<1>(GetParam()); }
    int dims() const { return std::get<2>(GetParam()); }

    std::vector<float> rows(std::size_t n) {
        std::normal_distribution<float> normal;
        std::vector<float> x(n);
        for (float& value : x) {
            value = normal(random_);
        }
        return x;
    }

    // Heads of different lengths: a prompt, a third of head 1 and nearly all of head 2 dropped,
    // then some tokens one by one.
    std::unique_ptr<LayerStore> filled(int tokens, bool sums) {
        const Format& format = find_format(kind().format);
        SpanLayout layout;
        layout.spec = {.format = &format,
                       .head_dim = dims(),
                       .bits_k = kind().bits_k,
                       .bits_v = kind().bits_v,
                       .group_size = 16,
                       .key_axis = format.default_key_axis,
                       .value_axis = format.default_value_axis};
        layout.head_tokens = std::max(2, format.exact_head);
        layout.residual_length = 9;
        layout.rope = &rope_;
        auto store = std::make_unique<LayerStore>(
            layout, kHeads, kHeads * group(), LayerMemory{.column_sums = sums}, &meter_, &meter_);
        LayerKv kv(nullptr, std::vector<int>(kHeads, 0), tokens, dims());
        const std::size_t size = static_cast<std::size_t>(tokens * kHeads * dims());
        kv.put(0, tokens, rows(size).data(), rows(size).data(), 0);
        std::vector<std::vector<std::int32_t>> kept(kHeads);
        for (std::int32_t i = 0; i < tokens; ++i) {
            kept[0].push_back(i);
            if (i % 3 != 0) {
                kept[1].push_back(i);
            }
            if (i >= tokens - 5) {
                kept[2].push_back(i);
            }
        }
        store->rebuild(kv, kept);
        for (int i = 0; i < 21; ++i) {
            const std::size_t row = static_cast<std::size_t>(kHeads * dims());
            store->append(rows(row).data(), rows(row).data(), tokens + i);
        }
        return store;
    }

    // out [H][D] and, where asked, the weights each token received [H][S].
    std::vector<double> naive(const LayerStore& store, const std::vector<float>& q,
                              std::vector<std::vector<double>>* received) const {
        const std::size_t d = static_cast<std::size_t>(dims());
        std::vector<double> out(q.size(), 0.0);
        for (int head = 0; head < kHeads * group(); ++head) {
            const int g = head / group();
            const std::size_t n = static_cast<std::size_t>(store.span(g).tokens());
            std::vector<f16> k(n * d), v(n * d);
            std::vector<std::int32_t> positions(n);
            store.read(g, k.data(), v.data(), positions.data());
            std::vector<double> weights(n);
            double best = -1e300, total = 0.0;
            for (std::size_t t = 0; t < n; ++t) {
                for (std::size_t c = 0; c < d; ++c) {
                    weights[t] += static_cast<double>(q[static_cast<std::size_t>(head) * d + c]) *
                                  static_cast<double>(f16_to_f32(k[t * d + c])) * kScale;
                }
                best = std::max(best, weights[t]);
            }
            for (double& weight : weights) {
                weight = std::exp(weight - best);
                total += weight;
            }
            for (std::size_t t = 0; t < n; ++t) {
                weights[t] /= total;
                for (std::size_t c = 0; c < d; ++c) {
                    out[static_cast<std::size_t>(head) * d + c] +=
                        weights[t] * static_cast<double>(f16_to_f32(v[t * d + c]));
                }
            }
            if (received != nullptr) {
                received->push_back(weights);
            }
        }
        return out;
    }

    static constexpr float kScale = 0.2F;
    RopeTable rope_{{.dims = 32, .original_context = 4096}};
    MemoryMeter meter_;
    std::mt19937 random_{5};
};

TEST_P(DecodeAttentionTest, EqualsAPlainOneOverTheUnpackedRows) {
    const bool sums = group() == 3;
    const auto store = filled(700, sums);
    const auto other = filled(40, sums);
    const std::size_t size = static_cast<std::size_t>(kHeads * group() * dims());
    const std::vector<float> q = rows(size), other_q = rows(size);
    std::vector<std::vector<float>> results;
    for (const int threads : {1, 2, 3}) {
        std::vector<float> out(size), other_out(size);
        DecodeAttention attention(threads, kHeads * group(), dims());
        const DecodeItem items[] = {
            {.store = store.get(), .q = q.data(), .out = out.data()},
            {.store = other.get(), .q = other_q.data(), .out = other_out.data()}};
        attention.attend(items, kScale);
        out.insert(out.end(), other_out.begin(), other_out.end());
        results.push_back(out);
    }
    EXPECT_EQ(results[0], results[1]) << "two threads give other bits";
    EXPECT_EQ(results[0], results[2]) << "three threads give other bits";

    std::vector<std::vector<double>> received;
    std::vector<double> wanted = naive(*store, q, &received);
    const std::vector<double> other_wanted = naive(*other, other_q, nullptr);
    wanted.insert(wanted.end(), other_wanted.begin(), other_wanted.end());
    const double bound = 4e-3;  // read() rounds to f16 what the kernels use as it is
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        ASSERT_NEAR(static_cast<double>(results[0][i]), wanted[i], bound) << "channel " << i;
    }
    for (int head = 0; sums && head < kHeads * group(); ++head) {
        const int g = head / group();
        const float* row =
            store->sums(g) + static_cast<std::size_t>(head % group()) * store->sums_stride(g);
        for (std::size_t t = 0; t < received[static_cast<std::size_t>(head)].size(); ++t) {
            ASSERT_NEAR(static_cast<double>(row[t]),
                        3.0 * received[static_cast<std::size_t>(head)][t], 4e-3)
                << "three steps' attention of head " << head << " to token " << t;
        }
    }
}

std::vector<Kind> kinds() {
    std::vector<Kind> all{{"none", 16, 16}};
    for (const char* format : {"kivi", "hqq", "kvquant", "rotated", "kvarn", "graded"}) {
        for (const int bits : {2, 3, 4, 8}) {
            all.push_back({format, bits, bits});
        }
        all.push_back({format, 8, 2});
        all.push_back({format, 4, 16});
        all.push_back({format, 16, 4});
    }
    return all;
}

INSTANTIATE_TEST_SUITE_P(Groups, DecodeAttentionTest,
                         ::testing::Combine(::testing::ValuesIn(kinds()),
                                            ::testing::Values(1, 3, 4, 7, 8),
                                            ::testing::Values(64)),
                         [](const auto& test) {
                             const Kind kind = std::get<0>(test.param);
                             return std::string(kind.format) + "_k" + std::to_string(kind.bits_k) +
                                    "_v" + std::to_string(kind.bits_v) + "_r" +
                                    std::to_string(std::get<1>(test.param));
                         });
INSTANTIATE_TEST_SUITE_P(Widths, DecodeAttentionTest,
                         ::testing::Combine(::testing::ValuesIn(kinds()), ::testing::Values(3),
                                            ::testing::Values(32, 128, 256)),
                         [](const auto& test) {
                             const Kind kind = std::get<0>(test.param);
                             return std::string(kind.format) + "_k" + std::to_string(kind.bits_k) +
                                    "_v" + std::to_string(kind.bits_v) + "_d" +
                                    std::to_string(std::get<2>(test.param));
                         });

}  // namespace
}  // namespace winnow
