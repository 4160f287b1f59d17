// Where things lie in a tile of kvquant, which formats/kvquant.cpp draws, and its exact keys by
// blocks of tokens.
#pragma once

#include <algorithm>
#include <vector>

#include "cache/code_pack.h"
#include "cache/format.h"
#include "cache/rows.h"

namespace winnow::kvquant {

using Size = std::size_t;

inline constexpr int kMaxTileTokens = 512;
inline constexpr int kUnused = 0xFFFF;  ///< the place of a slot that holds nothing

// Where the parts of one tile lie.
struct Layout {
    int head_dim, bits, group, tokens;
    int vectors, length, slots, place_bytes;
    Size codes, values, places, bytes;

    Layout(const FormatSpec& spec, Side side, int tile_tokens)
        : head_dim(spec.head_dim),
          bits(bits_of(spec, side)),
          group(spec.group_size),
          tokens(tile_tokens),
          vectors(side == Side::key ? head_dim : tokens),
          length(side == Side::key ? tokens : head_dim),
          slots((length + 99) / 100),
          place_bytes(length < 256 ? 1 : 2) {
        const Size entries = static_cast<Size>(vectors) * static_cast<Size>(slots);
        codes = 4 * static_cast<Size>(vectors);
        values = codes + packed_bytes(bits, head_dim) * static_cast<Size>(tokens);
        places = values + sizeof(f16) * entries;
        bytes = places + static_cast<Size>(place_bytes) * entries;
    }
    // The codes of one channel in one block of keys, and of one token of values.
    Size key_run(int block, int channel) const {
        return codes + packed_bytes(bits, group) * static_cast<Size>(block * head_dim + channel);
    }
    Size value_run(int token) const {
        return codes + packed_bytes(bits, head_dim) * static_cast<Size>(token);
    }
    int place(const std::uint8_t* tile, int vector, int slot) const {
        const std::uint8_t* at = tile + places + place_bytes * (vector * slots + slot);
        if (place_bytes == 1) return *at == 0xFF ? kUnused : *at;
        return load_f16(at);
    }
    float exact(const std::uint8_t* tile, int vector, int slot) const {
        return f16_to_f32(load_f16(tile + values + 2 * (vector * slots + slot)));
    }
};

// The exact values of a tile of keys, those of block b at first[b] .. first[b + 1].
struct ExactKeys {
    struct Entry {
        std::uint16_t channel, token;  // of the block
        float value;
    };
    std::vector<Entry> entries;
    std::vector<int> first;
    std::vector<float> values;
    std::uint8_t block_of[kMaxTileTokens];  // of a token: no division per value

    void sort(const Layout& layout, const std::uint8_t* tile) {
        for (int t = 0, block = 0; t < layout.tokens; t += layout.group, ++block) {
            std::fill_n(block_of + t, layout.group, static_cast<std::uint8_t>(block));
        }
        const Size count = static_cast<Size>(layout.vectors) * static_cast<Size>(layout.slots);
        values.resize(count);
        entries.resize(count);
        floats_from_f16(tile + layout.values, static_cast<int>(count), values.data());
        first.assign(static_cast<Size>(layout.tokens / layout.group) + 2, 0);
        each(layout, tile, [&](int block, int, int, float) { ++first[block + 2]; });
        for (Size b = 2; b < first.size(); ++b) first[b] += first[b - 1];
        // first[b + 1] moves from the start of block b to its end.
        each(layout, tile, [&](int block, int channel, int token, float value) {
            entries[static_cast<Size>(first[block + 1]++)] = {
                static_cast<std::uint16_t>(channel), static_cast<std::uint16_t>(token), value};
        });
    }

  private:
    template <class Use>
    void each(const Layout& layout, const std::uint8_t* tile, const Use& use) const {
        for (int c = 0; c < layout.vectors; ++c) {
            for (int slot = 0; slot < layout.slots; ++slot) {
                const int place = layout.place(tile, c, slot);
                if (place == kUnused) break;
                const int block = block_of[place];
                use(block, c, place - block * layout.group,
                    values[static_cast<Size>(c * layout.slots + slot)]);
            }
        }
    }
};

}  // namespace winnow::kvquant
