#include "cache/span.h"

#include <algorithm>

#include "core/rope.h"
#include "kernels/dense.h"

namespace winnow {

namespace {

// A buffer of another size that never lies beside the old one, so that a byte budget holds while
// it moves.
template <class T>
void resize_in_place(Buffer<T>& buffer, std::size_t size) {
    if (buffer.size() == size || buffer.resizes_in_place(size)) {
        buffer.resize(size);
        return;
    }
    const std::vector<T> content(buffer.data(), buffer.data() + std::min(size, buffer.size()));
    buffer.resize(0);
    buffer.resize(size);
    std::copy(content.begin(), content.end(), buffer.data());
}

// Room is added in steps of a 32nd, so that packing a group seldom copies a long span and the
// reserve stays small; all of it is counted.
template <class T>
void make_room(Buffer<T>& buffer, std::size_t needed, bool exact) {
    if (exact) {
        resize_in_place(buffer, needed);
    } else if (buffer.size() < needed) {
        buffer.resize(buffer.empty() ? needed : needed + needed / 32);
    }
}

// Moves the items whose index is not among `gone` (ascending) together; an item is `width` wide.
template <class T>
void close_gaps(T* items, std::size_t width, int count, std::span<const std::int32_t> gone) {
    std::size_t next = 0;
    int to = 0;
    for (int i = 0; i < count; ++i) {
        if (next < gone.size() && gone[next] == i) {
            ++next;
        } else {
            if (to != i) {
                std::copy_n(items + i * width, width, items + to * width);
            }
            ++to;
        }
    }
}

}  // namespace

Span::Span(const SpanLayout* layout, MemoryMeter* meter)
    : layout_(layout),
      meter_(meter),
      exact_k_(meter, 0, "the cache's f16 rows"),
      exact_v_(meter, 0, "the cache's f16 rows"),
      packed_k_(meter, 0, "the packed cache"),
      packed_v_(meter, 0, "the packed cache"),
      positions_(meter, 0, "the cache's positions") {}

void Span::append(const f16* k, const f16* v, const std::int32_t* positions, int n,
                  const float* side_data) {
    note_positions(positions, n);
    const std::size_t d = dims();
    const int group = layout_->spec.group_size;
    const int capacity = layout_->tail_capacity();
    reserve_exact(n);
    const auto advance = [&](int count) {
        k += count * d;
        v += count * d;
        n -= count;
    };
    const auto take = [&](int count) {  // into the f16 rows, behind what is there
        const std::size_t used = static_cast<std::size_t>(head_ + tail_) * d;
        std::copy_n(k, count * d, exact_k_.data() + used);
        std::copy_n(v, count * d, exact_v_.data() + used);
        advance(count);
    };
    if (packed_ == 0 && tail_ == 0 && head_ < layout_->head_tokens) {
        const int count = std::min(n, layout_->head_tokens - head_);
        take(count);
        head_ += count;
    }
    while (n > 0) {
        if (tail_ == 0 && n > capacity) {  // a prompt: whole groups need no stop in the tail
            const int leaving = (n - layout_->residual_length) / group * group;
            pack_tile(k, v, head_ + packed_, leaving, side_data);
            advance(leaving);
        } else if (tail_ == capacity) {
            pack_oldest(group, side_data);
        } else {
            const int count = std::min(n, capacity - tail_);
            take(count);
            tail_ += count;
        }
    }
}

// Rows are added a few at a time while the tail fills for the first time, so that a short span
// costs about what it holds.
void Span::reserve_exact(int n) {
    const int most = layout_->head_tokens + layout_->tail_capacity();
    const int needed = std::min(most, head_ + tail_ + n);
    if (layout_->exact_room && exact_k_.size() < needed * dims()) {
        resize_in_place(exact_k_, needed * dims());
        resize_in_place(exact_v_, needed * dims());
    } else if (exact_k_.size() < needed * dims()) {
        const int room = std::min(most, exact_k_.empty() ? needed : needed + 8);
        exact_k_.resize(room * dims());
        exact_v_.resize(room * dims());
    }
}

void Span::pack_oldest(int count, const float* side_data) {
    const std::size_t d = dims();
    f16* k = exact_k_.data() + head_ * d;
    f16* v = exact_v_.data() + head_ * d;
    pack_tile(k, v, head_ + packed_, count, side_data);
    tail_ -= count;
    std::copy_n(k + count * d, tail_ * d, k);
    std::copy_n(v + count * d, tail_ * d, v);
}

// `first` is the index of the first row among all tokens of the span.
void Span::pack_tile(const f16* k, const f16* v, int first, int count, const float* side_data) {
    const FormatSpec& spec = layout_->spec;
    const Format& format = *spec.format;
    const int most = format.tile_tokens != nullptr ? format.tile_tokens(spec) : count;
    std::vector<float> rows(static_cast<std::size_t>(std::min(most, count)) * dims());
    for (int done = 0; done < count;) {
        const int n = std::min(most, count - done);
        const auto size = [&](Side side) {
            return format.measure != nullptr ? format.measure(spec, side, rows.data(), n)
                                             : format.bytes(spec, side, n);
        };
        widen(k + done * dims(), rows.data(), n * dims());
        if (layout_->pre_rope()) {
            for (int t = 0; t < n; ++t) {
                layout_->rope->unrotate(rows.data() + t * dims(), position(first + done + t));
            }
        }
        const std::size_t k_bytes = size(Side::key);
        make_room(packed_k_, packed_k_used_ + k_bytes, layout_->exact_room);
        format.pack(spec, Side::key, rows.data(), n, side_data, packed_k_.data() + packed_k_used_);
        widen(v + done * dims(), rows.data(), n * dims());
        const std::size_t v_bytes = size(Side::value);
        make_room(packed_v_, packed_v_used_ + v_bytes, layout_->exact_room);
        format.pack(spec, Side::value, rows.data(), n, side_data,
                    packed_v_.data() + packed_v_used_);
        const bool joins = format.tile_tokens == nullptr && !tiles_.empty();
        if (joins) {
            tiles_.back().tokens += n;
        } else {
            tiles_.push_back({packed_, n, packed_k_used_, packed_v_used_});
        }
        packed_k_used_ += k_bytes;
        packed_v_used_ += v_bytes;
        packed_ += n;
        done += n;
    }
}

void Span::note_positions(const std::int32_t* positions, int n) {
    const int held = tokens();
    const bool gapless = n == 0 || (positions[0] == held && positions[n - 1] == held + n - 1);
    if (contiguous() && gapless) {
        return;
    }
    const std::size_t needed = static_cast<std::size_t>(held + n);
    if (positions_.size() < needed) {
        const bool fresh = positions_.empty();
        if (layout_->exact_room) {
            resize_in_place(positions_, needed);
        } else {
            positions_.resize(fresh ? needed : needed + std::max<std::size_t>(8, needed / 32));
        }
        for (int i = 0; fresh && i < held; ++i) {
            positions_[static_cast<std::size_t>(i)] = i;
        }
    }
    std::copy_n(positions, n, positions_.data() + held);
}

void Span::rebuild(const f16* k, const f16* v, const std::int32_t* positions,
                   std::span<const std::int32_t> kept, const float* side_data) {
    const std::size_t d = dims();
    std::vector<f16> k_rows(kept.size() * d);
    std::vector<f16> v_rows(kept.size() * d);
    std::vector<std::int32_t> kept_positions(kept.size());
    for (std::size_t i = 0; i < kept.size(); ++i) {
        const auto from = static_cast<std::size_t>(kept[i]);
        std::copy_n(k + from * d, d, k_rows.data() + i * d);
        std::copy_n(v + from * d, d, v_rows.data() + i * d);
        kept_positions[i] = positions[from];
    }
    clear();
    append(k_rows.data(), v_rows.data(), kept_positions.data(), static_cast<int>(kept.size()),
           side_data);
}

void Span::remove(std::span<const std::int32_t> indices) {
    if (indices.empty()) {
        return;
    }
    const int held = tokens();
    const std::size_t d = dims();
    std::vector<std::int32_t> exact, packed;  // indices within each region
    int from_head = 0;
    for (const std::int32_t at : indices) {
        if (at >= head_ && at < head_ + packed_) {
            packed.push_back(at - head_);
        } else {
            exact.push_back(at < head_ ? at : at - packed_);
            from_head += at < head_ ? 1 : 0;
        }
    }
    const int left = held - static_cast<int>(indices.size());
    std::vector<std::int32_t> positions(static_cast<std::size_t>(held));
    for (int i = 0; i < held; ++i) {
        positions[static_cast<std::size_t>(i)] = position(i);
    }
    close_gaps(positions.data(), 1, held, indices);
    positions_.resize(0);
    positions_.resize(static_cast<std::size_t>(left));
    std::copy_n(positions.data(), left, positions_.data());
    close_gaps(exact_k_.data(), d, head_ + tail_, exact);
    close_gaps(exact_v_.data(), d, head_ + tail_, exact);
    head_ -= from_head;
    tail_ -= static_cast<int>(exact.size()) - from_head;
    resize_in_place(exact_k_, static_cast<std::size_t>(head_ + tail_) * d);
    resize_in_place(exact_v_, static_cast<std::size_t>(head_ + tail_) * d);
    if (!packed.empty()) {
        close_gaps(packed_k_.data(), row_bytes(Side::key), packed_, packed);
        close_gaps(packed_v_.data(), row_bytes(Side::value), packed_, packed);
        packed_ -= static_cast<int>(packed.size());
        packed_k_used_ = packed_ * row_bytes(Side::key);
        packed_v_used_ = packed_ * row_bytes(Side::value);
        resize_in_place(packed_k_, packed_k_used_);
        resize_in_place(packed_v_, packed_v_used_);
        tiles_.clear();
        if (packed_ > 0) {
            tiles_.push_back({0, packed_, 0, 0});
        }
    }
}

void Span::clear() {
    Span fresh(layout_, meter_);
    *this = std::move(fresh);
}

void Span::read(f16* k, f16* v, std::int32_t* positions, const float* side_data) const {
    const std::size_t d = dims();
    for (int i = 0; i < tokens(); ++i) {
        positions[i] = position(i);
    }
    std::copy_n(head_k(), head_ * d, k);
    std::copy_n(head_v(), head_ * d, v);
    // A stretch of tokens at a time bounds the scratch where tiles are long runs.
    const FormatSpec& spec = layout_->spec;
    const int step =
        spec.format->tile_tokens != nullptr ? spec.format->tile_tokens(spec) : 8 * spec.group_size;
    std::vector<float> rows(static_cast<std::size_t>(step) * d);
    for (const Tile& tile : tiles_) {
        for (int done = 0; done < tile.tokens; done += step) {
            const int n = std::min(step, tile.tokens - done);
            const std::size_t at = static_cast<std::size_t>(head_ + tile.first + done);
            TileView view{.tokens = n,
                          .side_data = side_data,
                          .positions = positions + at,
                          .rope = layout_->rope};
            view.data =
                packed_k_.data() + tile.k_offset + spec.format->bytes(spec, Side::key, done);
            spec.format->unpack(spec, Side::key, view, rows.data());
            if (layout_->pre_rope()) {
                for (int t = 0; t < n; ++t) {
                    layout_->rope->rotate(rows.data() + t * d, positions[at + t]);
                }
            }
            narrow(rows.data(), k + at * d, n * d);
            view.data =
                packed_v_.data() + tile.v_offset + spec.format->bytes(spec, Side::value, done);
            spec.format->unpack(spec, Side::value, view, rows.data());
            narrow(rows.data(), v + at * d, n * d);
        }
    }
    const std::size_t at = static_cast<std::size_t>(head_ + packed_) * d;
    std::copy_n(tail_k(), tail_ * d, k + at);
    std::copy_n(tail_v(), tail_ * d, v + at);
}

void Span::read_rows(std::span<const std::int32_t> indices, f16* k, f16* v, std::int32_t* positions,
                     const float* side_data) const {
    const std::size_t d = dims();
    const FormatSpec& spec = layout_->spec;
    std::vector<float> row(d);
    for (const std::int32_t at : indices) {
        *positions = position(at);
        if (at >= head_ && at < head_ + packed_) {
            TileView view{
                .tokens = 1, .side_data = side_data, .positions = positions, .rope = layout_->rope};
            view.data = packed_k_.data() + (at - head_) * row_bytes(Side::key);
            spec.format->unpack(spec, Side::key, view, row.data());
            if (layout_->pre_rope()) {
                layout_->rope->rotate(row.data(), *positions);
            }
            narrow(row.data(), k, d);
            view.data = packed_v_.data() + (at - head_) * row_bytes(Side::value);
            spec.format->unpack(spec, Side::value, view, row.data());
            narrow(row.data(), v, d);
        } else {
            const std::size_t exact = static_cast<std::size_t>(at < head_ ? at : at - packed_);
            std::copy_n(exact_k_.data() + exact * d, d, k);
            std::copy_n(exact_v_.data() + exact * d, d, v);
        }
        k += d;
        v += d;
        ++positions;
    }
}

std::size_t Span::bytes() const {
    return exact_k_.bytes() + exact_v_.bytes() + packed_k_.bytes() + packed_v_.bytes() +
           positions_.bytes();
}

Span Span::clone(const SpanLayout* layout, MemoryMeter* meter) const {
    Span copy(layout, meter);
    copy.head_ = head_;
    copy.packed_ = packed_;
    copy.tail_ = tail_;
    copy.exact_k_ = exact_k_.clone(meter);
    copy.exact_v_ = exact_v_.clone(meter);
    copy.packed_k_ = packed_k_.clone(meter);
    copy.packed_v_ = packed_v_.clone(meter);
    copy.packed_k_used_ = packed_k_used_;
    copy.packed_v_used_ = packed_v_used_;
    copy.tiles_ = tiles_;
    copy.positions_ = positions_.clone(meter);
    return copy;
}

}  // namespace winnow
