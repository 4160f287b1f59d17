// The kept tokens of one kv head of one layer, as stored.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cache/format.h"
#include "core/memory.h"

namespace winnow {

class Archive;  // core/archive.h

/// How a layer stores its spans.
struct SpanLayout {
    FormatSpec spec;
    int head_tokens = 0;              ///< oldest kept tokens that stay f16
    bool exact_room = false;          ///< buffers hold what is used and no more
    int residual_length = 0;          ///< newest tokens that stay f16 when a prompt is packed
    const RopeTable* rope = nullptr;  ///< of the model; outlives the span

    /// Tokens the tail may hold: when one more arrives, the oldest group is packed.
    int tail_capacity() const {
        return residual_length + (spec.group_size > 1 ? spec.group_size : 0);
    }
    bool pre_rope() const { return spec.format->pre_rope_keys; }
};

/// Tokens in three regions, oldest first:
///
///     f16 head | packed tiles (whole groups, K and V apart) | f16 tail
///
/// plus the true position of every token, which takes no memory while nothing has been dropped.
/// Rows are post-RoPE in the f16 regions; in the tiles as the format says.
class Span {
  public:
    struct Tile {
        int first = 0;  ///< index of its first token within the packed region
        int tokens = 0;
        std::size_t k_offset = 0, v_offset = 0;
    };

    Span(const SpanLayout* layout, MemoryMeter* meter);

    int tokens() const { return head_ + packed_ + tail_; }
    int head_tokens() const { return head_; }
    int packed_tokens() const { return packed_; }
    int tail_tokens() const { return tail_; }
    std::int32_t position(int index) const {
        return contiguous() ? index : positions_[static_cast<std::size_t>(index)];
    }
    /// Every token since position 0 is held: position(i) is i, and no positions are stored.
    bool contiguous() const { return positions_.empty(); }

    /// Adds tokens given as f16 rows [n][D], post-RoPE, with ascending positions. Fills the head,
    /// then the tail, packing whole groups so that residual_length to tail_capacity() tokens stay.
    void append(const f16* k, const f16* v, const std::int32_t* positions, int n,
                const float* side_data);
    /// Replaces everything by the rows `kept` of k and v: the repacking after an eviction.
    void rebuild(const f16* k, const f16* v, const std::int32_t* positions,
                 std::span<const std::int32_t> kept, const float* side_data);
    /// The rows at `indices` alone, [n][D]; packed ones must be of a format with token_rows.
    void read_rows(std::span<const std::int32_t> indices, f16* k, f16* v, std::int32_t* positions,
                   const float* side_data) const;
    /// Takes the tokens at `indices` (ascending) out; memory shrinks with them. The packed region
    /// must be of a format with token_rows.
    void remove(std::span<const std::int32_t> indices);
    /// All rows as f16 [S][D], K post-RoPE.
    void read(f16* k, f16* v, std::int32_t* positions, const float* side_data) const;

    const f16* head_k() const { return exact_k_.data(); }
    const f16* head_v() const { return exact_v_.data(); }
    const f16* tail_k() const { return exact_k_.data() + head_ * dims(); }
    const f16* tail_v() const { return exact_v_.data() + head_ * dims(); }
    std::span<const Tile> tiles() const { return tiles_; }
    const std::uint8_t* packed_k() const { return packed_k_.data(); }
    const std::uint8_t* packed_v() const { return packed_v_.data(); }

    /// Bytes held, reserved room included: what the allocator gave.
    std::size_t bytes() const;
    std::size_t k_bytes() const { return packed_k_used_; }  ///< of the packed region alone
    std::size_t v_bytes() const { return packed_v_used_; }

    Span clone(const SpanLayout* layout, MemoryMeter* meter) const;

    /// To or from a file. Reading refuses what append() and read() could not have left behind;
    /// positions lie below `end`, and ascend where `ascending`.
    void transfer(Archive& archive, std::int32_t end, bool ascending);

  private:
    std::size_t dims() const { return static_cast<std::size_t>(layout_->spec.head_dim); }
    void reserve_exact(int n);
    void pack_oldest(int count, const float* side_data);
    void pack_tile(const f16* k, const f16* v, int first, int count, const float* side_data);
    void note_positions(const std::int32_t* positions, int n);
    void clear();
    void check(const Archive& archive, std::int32_t end, bool ascending) const;
    void check_tiles(const Archive& archive) const;
    std::size_t row_bytes(Side side) const {
        return layout_->spec.format->bytes(layout_->spec, side, 1);
    }

    const SpanLayout* layout_;
    MemoryMeter* meter_;
    int head_ = 0, packed_ = 0, tail_ = 0;
    Buffer<f16> exact_k_, exact_v_;  // [head + tail room][D]
    Buffer<std::uint8_t> packed_k_, packed_v_;
    std::size_t packed_k_used_ = 0, packed_v_used_ = 0;
    std::vector<Tile> tiles_;
    Buffer<std::int32_t> positions_;  // [room], or empty while contiguous
};

}  // namespace winnow
