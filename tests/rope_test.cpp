// RopeTable against ggml_rope_ext on the CPU.
#include "core/rope.h"

#include <ggml-cpu.h>
#include <ggml.h>
#include <gtest/gtest.h>
#include <winnow/error.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace winnow {
namespace {

std::vector<float> random_rows(int tokens, int d) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    std::vector<float> rows(static_cast<std::size_t>(tokens * d));
    for (float& x : rows) x = normal(random);
    return rows;
}

// Rows [tokens][D], each turned to its position by ggml.
std::vector<float> ggml_rotated(const RopeParams& p, const std::vector<float>& rows, int d,
                                const std::vector<std::int32_t>& positions) {
    const std::unique_ptr<ggml_context, decltype(&ggml_free)> owner(
        ggml_init({.mem_size = 64U << 20U, .mem_buffer = nullptr, .no_alloc = false}), ggml_free);
    ggml_context* ctx = owner.get();
    const auto tokens = static_cast<std::int64_t>(positions.size());
    ggml_tensor* x = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, d, 1, tokens);
    ggml_tensor* at = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, tokens);
    std::memcpy(x->data, rows.data(), ggml_nbytes(x));
    std::memcpy(at->data, positions.data(), ggml_nbytes(at));
    ggml_tensor* factors = nullptr;
    if (!p.factors.empty()) {
        factors =
            ggml_new_tensor_1d(ctx, GGML_TYPE_F32, static_cast<std::int64_t>(p.factors.size()));
        std::memcpy(factors->data, p.factors.data(), ggml_nbytes(factors));
    }
    const int mode = p.halves ? GGML_ROPE_TYPE_NEOX : GGML_ROPE_TYPE_NORMAL;
    ggml_tensor* y =
        ggml_rope_ext(ctx, x, at, factors, p.dims, mode, p.original_context, p.freq_base,
                      p.freq_scale, p.ext_factor, p.attn_factor, p.beta_fast, p.beta_slow);
    ggml_cgraph* graph = ggml_new_graph(ctx);
    ggml_build_forward_expand(graph, y);
    EXPECT_EQ(ggml_graph_compute_with_ctx(ctx, graph, 1), GGML_STATUS_SUCCESS);
    const float* data = ggml_get_data_f32(y);
    return {data, data + rows.size()};
}

// The angles of the two may differ by a float's last place, which grows with the position.
void expect_like_ggml(const RopeParams& params, int d) {
    for (const bool halves : {false, true}) {
        RopeParams p = params;
        p.halves = halves;
        const RopeTable rope(p);
        const std::vector<std::int32_t> positions{0, 1, 2, 17, 511, 4095, 32767, 131071};
        const std::vector<float> rows = random_rows(static_cast<int>(positions.size()), d);
        const std::vector<float> want = ggml_rotated(p, rows, d, positions);
        for (std::size_t t = 0; t < positions.size(); ++t) {
            std::vector<float> row(rows.begin() + t * d, rows.begin() + (t + 1) * d);
            const std::vector<float> before = row;
            const double slack = 5e-6 + 5e-7 * positions[t];
            rope.rotate(row.data(), positions[t]);
            for (int c = 0; c < d; ++c) {
                const bool turned = c < p.dims;
                ASSERT_NEAR(row[c], want[t * d + c], turned ? slack : 0.0)
                    << "halves " << halves << " position " << positions[t] << " channel " << c;
            }
            rope.unrotate(row.data(), positions[t]);
            for (int c = 0; c < d; ++c) ASSERT_NEAR(row[c], before[c], 5e-6);
        }
    }
}

TEST(Rope, PlainAndPartial) {
    expect_like_ggml({.dims = 64}, 64);
    expect_like_ggml({.dims = 128, .freq_base = 1e6F}, 128);
    expect_like_ggml({.dims = 32}, 80);
    expect_like_ggml({.dims = 2}, 8);
}

TEST(Rope, FarPositionsEqualWithoutScaling) {
    // Without YaRN the angle is one product chain, so even far positions agree closely.
    const RopeParams p{.dims = 64};
    const RopeTable rope(p);
    const std::vector<std::int32_t> positions{32767, 100001, 1048575};
    std::vector<float> rows = random_rows(3, 64);
    const std::vector<float> want = ggml_rotated(p, rows, 64, positions);
    for (int t = 0; t < 3; ++t) rope.rotate(rows.data() + t * 64, positions[t]);
    for (std::size_t i = 0; i < rows.size(); ++i) ASSERT_NEAR(rows[i], want[i], 5e-6);
}

TEST(Rope, LinearScaling) {
    expect_like_ggml({.dims = 64, .freq_scale = 0.25F}, 64);
}

TEST(Rope, Yarn) {
    for (const float attn_factor : {1.0F, 0.87F}) {
        expect_like_ggml({.dims = 64,
                          .original_context = 4096,
                          .freq_scale = 0.125F,
                          .ext_factor = 1.0F,
                          .attn_factor = attn_factor},
                         64);
    }
    expect_like_ggml({.dims = 96,
                      .original_context = 32768,
                      .freq_base = 1e6F,
                      .freq_scale = 0.25F,
                      .ext_factor = 0.5F,
                      .beta_fast = 16.0F,
                      .beta_slow = 2.0F},
                     128);
}

TEST(Rope, Llama3Factors) {
    RopeParams p{.dims = 64, .freq_base = 500000.0F};
    for (int i = 0; i < 32; ++i) p.factors.push_back(i < 12 ? 1.0F : i < 20 ? 3.3F : 8.0F);
    expect_like_ggml(p, 64);
    p.freq_scale = 0.5F;
    expect_like_ggml(p, 80);
}

TEST(Rope, AnglesCarryTheMagnitude) {
    const RopeTable rope({.dims = 8, .attn_factor = 1.5F});
    float cos[4], sin[4];
    rope.angles(5, cos, sin);
    for (int i = 0; i < 4; ++i) EXPECT_NEAR(std::hypot(cos[i], sin[i]), 1.5, 1e-6);
    EXPECT_NEAR(cos[0], 1.5 * std::cos(5.0), 1e-6);
    EXPECT_NEAR(sin[0], 1.5 * std::sin(5.0), 1e-6);
}

TEST(Rope, ScoresDependOnTheDistanceOnly) {
    const RopeTable rope({.dims = 64, .halves = true});
    const std::vector<float> rows = random_rows(2, 64);
    const auto score = [&](int a, int b) {
        std::vector<float> q(rows.begin(), rows.begin() + 64), k(rows.begin() + 64, rows.end());
        rope.rotate(q.data(), a);
        rope.rotate(k.data(), b);
        double sum = 0.0;
        for (int c = 0; c < 64; ++c) sum += static_cast<double>(q[c]) * k[c];
        return sum;
    };
    EXPECT_NEAR(score(40, 7), score(1040, 1007), 2e-3);
}

TEST(Rope, WrongParametersAreNamed) {
    const auto text = [](const RopeParams& params) -> std::string {
        try {
            const RopeTable rope(params);
        } catch (const Error& error) {
            return error.what();
        }
        return "";
    };
    EXPECT_NE(text({.dims = 7}).find("is 7"), std::string::npos);
    EXPECT_NE(text({.dims = 8, .factors = {1.0F}}).find("rope_freqs"), std::string::npos);
    EXPECT_NE(text({.dims = 8, .ext_factor = 1.0F}).find("context"), std::string::npos);
    EXPECT_EQ(text({.dims = 0}), "");
}

}  // namespace
}  // namespace winnow
