// The format fitted: errors against the normal variable it is made for, kernels against unpack,
// hostile rows, exact bytes.
#include <gtest/gtest.h>
#include <winnow/error.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "cache/format.h"
#include "core/rope.h"

namespace winnow {

extern const Format format_fitted;

namespace {

constexpr int kTokens = 70, kDims = 64, kHeads = 3;

class Fitted : public ::testing::TestWithParam<int> {
  protected:
    FormatSpec spec() const {
        return {.format = &format_fitted,
                .head_dim = kDims,
                .bits_k = GetParam(),
                .bits_v = GetParam(),
                .group_size = 1};
    }
    // Channels of very different offsets and spreads, as biased keys have them.
    std::vector<float> rows(int tokens) {
        std::normal_distribution<float> normal;
        std::vector<float> x;
        for (int i = 0; i < tokens * kDims; ++i) {
            const int d = i % kDims;
            x.push_back(static_cast<float>(d % 5 == 0 ? 40 * d : 0) +
                        normal(random_) * (d % 7 == 0 ? 9.0F : 0.3F));
        }
        return x;
    }
    std::vector<float> fit(const std::vector<float>& k, const std::vector<float>& v) const {
        std::vector<float> side(static_cast<std::size_t>(format_fitted.side_floats(spec())));
        format_fitted.fit(spec(), k, v, side.data());
        return side;
    }
    std::vector<std::uint8_t> pack(Side side, const std::vector<float>& x,
                                   const std::vector<float>& data) const {
        const int tokens = static_cast<int>(x.size()) / kDims;
        std::vector<std::uint8_t> out(format_fitted.bytes(spec(), side, tokens));
        format_fitted.pack(spec(), side, x.data(), tokens, data.data(), out.data());
        return out;
    }
    TileView view(const std::vector<std::uint8_t>& tile, const std::vector<float>& data) const {
        return {.data = tile.data(),
                .tokens = kTokens,
                .side_data = data.data(),
                .positions = positions_.data(),
                .rope = &rope_};
    }
    static double relative_error(const std::vector<float>& x, const std::vector<float>& back,
                                 const std::vector<float>& data_rows) {
        // Per channel, in units of its variance.
        double sum = 0.0;
        for (int d = 0; d < kDims; ++d) {
            double mean = 0.0, square = 0.0, error = 0.0;
            for (int t = 0; t < kTokens; ++t) {
                mean += static_cast<double>(data_rows[t * kDims + d]) / kTokens;
            }
            for (int t = 0; t < kTokens; ++t) {
                square += std::pow(static_cast<double>(x[t * kDims + d]) - mean, 2);
                error += std::pow(static_cast<double>(x[t * kDims + d] - back[t * kDims + d]), 2);
            }
            sum += error / square / kDims;
        }
        return sum;
    }

    RopeTable rope_{{.dims = kDims, .original_context = 4096}};
    std::mt19937 random_{7};
    std::vector<std::int32_t> positions_ = [] {
        std::vector<std::int32_t> p;
        for (int t = 0; t < kTokens; ++t) {
            p.push_back(3 * t + 5);
        }
        return p;
    }();
};

TEST_P(Fitted, ValuesLoseWhatANormalVariableLoses) {
    if (GetParam() == 16) {
        GTEST_SKIP() << "f16 rows: their error is that of the offsets, not of a code";
    }
    const std::vector<float> v = rows(kTokens), data = fit(v, v);
    // Mean squared errors of the best uniform quantiser (Max, 1960), with room for finite rows.
    const double most = GetParam() == 2   ? 0.13
                        : GetParam() == 3 ? 0.042
                        : GetParam() == 4 ? 0.0135
                                          : 1e-3;
    const auto tile = pack(Side::value, v, data);
    std::vector<float> back(v.size());
    format_fitted.unpack(spec(), Side::value, view(tile, data), back.data());
    EXPECT_LE(relative_error(v, back, v), most);
    if (GetParam() < 8) {
        EXPECT_GE(relative_error(v, back, v), most / 3.0) << "better than it can be";
    }
}

// Bits of K's bunches as the side data says them, for 2 to 4 bits on average.
const std::uint8_t* bits_of_bunches(const std::vector<float>& data, int average) {
    return reinterpret_cast<const std::uint8_t*>(data.data() + 2 * kDims) +
           (average - 2) * kDims / 8;
}

// Scores of queries whose energy lies in one of eight bunches, against bits shared out evenly: for
// that, queries are not known and all channels alike.
TEST_P(Fitted, KeysHaveTheirBitsWhereQueriesLook) {
    const int bits = GetParam();
    if (bits > 4) {
        GTEST_SKIP() << "8 and 16 bits are not shared out";
    }
    std::normal_distribution<float> normal;
    std::vector<float> k(kTokens * kDims), q(kHeads * kDims), errors;
    for (float& x : k) x = normal(random_);
    for (std::size_t i = 0; i < q.size(); ++i) {
        q[i] = normal(random_) * (i % kDims / 8 == 5 ? 1.0F : 0.05F);
    }
    for (const bool known : {false, true}) {
        std::vector<float> data(static_cast<std::size_t>(format_fitted.side_floats(spec())));
        for (int i = 0; i < kDims && known; ++i) data[i] = i / 8 == 5 ? 1.0F : 0.0025F;
        format_fitted.fit(spec(), k, k, data.data());
        const std::uint8_t* shares = bits_of_bunches(data, bits);
        EXPECT_EQ(std::accumulate(shares, shares + kDims / 8, 0), bits * kDims / 8);
        EXPECT_EQ(shares[5], known ? 8 : bits) << "of an average of " << bits;
        const auto tile = pack(Side::key, k, data);
        std::vector<float> back(k.size());
        format_fitted.unpack(spec(), Side::key, view(tile, data), back.data());
        float error = 0.0F;
        for (int t = 0; t < kTokens; ++t) {
            for (int r = 0; r < kHeads; ++r) {
                float score = 0.0F;
                for (int i = 0; i < kDims; ++i) {
                    score += q[r * kDims + i] * (back[t * kDims + i] - k[t * kDims + i]);
                }
                error += score * score;
            }
        }
        errors.push_back(error);
    }
    EXPECT_LT(errors[1], 0.5F * errors[0]);
    EXPECT_GT(errors[0], 0.0F);
}

// What a damaged file may hold is not read as bits.
TEST(FittedSide, BitsThatNoRowHasAreUnsound) {
    const FormatSpec spec{.format = &format_fitted, .head_dim = kDims, .bits_k = 2, .bits_v = 2};
    std::vector<float> rows(kTokens * kDims);
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i * i % 97);
    std::vector<float> good(static_cast<std::size_t>(format_fitted.side_floats(spec)));
    format_fitted.fit(spec, rows, rows, good.data());
    EXPECT_TRUE(format_fitted.side_is_sound(spec, good.data()));
    for (int average = 2; average <= 4; ++average) {
        for (const int wrong : {1, 5, 7, 9, 255}) {
            std::vector<float> bad = good;
            const_cast<std::uint8_t*>(bits_of_bunches(bad, average))[3] =
                static_cast<std::uint8_t>(wrong);
            EXPECT_FALSE(format_fitted.side_is_sound(spec, bad.data())) << wrong;
        }
        // Each a number of bits that there is, but more in sum than a row has room for.
        std::vector<float> bad = good;
        std::fill_n(const_cast<std::uint8_t*>(bits_of_bunches(bad, average)), kDims / 8,
                    std::uint8_t{8});
        EXPECT_FALSE(format_fitted.side_is_sound(spec, bad.data()));
    }
}

TEST_P(Fitted, KernelsAgreeWithUnpack) {
    const std::vector<float> k = rows(kTokens), v = rows(kTokens), data = fit(k, v);
    const auto packed_k = pack(Side::key, k, data), packed_v = pack(Side::value, v, data);
    std::vector<float> back_k(k.size()), back_v(v.size());
    format_fitted.unpack(spec(), Side::key, view(packed_k, data), back_k.data());
    format_fitted.unpack(spec(), Side::value, view(packed_v, data), back_v.data());
    const std::vector<float> q = rows(kHeads);
    std::vector<float> scores(kHeads * kTokens), out(kHeads * kDims, 0.5F);
    format_fitted.dot_k(spec(), view(packed_k, data), q.data(), kHeads, scores.data(), kTokens);
    std::vector<float> weights(kHeads * kTokens);
    for (std::size_t i = 0; i < weights.size(); ++i) {
        weights[i] = static_cast<float>(i % 13) / 13.0F;
    }
    format_fitted.add_v(spec(), view(packed_v, data), weights.data(), kTokens, kHeads, out.data());
    for (int r = 0; r < kHeads; ++r) {
        std::vector<double> sum(kDims, 0.5);
        for (int t = 0; t < kTokens; ++t) {
            std::vector<float> row(back_k.begin() + t * kDims, back_k.begin() + (t + 1) * kDims);
            rope_.rotate(row.data(), positions_[t]);
            double score = 0.0, size = 0.0;
            for (int d = 0; d < kDims; ++d) {
                const double product =
                    static_cast<double>(q[r * kDims + d]) * static_cast<double>(row[d]);
                score += product;
                size += std::fabs(product);
                sum[d] += static_cast<double>(weights[r * kTokens + t]) *
                          static_cast<double>(back_v[t * kDims + d]);
            }
            ASSERT_NEAR(static_cast<double>(scores[r * kTokens + t]), score, 1e-5 * size + 1e-4);
        }
        for (int d = 0; d < kDims; ++d) {
            ASSERT_NEAR(static_cast<double>(out[r * kDims + d]), sum[d],
                        1e-5 * std::fabs(sum[d]) + 1e-2);
        }
    }
}

TEST_P(Fitted, RowsAreIndependentAndOfExactBytes) {
    const std::vector<float> k = rows(kTokens), v = rows(kTokens), data = fit(k, v);
    const std::size_t row = GetParam() == 16 ? 2 * kDims : 1 + GetParam() * kDims / 8;
    EXPECT_EQ(format_fitted.bytes(spec(), Side::key, kTokens), row * kTokens);
    const auto all = pack(Side::key, k, data);
    for (const int t : {0, 1, kTokens - 1}) {
        const auto one =
            pack(Side::key, {k.begin() + t * kDims, k.begin() + (t + 1) * kDims}, data);
        EXPECT_TRUE(std::equal(one.begin(), one.end(), all.begin() + static_cast<long>(row) * t));
    }
}

TEST_P(Fitted, HostileRows) {
    std::vector<float> k = rows(kTokens), v = rows(kTokens);
    const std::vector<float> data = fit(k, v);
    for (int d = 0; d < kDims; ++d) {
        k[d] = d % 2 == 0 ? 1e30F : -std::numeric_limits<float>::infinity();
        k[kDims + d] = 0.0F;
    }
    const auto tile = pack(Side::key, k, data);
    std::vector<float> back(k.size());
    format_fitted.unpack(spec(), Side::key, view(tile, data), back.data());
    for (const float x : back) {
        ASSERT_TRUE(std::isfinite(x));
        ASSERT_LE(std::fabs(x), 65504.0F);
    }
    k[3] = std::nanf("");
    EXPECT_THROW(pack(Side::key, k, data), Error);
    // Constant channels keep their value.
    const std::vector<float> flat(kTokens * kDims, 3.5F);
    const std::vector<float> of_flat = fit(flat, flat);
    const auto constant = pack(Side::value, flat, of_flat);
    format_fitted.unpack(spec(), Side::value, view(constant, of_flat), back.data());
    for (const float x : back) {
        ASSERT_NEAR(x, 3.5F, 1e-3F);
    }
}

INSTANTIATE_TEST_SUITE_P(Bits, Fitted, ::testing::Values(2, 3, 4, 8, 16));

}  // namespace
}  // namespace winnow
