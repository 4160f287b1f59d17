// The storage formats against the double-precision reference.
#include "cache/format.h"

#include <gtest/gtest.h>
#include <winnow/error.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "cache/code_pack.h"
#include "cache/codebook.h"
#include "core/rope.h"
#include "format_reference.h"

namespace winnow {

extern const Format format_none;
extern const Format format_kivi;
extern const Format format_hqq;
extern const Format format_kvquant;

namespace {

using reference::make_rows;
using Bytes = std::vector<std::uint8_t>;

constexpr std::uint8_t kGuard = 0xA5;

FormatSpec make_spec(const Format& format, int d, int bits, int group) {
    FormatSpec spec;
    spec.format = &format;
    spec.head_dim = d;
    spec.bits_k = spec.bits_v = bits;
    spec.group_size = group;
    spec.key_axis = format.default_key_axis;
    spec.value_axis = format.default_value_axis;
    return spec;
}

std::vector<float> fitted(const FormatSpec& spec, const std::vector<float>& rows) {
    std::vector<float> side;
    if (spec.format->side_floats != nullptr) {
        side.resize(static_cast<std::size_t>(spec.format->side_floats(spec)));
        spec.format->fit(spec, rows, rows, side.data());
    }
    return side;
}

// Packs twice, over zeros and over ones, between guard bytes: every byte must be written, none
// beyond bytes().
Bytes packed(const FormatSpec& spec, Side side, const std::vector<float>& rows, int tokens,
             const float* side_data) {
    const Format& format = *spec.format;
    const std::size_t size = format.bytes(spec, side, tokens);
    Bytes result[2];
    for (const int fill : {0, 1}) {
        Bytes buffer(size + 64, fill == 0 ? 0x00 : 0xFF);
        std::fill(buffer.begin(), buffer.begin() + 32, kGuard);
        std::fill(buffer.end() - 32, buffer.end(), kGuard);
        format.pack(spec, side, rows.data(), tokens, side_data, buffer.data() + 32);
        EXPECT_EQ(std::count(buffer.begin(), buffer.begin() + 32, kGuard), 32);
        EXPECT_EQ(std::count(buffer.end() - 32, buffer.end(), kGuard), 32);
        result[fill] = Bytes(buffer.begin() + 32, buffer.end() - 32);
    }
    EXPECT_EQ(result[0], result[1]) << "some byte of the tile is never written";
    return result[0];
}

TileView view(const Bytes& data, int tokens, const std::vector<float>& side_data = {}) {
    TileView tile;
    tile.data = data.data();
    tile.tokens = tokens;
    tile.side_data = side_data.data();
    return tile;
}

std::vector<float> unpacked(const FormatSpec& spec, Side side, const TileView& tile) {
    std::vector<float> rows(static_cast<std::size_t>(tile.tokens * spec.head_dim));
    spec.format->unpack(spec, side, tile, rows.data());
    return rows;
}

std::string label(const FormatSpec& spec, const std::string& more = "") {
    return std::string(spec.format->name) + " D " + std::to_string(spec.head_dim) + " bits " +
           std::to_string(spec.bits_k) + "/" + std::to_string(spec.bits_v) + " group " +
           std::to_string(spec.group_size) + " axes " + std::to_string(spec.key_axis) +
           std::to_string(spec.value_axis) + " " + more;
}

// Where two levels are equally near, float and double may choose apart: the restored value is the
// reference's, or as far from the original on its other side.
void expect_as_good(const std::vector<float>& got, const reference::Rows& want,
                    const std::vector<float>& rows) {
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
        const double x = reference::clamp_half(static_cast<double>(rows[i]));
        const double y = static_cast<double>(got[i]);
        const double slack =
            1e-6 * (std::fabs(x) + std::fabs(want[i])) + 2e-3 * std::fabs(want[i] - x);
        ASSERT_LE(
            std::min(std::fabs(y - want[i]), std::fabs(std::fabs(y - x) - std::fabs(want[i] - x))),
            slack + 1e-12)
            << "element " << i << ": " << rows[i] << " gave " << y << ", not " << want[i];
    }
}

// Every kind of data for small heads, a third of them for large ones.
std::vector<std::string> kinds_for(const FormatSpec& spec) {
    std::vector<std::string> kinds;
    for (std::size_t i = 0; i < reference::kKinds.size(); ++i) {
        const std::size_t turn = i + static_cast<std::size_t>(spec.bits_k + spec.key_axis);
        if (spec.head_dim <= 32 || turn % 3 == 0) kinds.push_back(reference::kKinds[i]);
    }
    return kinds;
}

// Calls test(spec) over widths, groups, bits and both axes.
template <typename Test>
void for_each_affine(const Format& format, Test test) {
    const int shapes[][2] = {{8, 8},   {16, 16}, {32, 32},  {64, 32},   {64, 64},
                             {80, 16}, {96, 32}, {128, 32}, {128, 128}, {256, 32}};
    for (const auto& [d, group] : shapes) {
        for (const int bits : {2, 3, 4, 8}) {
            for (const int axis : {0, 1}) {
                FormatSpec spec = make_spec(format, d, bits, group);
                spec.key_axis = axis;
                spec.value_axis = 1 - axis;
                SCOPED_TRACE(label(spec));
                format.check(spec);
                test(spec);
                if (testing::Test::HasFatalFailure()) return;
            }
        }
    }
}

// What kernels may lose by rounding q and weights to 16 bits: half a unit of the largest product
// for each of the `terms` codes.
double rounding(const std::vector<float>& rows, const std::vector<float>& x, int terms) {
    double largest = 0.0, factor = 0.0;
    for (const float value : rows) largest = std::max(largest, std::fabs(double{value}));
    for (const float value : x) factor = std::max(factor, std::fabs(double{value}));
    return largest * factor * terms * 2.0 / 65534.0;
}

// dot_k and add_v against unpack and sums in double.
void expect_kernels_agree(const FormatSpec& spec, const TileView& keys, const TileView& values) {
    const Format& format = *spec.format;
    const int tokens = keys.tokens, d = spec.head_dim;
    const std::size_t stride = static_cast<std::size_t>(tokens) + 3;
    std::vector<float> k = unpacked(spec, Side::key, keys);
    const std::vector<float> v = unpacked(spec, Side::value, values);
    if (format.pre_rope_keys) {
        for (int t = 0; t < tokens; ++t) keys.rope->rotate(k.data() + t * d, keys.positions[t]);
    }
    for (const int heads : {1, 3}) {
        const std::vector<float> q = make_rows("normal", heads, d, 7);
        const std::vector<float> w = make_rows("normal", heads, static_cast<int>(stride), 8);
        std::vector<float> scores(stride * static_cast<std::size_t>(heads), -77.0F);
        std::vector<float> out(static_cast<std::size_t>(heads * d), 0.5F);
        format.dot_k(spec, keys, q.data(), heads, scores.data(), stride);
        format.add_v(spec, values, w.data(), stride, heads, out.data());
        for (int r = 0; r < heads; ++r) {
            const std::size_t row = static_cast<std::size_t>(r) * stride;
            for (int t = 0; t < tokens; ++t) {
                double sum = 0.0, size = 1e-20;
                for (int c = 0; c < d; ++c) {
                    const double part = static_cast<double>(q[r * d + c]) * k[t * d + c];
                    sum += part;
                    size += std::fabs(part);
                }
                ASSERT_NEAR(scores[row + t], sum, 1e-4 * size + rounding(k, q, d))
                    << "head " << r << " token " << t;
            }
            for (std::size_t t = tokens; t < stride; ++t) ASSERT_EQ(scores[row + t], -77.0F);
            for (int c = 0; c < d; ++c) {
                double sum = 0.5, size = 0.5;
                for (int t = 0; t < tokens; ++t) {
                    const double part = static_cast<double>(w[row + t]) * v[t * d + c];
                    sum += part;
                    size += std::fabs(part);
                }
                ASSERT_NEAR(out[r * d + c], sum, 1e-4 * size + rounding(v, w, tokens))
                    << "head " << r << " channel " << c;
            }
        }
    }
}

TEST(CodePack, EveryWidthAndLengthComesBack) {
    for (const int bits : {2, 3, 4, 8}) {
        for (int count = 8; count <= 96; count += 8) {
            Bytes codes(static_cast<std::size_t>(count));
            for (int i = 0; i < count; ++i)
                codes[i] = static_cast<std::uint8_t>(i * 37 % (1 << bits));
            Bytes run(packed_bytes(bits, count)), back(codes.size());
            std::vector<float> floats(codes.size());
            pack_codes(bits, codes.data(), count, run.data());
            unpack_codes(bits, run.data(), count, back.data());
            unpack_codes(bits, run.data(), count, floats.data());
            EXPECT_EQ(back, codes) << bits << " bits, " << count;
            EXPECT_EQ(std::vector<float>(codes.begin(), codes.end()), floats);
        }
    }
}

TEST(CodePack, LowNibblesAreTheFirstHalf) {
    const Bytes codes{1, 2, 3, 4, 5, 6, 7, 8};
    Bytes run(4);
    pack_codes(4, codes.data(), 8, run.data());
    EXPECT_EQ(run, (Bytes{0x51, 0x62, 0x73, 0x84}));
}

TEST(FormatNone, RestoresHalvesAndCountsBytes) {
    const FormatSpec spec = make_spec(format_none, 80, 16, 32);
    format_none.check(spec);
    for (const std::string& kind : reference::kKinds) {
        SCOPED_TRACE(kind);
        const std::vector<float> rows = make_rows(kind, 7, 80);
        const Bytes data = packed(spec, Side::key, rows, 7, nullptr);
        EXPECT_EQ(data.size(), 7U * 80U * 2U);
        const std::vector<float> back = unpacked(spec, Side::key, view(data, 7));
        for (std::size_t i = 0; i < rows.size(); ++i) {
            ASSERT_EQ(back[i], reference::half(reference::clamp_half(rows[i])));
        }
        expect_kernels_agree(spec, view(data, 7), view(data, 7));
    }
}

TEST(FormatKivi, EqualsTheReferenceAndKeepsItsBound) {
    for_each_affine(format_kivi, [](const FormatSpec& spec) {
        const int tokens = spec.group_size, d = spec.head_dim, bits = spec.bits_k;
        for (const std::string& kind : kinds_for(spec)) {
            SCOPED_TRACE(kind);
            const std::vector<float> rows = make_rows(kind, tokens, d);
            const int axis = spec.key_axis;
            const Bytes data = packed(spec, Side::key, rows, tokens, nullptr);
            const std::vector<float> back = unpacked(spec, Side::key, view(data, tokens));
            const auto by = [&](auto restore) {
                return reference::by_groups(rows, tokens, d, axis, spec.group_size, restore);
            };
            expect_as_good(
                back, by([&](const auto& x) { return reference::affine_group(x, bits); }), rows);
            const reference::Rows bound = by([&](const auto& x) {
                return std::vector<double>(x.size(), reference::affine_bound(x, bits));
            });
            for (std::size_t i = 0; i < rows.size(); ++i) {
                const double x = reference::clamp_half(rows[i]);
                ASSERT_LE(std::fabs(back[i] - x), bound[i] * 1.001 + std::fabs(x) * 1e-6 + 1e-12);
            }
            if (testing::Test::HasFatalFailure()) return;
        }
    });
}

TEST(FormatKivi, ConstantAndTinyGroupsRestoreTheZero) {
    FormatSpec spec = make_spec(format_kivi, 32, 2, 32);
    for (const float value : {0.0F, -3.3F, 1e-9F, 70000.0F, -1e30F}) {
        std::vector<float> rows(32 * 32, value);
        rows[5] += 1e-9F;  // a range below half precision's smallest
        const Bytes data = packed(spec, Side::key, rows, 32, nullptr);
        for (const float x : unpacked(spec, Side::key, view(data, 32))) {
            ASSERT_EQ(x, reference::half(reference::clamp_half(value)));
        }
    }
}

TEST(FormatAffine, KernelsAgreeWithUnpack) {
    for (const Format* format : {&format_kivi, &format_hqq}) {
        for_each_affine(*format, [](const FormatSpec& spec) {
            const int tokens = 2 * spec.group_size;
            for (const char* kind : {"normal", "large channels"}) {
                const std::vector<float> rows = make_rows(kind, tokens, spec.head_dim, 3);
                const Bytes k = packed(spec, Side::key, rows, tokens, nullptr);
                const Bytes v = packed(spec, Side::value, rows, tokens, nullptr);
                expect_kernels_agree(spec, view(k, tokens), view(v, tokens));
                if (testing::Test::HasFatalFailure()) return;
            }
        });
    }
}

TEST(FormatAffine, TilesLaidEndToEndAreOneLongerTile) {
    for (const Format* format : {&format_kivi, &format_hqq}) {
        ASSERT_EQ(format->tile_tokens, nullptr);
        for_each_affine(*format, [](const FormatSpec& spec) {
            if (spec.head_dim > 80) return;
            const int group = spec.group_size, tokens = 3 * group;
            const std::vector<float> rows = make_rows("normal", tokens, spec.head_dim, 5);
            for (const Side side : {Side::key, Side::value}) {
                Bytes joined;
                for (int t = 0; t < tokens; t += group) {
                    const auto first = rows.begin() + t * spec.head_dim;
                    const std::vector<float> part(first, first + group * spec.head_dim);
                    const Bytes block = packed(spec, side, part, group, nullptr);
                    joined.insert(joined.end(), block.begin(), block.end());
                }
                ASSERT_EQ(joined, packed(spec, side, rows, tokens, nullptr));
            }
        });
    }
}

TEST(FormatAffine, BytesAreCodesPlusTwoHalvesPerGroup) {
    for_each_affine(format_kivi, [](const FormatSpec& spec) {
        const int tokens = 4 * spec.group_size;
        const std::size_t elements = static_cast<std::size_t>(tokens * spec.head_dim);
        const std::size_t want = elements * static_cast<std::size_t>(spec.bits_k) / 8 +
                                 elements / static_cast<std::size_t>(spec.group_size) * 4;
        for (const Side side : {Side::key, Side::value}) {
            EXPECT_EQ(format_kivi.bytes(spec, side, tokens), want);
            EXPECT_EQ(format_hqq.bytes(spec, side, tokens), want);
            EXPECT_EQ(format_kivi.bytes(spec, side, 0), 0U);
        }
    });
}

TEST(FormatAffine, SidesHaveTheirOwnBits) {
    for (const Format* format : {&format_kivi, &format_hqq, &format_kvquant}) {
        const RopeTable rope(RopeParams{.dims = 64});
        const std::vector<float> rows = make_rows("normal", 64, 64);
        std::vector<std::int32_t> positions(64);
        std::iota(positions.begin(), positions.end(), 100);
        for (const auto& [bits_k, bits_v] : {std::pair{8, 2}, {16, 4}, {4, 16}, {16, 16}}) {
            FormatSpec spec = make_spec(*format, 64, 4, 32);
            spec.bits_k = bits_k;
            spec.bits_v = bits_v;
            SCOPED_TRACE(label(spec));
            format->check(spec);
            const std::vector<float> side = fitted(spec, rows);
            const Bytes k = packed(spec, Side::key, rows, 64, side.data());
            const Bytes v = packed(spec, Side::value, rows, 64, side.data());
            TileView keys = view(k, 64, side), values = view(v, 64, side);
            keys.positions = positions.data();
            keys.rope = &rope;
            expect_kernels_agree(spec, keys, values);
            if (bits_k == 16) {
                EXPECT_EQ(k.size(), 64U * 64U * 2U);
                EXPECT_EQ(unpacked(spec, Side::key, keys)[5], reference::half(rows[5]));
            }
        }
    }
}

double relative_error(const std::vector<float>& got, const std::vector<float>& rows, int d) {
    double mean = 0.0;  // over channels, so that a few large ones do not hide the others
    for (int c = 0; c < d; ++c) {
        double error = 0.0, size = 0.0;
        for (std::size_t i = static_cast<std::size_t>(c); i < rows.size(); i += d) {
            error += std::pow(got[i] - rows[i], 2.0);
            size += std::pow(rows[i], 2.0);
        }
        mean += std::sqrt(error / size) / d;
    }
    return mean;
}

TEST(FormatKivi, TwoBitKeysPerChannelDoNotCollapse) {
    const std::vector<float> rows = make_rows("large channels", 256, 64);
    FormatSpec spec = make_spec(format_kivi, 64, 2, 32);
    double error[2] = {};
    for (const int axis : {0, 1}) {
        spec.key_axis = axis;
        const Bytes data = packed(spec, Side::key, rows, 256, nullptr);
        error[axis] = relative_error(unpacked(spec, Side::key, view(data, 256)), rows, 64);
    }
    EXPECT_LT(error[0], 0.5);
    EXPECT_LT(error[0] * 10.0, error[1]);
}

// The solver's objective, by group: the mean absolute error never exceeds that of its own start,
// and follows the double-precision solver.
TEST(FormatHqq, FollowsTheSolver) {
    for_each_affine(format_hqq, [](const FormatSpec& spec) {
        const int tokens = spec.group_size, d = spec.head_dim, bits = spec.bits_k;
        if (d * tokens > 64 * 64) return;
        for (const std::string& kind : kinds_for(spec)) {
            SCOPED_TRACE(kind);
            const std::vector<float> rows = make_rows(kind, tokens, d);
            const Bytes data = packed(spec, Side::key, rows, tokens, nullptr);
            const std::vector<float> back = unpacked(spec, Side::key, view(data, tokens));
            const reference::Rows want =
                reference::by_groups(rows, tokens, d, spec.key_axis, spec.group_size,
                                     [&](const auto& x) { return reference::hqq_group(x, bits); });
            double got_error = 0.0, want_error = 0.0, size = 0.0;
            for (std::size_t i = 0; i < rows.size(); ++i) {
                const double x = reference::clamp_half(rows[i]);
                ASSERT_TRUE(std::isfinite(back[i]));
                got_error += std::fabs(back[i] - x);
                want_error += std::fabs(want[i] - x);
                size += std::fabs(x);
            }
            // A step more or less at a near tie changes single groups, not their sum.
            ASSERT_NEAR(got_error, want_error, 0.01 * want_error + 1e-6 * size);
        }
    });
}

TEST(FormatHqq, BeatsPlainAffineOnHeavyTails) {
    for (const int bits : {2, 3, 4}) {
        std::vector<float> rows = make_rows("normal", 256, 64);
        for (float& x : rows) x = x * x * x;
        double error[2] = {};
        for (const Format* format : {&format_kivi, &format_hqq}) {
            const FormatSpec spec = make_spec(*format, 64, bits, 64);
            const Bytes data = packed(spec, Side::key, rows, 256, nullptr);
            const std::vector<float> back = unpacked(spec, Side::key, view(data, 256));
            for (std::size_t i = 0; i < rows.size(); ++i) {
                error[format == &format_hqq ? 1 : 0] += std::fabs(back[i] - rows[i]);
            }
        }
        EXPECT_LT(error[1], error[0] * 0.98) << bits << " bits";
    }
}

TEST(Formats, NanIsAnErrorThatNamesFormatAndSide) {
    for (const Format* format : {&format_none, &format_kivi, &format_hqq, &format_kvquant}) {
        const int bits = format == &format_none ? 16 : 4;
        const FormatSpec spec = make_spec(*format, 32, bits, 32);
        std::vector<float> rows = make_rows("normal", 32, 32);
        const std::vector<float> side = fitted(spec, rows);
        rows[2 * 32 + 9] = std::numeric_limits<float>::quiet_NaN();
        Bytes out(1 << 16);
        for (const Side which : {Side::key, Side::value}) {
            try {
                format->pack(spec, which, rows.data(), 32, side.data(), out.data());
                FAIL() << format->name;
            } catch (const Error& error) {
                const std::string text = error.what();
                EXPECT_EQ(error.kind(), ErrorKind::failure);
                EXPECT_NE(text.find(format->name), std::string::npos) << text;
                EXPECT_NE(text.find(which == Side::key ? "keys" : "values"), std::string::npos);
                EXPECT_NE(text.find("token 2"), std::string::npos) << text;
                EXPECT_NE(text.find("channel 9"), std::string::npos) << text;
            }
        }
        if (format->fit != nullptr) {
            std::vector<float> levels(side.size());
            EXPECT_THROW(format->fit(spec, rows, rows, levels.data()), Error);
        }
    }
}

// The text of the usage Error of check(), or "" where it passes.
std::string complaint(const FormatSpec& spec) {
    try {
        spec.format->check(spec);
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::usage);
        return error.what();
    }
    return "";
}

TEST(Formats, CheckNamesTheFlag) {
    const auto changed = [](const Format& format, auto change) {
        FormatSpec spec = make_spec(format, 80, 4, 16);
        change(spec);
        return complaint(spec);
    };
    const auto has = [](const std::string& text, const std::string& part) {
        return text.find(part) != std::string::npos;
    };
    for (const Format* format : {&format_kivi, &format_hqq, &format_kvquant}) {
        EXPECT_EQ(changed(*format, [](FormatSpec&) {}), "");
        EXPECT_TRUE(has(changed(*format, [](FormatSpec& s) { s.bits_k = 5; }), "--nbits-k is 5"));
        EXPECT_TRUE(has(changed(*format, [](FormatSpec& s) { s.bits_v = 1; }), "--nbits-v is 1"));
        EXPECT_TRUE(
            has(changed(*format, [](FormatSpec& s) { s.group_size = 12; }), "--group-size"));
        EXPECT_TRUE(
            has(changed(*format, [](FormatSpec& s) { s.key_axis = 2; }), "--key-axis is 2"));
        EXPECT_TRUE(has(changed(*format, [](FormatSpec& s) { s.head_dim = 20; }), "head_dim"));
    }
    const std::string group = changed(format_kivi, [](FormatSpec& s) { s.group_size = 32; });
    EXPECT_TRUE(has(group, "--group-size is 32") && has(group, "head_dim of 80")) << group;
    EXPECT_EQ(changed(format_kivi,
                      [](FormatSpec& s) {
                          s.group_size = 32;
                          s.value_axis = 0;
                      }),
              "");
    EXPECT_TRUE(has(changed(format_kivi, [](FormatSpec& s) { s.outlier_threshold = 6.0F; }),
                    "--outlier-threshold"));
    EXPECT_TRUE(has(changed(format_kvquant, [](FormatSpec& s) { s.outlier_threshold = -1.0F; }),
                    "--outlier-threshold"));
    EXPECT_TRUE(has(changed(format_kvquant, [](FormatSpec& s) { s.key_axis = 1; }), "--key-axis"));
    EXPECT_TRUE(has(complaint(make_spec(format_none, 64, 8, 32)), "--nbits-k is 8"));
}

TEST(Formats, PartialGroupsAreRefused) {
    for (const Format* format : {&format_kivi, &format_hqq, &format_kvquant}) {
        const FormatSpec spec = make_spec(*format, 32, 4, 32);
        EXPECT_THROW(format->bytes(spec, Side::key, 33), Error);
    }
    EXPECT_THROW(format_kvquant.bytes(make_spec(format_kvquant, 32, 4, 32), Side::key, 544), Error);
}

TEST(Codebook, FindsSeparatedClusters) {
    std::vector<float> samples;
    for (int i = 0; i < 400; ++i) {
        const float centre = std::vector<float>{-0.75F, -0.25F, 0.5F, 1.0F}[i % 4];
        samples.push_back(centre + 0.01F * static_cast<float>(i / 4 % 3 - 1));
    }
    float levels[4];
    fit_codebook(samples, 2, levels);
    EXPECT_NEAR(levels[0], -0.75, 2e-3);
    EXPECT_NEAR(levels[1], -0.25, 2e-3);
    EXPECT_NEAR(levels[2], 0.5, 2e-3);
    EXPECT_NEAR(levels[3], 1.0, 2e-3);
    std::vector<float> none;
    fit_codebook(none, 2, levels);
    EXPECT_LT(levels[0], levels[3]);
}

class FormatKvquant : public testing::TestWithParam<float> {};

TEST_P(FormatKvquant, EqualsTheReferenceAndItsKernelsAgree) {
    for (const auto& [d, group, tokens] : {std::tuple{8, 8, 16},
                                           {32, 16, 48},
                                           {64, 32, 512},
                                           {80, 32, 64},
                                           {128, 64, 256},
                                           {256, 32, 288}}) {
        for (const int bits : {2, 3, 4, 8}) {
            const std::string kind = reference::kKinds[static_cast<std::size_t>(d / 8 + bits) %
                                                       reference::kKinds.size()];
            for (const std::string& each : {std::string("normal"), kind}) {
                FormatSpec spec = make_spec(format_kvquant, d, bits, group);
                spec.outlier_threshold = GetParam();
                SCOPED_TRACE(label(spec, each));
                const std::vector<float> rows = make_rows(each, tokens, d);
                const std::vector<float> side = fitted(spec, rows);
                for (const float level : side) ASSERT_EQ(level, reference::half(level));
                const Bytes k = packed(spec, Side::key, rows, tokens, side.data());
                const Bytes v = packed(spec, Side::value, rows, tokens, side.data());
                TileView keys = view(k, tokens, side), values = view(v, tokens, side);
                const auto restore = [&](const float* levels) {
                    return [&spec, levels](const auto& x) {
                        return reference::kvquant_vector(x, levels, spec.bits_k,
                                                         spec.outlier_threshold);
                    };
                };
                expect_as_good(
                    unpacked(spec, Side::key, keys),
                    reference::by_groups(rows, tokens, d, 0, tokens, restore(side.data())), rows);
                expect_as_good(
                    unpacked(spec, Side::value, values),
                    reference::by_groups(rows, tokens, d, 1, d, restore(side.data() + (1 << bits))),
                    rows);
                for (const bool halves : {false, true}) {
                    const RopeTable rope(RopeParams{.dims = d / 4 * 2, .halves = halves});
                    std::vector<std::int32_t> positions;
                    for (int t = 0; t < tokens; ++t) positions.push_back(t * 3 + 1);
                    keys.positions = positions.data();
                    keys.rope = &rope;
                    expect_kernels_agree(spec, keys, values);
                }
                if (testing::Test::HasFatalFailure()) return;
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Threshold, FormatKvquant, testing::Values(0.0F, 2.5F));

TEST(FormatKvquantRules, TheLargestComeBackExactly) {
    for (const float threshold : {0.0F, 6.0F}) {
        FormatSpec spec = make_spec(format_kvquant, 64, 2, 32);
        spec.outlier_threshold = threshold;
        std::vector<float> rows = make_rows("normal", 256, 64);
        for (int c = 0; c < 64; ++c) {  // two spikes a channel; at most one for each token
            rows[static_cast<std::size_t>(c * 64 + c)] = 20.123F;
            rows[static_cast<std::size_t>((c + 128) * 64 + c)] = -31.77F;
        }
        const std::vector<float> side = fitted(spec, rows);
        const Bytes k = packed(spec, Side::key, rows, 256, side.data());
        const Bytes v = packed(spec, Side::value, rows, 256, side.data());
        const std::vector<float> keys = unpacked(spec, Side::key, view(k, 256, side));
        const std::vector<float> values = unpacked(spec, Side::value, view(v, 256, side));
        for (std::size_t i = 0; i < rows.size(); ++i) {
            if (std::fabs(rows[i]) < 19.0F) continue;
            EXPECT_EQ(keys[i], reference::half(rows[i]));
            EXPECT_EQ(values[i], reference::half(rows[i]));
        }
    }
}

TEST(FormatKvquantRules, BytesAreExact) {
    const FormatSpec spec = make_spec(format_kvquant, 64, 4, 32);
    // K: 64 channels of 256 tokens: 4 + 128 + 3 x (2 + 2) bytes; V: 4 + 32 + (2 + 1) each.
    EXPECT_EQ(format_kvquant.bytes(spec, Side::key, 256), 64U * (4 + 128 + 3 * 4));
    EXPECT_EQ(format_kvquant.bytes(spec, Side::value, 256), 256U * (4 + 32 + 3));
    EXPECT_EQ(format_kvquant.tile_tokens(spec), 512);
    EXPECT_EQ(format_kvquant.side_floats(spec), 32);
    EXPECT_EQ(format_kvquant.tile_tokens(make_spec(format_kvquant, 64, 4, 48)), 480);
}

TEST(FormatKvquantRules, LevelsBeatEvenOnes) {
    for (const int bits : {2, 3, 4, 8}) {
        const FormatSpec spec = make_spec(format_kvquant, 64, bits, 32);
        const std::vector<float> rows = make_rows("normal", 1024, 64);
        const std::vector<float> tile(rows.begin(), rows.begin() + 512 * 64);
        const std::vector<float> side = fitted(spec, rows);
        std::vector<float> even(side.size());
        for (std::size_t i = 0; i < even.size(); ++i) {
            const auto levels = static_cast<float>(1 << bits);
            const auto at = static_cast<float>(i % (std::size_t{1} << bits));
            even[i] = -1.0F + 2.0F * at / (levels - 1.0F);
        }
        double error[2] = {};
        for (const int which : {0, 1}) {
            const std::vector<float>& levels = which == 0 ? side : even;
            const Bytes k = packed(spec, Side::key, tile, 512, levels.data());
            error[which] =
                relative_error(unpacked(spec, Side::key, view(k, 512, levels)), tile, 64);
        }
        EXPECT_LT(error[0], error[1] * 0.95) << bits << " bits";
    }
}

TEST(FormatKvquantRules, WhatIsMissingIsNamed) {
    const FormatSpec spec = make_spec(format_kvquant, 32, 4, 32);
    const std::vector<float> rows = make_rows("normal", 32, 32);
    const std::vector<float> side = fitted(spec, rows);
    const Bytes k = packed(spec, Side::key, rows, 32, side.data());
    float scores[32];
    EXPECT_THROW(format_kvquant.dot_k(spec, view(k, 32, side), rows.data(), 1, scores, 32), Error);
    EXPECT_THROW(unpacked(spec, Side::key, view(k, 32)), Error);
}

}  // namespace
}  // namespace winnow
