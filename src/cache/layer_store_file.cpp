// A layer's store to and from a file: the one place that knows what a file holds of it, and what
// of that may be believed.
#include <algorithm>
#include <cmath>
#include <utility>

#include "cache/layer_store.h"
#include "cache/rows.h"
#include "core/archive.h"
#include "winnow/error.h"

namespace winnow {

namespace {

constexpr int kMostHeads = 4096;
constexpr int kMostTiers = 16;
constexpr int kMostTokens = 1 << 28;

bool is_finite(f16 x) {
    return (x & 0x7C00U) != 0x7C00U;
}

bool all_finite(const float* x, std::size_t n) {
    return std::all_of(x, x + n, [](float value) { return std::isfinite(value); });
}

void transfer_spec(Archive& archive, FormatSpec& spec) {
    std::string name = spec.format != nullptr ? spec.format->name : "";
    archive.text(name);
    for (int* field : {&spec.head_dim, &spec.bits_k, &spec.bits_v, &spec.group_size, &spec.key_axis,
                       &spec.value_axis}) {
        archive.value(*field);
    }
    archive.value(spec.outlier_threshold);
    if (!archive.reading()) {
        return;
    }
    try {
        spec.format = &find_format(name);
        if (spec.outlier_threshold > 0.0F && spec.format->with_outliers != nullptr) {
            spec.format = spec.format->with_outliers;
        }
        FormatSpec shape = spec;
        shape.group_size = std::max(8, spec.group_size);  // token by token where it is 1
        check_shape(shape);
        archive.need(spec.group_size == shape.group_size || spec.group_size == 1,
                     "a group size is impossible");
        if (spec.format->check != nullptr) {
            spec.format->check(spec);
        }
    } catch (const Error& error) {
        if (error.kind() == ErrorKind::usage) {
            archive.refuse(std::string("it names a format that cannot be: ") + error.what());
        }
        throw;
    }
}

auto spec_fields(const SpanLayout& l) {
    return std::tuple(l.spec.format, l.spec.head_dim, l.spec.bits_k, l.spec.bits_v,
                      l.spec.group_size, l.spec.key_axis, l.spec.value_axis,
                      l.spec.outlier_threshold, l.head_tokens, l.exact_room, l.residual_length);
}

auto memory_fields(const LayerMemory& m) {
    return std::tuple(m.window, m.column_sums, m.one_row, m.largest, m.moments, m.moments_skip,
                      m.decode_squares, m.exact_room, m.release_ring, m.notes);
}

}  // namespace

void StoreShape::transfer(Archive& archive) {
    std::size_t count = archive.count(tiers.size(), 1);
    archive.need(count >= 1 && count <= kMostTiers, "a layer has no tiers, or too many");
    archive.value(kv_heads);
    archive.value(query_heads);
    archive.need(kv_heads >= 1 && kv_heads <= kMostHeads && query_heads >= kv_heads &&
                     query_heads <= kMostHeads && query_heads % kv_heads == 0,
                 "its numbers of heads are impossible");
    tiers.resize(count);
    for (SpanLayout& tier : tiers) {
        transfer_spec(archive, tier.spec);
        archive.value(tier.head_tokens);
        archive.value(tier.exact_room);
        archive.value(tier.residual_length);
        archive.need(tier.head_tokens >= 0 && tier.head_tokens <= kMostTokens &&
                         tier.residual_length >= 0 && tier.residual_length <= kMostTokens &&
                         tier.spec.head_dim == tiers[0].spec.head_dim,
                     "a tier's layout is impossible");
    }
    for (int* field : {&memory.window, &memory.moments_skip, &memory.notes}) {
        archive.value(*field);
        archive.need(*field >= 0 && *field <= kMostTokens, "a method's memory is impossible");
    }
    for (bool* field : {&memory.column_sums, &memory.one_row, &memory.largest, &memory.moments,
                        &memory.decode_squares, &memory.exact_room, &memory.release_ring}) {
        archive.value(*field);
    }
    // What a fresh store takes at once must be in the file.
    const auto dims = static_cast<double>(tiers[0].spec.head_dim);
    double fresh = 4.0 * memory.notes;
    fresh += memory.release_ring ? 0.0 : 2.0 * memory.window * query_heads * dims;
    fresh += memory.moments ? 2.0 * query_heads * dims * dims : 0.0;
    for (const SpanLayout& tier : tiers) {
        if (tier.spec.format->side_floats != nullptr && !tier.spec.format->side_per_head) {
            fresh += 4.0 * tier.spec.format->side_floats(tier.spec);
        }
    }
    archive.need(!archive.reading() || fresh <= static_cast<double>(archive.left()),
                 "a method's memory is larger than the file");
}

std::string StoreShape::difference(const StoreShape& other) const {
    if (kv_heads != other.kv_heads || query_heads != other.query_heads) {
        return "the numbers of heads";
    }
    if (!std::ranges::equal(tiers, other.tiers, {}, spec_fields, spec_fields)) {
        return "how tokens are stored";
    }
    return memory_fields(memory) == memory_fields(other.memory) ? "" : "what the method remembers";
}

void Span::transfer(Archive& archive, std::int32_t end, bool ascending) {
    archive.value(head_);
    archive.value(packed_);
    archive.value(tail_);
    archive.buffer(exact_k_);
    archive.buffer(exact_v_);
    archive.buffer(packed_k_);
    archive.buffer(packed_v_);
    const auto transfer_size = [&](std::size_t& size) {
        std::uint64_t number = size;
        archive.value(number);
        size = static_cast<std::size_t>(number);
    };
    transfer_size(packed_k_used_);
    transfer_size(packed_v_used_);
    tiles_.resize(archive.count(tiles_.size(), 4));
    std::size_t k_offset = 0, v_offset = 0;
    int first = 0;
    for (Tile& tile : tiles_) {
        // Where tiles begin follows from the ones before.
        std::uint64_t k = tile.k_offset, v = tile.v_offset;
        archive.value(tile.tokens);
        archive.value(k);
        archive.value(v);
        archive.need(tile.tokens > 0 && tile.tokens <= kMostTokens && first <= kMostTokens &&
                         k >= k_offset && v >= v_offset && k <= packed_k_.size() &&
                         v <= packed_v_.size(),
                     "a tile lies where none can");
        tile.first = first;
        tile.k_offset = k_offset = static_cast<std::size_t>(k);
        tile.v_offset = v_offset = static_cast<std::size_t>(v);
        first += tile.tokens;
    }
    archive.buffer(positions_);
    if (archive.reading()) {
        check(archive, end, ascending);
    }
}

void Span::check(const Archive& archive, std::int32_t end, bool ascending) const {
    const int capacity = layout_->tail_capacity();
    archive.need(head_ >= 0 && head_ <= layout_->head_tokens && tail_ >= 0 && tail_ <= capacity &&
                     packed_ >= 0 && packed_ <= kMostTokens,
                 "a span's numbers of tokens are impossible");
    const std::size_t exact = (static_cast<std::size_t>(head_) + tail_) * dims();
    archive.need(exact_k_.size() == exact_v_.size() && exact_k_.size() % dims() == 0 &&
                     exact_k_.size() >= exact,
                 "a span's exact rows are not as many as it says");
    archive.need(std::all_of(exact_k_.data(), exact_k_.data() + exact, is_finite) &&
                     std::all_of(exact_v_.data(), exact_v_.data() + exact, is_finite),
                 "an exact row is not a number");
    check_tiles(archive);
    if (contiguous()) {
        archive.need(tokens() <= end, "it holds more tokens than were seen");
        return;
    }
    archive.need(positions_.size() >= static_cast<std::size_t>(tokens()), "positions are missing");
    for (int i = 0; i < tokens(); ++i) {
        const std::int32_t at = positions_[static_cast<std::size_t>(i)];
        const bool rises = i == 0 || !ascending || at > positions_[static_cast<std::size_t>(i) - 1];
        archive.need(at >= 0 && at < end && rises, "a position is impossible");
    }
}

void Span::check_tiles(const Archive& archive) const {
    const FormatSpec& spec = layout_->spec;
    const Format& format = *spec.format;
    archive.need(packed_k_used_ <= packed_k_.size() && packed_v_used_ <= packed_v_.size(),
                 "a span uses more bytes than it has");
    archive.need(format.tile_tokens != nullptr || tiles_.size() <= 1, "tiles that join are apart");
    const auto sound = [&](Side side, const std::uint8_t* data, std::size_t size, int tokens) {
        return format.tile_is_sound != nullptr
                   ? format.tile_is_sound(spec, side, data, size, tokens)
                   : size == format.bytes(spec, side, tokens);
    };
    int total = 0;
    for (std::size_t i = 0; i < tiles_.size(); ++i) {
        const Tile& tile = tiles_[i];
        const bool last = i + 1 == tiles_.size();
        const std::size_t k_end = last ? packed_k_used_ : tiles_[i + 1].k_offset;
        const std::size_t v_end = last ? packed_v_used_ : tiles_[i + 1].v_offset;
        archive.need((i > 0 || (tile.k_offset == 0 && tile.v_offset == 0)) &&
                         k_end >= tile.k_offset && v_end >= tile.v_offset &&
                         tile.tokens % spec.group_size == 0 &&
                         (format.tile_tokens == nullptr || tile.tokens <= format.tile_tokens(spec)),
                     "a tile's tokens are impossible");
        archive.need(sound(Side::key, packed_k_.data() + tile.k_offset, k_end - tile.k_offset,
                           tile.tokens) &&
                         sound(Side::value, packed_v_.data() + tile.v_offset, v_end - tile.v_offset,
                               tile.tokens),
                     "a tile's bytes do not fit its format");
        total += tile.tokens;
    }
    archive.need(total == packed_ && (packed_ > 0 || packed_k_used_ + packed_v_used_ == 0),
                 "tiles hold other tokens than the span");
}

void QueryMoments::transfer(Archive& archive) {
    const std::size_t size = sums_.size();
    archive.value(count_);
    archive.buffer(sums_);
    archive.need(sums_.size() == size && count_ >= 0 && all_finite(sums_.data(), sums_.size()),
                 "the queries' moments are impossible");
}

void LayerStore::transfer(Archive& archive, std::int32_t end) {
    archive.value(fitted_);
    for (Buffer<float>& side : side_) {
        const std::size_t size = side.size();
        archive.buffer(side);
        archive.need(side.size() == size, "fitted data is missing");
    }
    for (Span& span : spans_) {
        span.transfer(archive, end, tiers() == 1);
    }
    archive.buffer(ring_);
    archive.value(queries_);
    archive.value(next_query_);
    moments_.transfer(archive);
    for (std::size_t g = 0; g < sums_.size(); ++g) {
        std::uint64_t stride = sums_stride_[g];
        archive.value(stride);
        archive.buffer(sums_[g]);
        archive.need(stride <= sums_[g].size() &&
                         sums_[g].size() == stride * static_cast<std::size_t>(sum_rows()),
                     "running sums are missing");
        sums_stride_[g] = static_cast<std::size_t>(stride);
    }
    const std::size_t notes = notes_.size();
    archive.buffer(notes_);
    archive.need(notes_.size() == notes, "a method's notes are missing");
    if (archive.reading()) {
        check(archive);
    }
}

void LayerStore::check(const Archive& archive) const {
    const bool ring = ring_.size() == ring_floats();
    archive.need((ring || (ring_.empty() && memory_.release_ring)) && queries_ >= 0 &&
                     queries_ <= (ring ? memory_.window : 0) && next_query_ >= 0 &&
                     next_query_ < std::max(1, ring ? memory_.window : 0) &&
                     std::all_of(ring_.data(), ring_.data() + ring_.size(), is_finite),
                 "the ring of queries is impossible");
    bool finite = all_finite(notes_.data(), notes_.size());
    for (const Buffer<float>& sums : sums_) {
        finite = finite && all_finite(sums.data(), sums.size());
    }
    archive.need(finite, "a running sum is not a number");
    for (int tier = 0; tier < tiers(); ++tier) {
        const FormatSpec& spec = layouts_[tier].spec;
        int packed = 0;
        for (int g = 0; g < kv_heads_; ++g) {
            packed += span(g, tier).packed_tokens();
            const bool sound = !fitted_ || side_data(g, tier) == nullptr ||
                               spec.format->side_is_sound == nullptr ||
                               spec.format->side_is_sound(spec, side_data(g, tier));
            archive.need(sound, "fitted data is impossible");
        }
        archive.need(fitted_ || packed == 0, "tokens are packed by data that was never fitted");
    }
}

}  // namespace winnow
