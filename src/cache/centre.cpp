#include "cache/centre.h"

#include <winnow/error.h>

#include <algorithm>
#include <string>
#include <vector>

#include "cache/rows.h"

namespace winnow {
namespace {

using Size = std::size_t;

void fit_side(const FormatSpec& spec, Side side, std::span<const float> rows, float* centre) {
    const Size d = static_cast<Size>(spec.head_dim), n = rows.size() / d;
    require_no_nan(spec, side, rows.data(), static_cast<int>(n));
    std::vector<double> sum(d, 0.0);
    for (Size i = 0; i < n * d; ++i) {
        sum[i % d] += static_cast<double>(std::clamp(rows[i], -kF16Max, kF16Max));
    }
    for (Size c = 0; c < d; ++c) {
        centre[c] = n == 0 ? 0.0F : static_cast<float>(sum[c] / static_cast<double>(n));
    }
}

}  // namespace

void fit_centres(const FormatSpec& spec, std::span<const float> k, std::span<const float> v,
                 float* side_data) {
    fit_side(spec, Side::key, k, side_data);
    fit_side(spec, Side::value, v, side_data + spec.head_dim);
}

const float* centre_of(const FormatSpec& spec, Side side, const float* side_data) {
    if (side_data == nullptr) {
        throw failure(std::string(spec.format->name) +
                      " needs the kv head's fitted centres, but the cache has none.");
    }
    return side == Side::key ? side_data : side_data + spec.head_dim;
}

void take_centre_off(const float* rows, int tokens, int head_dim, const float* centre, float* to) {
    for (int t = 0; t < tokens; ++t, rows += head_dim, to += head_dim) {
        for (int c = 0; c < head_dim; ++c) {
            to[c] = std::clamp(rows[c], -kF16Max, kF16Max) - centre[c];
        }
    }
}

void add_centre(float* rows, int tokens, int head_dim, const float* centre) {
    for (int t = 0; t < tokens; ++t, rows += head_dim) {
        for (int c = 0; c < head_dim; ++c) rows[c] += centre[c];
    }
}

void add_centre_scores(const float* q, int heads, int head_dim, const float* centre, float* scores,
                       std::size_t stride, int tokens) {
    for (int r = 0; r < heads; ++r, q += head_dim, scores += stride) {
        const float shift = dot(q, centre, head_dim);
        for (int t = 0; t < tokens; ++t) scores[t] += shift;
    }
}

void add_centre_values(const float* weights, std::size_t stride, int tokens, int heads,
                       int head_dim, const float* centre, float* out) {
    for (int r = 0; r < heads; ++r, weights += stride, out += head_dim) {
        float part[8] = {};
        for (int t = 0; t < tokens; ++t) part[t % 8] += weights[t];
        const float sum = ((part[0] + part[4]) + (part[1] + part[5])) +
                          ((part[2] + part[6]) + (part[3] + part[7]));
        add_scaled(sum, centre, head_dim, out);
    }
}

}  // namespace winnow
