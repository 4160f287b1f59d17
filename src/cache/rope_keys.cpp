#include "cache/rope_keys.h"

#include <winnow/error.h>

#include <algorithm>
#include <string>
#include <vector>

#include "cache/rows.h"
#include "core/rope.h"
#include "kernels/dense.h"
#include "kernels/level_rows.h"
#include "kernels/restore.h"

namespace winnow {

namespace {

constexpr int kTokens = 32;  // turned at once: they stay in the first cache

}  // namespace

void dot_turned(const RopeTable& rope, const std::int32_t* positions, int n, int head_dim,
                float* keys, const float* q, int heads, float* scores, std::size_t stride) {
    const RopeParams& params = rope.params();
    const int pairs = params.dims / 2;
    const float* angles[kTokens];
    thread_local std::vector<float> spare;  // angles of positions beyond the table
    for (int first = 0; first < n; first += kTokens) {
        const int now = std::min(kTokens, n - first);
        for (int t = 0; t < now; ++t) {
            angles[t] = rope.known(positions[first + t]);
            if (angles[t] != nullptr) continue;
            spare.resize(static_cast<std::size_t>(kTokens * params.dims));
            float* cos = spare.data() + t * params.dims;
            rope.angles(positions[first + t], cos, cos + pairs);
            angles[t] = cos;
        }
        dot_turned_rows(keys + static_cast<std::size_t>(first) * head_dim, now, head_dim, pairs,
                        params.halves, angles, q, heads, scores + first, stride);
    }
}

void dot_f16_turned(const FormatSpec& spec, const TileView& tile, const float* q, int heads,
                    float* scores, std::size_t stride) {
    const auto d = static_cast<std::size_t>(spec.head_dim);
    float* keys = thread_scratch(kTokens * d);
    const auto* rows = reinterpret_cast<const f16*>(tile.data);
    for (int first = 0; first < tile.tokens; first += kTokens) {
        const int n = std::min(kTokens, tile.tokens - first);
        widen(rows + static_cast<std::size_t>(first) * d, keys, static_cast<std::size_t>(n) * d);
        dot_turned(*tile.rope, tile.positions + first, n, spec.head_dim, keys, q, heads,
                   scores + first, stride);
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
