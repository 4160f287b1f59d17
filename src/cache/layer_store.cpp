#include "cache/layer_store.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>

#include "kernels/dense.h"
#include "winnow/error.h"

namespace winnow {

namespace {

// Tokens that running sums have room for beyond those held.
constexpr std::size_t kSumsRoom = 64;
constexpr std::size_t kExactSumsRoom = 4;

}  // namespace

LayerStore::LayerStore(std::span<const SpanLayout> tiers, int kv_heads, int query_heads,
                       const LayerMemory& memory, MemoryMeter* cache, MemoryMeter* policy)
    : layouts_(tiers.begin(), tiers.end()),
      kv_heads_(kv_heads),
      memory_(memory),
      query_heads_(query_heads),
      cache_(cache),
      policy_(policy),
      ring_(policy, 0, "the ring of queries"),
      sums_stride_(kv_heads, 0),
      notes_(policy, static_cast<std::size_t>(memory.notes), "what a method remembers") {
    if (!memory.release_ring) {
        ring_.resize(ring_floats());
    }
    for (int g = 0; g < kv_heads; ++g) {
        for (const SpanLayout& tier : layouts_) {
            spans_.emplace_back(&tier, cache);
        }
        sums_.emplace_back(policy, 0, "running sums of attention");
    }
    if (memory.moments) {
        moments_ = QueryMoments(policy, query_heads, layout().spec.head_dim, memory.moments_skip);
    }
    fitted_ = true;
    for (int tier = 0; tier < this->tiers(); ++tier) {
        int same = 0;
        while (layouts_[same].spec.format != layouts_[tier].spec.format) {
            ++same;
        }
        // Tiers of one format read the same fitted data, where it does not depend on their bits.
        const bool shares = layouts_[tier].spec.format->side_per_head;
        side_of_.push_back(shares ? same : tier);
        side_.emplace_back(cache, side_of_[tier] == tier ? side_floats(tier) : 0,
                           "the cache's fitted data");
        fitted_ = fitted_ && side_.back().empty();
    }
}

std::size_t LayerStore::ring_floats() const {
    return static_cast<std::size_t>(memory_.window) * query_heads_ * layout().spec.head_dim;
}

std::size_t LayerStore::side_floats(int tier) const {
    const FormatSpec& spec = layouts_[tier].spec;
    if (spec.format->side_floats == nullptr) {
        return 0;
    }
    const auto floats = static_cast<std::size_t>(spec.format->side_floats(spec));
    return spec.format->side_per_head ? floats * kv_heads_ : floats;
}

const float* LayerStore::side_data(int g, int tier) const {
    const Buffer<float>& side = side_[side_of_[tier]];
    if (side.empty()) {
        return nullptr;
    }
    const bool own = layouts_[tier].spec.format->side_per_head;
    return side.data() + (own ? side.size() / kv_heads_ * g : 0);
}

int LayerStore::tokens(int g) const {
    int total = 0;
    for (int tier = 0; tier < tiers(); ++tier) {
        total += span(g, tier).tokens();
    }
    return total;
}

void LayerStore::use_side_data(std::span<const float> data) {
    if (data.empty()) {
        return;
    }
    Buffer<float>& side = side_[0];
    if (data.size() != side.size()) {
        throw failure("a layer's fitted data has " + std::to_string(data.size()) +
                      " numbers, but its format takes " + std::to_string(side.size()) + ".");
    }
    std::copy(data.begin(), data.end(), side.data());
    fitted_ = true;
}

int LayerStore::longest() const {
    int most = 0;
    for (int g = 0; g < kv_heads_; ++g) {
        most = std::max(most, tokens(g));
    }
    return most;
}

int LayerStore::first_of(int g, int tier) const {
    int first = 0;
    for (int t = 1; t < tiers() && t != tier; ++t) {
        first += span(g, t).tokens();
    }
    return first;
}

std::vector<std::int32_t> LayerStore::by_position(int g) const {
    std::vector<std::int32_t> positions(tokens(g)), order(tokens(g));
    for (int tier = 0; tier < tiers(); ++tier) {
        const int first = first_of(g, tier);
        for (int i = 0; i < span(g, tier).tokens(); ++i) {
            positions[first + i] = span(g, tier).position(i);
        }
    }
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(),
              [&](std::int32_t a, std::int32_t b) { return positions[a] < positions[b]; });
    return order;
}

void LayerStore::append(const float* k, const float* v, std::int32_t position) {
    const std::size_t d = static_cast<std::size_t>(layout().spec.head_dim);
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
    if (!fitted_ && tiers() == 1 && span(0).tail_tokens() == layout().tail_capacity()) {
        fit_on_tails();
    }
    for (int g = 0; g < kv_heads_; ++g) {
        store(k + g * d, rows.data());
        store(v + g * d, rows.data() + d);
        at(g, 0).append(rows.data(), rows.data() + d, &position, 1, side_data(g));
    }
}

void LayerStore::append(const LayerKv& kv) {
    fit_once(kv, nullptr);
    const std::size_t d = static_cast<std::size_t>(layout().spec.head_dim);
    for (int g = 0; g < kv_heads_; ++g) {
        const LayerKv::Head& head = kv.head(g);
        const auto older = static_cast<std::size_t>(head.kept);
        at(g, 0).append(head.k + older * d, head.v + older * d, head.positions + older,
                        head.tokens - head.kept, side_data(g));
    }
}

void LayerStore::rebuild(const LayerKv& kv, const std::vector<std::vector<std::int32_t>>& kept) {
    fit_once(kv, &kept);
    for (int g = 0; g < kv_heads_; ++g) {
        const LayerKv::Head& head = kv.head(g);
        for (int tier = 1; tier < tiers(); ++tier) {
            at(g, tier) = Span(&layouts_[tier], cache_);
        }
        at(g, 0).rebuild(head.k, head.v, head.positions, kept[g], side_data(g));
    }
}

void LayerStore::rebuild(const LayerKv& kv,
                         const std::vector<std::vector<std::vector<std::int32_t>>>& kept) {
    fit_once(kv, nullptr);
    for (int g = 0; g < kv_heads_; ++g) {
        const LayerKv::Head& head = kv.head(g);
        // All of the old ones go before the first new one comes.
        for (int tier = 0; tier < tiers(); ++tier) {
            at(g, tier) = Span(&layouts_[tier], cache_);
        }
        for (int tier = 0; tier < tiers(); ++tier) {
            at(g, tier).rebuild(head.k, head.v, head.positions, kept[g][tier], side_data(g, tier));
        }
    }
}

void LayerStore::move(int g, int from, int to, std::span<const std::int32_t> indices) {
    const std::size_t n = indices.size(), d = static_cast<std::size_t>(layout().spec.head_dim);
    std::vector<f16> k(n * d), v(n * d);
    std::vector<std::int32_t> positions(n);
    if (to >= 0) {
        span(g, from).read_rows(indices, k.data(), v.data(), positions.data(), side_data(g, from));
    }
    move_sums(g, from, to, indices);
    at(g, from).remove(indices);
    if (to >= 0) {
        at(g, to).append(k.data(), v.data(), positions.data(), static_cast<int>(n),
                         side_data(g, to));
    }
}

// The running sums follow their tokens to the end of tier `to`.
void LayerStore::move_sums(int g, int from, int to, std::span<const std::int32_t> indices) {
    const std::size_t stride = sums_stride_[g];
    const auto held = std::min(static_cast<std::size_t>(tokens(g)), stride);
    if (held == 0) {
        return;
    }
    const auto first = static_cast<std::size_t>(first_of(g, from));
    const int end = to < 0 ? 0 : first_of(g, to) + span(g, to).tokens();
    std::vector<float> row;
    for (int r = 0; r < sum_rows(); ++r) {
        float* sums = sums_[g].data() + r * stride;
        row.clear();
        const auto add_moved = [&] {
            for (const std::int32_t at : indices) {
                row.push_back(first + at < held ? sums[first + at] : 0.0F);
            }
        };
        std::size_t next = 0;
        for (std::size_t i = 0; i <= held; ++i) {
            if (to >= 0 && static_cast<int>(i) == end) {
                add_moved();
            }
            if (next < indices.size() && i == first + indices[next]) {
                ++next;
            } else if (i < held) {
                row.push_back(sums[i]);
            }
        }
        row.resize(stride, 0.0F);
        std::copy(row.begin(), row.end(), sums);
    }
    if (to < 0 && memory_.exact_room) {
        resize_sums(g, held - indices.size() + kExactSumsRoom);
    }
}

void LayerStore::read(int g, f16* k, f16* v, std::int32_t* positions) const {
    if (tiers() == 1) {
        span(g).read(k, v, positions, side_data(g));
        return;
    }
    const std::size_t n = static_cast<std::size_t>(tokens(g));
    const std::size_t d = static_cast<std::size_t>(layout().spec.head_dim);
    std::vector<f16> stored_k(n * d), stored_v(n * d);
    std::vector<std::int32_t> stored(n);
    for (int tier = 0; tier < tiers(); ++tier) {
        const auto first = static_cast<std::size_t>(first_of(g, tier));
        span(g, tier).read(stored_k.data() + first * d, stored_v.data() + first * d,
                           stored.data() + first, side_data(g, tier));
    }
    for (const std::int32_t from : by_position(g)) {
        k = std::copy_n(stored_k.data() + from * d, d, k);
        v = std::copy_n(stored_v.data() + from * d, d, v);
        *positions++ = stored[from];
    }
}

void LayerStore::push_query(const float* q) {
    const std::size_t row = static_cast<std::size_t>(query_heads_) * layout().spec.head_dim;
    if (memory_.window == 0) {
        return;
    }
    ring_.resize(ring_floats());
    narrow(q, ring_.data() + next_query_ * row, row);
    next_query_ = (next_query_ + 1) % memory_.window;
    queries_ = std::min(queries_ + 1, memory_.window);
}

void LayerStore::release_queries() {
    if (memory_.release_ring) {
        ring_.resize(0);
        forget_queries();
    }
}

void LayerStore::read_queries(float* out) const {
    const std::size_t row = static_cast<std::size_t>(query_heads_) * layout().spec.head_dim;
    for (int i = 0; i < queries_; ++i) {
        const int slot = (next_query_ - queries_ + i + memory_.window) % memory_.window;
        widen(ring_.data() + slot * row, out + i * row, row);
    }
}

void LayerStore::add_queries(const float* q, int count, int position, int threads) {
    if (memory_.moments) {
        moments_.add(q, count, position, *layout().rope, threads);
    }
}

std::size_t LayerStore::sums_room() const {
    return memory_.exact_room ? kExactSumsRoom : kSumsRoom;
}

// Rows of another stride; the old ones are gone before the new ones come where room is exact.
void LayerStore::resize_sums(int g, std::size_t stride) {
    const std::size_t old = sums_stride_[g], same = std::min(old, stride);
    std::vector<float> content(sums_[g].data(), sums_[g].data() + old * sum_rows());
    if (memory_.exact_room) {
        sums_[g].resize(0);
    }
    Buffer<float> fresh(policy_, stride * sum_rows(), "running sums of attention");
    for (int r = 0; r < sum_rows(); ++r) {
        std::copy_n(content.data() + r * old, same, fresh.data() + r * stride);
    }
    sums_[g] = std::move(fresh);
    sums_stride_[g] = stride;
}

float* LayerStore::sums(int g) {
    const auto needed = static_cast<std::size_t>(tokens(g));
    if (sums_stride_[g] < needed) {
        resize_sums(g, needed + sums_room());
    }
    return sums_[g].data();
}

void LayerStore::replace_sums(int g, const float* from, std::size_t stride,
                              const std::vector<std::int32_t>& kept) {
    const std::size_t room = kept.size() + sums_room();
    sums_[g].resize(0);
    Buffer<float> fresh(policy_, room * sum_rows(), "running sums of attention");
    for (int r = 0; r < sum_rows(); ++r) {
        for (std::size_t i = 0; i < kept.size(); ++i) {
            fresh[r * room + i] = from[r * stride + static_cast<std::size_t>(kept[i])];
        }
    }
    sums_[g] = std::move(fresh);
    sums_stride_[g] = room;
}

std::size_t LayerStore::bytes() const {
    std::size_t total = side_bytes();
    for (const Span& span : spans_) {
        total += span.bytes();
    }
    return total;
}

std::size_t LayerStore::side_bytes() const {
    std::size_t total = 0;
    for (const Buffer<float>& side : side_) {
        total += side.bytes();
    }
    return total;
}

std::size_t LayerStore::policy_bytes() const {
    std::size_t total = ring_.bytes() + moments_.bytes() + notes_.bytes();
    for (const Buffer<float>& sums : sums_) {
        total += sums.bytes();
    }
    return total;
}

std::unique_ptr<LayerStore> LayerStore::clone(MemoryMeter* cache, MemoryMeter* policy) const {
    auto copy =
        std::make_unique<LayerStore>(layouts_, kv_heads_, query_heads_, memory_, cache, policy);
    copy->fitted_ = fitted_;
    copy->ring_ = ring_.clone(policy);
    copy->moments_ = moments_.clone(policy);
    copy->queries_ = queries_;
    copy->next_query_ = next_query_;
    copy->sums_stride_ = sums_stride_;
    copy->notes_ = notes_.clone(policy);
    for (int tier = 0; tier < tiers(); ++tier) {
        copy->side_[tier] = side_[tier].clone(cache);
    }
    for (int g = 0; g < kv_heads_; ++g) {
        for (int tier = 0; tier < tiers(); ++tier) {
            copy->at(g, tier) = span(g, tier).clone(&copy->layouts_[tier], cache);
        }
        copy->sums_[g] = sums_[g].clone(policy);
    }
    return copy;
}

}  // namespace winnow
