// IEEE half precision as stored in the cache: conversion to and from float, round to nearest even.
#pragma once

#include <bit>
#include <cstdint>

namespace winnow {

using f16 = std::uint16_t;

inline constexpr float kF16Max = 65504.0F;

inline float f16_to_f32(f16 h) {
    const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000U) << 16;
    const std::uint32_t magnitude = h & 0x7FFFU;
    if (magnitude >= 0x7C00U) {
        return std::bit_cast<float>(sign | 0x7F800000U | (magnitude & 0x3FFU) << 13);
    }
    if (magnitude < 0x0400U) {  // zero and subnormals: an exact product
        const float value = static_cast<float>(magnitude) * 0x1p-24F;
        return sign != 0 ? -value : value;
    }
    return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000U));
}

/// Overflow gives infinity and NaN stays NaN, as the F16C instruction does.
inline f16 f32_to_f16(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const auto sign = static_cast<f16>(bits >> 16 & 0x8000U);
    const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
    if (magnitude > 0x7F800000U) {
        return static_cast<f16>(sign | 0x7E00U | (magnitude >> 13 & 0x3FFU));
    }
    if (magnitude >= 0x477FF000U) {  // rounds to 65520 or more
        return static_cast<f16>(sign | 0x7C00U);
    }
    if (magnitude < 0x38800000U) {  // subnormal half: adding 0.5 lets the FPU round at bit 2^-24
        const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
        return static_cast<f16>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3F000000U));
    }
    const std::uint32_t odd = magnitude >> 13 & 1U;
    return static_cast<f16>(sign | ((magnitude - 0x38000000U + 0xFFFU + odd) >> 13));
}

/// The float nearest to `value` that half precision can hold.
inline float round_to_f16(float value) {
    return f16_to_f32(f32_to_f16(value));
}

}  // namespace winnow
