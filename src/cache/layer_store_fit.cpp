// What a layer's formats are fitted on: rows of its K and V, and the energy of its queries.
#include <algorithm>

#include "cache/layer_store.h"
#include "core/rope.h"
#include "kernels/dense.h"

namespace winnow {

namespace {

// Codebooks are fitted on at most this many tokens of a head, evenly spread.
constexpr int kFitTokens = 2048;

// Turning mixes the two channels of a pair, so before RoPE a query's energy is even in it.
void even_pairs(const RopeParams& rope, float* energy) {
    for (int i = 0; i < rope.dims / 2; ++i) {
        float& a = energy[rope.halves ? i : 2 * i];
        float& b = energy[rope.halves ? i + rope.dims / 2 : 2 * i + 1];
        a = b = (a + b) / 2.0F;
    }
}

// One kv head's data, for a format that fits heads apart.
void fit_head(const SpanLayout& layout, std::span<const float> k, std::span<const float> v,
              float* side) {
    if (layout.spec.format->query_energy && layout.pre_rope()) {
        even_pairs(layout.rope->params(), side);
    }
    layout.spec.format->fit(layout.spec, k, v, side);
}

}  // namespace

// Rows of K and V to fit on, K before RoPE where the format wants that.
struct LayerStore::Sample {
    std::vector<float> k, v;
};

void LayerStore::sample(const LayerKv& kv, int g, const std::vector<std::int32_t>* kept, int tier,
                        Sample& out) const {
    const SpanLayout& layout = layouts_[tier];
    const std::size_t d = static_cast<std::size_t>(layout.spec.head_dim);
    const LayerKv::Head& head = kv.head(g);
    std::vector<float> row(d);
    const int count = kept != nullptr ? static_cast<int>(kept->size()) : head.tokens;
    const int step = std::max(1, count / kFitTokens);
    for (int i = layout.head_tokens; i < count; i += step) {
        const int at = kept != nullptr ? (*kept)[i] : i;
        widen(head.k + at * d, row.data(), d);
        if (layout.pre_rope()) {
            layout.rope->unrotate(row.data(), head.positions[at]);
        }
        out.k.insert(out.k.end(), row.begin(), row.end());
        widen(head.v + at * d, row.data(), d);
        out.v.insert(out.v.end(), row.begin(), row.end());
    }
}

void LayerStore::fit_once(const LayerKv& kv) {
    for (int tier = 0; tier < tiers() && !fitted_; ++tier) {
        fit_tier(tier, kv, nullptr);
    }
    fitted_ = true;
}

// Gathers rows of all heads and fits, unless the prompt packs nothing: that leaves the fit to the
// first full tail.
void LayerStore::fit_once(const LayerKv& kv, const std::vector<std::vector<std::int32_t>>* kept) {
    bool enough = tiers() > 1;
    for (int g = 0; g < kv_heads_ && !fitted_; ++g) {
        const int count = kept != nullptr ? static_cast<int>((*kept)[g].size()) : kv.head(g).tokens;
        enough = enough || count > layout().head_tokens + layout().tail_capacity();
    }
    for (int tier = 0; tier < tiers() && !fitted_ && enough; ++tier) {
        fit_tier(tier, kv, kept);
    }
    fitted_ = fitted_ || enough;
}

void LayerStore::fit_tier(int tier, const LayerKv& kv,
                          const std::vector<std::vector<std::int32_t>>* kept) {
    Buffer<float>& side = side_[tier];
    const FormatSpec& spec = layouts_[tier].spec;
    Sample rows;
    for (int g = 0; g < kv_heads_ && !side.empty(); ++g) {
        sample(kv, g, kept != nullptr ? &(*kept)[g] : nullptr, tier, rows);
        if (spec.format->side_per_head) {
            fit_head(layouts_[tier], rows.k, rows.v, side.data() + side.size() / kv_heads_ * g);
            rows = {};
        }
    }
    if (!side.empty() && !spec.format->side_per_head) {
        spec.format->fit(spec, rows.k, rows.v, side.data());
    }
}

// The sums lie where the fitted data will, so they take no memory of their own.
void LayerStore::note_queries(const float* q, int rows) {
    const int d = layout().spec.head_dim, group = query_heads_ / kv_heads_;
    for (int tier = 0; tier < tiers() && !fitted_; ++tier) {
        if (!layouts_[tier].spec.format->query_energy || side_of_[tier] != tier) {
            continue;
        }
        const std::size_t stride = side_[tier].size() / kv_heads_;
        for (int i = 0; i < rows * query_heads_; ++i) {
            const float* row = q + static_cast<std::size_t>(i) * d;
            float* sum = side_[tier].data() + stride * (i % query_heads_ / group);
            for (int c = 0; c < d; ++c) {
                sum[c] += row[c] * row[c];
            }
        }
    }
}

void LayerStore::fit_on_tails() {
    const SpanLayout& layout = layouts_[0];
    const std::size_t d = static_cast<std::size_t>(layout.spec.head_dim);
    Sample rows;
    for (int g = 0; g < kv_heads_; ++g) {
        const Span& span = this->span(g);
        const std::size_t n = static_cast<std::size_t>(span.tail_tokens());
        const std::size_t at = rows.k.size();
        rows.k.resize(at + n * d);
        rows.v.resize(at + n * d);
        widen(span.tail_k(), rows.k.data() + at, n * d);
        widen(span.tail_v(), rows.v.data() + at, n * d);
        for (std::size_t t = 0; layout.pre_rope() && t < n; ++t) {
            layout.rope->unrotate(
                rows.k.data() + at + t * d,
                span.position(span.tokens() - static_cast<int>(n) + static_cast<int>(t)));
        }
        if (layout.spec.format->side_per_head) {
            fit_head(layout, rows.k, rows.v, side_[0].data() + side_[0].size() / kv_heads_ * g);
            rows = {};
        }
    }
    if (!layout.spec.format->side_per_head) {
        layout.spec.format->fit(layout.spec, rows.k, rows.v, side_[0].data());
    }
    fitted_ = true;
}

}  // namespace winnow
