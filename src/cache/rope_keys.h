// Turning restored keys to their positions, for formats that keep keys before RoPE.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cache/format.h"

namespace winnow {

class RopeTable;

/// Turns keys [D][n], before RoPE, to their positions [n], as the model does. cos and sin are
/// scratch, [dims/2][n] each.
void rotate_keys(const RopeTable& rope, const std::int32_t* positions, int n, float* keys,
                 float* cos, float* sin);

/// Throws a failure Error unless the tile brings positions and a rotation of at most D channels.
void require_rope(const FormatSpec& spec, const TileView& tile);

}  // namespace winnow
