#include "core/rope.h"

#include <winnow/error.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string>

namespace winnow {
namespace {

constexpr int kMaxDims = 1024;

// YaRN: the pair at which a wave turns `turns` times within the original context.
float correction_pair(const RopeParams& params, float turns) {
    const float context = static_cast<float>(params.original_context);
    return static_cast<float>(params.dims) *
           std::log(context / (turns * 2.0F * std::numbers::pi_v<float>)) /
           (2.0F * std::log(params.freq_base));
}

// cos and sin of `count` angles. The reduction is in double, so an angle of any size keeps the
// accuracy of a float; the loop has no branches and becomes vector code.
void cos_sin(const float* angle, int count, float magnitude, float* cos, float* sin) {
    constexpr double kRound = 0x1.8p52;  // adding it rounds to an integer, kept in the low bits
    for (int i = 0; i < count; ++i) {
        const double x = static_cast<double>(angle[i]);
        const double shifted = x * (2.0 / std::numbers::pi) + kRound;
        const auto quarter = std::bit_cast<std::uint64_t>(shifted);
        const double r = x - (shifted - kRound) * (std::numbers::pi / 2.0);
        const double r2 = r * r;
        const double s =
            r * (1.0 + r2 * (-1.0 / 6 + r2 * (1.0 / 120 + r2 * (-1.0 / 5040 + r2 / 362880))));
        const double c =
            1.0 +
            r2 * (-0.5 + r2 * (1.0 / 24 + r2 * (-1.0 / 720 + r2 * (1.0 / 40320 - r2 / 3628800))));
        const std::uint64_t odd = 0U - (quarter & 1U);  // all ones: sine and cosine change places
        const auto s_bits = std::bit_cast<std::uint64_t>(s),
                   c_bits = std::bit_cast<std::uint64_t>(c);
        const std::uint64_t sin_bits = (s_bits & ~odd) | (c_bits & odd);
        const std::uint64_t cos_bits = (c_bits & ~odd) | (s_bits & odd);
        const std::uint64_t sin_sign = (quarter & 2U) << 62;
        const std::uint64_t cos_sign = ((quarter + 1U) & 2U) << 62;
        sin[i] = static_cast<float>(std::bit_cast<double>(sin_bits ^ sin_sign)) * magnitude;
        cos[i] = static_cast<float>(std::bit_cast<double>(cos_bits ^ cos_sign)) * magnitude;
    }
}

// Turns one head's row by the given cos and sin, [dims/2] each.
void turn(const RopeParams& params, float* row, const float* cos, const float* sin) {
    const int pairs = params.dims / 2;
    const int step = params.halves ? 1 : 2, distance = params.halves ? pairs : 1;
    for (int i = 0; i < pairs; ++i) {
        float* pair = row + i * step;
        const float x = pair[0], y = pair[distance];
        pair[0] = x * cos[i] - y * sin[i];
        pair[distance] = x * sin[i] + y * cos[i];
    }
}

}  // namespace

RopeTable::RopeTable(const RopeParams& params) : params_(params), magnitude_(params.attn_factor) {
    const int pairs = params_.dims / 2;
    if (params_.dims < 0 || params_.dims % 2 != 0 || params_.dims > kMaxDims) {
        throw failure("The model's rope.dimension_count is " + std::to_string(params_.dims) +
                      "; it must be even and at most " + std::to_string(kMaxDims) + ".");
    }
    if (!params_.factors.empty() && params_.factors.size() != static_cast<std::size_t>(pairs)) {
        throw failure("The model's rope_freqs tensor has " +
                      std::to_string(params_.factors.size()) + " values; a rotation of " +
                      std::to_string(params_.dims) + " channels needs " + std::to_string(pairs) +
                      ".");
    }
    if (pairs == 0) return;
    pair_ratio_ = std::pow(params_.freq_base, -2.0F / static_cast<float>(params_.dims));
    if (params_.ext_factor == 0.0F) return;
    if (params_.original_context <= 0) {
        throw failure("The model scales RoPE by YaRN, but its original context length is " +
                      std::to_string(params_.original_context) + "; it must be above 0.");
    }
    magnitude_ *= 1.0F + 0.1F * std::log(1.0F / params_.freq_scale);
    const float low = std::max(0.0F, std::floor(correction_pair(params_, params_.beta_fast)));
    const float high = std::min(static_cast<float>(params_.dims - 1),
                                std::ceil(correction_pair(params_, params_.beta_slow)));
    extrapolated_.resize(static_cast<std::size_t>(pairs));
    for (int i = 0; i < pairs; ++i) {
        const float ramp = (static_cast<float>(i) - low) / std::max(0.001F, high - low);
        extrapolated_[i] = (1.0F - std::clamp(ramp, 0.0F, 1.0F)) * params_.ext_factor;
    }
}

void RopeTable::angles(const std::int32_t* positions, int count, float* cos, float* sin) const {
    const int pairs = params_.dims / 2;
    float row[kMaxDims];
    for (int t = 0; t < count; ++t) {
        const float* token = known(positions[t]);
        if (token == nullptr) {
            angles(positions[t], row, row + pairs);
            token = row;
        }
        for (int p = 0; p < pairs; ++p) {
            cos[p * count + t] = token[p];
            sin[p * count + t] = token[pairs + p];
        }
    }
}

void RopeTable::remember(int positions) {
    if (positions <= known_) return;
    // Some room ahead, so that a step of decode seldom makes the table anew.
    const int room = positions + std::max(256, positions / 4);
    std::vector<float> table(static_cast<std::size_t>(params_.dims) * room);
    for (int t = 0; t < room; ++t) {
        float* row = table.data() + static_cast<std::size_t>(t) * params_.dims;
        angles(t, row, row + params_.dims / 2);
    }
    table_.swap(table);
    known_ = room;
}

void RopeTable::angles(int position, float* cos, float* sin) const {
    const int pairs = params_.dims / 2;
    float angle[kMaxDims / 2];
    // A running product in float, as the model's graph computes it: at far positions its rounding
    // is larger than anything else here, and keys must turn exactly as the queries do.
    float running = static_cast<float>(position);
    for (int i = 0; i < pairs; ++i, running *= pair_ratio_) angle[i] = running;
    if (!params_.factors.empty()) {
        for (int i = 0; i < pairs; ++i) angle[i] /= params_.factors[i];
    }
    const float scale = params_.freq_scale;
    if (extrapolated_.empty()) {
        for (int i = 0; i < pairs; ++i) angle[i] *= scale;
    } else {
        for (int i = 0; i < pairs; ++i) {
            const float part = extrapolated_[i];
            angle[i] = scale * angle[i] * (1.0F - part) + angle[i] * part;
        }
    }
    cos_sin(angle, pairs, magnitude_, cos, sin);
}

void RopeTable::rotate(float* row, int position) const {
    float cos[kMaxDims / 2], sin[kMaxDims / 2];
    angles(position, cos, sin);
    turn(params_, row, cos, sin);
}

void RopeTable::unrotate(float* row, int position) const {
    float cos[kMaxDims / 2], sin[kMaxDims / 2];
    angles(position, cos, sin);
    const float shrink = 1.0F / (magnitude_ * magnitude_);
    for (int i = 0; i < params_.dims / 2; ++i) {
        cos[i] *= shrink;
        sin[i] *= -shrink;
    }
    turn(params_, row, cos, sin);
}

}  // namespace winnow
