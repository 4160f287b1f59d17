// Restoring a few packed rows as floats, for formats whose codes cannot stay integers: non-uniform
// levels, and keys that are kept before RoPE. Callers take a block of tokens at a time, which stays
// in the first cache. Run-time dispatch; each gives the bits of its
// scalar reference of the same name.
#pragma once

#include <cstddef>
#include <cstdint>

namespace winnow {

/// Runs of codes as cache/code_pack.h stripes them, `step` bytes apart.
struct CodeRuns {
    const std::uint8_t* data = nullptr;
    std::size_t step = 0;
    int runs = 0;
    int count = 0;  ///< codes of a run, a multiple of 8
    int bits = 0;   ///< 2, 3, 4 or 8
};

/// out[run][i] = offset[run] + scale[run] * levels[code], rows of `count`. Scales and offsets are
/// f16, side by side; levels is [2^bits].
void restore_levels(const CodeRuns& runs, const float* levels, const std::uint8_t* scales,
                    const std::uint8_t* offsets, float* out);

/// out[run][i] = offset[i] + spread[i] * scale[run] * (code - (2^bits - 1) / 2), clamped to what
/// half precision holds; offset and spread are [count].
void restore_channels(const CodeRuns& runs, const float* offset, const float* spread,
                      const float* scale, float* out);

/// Rows of codes whose widths change every 8 codes, `step` bytes apart. A bunch of 8 codes of b
/// bits takes b bytes, the lowest bits first; at 0 bits it takes none.
struct BunchRuns {
    const std::uint8_t* data = nullptr;
    std::size_t step = 0;
    int runs = 0;
    int bunches = 0;
    const std::uint8_t* widths = nullptr;  ///< [bunches], each 0, 2, 3, 4 or 8
};

/// The same as restore_channels with each bunch's own bits; where it has none, the offset. offset
/// and spread are [8 * bunches].
void restore_bunches(const BunchRuns& runs, const float* offset, const float* spread,
                     const float* scale, float* out);

/// A panel of codes as cache/code_pack.h draws it, [rows][lanes]: out[row][lane] = code *
/// scale[row] + zero[row].
void restore_panel(const std::uint8_t* panel, int bits, int rows, int lanes, const float* scale,
                   const float* zero, float* out);

/// to[c][r] = from[r][c].
void transpose(const float* from, int rows, int columns, float* to);

/// Rotates rows [tokens][D] by RoPE: angles[t] holds cos [pairs], then sin [pairs]. Pairs are
/// (i, i + pairs) with `halves`, else (2i, 2i + 1); other channels stay.
void rotate_rows(float* rows, int tokens, int head_dim, int pairs, bool halves,
                 const float* const* angles);

namespace reference {
void restore_levels(const CodeRuns& runs, const float* levels, const std::uint8_t* scales,
                    const std::uint8_t* offsets, float* out);
void restore_channels(const CodeRuns& runs, const float* offset, const float* spread,
                      const float* scale, float* out);
void restore_bunches(const BunchRuns& runs, const float* offset, const float* spread,
                     const float* scale, float* out);
void restore_panel(const std::uint8_t* panel, int bits, int rows, int lanes, const float* scale,
                   const float* zero, float* out);
void transpose(const float* from, int rows, int columns, float* to);
void rotate_rows(float* rows, int tokens, int head_dim, int pairs, bool halves,
                 const float* const* angles);
}  // namespace reference

}  // namespace winnow
