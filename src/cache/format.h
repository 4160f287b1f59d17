// The contract of a storage format: one file in formats/ defines one `const Format`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "core/f16.h"

namespace winnow {

class RopeTable;  // core/rope.h

/// A format's settings for one layer after defaults have been filled in.
struct FormatSpec {
    const struct Format* format = nullptr;
    int head_dim = 0;  ///< D
    int bits_k = 16;   ///< 16 means f16, for K and V apart
    int bits_v = 16;
    int group_size = 32;  ///< tokens (axis 0) or channels (axis 1) that share scale and zero
    int key_axis = 0;     ///< 0: per channel, a group runs over tokens; 1: per token
    int value_axis = 1;
    float outlier_threshold =
        0.0F;  ///< abs(x) above it is stored exactly; 0: the format's own rule
};

enum class Side { key, value };

/// One tile: `tokens` tokens of one kv head, as stored. A view into a span.
struct TileView {
    const std::uint8_t* data = nullptr;
    int tokens = 0;
    const float* side_data = nullptr;         ///< the layer's fitted data (codebooks), or null
    const std::int32_t* positions = nullptr;  ///< [tokens]; read by pre-RoPE key formats only
    const RopeTable* rope = nullptr;          ///< likewise
};

/// Tokens are stored in tiles of whole groups (multiples of group_size). A tile of n tokens takes
/// exactly bytes(spec, side, n) bytes, or what measure() says. Where tile_tokens is null, tiles
/// laid end to end read as one longer tile, so kernels are given long runs. All functions are pure
/// and thread-safe.
struct Format {
    const char* name;
    const char* paper;       ///< arXiv id, or ""
    const char* summary;     ///< one line for `winnow methods`
    const char* departures;  ///< where it differs from the paper or its official code, or ""
    int default_key_axis = 0;
    int default_value_axis = 1;
    bool pre_rope_keys = false;  ///< keys reach pack() before RoPE; dot_k applies RoPE as it reads
    int exact_head = 0;          ///< tokens at the start of a span that must stay f16
    int default_bits = 4;
    /// Tiles are independent rows, one per token: tokens may be added and taken out one at a time.
    bool token_rows = false;
    /// side_floats and fit() are of one kv head, not of all heads of a layer together.
    bool side_per_head = false;
    /// fit() finds in the first D floats of its side data the squares of the kv head's queries
    /// (post-RoPE), summed per channel over the prompt so far; zeros where none are known. Where
    /// pre_rope_keys, both channels of a pair that RoPE turns have the pair's mean.
    bool query_energy = false;

    /// Throws a usage Error naming the flag when the settings do not fit (bits outside the set,
    /// a group that does not divide head_dim, an axis that is not 0 or 1).
    void (*check)(const FormatSpec& spec) = nullptr;
    /// The most tokens one tile may hold; null: any number, and tiles can be joined.
    int (*tile_tokens)(const FormatSpec& spec) = nullptr;
    std::size_t (*bytes)(const FormatSpec& spec, Side side, int tokens) = nullptr;
    /// Bytes of a tile of just these rows [tokens][D], where that depends on their numbers; bytes()
    /// is then the least. Needs tile_tokens. Null: bytes().
    std::size_t (*measure)(const FormatSpec& spec, Side side, const float* rows,
                           int tokens) = nullptr;
    /// What stands in for this format where outlier_threshold is set; null: check() decides.
    const Format* with_outliers = nullptr;

    /// Floats of fitted data per layer; null or 0: none. Counted in the cache's bytes.
    int (*side_floats)(const FormatSpec& spec) = nullptr;
    /// Fits that data on the tokens that will be packed: rows [n][D] of K (before RoPE if
    /// pre_rope_keys) and of V, over all kv heads.
    void (*fit)(const FormatSpec& spec, std::span<const float> k, std::span<const float> v,
                float* side_data) = nullptr;

    /// Whether tiles and side data [side_floats] that come out of a file can be read without harm:
    /// what they hold beside codes and scales points to where it may. Null: any bytes can.
    bool (*tile_is_sound)(const FormatSpec& spec, Side side, const std::uint8_t* data,
                          std::size_t size, int tokens) = nullptr;
    bool (*side_is_sound)(const FormatSpec& spec, const float* side_data) = nullptr;

    /// Packs `tokens` rows [tokens][D]. abs(x) > 65504 is clamped; NaN throws a failure Error.
    void (*pack)(const FormatSpec& spec, Side side, const float* rows, int tokens,
                 const float* side_data, std::uint8_t* out) = nullptr;
    /// The definition of right: what the tile means, rows [tokens][D]. Keys of a pre-RoPE format
    /// come back before RoPE.
    void (*unpack)(const FormatSpec& spec, Side side, const TileView& tile, float* rows) = nullptr;

    /// scores[r][t] = q[r] . k[t] for the R query heads of the group; q is [R][D] (post-RoPE,
    /// already scaled), scores rows are `stride` apart.
    void (*dot_k)(const FormatSpec& spec, const TileView& tile, const float* q, int heads,
                  float* scores, std::size_t stride) = nullptr;
    /// out[r] += sum over t of weights[r][t] * v[t]; out is [R][D].
    void (*add_v)(const FormatSpec& spec, const TileView& tile, const float* weights,
                  std::size_t stride, int heads, float* out) = nullptr;
};

/// Every format of formats/, in name order; the table is generated by CMake.
std::span<const Format* const> formats();

/// The format called `name`; throws a usage Error that offers the nearest name.
const Format& find_format(const std::string& name);

}  // namespace winnow
