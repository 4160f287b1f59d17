#include "cache/group_fit.h"

#include <algorithm>
#include <cmath>

#include "cache/affine.h"
#include "cache/rows.h"

namespace winnow {
namespace {

constexpr float kShrinks[] = {1.0F, 0.85F, 0.7F, 0.55F};  // of the range
constexpr int kRefits = 2;

// Sums over a group of codes and values; the values are taken relative to their mean.
struct Moments {
    float code = 0.0F;      // mean code
    float spread = 0.0F;    // sum of (code - mean)^2
    float together = 0.0F;  // sum of (code - mean) * (x - mean)
};

float sum_of(const float* x, int count) {
    float part[8] = {};
    for (int i = 0; i < count; i += 8) {
        for (int lane = 0; lane < 8; ++lane) part[lane] += x[i + lane];
    }
    return ((part[0] + part[4]) + (part[1] + part[5])) +
           ((part[2] + part[6]) + (part[3] + part[7]));
}

// Nearest codes as floats.
void code_all(const float* x, int count, float scale, float zero, float top, float* code) {
    const float inverse = 1.0F / scale;
    for (int i = 0; i < count; ++i) {
        const float at = std::min(std::max((x[i] - zero) * inverse, 0.0F), top);
        code[i] = static_cast<float>(static_cast<std::int32_t>(at + 0.5F));
    }
}

Moments moments_of(const float* x, const float* code, int count, float mean) {
    Moments m;
    m.code = sum_of(code, count) / static_cast<float>(count);
    float spread[8] = {}, together[8] = {};
    for (int i = 0; i < count; i += 8) {
        for (int lane = 0; lane < 8; ++lane) {
            const float c = code[i + lane] - m.code;
            spread[lane] += c * c;
            together[lane] += c * (x[i + lane] - mean);
        }
    }
    m.spread = sum_of(spread, 8);
    m.together = sum_of(together, 8);
    return m;
}

float error_of(const float* x, const float* code, int count, float scale, float zero) {
    float part[8] = {};
    for (int i = 0; i < count; i += 8) {
        for (int lane = 0; lane < 8; ++lane) {
            const float e = code[i + lane] * scale + zero - x[i + lane];
            part[lane] += e * e;
        }
    }
    return sum_of(part, 8);
}

f16 half_zero(float zero) {
    return f32_to_f16(std::clamp(zero, -kF16Max, kF16Max));
}

}  // namespace

void solve_least_squares(const float* x, int count, int bits, f16& scale, f16& zero,
                         std::uint8_t* codes) {
    solve_min_max(x, count, bits, scale, zero, codes);
    float code[kMaxGroupSize] = {};
    std::copy_n(codes, count, code);
    const float first = f16_to_f32(scale);
    if (first == 0.0F) return;
    float best = error_of(x, code, count, first, f16_to_f32(zero));
    const float top = static_cast<float>((1 << bits) - 1);
    const float mean = sum_of(x, count) / static_cast<float>(count);
    const float low = *std::min_element(x, x + count), high = *std::max_element(x, x + count);
    for (const float shrink : kShrinks) {
        const float half = (high - low) / 2.0F * shrink;
        float s = 2.0F * half / top, z = low + (high - low) / 2.0F - half;
        for (int refit = 0; refit < kRefits; ++refit) {
            code_all(x, count, s, z, top, code);
            const Moments m = moments_of(x, code, count, mean);
            if (!(m.spread > 0.0F) || !(m.together > 0.0F)) break;
            s = m.together / m.spread;
            z = mean - s * m.code;
        }
        const f16 half_s = f32_to_f16(s), half_z = half_zero(z);
        s = f16_to_f32(half_s);
        if (s == 0.0F) continue;
        z = f16_to_f32(half_z);
        code_all(x, count, s, z, top, code);
        const float error = error_of(x, code, count, s, z);
        if (!(error < best)) continue;
        best = error;
        scale = half_s;
        zero = half_z;
        for (int i = 0; i < count; ++i) codes[i] = static_cast<std::uint8_t>(code[i]);
    }
}

void solve_unbiased(const float* x, int count, int bits, f16& scale, f16& zero,
                    std::uint8_t* codes) {
    solve_least_squares(x, count, bits, scale, zero, codes);
    const float s = f16_to_f32(scale);
    if (s == 0.0F) return;
    float code[kMaxGroupSize] = {}, square[kMaxGroupSize] = {};
    std::copy_n(codes, count, code);
    const float mean = sum_of(x, count) / static_cast<float>(count);
    for (int i = 0; i < count; ++i) square[i] = (x[i] - mean) * (x[i] - mean);
    const Moments m = moments_of(x, code, count, mean);
    if (!(m.together > 0.0F)) return;
    const float stretch = std::clamp(sum_of(square, count) / (s * m.together), 0.5F, 2.0F);
    const f16 stretched = f32_to_f16(std::min(s * stretch, kF16Max));
    scale = stretched;
    zero = half_zero(mean - f16_to_f32(stretched) * m.code);
}

double squared_error(const float* x, int count, f16 scale, f16 zero, const std::uint8_t* codes) {
    double sum = 0.0;
    for (int i = 0; i < count; ++i) {
        const double e = static_cast<double>(static_cast<float>(codes[i]) * f16_to_f32(scale) +
                                             f16_to_f32(zero)) -
                         static_cast<double>(x[i]);
        sum += e * e;
    }
    return sum;
}

}  // namespace winnow
