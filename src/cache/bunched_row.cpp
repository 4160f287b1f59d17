#include "cache/bunched_row.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "cache/bit_shares.h"

namespace winnow {
namespace {

// Steps of scale. A normal row of 2 bits wants one or two; more comes of a value that was cut off,
// and would make all others worse.
constexpr int kMostLonger = 2;

}  // namespace

const float* scale_bytes() {
    static const auto table = [] {
        std::vector<float> all;
        for (int i = 0; i < 256; ++i) {
            all.push_back(std::exp2(static_cast<float>(i - kScaleZero) / kScalesPerOctave));
        }
        return all;
    }();
    return table.data();
}

int nearest_scale_byte(float s) {
    const float at = std::log2(std::max(s, 1e-30F)) * kScalesPerOctave + kScaleZero;
    return static_cast<int>(std::clamp(std::round(at), 0.0F, 255.0F));
}

BunchedRow::BunchedRow(const std::uint8_t* bits, int dims) {
    for (int i = 0; i < dims; ++i) {
        const int b = bits[i / kShareBunch];
        bits_.push_back(b);
        step_.push_back(kNormalStep[b]);
        most_.push_back(static_cast<float>((1 << b) - 1));
        weight_.push_back(b == 0 ? 0.0F : 1.0F / kNormalLoss[b]);
    }
}

// Not below 0, so that cutting off the fraction rounds.
float BunchedRow::code(float u, int i, float s) const {
    const float at = std::clamp(u / (s * step_[i]) + most_[i] / 2.0F, 0.0F, most_[i]);
    return static_cast<float>(static_cast<int>(at + 0.5F));
}

// The error at scale s, and what s times makes the slope one.
float BunchedRow::error(const float* u, float s, float& longer) const {
    float sum = 0.0F, whole = 0.0F, along = 0.0F;
    for (int i = 0; i < static_cast<int>(step_.size()); ++i) {
        const float x = s * step_[i] * (code(u[i], i, s) - most_[i] / 2.0F);
        sum += weight_[i] * (u[i] - x) * (u[i] - x);
        whole += weight_[i] * u[i] * u[i];
        along += weight_[i] * u[i] * x;
    }
    longer = along > 0.0F ? whole / along : 1.0F;
    return sum;
}

std::uint8_t BunchedRow::pack(const float* u, std::uint8_t* out) const {
    const int dims = static_cast<int>(step_.size());
    float square = 0.0F, weight = 1e-30F, reach = 0.0F;
    for (int i = 0; i < dims; ++i) {
        square += weight_[i] * u[i] * u[i];
        weight += weight_[i];
        if (bits_[i] > 0) reach = std::max(reach, 2.0F * std::abs(u[i]) / (step_[i] * most_[i]));
    }
    // From half of what a normal row wants to what leaves no value out.
    const int usual = nearest_scale_byte(std::sqrt(square / weight));
    const int low = std::max(0, usual - 8), high = std::max(usual, nearest_scale_byte(reach));
    int best = high;
    float least = std::numeric_limits<float>::infinity(), longer = 1.0F;
    for (int byte = low; byte <= high; ++byte) {
        float factor;
        const float lost = error(u, scale_bytes()[byte], factor);
        if (lost < least) {
            least = lost;
            best = byte;
            longer = factor;
        }
    }
    const float s = scale_bytes()[best];
    for (int i = 0; i < dims; i += kShareBunch) {
        std::uint64_t word = 0;
        for (int j = 0; j < kShareBunch; ++j) {
            word |= static_cast<std::uint64_t>(code(u[i + j], i + j, s)) << (j * bits_[i]);
        }
        for (int byte = 0; byte < bits_[i]; ++byte, word >>= 8) {
            *out++ = static_cast<std::uint8_t>(word & 0xFF);
        }
    }
    return static_cast<std::uint8_t>(
        std::clamp(nearest_scale_byte(s * longer), best, std::min(255, best + kMostLonger)));
}

}  // namespace winnow
