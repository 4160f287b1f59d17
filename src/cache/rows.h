// What every storage format shares: f16 rows (a side at 16 bits), the inner loops of the reference
// kernels, and the checks of a format's settings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>

#include "cache/format.h"

namespace winnow {

inline constexpr int kMaxHeadDim = 1024;
inline constexpr int kMaxGroupSize = 512;

inline int bits_of(const FormatSpec& spec, Side side) {
    return side == Side::key ? spec.bits_k : spec.bits_v;
}

inline f16 load_f16(const std::uint8_t* data) {
    f16 value;
    std::memcpy(&value, data, sizeof value);
    return value;
}

inline void store_f16(std::uint8_t* data, f16 value) {
    std::memcpy(data, &value, sizeof value);
}

/// `count` stored halves as floats. The cache holds finite values only, so this has no branches.
void floats_from_f16(const std::uint8_t* data, int count, float* out);

/// Sum of a[i] * b[i] in eight fixed partial sums: the same result whatever the vector width.
float dot(const float* a, const float* b, int count);

/// out[i] += weight * x[i].
void add_scaled(float weight, const float* x, int count, float* out);

/// Memory of this thread for a kernel's scratch; it is reused by the next call.
float* thread_scratch(std::size_t floats);

/// Throws the failure Error of pack() if a value of rows [tokens][D] is NaN.
void require_no_nan(const FormatSpec& spec, Side side, const float* rows, int tokens);
/// Throws a failure Error unless `tokens` is a multiple of group_size.
void require_whole_groups(const FormatSpec& spec, int tokens);

// A side at 16 bits: rows [tokens][D] of f16, clamped to +-65504.
inline std::size_t f16_rows_bytes(const FormatSpec& spec, int tokens) {
    return sizeof(f16) * static_cast<std::size_t>(spec.head_dim) * static_cast<std::size_t>(tokens);
}
void f16_rows_pack(const FormatSpec& spec, Side side, const float* rows, int tokens,
                   std::uint8_t* out);
void f16_rows_unpack(const FormatSpec& spec, const TileView& tile, float* rows);
void f16_rows_dot_k(const FormatSpec& spec, const TileView& tile, const float* q, int heads,
                    float* scores, std::size_t stride);
void f16_rows_add_v(const FormatSpec& spec, const TileView& tile, const float* weights,
                    std::size_t stride, int heads, float* out);
// The scalar references of the two kernels.
void f16_rows_dot_k_reference(const FormatSpec& spec, const TileView& tile, const float* q,
                              int heads, float* scores, std::size_t stride);
void f16_rows_add_v_reference(const FormatSpec& spec, const TileView& tile, const float* weights,
                              std::size_t stride, int heads, float* out);

// Checks of a FormatSpec; each throws a usage Error that names the flag.
/// head_dim is a multiple of 8 up to kMaxHeadDim, group_size one of 8 up to kMaxGroupSize.
void check_shape(const FormatSpec& spec);
/// Both sides' bits are in `allowed`.
void check_bits(const FormatSpec& spec, std::initializer_list<int> allowed);
/// Both axes are 0 or 1, and group_size divides head_dim where a packed side runs over channels.
void check_axes(const FormatSpec& spec);
/// The format has no exact outliers, so --outlier-threshold must be 0.
void check_no_outliers(const FormatSpec& spec);

}  // namespace winnow
