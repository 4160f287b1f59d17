#include "cache/rope_keys.h"

#include <winnow/error.h>

#include <string>

#include "core/rope.h"

namespace winnow {

void rotate_keys(const RopeTable& rope, const std::int32_t* positions, int n, float* keys,
                 float* cos, float* sin) {
    const RopeParams& params = rope.params();
    const int pairs = params.dims / 2;
    rope.angles(positions, n, cos, sin);
    for (int p = 0; p < pairs; ++p) {
        float* a = keys + (params.halves ? p : 2 * p) * n;
        float* b = keys + (params.halves ? p + pairs : 2 * p + 1) * n;
        const float* cp = cos + p * n;
        const float* sp = sin + p * n;
        for (int t = 0; t < n; ++t) {
            const float x = a[t], y = b[t];
            a[t] = x * cp[t] - y * sp[t];
            b[t] = x * sp[t] + y * cp[t];
        }
    }
}

void require_rope(const FormatSpec& spec, const TileView& tile) {
    const int d = spec.head_dim;
    if (tile.rope == nullptr || tile.positions == nullptr || tile.rope->params().dims > d) {
        throw failure(
            std::string(spec.format->name) +
            " keeps keys before RoPE and needs their positions and a rotation of at most " +
            std::to_string(d) + " channels to read them.");
    }
}

}  // namespace winnow
