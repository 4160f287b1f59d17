// HQQ with exact outliers: what is exact, what the rest loses, what it takes, in a cache too.
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <cmath>
#include <cstdio>
#include <random>

#include "cache/affine_outliers.h"
#include "cache/rows.h"
#include "format_reference.h"
#include "support/tiny_gguf.h"

namespace winnow {

extern const Format format_hqq;

namespace {

FormatSpec spec_of(int d, int bits, int group, int key_axis, int value_axis) {
    FormatSpec spec;
    spec.format = format_hqq.with_outliers;
    spec.head_dim = d;
    spec.bits_k = spec.bits_v = bits;
    spec.group_size = group;
    spec.key_axis = key_axis;
    spec.value_axis = value_axis;
    spec.outlier_threshold = 6.0F;
    return spec;
}

// Normal numbers; every `rare`th is an outlier of either sign.
std::vector<float> rows_of(int numbers, int rare, unsigned seed = 1) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> rows;
    for (int i = 0; i < numbers; ++i) {
        const float x = std::clamp(normal(random), -5.0F, 5.0F);
        const bool out = random() % static_cast<unsigned>(rare) == 0;
        rows.push_back(out ? std::copysign(7.0F + 100.0F * std::fabs(x), x) : x);
    }
    return rows;
}

struct Packed {
    std::vector<std::uint8_t> bytes;
    TileView tile;
    std::vector<float> restored;
};

Packed pack(const FormatSpec& spec, Side side, const std::vector<float>& rows, int tokens) {
    const Format& format = *spec.format;
    Packed result;
    const std::size_t size = format.measure(spec, side, rows.data(), tokens);
    result.bytes.assign(size + 16, 0xA5);
    format.pack(spec, side, rows.data(), tokens, nullptr, result.bytes.data());
    for (std::size_t i = size; i < size + 16; ++i) EXPECT_EQ(result.bytes[i], 0xA5) << "overrun";
    result.tile = {.data = result.bytes.data(), .tokens = tokens};
    result.restored.resize(rows.size());
    format.unpack(spec, side, result.tile, result.restored.data());
    return result;
}

template <class Test>
void for_each_shape(Test test) {
    const int shapes[][2] = {{32, 32}, {64, 32}, {128, 16}, {80, 16}};
    for (const auto& [d, group] : shapes) {
        for (const int bits : {2, 3, 4, 8}) {
            for (const int axis : {0, 1}) {
                SCOPED_TRACE("D " + std::to_string(d) + " bits " + std::to_string(bits) + " axis " +
                             std::to_string(axis));
                test(spec_of(d, bits, group, axis, axis), 3 * group);
            }
        }
    }
}

TEST(Outliers, AreExactAndLeaveTheRestAlone) {
    for_each_shape([](const FormatSpec& spec, int tokens) {
        for (const Side side : {Side::key, Side::value}) {
            const std::vector<float> rows = rows_of(tokens * spec.head_dim, 50);
            const Packed packed = pack(spec, side, rows, tokens);
            int outliers = 0;
            double lost = 0.0;
            for (std::size_t i = 0; i < rows.size(); ++i) {
                if (std::fabs(rows[i]) > 6.0F) {
                    EXPECT_EQ(packed.restored[i], round_to_f16(rows[i]));
                    ++outliers;
                } else {
                    lost += std::pow(static_cast<double>(packed.restored[i] - rows[i]), 2);
                }
            }
            ASSERT_GT(outliers, 10);
            const std::size_t dense = affine_bytes(spec, side, tokens);
            EXPECT_EQ(packed.bytes.size() - 16, dense + 4 + 4U * outliers);
            // Without its outliers the rest is as good as normal numbers are at this width.
            const double step = 6.0 / ((1 << spec.bits_k) - 1);
            EXPECT_LT(std::sqrt(lost / static_cast<double>(rows.size())), 0.6 * step);
        }
    });
}

// The kernels round q and the weights to 16 bits: half a unit of the largest for each code.
constexpr double kRounding = 6e-5;

TEST(Outliers, KernelsAgreeWithUnpack) {
    for_each_shape([](const FormatSpec& spec, int tokens) {
        const int d = spec.head_dim, heads = 3;
        const std::vector<float> rows = rows_of(tokens * d, 40, 2);
        const Packed keys = pack(spec, Side::key, rows, tokens);
        const Packed values = pack(spec, Side::value, rows, tokens);
        const std::vector<float> q = rows_of(heads * d, 1 << 30, 3);
        const std::vector<float> weights = rows_of(heads * tokens, 1 << 30, 4);
        std::vector<float> scores(heads * tokens), out(heads * d, 0.5F);
        spec.format->dot_k(spec, keys.tile, q.data(), heads, scores.data(), tokens);
        spec.format->add_v(spec, values.tile, weights.data(), tokens, heads, out.data());
        for (int r = 0; r < heads; ++r) {
            for (int t = 0; t < tokens; ++t) {
                double want = 0.0, size = 0.0;
                for (int c = 0; c < d; ++c) {
                    const double part =
                        static_cast<double>(q[r * d + c]) * keys.restored[t * d + c];
                    want += part;
                    size += std::fabs(part);
                }
                ASSERT_NEAR(scores[r * tokens + t], want, kRounding * (size + d));
            }
            for (int c = 0; c < d; ++c) {
                double want = 0.5, size = 0.0;
                for (int t = 0; t < tokens; ++t) {
                    const double part =
                        static_cast<double>(weights[r * tokens + t]) * values.restored[t * d + c];
                    want += part;
                    size += std::fabs(part);
                }
                ASSERT_NEAR(out[r * d + c], want, kRounding * (size + tokens));
            }
        }
    });
}

TEST(Outliers, EdgesAreDefined) {
    const FormatSpec spec = spec_of(32, 4, 32, 0, 1);
    std::vector<float> rows = rows_of(32 * 32, 1 << 30);
    EXPECT_EQ(spec.format->measure(spec, Side::key, rows.data(), 32),
              spec.format->bytes(spec, Side::key, 32));
    EXPECT_EQ(spec.format->bytes(spec, Side::key, 0), 0U);
    rows.assign(rows.size(), 1e9F);  // nothing but outliers, beyond f16
    rows[5] = -INFINITY;
    const Packed packed = pack(spec, Side::value, rows, 32);
    EXPECT_EQ(packed.restored[0], 65504.0F);
    EXPECT_EQ(packed.restored[5], -65504.0F);
    rows[7] = std::nanf("");
    std::vector<std::uint8_t> room(1 << 16);
    EXPECT_THROW(spec.format->pack(spec, Side::key, rows.data(), 32, nullptr, room.data()), Error);
    FormatSpec half = spec;
    half.bits_v = 16;
    rows.assign(rows.size(), 9.0F);
    EXPECT_EQ(spec.format->measure(half, Side::value, rows.data(), 32), 2U * 32 * 32);
    EXPECT_EQ(pack(half, Side::value, rows, 32).restored[3], 9.0F);
    EXPECT_THROW(spec.format->check(spec_of(1024, 4, 128, 0, 0)), Error);
}

TEST(Outliers, ACacheCountsEachOfThem) {
    const std::string path = ::testing::TempDir() + "winnow_outlier_test.gguf";
    testing::write_tiny_gguf(path, {});
    const auto model = Model::load(path, {.threads = 1});
    std::remove(path.c_str());
    std::vector<std::int32_t> tokens;
    for (int i = 0; i < 300; ++i) tokens.push_back((i * 37 + 11) % model->info().vocabulary);
    const auto stats_at = [&](double threshold, bool decode) {
        Session session(model, {.method = "snapkv",
                                .max_capacity_prompts = 128,
                                .quant_method = "hqq",
                                .nbits = 2,
                                .outlier_threshold = threshold});
        session.prefill(tokens);
        for (int i = 0; decode && i < 150; ++i) {
            session.decode(i % 100);
            EXPECT_TRUE(std::isfinite(session.logits()[0]));
        }
        const CacheStats stats = session.stats();
        EXPECT_EQ(stats.bytes, stats.allocated_bytes);
        Session copy = session.clone();
        copy.decode(3);
        session.decode(3);
        EXPECT_EQ(copy.logits()[5], session.logits()[5]);
        return stats;
    };
    const CacheStats none = stats_at(0.0, false);
    const CacheStats few = stats_at(1.5, false);
    const CacheStats all = stats_at(1e-6, false);
    EXPECT_LT(none.bits_k, few.bits_k);
    EXPECT_LT(few.bits_k, 16.0);
    // Every number an outlier: 4 bytes each beside its code.
    EXPECT_NEAR(all.bits_k, none.bits_k + 32.0, 1.0);
    EXPECT_GT(stats_at(1.5, true).evictions, 0U);
}

TEST(Outliers, OtherFormatsRefuseTheThreshold) {
    for (const char* format : {"none", "kivi", "layerquant"}) {
        CacheOptions options;
        options.quant_method = format;
        options.outlier_threshold = 6.0;
        EXPECT_THROW(validate(options), Error) << format;
    }
}

}  // namespace
}  // namespace winnow
