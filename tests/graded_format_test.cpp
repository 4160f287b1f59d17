// graded: its groups, how it shares bits, and where they go.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "cache/affine.h"
#include "cache/bit_shares.h"
#include "cache/group_fit.h"
#include "cache/layer_store.h"
#include "fitted_tiles.h"

namespace winnow {
namespace {

TEST(GroupFit, IsNeverWorseThanTheRangeAndUnbiasedHasSlopeOne) {
    for (const int bits : {2, 3, 4, 8}) {
        for (const std::string& kind : reference::kKinds) {
            const std::vector<float> rows = make_rows(kind, 40, 64, 5);
            for (Size first = 0; first < rows.size(); first += 64) {
                float x[64];
                std::transform(rows.begin() + static_cast<long>(first),
                               rows.begin() + static_cast<long>(first) + 64, x, [](float value) {
                                   return static_cast<float>(reference::clamp_half(value));
                               });
                f16 scale, zero;
                std::uint8_t codes[64];
                solve_min_max(x, 64, bits, scale, zero, codes);
                const double plain = squared_error(x, 64, scale, zero, codes);
                solve_least_squares(x, 64, bits, scale, zero, codes);
                ASSERT_LE(squared_error(x, 64, scale, zero, codes), plain * 1.0001 + 1e-12)
                    << bits << " bits, " << kind;
                if (kind != "normal") continue;
                solve_unbiased(x, 64, bits, scale, zero, codes);
                double mean = 0.0, size = 0.0, together = 0.0;
                for (const float value : x) mean += value / 64.0;
                for (int i = 0; i < 64; ++i) {
                    const double back = codes[i] * static_cast<double>(f16_to_f32(scale)) +
                                        static_cast<double>(f16_to_f32(zero));
                    size += (x[i] - mean) * (x[i] - mean);
                    together += (x[i] - mean) * back;
                }
                ASSERT_NEAR(together / size, 1.0, 2e-3) << bits << " bits";
            }
        }
    }
}

TEST(BitShares, AreTheBestOfAllAndExactInSum) {
    constexpr int kChannels = 4 * kShareBunch;
    for (unsigned seed = 1; seed < 6; ++seed) {
        std::vector<float> losses;
        for (const float x : make_rows("normal", kChannels, 1, seed)) {
            for (int level = 0; level < kShareLevels; ++level) {
                losses.push_back(std::exp(3.0F * x) *
                                 std::exp2(-2.0F * static_cast<float>(kShareBits[level])));
            }
        }
        for (const int average : {2, 3, 4, 8}) {
            const std::vector<int> bits = share_bits(losses, kChannels, average);
            double got = 0.0, best = HUGE_VAL;
            int sum = 0;
            std::vector<Size> order(kChannels);
            for (Size c = 0; c < kChannels; ++c) {
                order[c] = c;
                sum += bits[c];
                const auto level = std::find(std::begin(kShareBits), std::end(kShareBits), bits[c]);
                got += losses[c * kShareLevels + static_cast<Size>(level - std::begin(kShareBits))];
            }
            ASSERT_EQ(sum, average * kChannels);
            std::sort(order.begin(), order.end(), [&](Size a, Size b) {
                return losses[a * kShareLevels + 1] < losses[b * kShareLevels + 1];
            });
            for (int each = 0; each < 625; ++each) {  // all levels of four bunches
                double loss = 0.0;
                int total = 0;
                for (int bunch = 0, rest = each; bunch < 4; ++bunch, rest /= 5) {
                    total += kShareBits[rest % 5];
                    for (int i = 0; i < kShareBunch; ++i) {
                        loss += losses[order[static_cast<Size>(bunch * kShareBunch + i)] *
                                           kShareLevels +
                                       static_cast<Size>(rest % 5)];
                    }
                }
                if (total == 4 * average) best = std::min(best, loss);
            }
            ASSERT_NEAR(got, best, 1e-5 * best) << "average " << average;
        }
    }
}

// Neighbours in one bunch: against all levels of three bunches.
TEST(BitShares, OfNeighboursAreTheBestOfAllAndExactInSum) {
    constexpr int kBunches = 3, kChannels = kBunches * kShareBunch;
    for (unsigned seed = 1; seed < 6; ++seed) {
        std::vector<float> losses;
        for (const float x : make_rows("normal", kChannels, 1, seed)) {
            for (const int bits : kShareBits) {
                losses.push_back(std::exp(3.0F * x) * std::exp2(-2.0F * static_cast<float>(bits)));
            }
        }
        const auto loss_of = [&](const std::vector<int>& bits) {
            double loss = 0.0;
            for (int c = 0; c < kChannels; ++c) {
                const auto* at =
                    std::find(std::begin(kShareBits), std::end(kShareBits), bits[c / kShareBunch]);
                loss += losses[c * kShareLevels + (at - std::begin(kShareBits))];
            }
            return loss;
        };
        for (const int average : {2, 3, 4, 8}) {
            const std::vector<int> bits = share_bunches(losses, kChannels, average);
            ASSERT_EQ(bits.size(), Size{kBunches});
            ASSERT_EQ(bits[0] + bits[1] + bits[2], average * kBunches);
            double best = HUGE_VAL;
            for (const int a : kShareBits) {
                for (const int b : kShareBits) {
                    for (const int c : kShareBits) {
                        if (a + b + c == average * kBunches) {
                            best = std::min(best, loss_of({a, b, c}));
                        }
                    }
                }
            }
            ASSERT_NEAR(loss_of(bits), best, 1e-5 * best) << "average " << average;
        }
    }
}

// Score errors under queries that look at few channels, or keys that vary in few.
TEST(FormatGraded, PutsBitsWhereScoresNeedThem) {
    std::vector<float> rows = make_rows("normal", 512, 64);
    for (Size i = 0; i < rows.size(); ++i) rows[i] *= i % 8 == 3 ? 8.0F : 0.5F;
    const FormatSpec spec = make_spec(format_graded, 64, 2, 64);
    const Packed tile(spec, rows, rows);
    for (int c = 0; c < 64; ++c) {
        if (c % 8 == 3) {
            EXPECT_EQ(tile.side[static_cast<Size>(c)], 8.0F) << c;
        }
    }
    const reference::Rows plain = reference::by_groups(
        rows, 512, 64, 0, 64, [](const auto& x) { return reference::affine_group(x, 2); });
    EXPECT_LT(error_between(rows, tile.unpacked(Side::key)),
              0.1 * error_between(rows, floats(plain)));

    // Known queries decide instead: they only look at channels 16 to 23.
    std::vector<float> side(64, 1e-6F);
    std::fill_n(side.begin() + 16, 8, 1.0F);
    const std::vector<float> even = make_rows("normal", 512, 64);
    format_graded.fit(spec, even, even, side.data());
    for (int c = 16; c < 24; ++c) EXPECT_EQ(side[static_cast<Size>(c)], 8.0F);
}

// The store hands each kv head the energy of its own queries, and a copy of it does too.
TEST(FormatGraded, TheStoreFitsOnTheQueriesOfEachHead) {
    constexpr int kTokens = 256, kDims = 64, kKvHeads = 2, kQueryHeads = 4;
    MemoryMeter cache, policy, work;
    SpanLayout layout{.spec = make_spec(format_graded, kDims, 2, 64), .residual_length = 64};
    LayerStore first(layout, kKvHeads, kQueryHeads, {}, &cache, &policy);
    // Heads 0 and 1 look at channels 0 to 7, heads 2 and 3 at channels 32 to 39.
    std::vector<float> q(static_cast<Size>(3 * kQueryHeads * kDims), 1e-3F);
    for (Size i = 0; i < q.size(); ++i) {
        const Size head = i / kDims % kQueryHeads, c = i % kDims;
        if (c / 8 == (head < 2 ? 0U : 4U)) q[i] = 1.0F;
    }
    first.note_queries(q.data(), 3);
    const auto store = first.clone(&cache, &policy);
    LayerKv kv(&work, std::vector<int>(kKvHeads, 0), kTokens, kDims);
    const std::vector<float> rows = make_rows("normal", kTokens * kKvHeads, kDims);
    kv.put(0, kTokens, rows.data(), rows.data(), 0);
    store->append(kv);
    store->note_queries(q.data(), 3);  // too late: what is packed must stay readable
    for (int g = 0; g < kKvHeads; ++g) {
        for (int c = 0; c < kDims; ++c) {
            const bool seen = c / 8 == (g == 0 ? 0 : 4);
            ASSERT_EQ(store->side_data(g)[c] == 8.0F, seen) << "head " << g << " channel " << c;
        }
    }
    EXPECT_GT(store->span(0).packed_tokens(), 0);
}

TEST(FormatGraded, ChannelsOfNoBitsFollowALine) {
    std::vector<float> rows = make_rows("normal", 64, 64);
    for (Size i = 0; i < rows.size(); ++i) {
        const Size t = i / 64, c = i % 64;
        rows[i] = c < 8 ? 0.25F * static_cast<float>(t) - 3.0F : 8.0F * rows[i];
    }
    const Packed tile(make_spec(format_graded, 64, 2, 64), rows, rows);
    const std::vector<float> back = tile.unpacked(Side::key);
    for (Size i = 0; i < rows.size(); ++i) {
        if (i % 64 < 8) {
            ASSERT_NEAR(back[i], rows[i], 5e-3);
        }
    }
    for (int c = 0; c < 8; ++c) EXPECT_EQ(tile.side[static_cast<Size>(c)], 0.0F);
    expect_kernels_agree(tile);
}

}  // namespace
}  // namespace winnow
