// Turning restored keys to their positions, for formats that keep keys before RoPE.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cache/format.h"

namespace winnow {

class RopeTable;

/// Turns keys [n][D], before RoPE, to their positions [n], as the model does; then
/// scores[r][t] = q[r] . key t for q [R][D]. head_dim is a multiple of 8.
void dot_turned(const RopeTable& rope, const std::int32_t* positions, int n, int head_dim,
                float* keys, const float* q, int heads, float* scores, std::size_t stride);

/// scores of f16 keys [n][D] before RoPE: a key side at 16 bits.
void dot_f16_turned(const FormatSpec& spec, const TileView& tile, const float* q, int heads,
                    float* scores, std::size_t stride);

/// Throws a failure Error unless the tile brings positions and a rotation of at most D channels.
void require_rope(const FormatSpec& spec, const TileView& tile);

}  // namespace winnow
