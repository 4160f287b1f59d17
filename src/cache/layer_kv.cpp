#include "cache/layer_kv.h"

#include <algorithm>
#include <cmath>

#include "kernels/dense.h"
#include "winnow/error.h"

namespace winnow {

LayerKv::LayerKv(MemoryMeter* meter, std::span<const int> kept, int fresh, int head_dim)
    : head_dim_(head_dim), heads_(kept.size()) {
    std::size_t tokens = 0;
    for (int older : kept) {
        tokens += static_cast<std::size_t>(older + fresh);
    }
    rows_ = Buffer<f16>(meter, 2 * tokens * head_dim, "a layer's K and V");
    positions_ = Buffer<std::int32_t>(meter, tokens, "a layer's positions");
    std::size_t at = 0;
    for (std::size_t g = 0; g < kept.size(); ++g) {
        heads_[g] = {.k = rows_.data() + at * head_dim,
                     .v = rows_.data() + (tokens + at) * head_dim,
                     .positions = positions_.data() + at,
                     .kept = kept[g],
                     .tokens = kept[g] + fresh};
        at += static_cast<std::size_t>(kept[g] + fresh);
    }
}

void LayerKv::put(int first, int count, const float* k, const float* v, int position) {
    std::vector<float> row(static_cast<std::size_t>(head_dim_));
    const auto store = [&](const float* from, f16* to) {
        for (int d = 0; d < head_dim_; ++d) {
            if (std::isnan(from[d])) {
                throw failure(
                    "the model computed NaN; the file is damaged or its weights "
                    "overflow.");
            }
            row[d] = std::clamp(from[d], -kF16Max, kF16Max);
        }
        narrow(row.data(), to, static_cast<std::size_t>(head_dim_));
    };
    for (int g = 0; g < kv_heads(); ++g) {
        const Head& head = heads_[g];
        for (int t = 0; t < count; ++t) {
            const std::size_t from = (static_cast<std::size_t>(t) * kv_heads() + g) * head_dim_;
            const std::size_t at = static_cast<std::size_t>(head.kept + first + t);
            store(k + from, head.k + at * head_dim_);
            store(v + from, head.v + at * head_dim_);
            head.positions[at] = position + t;
        }
    }
}

}  // namespace winnow
