#include "cache/layer_store.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "core/rope.h"
#include "kernels/dense.h"
#include "winnow/error.h"

namespace winnow {

namespace {

// Codebooks are fitted on at most this many tokens of a head, evenly spread.
constexpr int kFitTokens = 2048;

}  // namespace

LayerStore::LayerStore(const SpanLayout& layout, int kv_heads, int query_heads,
                       const LayerMemory& memory, MemoryMeter* cache, MemoryMeter* policy)
    : layout_(layout),
      memory_(memory),
      query_heads_(query_heads),
      cache_(cache),
      policy_(policy),
      side_(cache, 0, "the cache's codebooks"),
      ring_(policy, static_cast<std::size_t>(memory.window) * query_heads * layout.spec.head_dim,
            "the ring of queries"),
      sums_stride_(kv_heads, 0) {
    for (int g = 0; g < kv_heads; ++g) {
        spans_.emplace_back(&layout_, cache);
        sums_.emplace_back(policy, 0, "running sums of attention");
    }
    const Format& format = *layout_.spec.format;
    if (format.side_floats != nullptr) {
        side_.resize(static_cast<std::size_t>(format.side_floats(layout_.spec)));
    }
    fitted_ = side_.empty();
}

int LayerStore::longest() const {
    int most = 0;
    for (const Span& span : spans_) {
        most = std::max(most, span.tokens());
    }
    return most;
}

void LayerStore::append(const float* k, const float* v, std::int32_t position) {
    const std::size_t d = static_cast<std::size_t>(layout_.spec.head_dim);
    std::vector<float> row(d);
    std::vector<f16> rows(2 * d);
    const auto store = [&](const float* from, f16* to) {
        for (std::size_t i = 0; i < d; ++i) {
            if (std::isnan(from[i])) {
                throw failure(
                    "the model computed NaN; the file is damaged or its weights "
                    "overflow.");
            }
            row[i] = std::clamp(from[i], -kF16Max, kF16Max);
        }
        narrow(row.data(), to, d);
    };
    if (!fitted_ && spans_[0].tail_tokens() == layout_.tail_capacity()) {
        fit_on_tails();
    }
    for (std::size_t g = 0; g < spans_.size(); ++g) {
        store(k + g * d, rows.data());
        store(v + g * d, rows.data() + d);
        spans_[g].append(rows.data(), rows.data() + d, &position, 1, side_data());
    }
}

void LayerStore::append(const LayerKv& kv) {
    if (!fitted_) {
        fit(&kv, nullptr);
    }
    const std::size_t d = static_cast<std::size_t>(layout_.spec.head_dim);
    for (int g = 0; g < kv_heads(); ++g) {
        const LayerKv::Head& head = kv.head(g);
        const auto older = static_cast<std::size_t>(head.kept);
        spans_[g].append(head.k + older * d, head.v + older * d, head.positions + older,
                         head.tokens - head.kept, side_data());
    }
}

void LayerStore::rebuild(const LayerKv& kv, const std::vector<std::vector<std::int32_t>>& kept) {
    if (!fitted_) {
        fit(&kv, &kept);
    }
    for (int g = 0; g < kv_heads(); ++g) {
        const LayerKv::Head& head = kv.head(g);
        spans_[g].rebuild(head.k, head.v, head.positions, kept[g], side_data());
    }
}

// Gathers rows of all heads, before RoPE where the format wants that, and fits the codebooks.
void LayerStore::fit(const LayerKv* kv, const std::vector<std::vector<std::int32_t>>* kept) {
    const std::size_t d = static_cast<std::size_t>(layout_.spec.head_dim);
    std::vector<float> k, v, row(d);
    bool enough = false;
    for (int g = 0; g < kv_heads(); ++g) {
        const LayerKv::Head& head = kv->head(g);
        const int count = kept != nullptr ? static_cast<int>((*kept)[g].size()) : head.tokens;
        enough = enough || count > layout_.head_tokens + layout_.tail_capacity();
        const int step = std::max(1, count / kFitTokens);
        for (int i = layout_.head_tokens; i < count; i += step) {
            const int at = kept != nullptr ? (*kept)[g][i] : i;
            widen(head.k + at * d, row.data(), d);
            if (layout_.pre_rope()) {
                layout_.rope->unrotate(row.data(), head.positions[at]);
            }
            k.insert(k.end(), row.begin(), row.end());
            widen(head.v + at * d, row.data(), d);
            v.insert(v.end(), row.begin(), row.end());
        }
    }
    if (enough) {  // a prompt that packs nothing leaves the fit to the first full tail
        layout_.spec.format->fit(layout_.spec, k, v, side_.data());
        fitted_ = true;
    }
}

void LayerStore::fit_on_tails() {
    const std::size_t d = static_cast<std::size_t>(layout_.spec.head_dim);
    std::vector<float> k, v;
    for (const Span& span : spans_) {
        const std::size_t n = static_cast<std::size_t>(span.tail_tokens());
        const std::size_t at = k.size();
        k.resize(at + n * d);
        v.resize(at + n * d);
        widen(span.tail_k(), k.data() + at, n * d);
        widen(span.tail_v(), v.data() + at, n * d);
        for (std::size_t t = 0; layout_.pre_rope() && t < n; ++t) {
            layout_.rope->unrotate(
                k.data() + at + t * d,
                span.position(span.tokens() - static_cast<int>(n) + static_cast<int>(t)));
        }
    }
    layout_.spec.format->fit(layout_.spec, k, v, side_.data());
    fitted_ = true;
}

void LayerStore::read(int g, f16* k, f16* v, std::int32_t* positions) const {
    spans_[g].read(k, v, positions, side_data());
}

void LayerStore::push_query(const float* q) {
    const std::size_t row = static_cast<std::size_t>(query_heads_) * layout_.spec.head_dim;
    if (memory_.window == 0) {
        return;
    }
    narrow(q, ring_.data() + next_query_ * row, row);
    next_query_ = (next_query_ + 1) % memory_.window;
    queries_ = std::min(queries_ + 1, memory_.window);
}

void LayerStore::read_queries(float* out) const {
    const std::size_t row = static_cast<std::size_t>(query_heads_) * layout_.spec.head_dim;
    for (int i = 0; i < queries_; ++i) {
        const int slot = (next_query_ - queries_ + i + memory_.window) % memory_.window;
        widen(ring_.data() + slot * row, out + i * row, row);
    }
}

float* LayerStore::sums(int g) {
    const auto needed = static_cast<std::size_t>(spans_[g].tokens());
    const int group = query_heads_ / kv_heads();
    if (sums_stride_[g] < needed) {
        const std::size_t stride = needed + 64;
        Buffer<float> wider(policy_, stride * group, "running sums of attention");
        for (int r = 0; r < group; ++r) {
            std::copy_n(sums_[g].data() + r * sums_stride_[g], sums_stride_[g],
                        wider.data() + r * stride);
        }
        sums_[g] = std::move(wider);
        sums_stride_[g] = stride;
    }
    return sums_[g].data();
}

void LayerStore::replace_sums(int g, const float* from, std::size_t stride,
                              const std::vector<std::int32_t>& kept) {
    const int group = query_heads_ / kv_heads();
    const std::size_t room = kept.size() + 64;
    Buffer<float> fresh(policy_, room * group, "running sums of attention");
    for (int r = 0; r < group; ++r) {
        for (std::size_t i = 0; i < kept.size(); ++i) {
            fresh[r * room + i] = from[r * stride + static_cast<std::size_t>(kept[i])];
        }
    }
    sums_[g] = std::move(fresh);
    sums_stride_[g] = room;
}

std::size_t LayerStore::bytes() const {
    std::size_t total = side_.bytes();
    for (const Span& span : spans_) {
        total += span.bytes();
    }
    return total;
}

std::size_t LayerStore::policy_bytes() const {
    std::size_t total = ring_.bytes();
    for (const Buffer<float>& sums : sums_) {
        total += sums.bytes();
    }
    return total;
}

std::unique_ptr<LayerStore> LayerStore::clone(MemoryMeter* cache, MemoryMeter* policy) const {
    auto copy =
        std::make_unique<LayerStore>(layout_, kv_heads(), query_heads_, memory_, cache, policy);
    copy->side_ = side_.clone(cache);
    copy->fitted_ = fitted_;
    copy->ring_ = ring_.clone(policy);
    copy->queries_ = queries_;
    copy->next_query_ = next_query_;
    copy->sums_stride_ = sums_stride_;
    for (int g = 0; g < kv_heads(); ++g) {
        copy->spans_[g] = spans_[g].clone(&copy->layout_, cache);
        copy->sums_[g] = sums_[g].clone(policy);
    }
    return copy;
}

}  // namespace winnow
