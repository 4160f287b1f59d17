// Centring: one vector per kv head is taken off all packed keys, and one off all packed values.
// The rows that stay f16 are not touched: the score of a packed key gets q.c back, and the sum of
// packed values gets c times the sum of their weights.
#pragma once

#include <cstddef>
#include <span>

#include "cache/format.h"

namespace winnow {

/// Side data of a centred format, per kv head: c of the keys [D], then c of the values [D].
inline int centre_floats(const FormatSpec& spec) {
    return 2 * spec.head_dim;
}
/// Fits both to the means of the rows [n][D], clamped to what half precision holds; 0 for n = 0.
/// NaN throws a failure Error.
void fit_centres(const FormatSpec& spec, std::span<const float> k, std::span<const float> v,
                 float* side_data);
/// c of a side; throws a failure Error where the cache has no side data.
const float* centre_of(const FormatSpec& spec, Side side, const float* side_data);

/// to[t] = rows[t] clamped to half precision's range, minus c; [tokens][D].
void take_centre_off(const float* rows, int tokens, int head_dim, const float* centre, float* to);
/// rows[t] += c.
void add_centre(float* rows, int tokens, int head_dim, const float* centre);
/// scores[r][t] += q[r].c for every token of the tile.
void add_centre_scores(const float* q, int heads, int head_dim, const float* centre, float* scores,
                       std::size_t stride, int tokens);
/// out[r] += c * sum of weights[r][t].
void add_centre_values(const float* weights, std::size_t stride, int tokens, int heads,
                       int head_dim, const float* centre, float* out);

}  // namespace winnow
