// KVQuant (2401.18079): keys per channel before RoPE, values per token, non-uniform levels, and
// the ceil(1 %) of largest magnitude of every vector kept exactly (dense and sparse).
//
// A vector is one channel over the tile (K) or one token (V). Its largest values leave first; the
// range [low, high] of the rest gives offset = (low + high) / 2 and scale = (high - low) / 2, both
// f16. code = the nearest level to (x - offset) / scale, x' = offset + scale * level[code]. The
// 2^B levels are the layer's codebook, one for K and one for V, fitted by fit(): the side data.
//
// A tile of T tokens (at most 512; n = group_size, v vectors of length m, u = ceil(m / 100)):
//   offsets [v] f16 | scales [v] f16
//   codes, K: [T/n][D/4] runs of [n][4];  V: [T] runs of [D]   (runs as in cache/code_pack.h)
//   exact values [v][u] f16 | their places in the vector [v][u], ascending
// A place is a byte where m < 256, else two; all ones marks an unused slot, which only
// --outlier-threshold leaves. A side at 16 bits is f16 rows (keys still before RoPE).
#include <winnow/error.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "cache/code_pack.h"
#include "cache/codebook.h"
#include "cache/format.h"
#include "cache/kvquant_tile.h"
#include "cache/rope_keys.h"
#include "cache/rows.h"
#include "core/rope.h"
#include "kernels/level_rows.h"
#include "kernels/packed.h"
#include "kernels/restore.h"

namespace winnow {
namespace {

using kvquant::ExactKeys;
using kvquant::kMaxTileTokens;
using kvquant::kUnused;
using kvquant::Layout;
using kvquant::Size;

static_assert(kMaxHeadDim <= kMaxVector && kMaxTileTokens <= kMaxVector);

constexpr int kFitTokens = 128;  // length of a key vector while fitting
constexpr int kFitSamples = 16384;

// Below 0 every value passes, so all slots are used: the paper's rule.
float threshold_of(const FormatSpec& spec) {
    return spec.outlier_threshold > 0.0F ? spec.outlier_threshold : -1.0F;
}

// x as clamped by the contract: element i of a vector that starts at `rows`, `step` apart.
void gather(const float* rows, int length, int step, float* x) {
    for (int i = 0; i < length; ++i) {
        x[i] = std::clamp(rows[static_cast<Size>(i) * static_cast<Size>(step)], -kF16Max, kF16Max);
    }
}

// Writes everything of vector v but the codes, which go to `codes` [length].
void pack_vector(const Layout& layout, float threshold, const Nearest& nearest, const float* x,
                 int v, std::uint8_t* out, std::uint8_t* codes) {
    const Normal normal = normalise(x, layout.length, layout.slots, threshold);
    store_f16(out + 2 * v, normal.offset);
    store_f16(out + 2 * (layout.vectors + v), normal.scale);
    const float offset = f16_to_f32(normal.offset), scale = f16_to_f32(normal.scale);
    for (int i = 0; i < layout.length; ++i) {
        codes[i] = scale == 0.0F ? nearest(0.0F) : nearest((x[i] - offset) / scale);
    }
    for (int slot = 0; slot < layout.slots; ++slot) {
        const bool used = slot < normal.exact;
        const int place = used ? normal.place[slot] : kUnused;
        const int at = v * layout.slots + slot;
        store_f16(out + layout.values + 2 * at, used ? f32_to_f16(x[place]) : f16{0});
        std::uint8_t* to = out + layout.places + layout.place_bytes * at;
        if (layout.place_bytes == 1) {
            *to = static_cast<std::uint8_t>(place);
        } else {
            store_f16(to, static_cast<f16>(place));
        }
    }
}

int codebook_floats(int bits) {
    return bits < 16 ? 1 << bits : 0;
}

const float* codebook(const FormatSpec& spec, Side side, const float* side_data) {
    if (side_data == nullptr) {
        throw failure("kvquant needs the layer's fitted codebook, but the cache has none.");
    }
    return side == Side::key ? side_data : side_data + codebook_floats(spec.bits_k);
}

void require_tile(const FormatSpec& spec, int tokens) {
    require_whole_groups(spec, tokens);
    if (tokens > kMaxTileTokens) {
        throw failure("kvquant stores tiles of at most " + std::to_string(kMaxTileTokens) +
                      " tokens, but was given " + std::to_string(tokens) + ".");
    }
}

void pack(const FormatSpec& spec, Side side, const float* rows, int tokens, const float* side_data,
          std::uint8_t* out) {
    if (bits_of(spec, side) == 16) return f16_rows_pack(spec, side, rows, tokens, out);
    require_tile(spec, tokens);
    require_no_nan(spec, side, rows, tokens);
    const Layout layout(spec, side, tokens);
    const Nearest nearest(codebook(spec, side, side_data), layout.bits);
    const float threshold = threshold_of(spec);
    const int d = layout.head_dim, group = layout.group;
    float x[kMaxVector];
    std::uint8_t codes[kMaxVector];
    for (int v = 0; v < layout.vectors; ++v) {
        const bool key = side == Side::key;
        gather(key ? rows + v : rows + v * d, layout.length, key ? d : 1, x);
        pack_vector(layout, threshold, nearest, x, v, out, codes);
        if (!key) {
            pack_codes(layout.bits, codes, d, out + layout.value_run(v));
            continue;
        }
        for (int block = 0; block < tokens / group; ++block) {
            pack_codes(layout.bits, codes + block * group, group, out + layout.key_run(block, v));
        }
    }
}

// This thread's, as sorting happens once per call.
ExactKeys& exact_keys(const Layout& layout, const std::uint8_t* tile) {
    thread_local ExactKeys exact;
    exact.sort(layout, tile);
    return exact;
}

// One block of group_size keys, [D][n] and before RoPE.
void restore_keys(const Layout& layout, const float* levels, const std::uint8_t* tile, int block,
                  const ExactKeys& exact, float* keys) {
    const int group = layout.group;
    restore_levels({.data = tile + layout.key_run(block, 0),
                    .step = packed_bytes(layout.bits, group),
                    .runs = layout.head_dim,
                    .count = group,
                    .bits = layout.bits},
                   levels, tile + 2 * layout.vectors, tile, keys);
    for (int i = exact.first[block]; i < exact.first[block + 1]; ++i) {
        const ExactKeys::Entry& entry = exact.entries[i];
        keys[entry.channel * group + entry.token] = entry.value;
    }
}

// `count` tokens of the values from `first` on, [count][D].
void restore_values(const Layout& layout, const float* levels, const std::uint8_t* tile, int first,
                    int count, float* rows) {
    restore_levels({.data = tile + layout.value_run(first),
                    .step = packed_bytes(layout.bits, layout.head_dim),
                    .runs = count,
                    .count = layout.head_dim,
                    .bits = layout.bits},
                   levels, tile + 2 * (layout.vectors + first), tile + 2 * first, rows);
    for (int t = first; t < first + count; ++t, rows += layout.head_dim) {
        for (int slot = 0; slot < layout.slots; ++slot) {
            const int place = layout.place(tile, t, slot);
            if (place == kUnused) break;
            rows[place] = layout.exact(tile, t, slot);
        }
    }
}

void unpack(const FormatSpec& spec, Side side, const TileView& tile, float* rows) {
    if (bits_of(spec, side) == 16) return f16_rows_unpack(spec, tile, rows);
    require_tile(spec, tile.tokens);
    const Layout layout(spec, side, tile.tokens);
    const float* levels = codebook(spec, side, tile.side_data);
    const int d = layout.head_dim, group = layout.group;
    if (side == Side::value) {
        restore_values(layout, levels, tile.data, 0, tile.tokens, rows);
        return;
    }
    float* keys = thread_scratch(static_cast<Size>(d) * static_cast<Size>(group));
    const ExactKeys& exact = exact_keys(layout, tile.data);
    for (int block = 0; block < tile.tokens / group; ++block) {
        restore_keys(layout, levels, tile.data, block, exact, keys);
        transpose(keys, d, group, rows + block * group * d);
    }
}

void dot_k(const FormatSpec& spec, const TileView& tile, const float* q, int heads, float* scores,
           std::size_t stride) {
    const int d = spec.head_dim, group = spec.group_size;
    require_rope(spec, tile);
    if (spec.bits_k == 16) return dot_f16_turned(spec, tile, q, heads, scores, stride);
    require_tile(spec, tile.tokens);
    const Layout layout(spec, Side::key, tile.tokens);
    const float* levels = codebook(spec, Side::key, tile.side_data);
    const Size block_floats = static_cast<Size>(d) * static_cast<Size>(group);
    float* keys = thread_scratch(2 * block_floats);
    float* rows = keys + block_floats;
    const ExactKeys& exact = exact_keys(layout, tile.data);
    for (int first = 0; first < tile.tokens; first += group) {
        restore_keys(layout, levels, tile.data, first / group, exact, keys);
        transpose(keys, d, group, rows);
        dot_turned(*tile.rope, tile.positions + first, group, d, rows, q, heads, scores + first,
                   stride);
    }
}

// out[r] += weight * (exact value - what its code says), for the exact values of a tile.
void add_exact(const Layout& layout, const float* levels, const std::uint8_t* tile,
               const float* offset, const float* scale, const float* exact, const float* weights,
               std::size_t stride, int heads, float* out) {
    for (int t = 0; t < layout.tokens; ++t) {
        const std::uint8_t* run = tile + layout.value_run(t);
        for (int slot = 0; slot < layout.slots; ++slot) {
            const int place = layout.place(tile, t, slot);
            if (place == kUnused) break;
            const int code = run_code(layout.bits, run, layout.head_dim, place);
            const float change =
                exact[t * layout.slots + slot] - offset[t] - scale[t] * levels[code];
            for (int r = 0; r < heads; ++r) {
                out[r * layout.head_dim + place] +=
                    weights[static_cast<Size>(r) * stride + t] * change;
            }
        }
    }
}

// Levels are multiplied as codes are read: weights take their token's scale, and all channels the
// sum of weight times offset.
void add_v(const FormatSpec& spec, const TileView& tile, const float* weights, std::size_t stride,
           int heads, float* out) {
    if (spec.bits_v == 16) return f16_rows_add_v(spec, tile, weights, stride, heads, out);
    require_tile(spec, tile.tokens);
    const Layout layout(spec, Side::value, tile.tokens);
    const float* levels = codebook(spec, Side::value, tile.side_data);
    const int d = layout.head_dim, tokens = tile.tokens, slots = tokens * layout.slots;
    const Size n = static_cast<Size>(tokens);
    float* offset = thread_scratch(n * static_cast<Size>(3 + heads + layout.slots));
    float *scale = offset + n, *shifts = scale + n, *exact = shifts + n;
    float* scaled = exact + slots;  // [R][T]
    floats_from_f16(tile.data, tokens, offset);
    floats_from_f16(tile.data + 2 * n, tokens, scale);
    floats_from_f16(tile.data + layout.values, slots, exact);
    for (int r = 0; r < heads; ++r) {
        const float* w = weights + static_cast<Size>(r) * stride;
        for (Size t = 0; t < n; ++t) {
            scaled[static_cast<Size>(r) * n + t] = w[t] * scale[t];
            shifts[t] = w[t] * offset[t];
        }
        const float shift = sum_of(shifts, tokens);
        for (int i = 0; i < d; ++i) out[r * d + i] += shift;
    }
    add_level_rows({.data = tile.data + layout.value_run(0),
                    .step = packed_bytes(layout.bits, d),
                    .runs = tokens,
                    .count = d,
                    .bits = layout.bits},
                   levels, scaled, n, heads, out);
    add_exact(layout, levels, tile.data, offset, scale, exact, weights, stride, heads, out);
}

// Appends a vector's normalised values, without its exact ones.
void add_samples(const FormatSpec& spec, const float* x, int length, std::vector<float>& samples) {
    const Normal normal = normalise(x, length, (length + 99) / 100, threshold_of(spec));
    const float offset = f16_to_f32(normal.offset), scale = f16_to_f32(normal.scale);
    if (scale == 0.0F) return;
    for (int i = 0; i < length; ++i) {
        if (!normal.is_exact(i)) samples.push_back((x[i] - offset) / scale);
    }
}

// An even subsample of vectors, so that fitting costs the same for any prompt.
void fit_side(const FormatSpec& spec, Side side, std::span<const float> rows, float* levels) {
    const int d = spec.head_dim, n = static_cast<int>(rows.size() / static_cast<Size>(d));
    require_no_nan(spec, side, rows.data(), n);
    std::vector<float> samples;
    float x[kMaxVector];
    if (n > 0 && side == Side::key) {
        const int length = std::min(n, kFitTokens);
        const long chunks = n / length;
        const long count = std::min<long>(chunks * d, std::max(d, kFitSamples / length));
        for (long i = 0; i < count; ++i) {
            const long row = i * chunks / count * length;
            gather(rows.data() + row * d + i % d, length, d, x);
            add_samples(spec, x, length, samples);
        }
    } else if (n > 0) {
        const long count = std::min(n, std::max(1, kFitSamples / d));
        for (long i = 0; i < count; ++i) {
            gather(rows.data() + i * n / count * d, d, 1, x);
            add_samples(spec, x, d, samples);
        }
    }
    fit_codebook(samples, bits_of(spec, side), levels);
}

void fit(const FormatSpec& spec, std::span<const float> k, std::span<const float> v,
         float* side_data) {
    if (spec.bits_k < 16) fit_side(spec, Side::key, k, side_data);
    if (spec.bits_v < 16) {
        fit_side(spec, Side::value, v, side_data + codebook_floats(spec.bits_k));
    }
}

void check(const FormatSpec& spec) {
    check_shape(spec);
    check_bits(spec, {2, 3, 4, 8, 16});
    if (spec.key_axis != 0 || spec.value_axis != 1) {
        throw usage_error("kvquant stores keys per channel and values per token: --key-axis is " +
                          std::to_string(spec.key_axis) + " and must be 0, --value-axis is " +
                          std::to_string(spec.value_axis) + " and must be 1.");
    }
    if (!(spec.outlier_threshold >= 0.0F)) {
        throw usage_error("--outlier-threshold is " + std::to_string(spec.outlier_threshold) +
                          "; it must be 0 (the largest 1 %) or above.");
    }
}

std::size_t bytes(const FormatSpec& spec, Side side, int tokens) {
    if (bits_of(spec, side) == 16) return f16_rows_bytes(spec, tokens);
    require_tile(spec, tokens);
    return tokens == 0 ? 0 : Layout(spec, side, tokens).bytes;
}

// Places ascend inside their vector, and unused slots come last.
bool tile_is_sound(const FormatSpec& spec, Side side, const std::uint8_t* data, std::size_t size,
                   int tokens) {
    if (size != bytes(spec, side, tokens)) return false;
    if (bits_of(spec, side) == 16 || tokens == 0) return true;
    const Layout layout(spec, side, tokens);
    for (int v = 0; v < layout.vectors; ++v) {
        int last = -1;
        for (int slot = 0; slot < layout.slots; ++slot) {
            const int place = layout.place(data, v, slot);
            const bool unused = place == kUnused;
            if (unused ? false : place <= last || place >= layout.length) return false;
            last = place;
        }
    }
    return true;
}

bool side_is_sound(const FormatSpec& spec, const float* side_data) {
    const float* of_v = side_data + codebook_floats(spec.bits_k);
    const float* end = of_v + codebook_floats(spec.bits_v);
    return std::all_of(side_data, end, [](float x) { return std::abs(x) <= kF16Max; }) &&
           std::is_sorted(side_data, of_v) && std::is_sorted(of_v, end);
}

}  // namespace

extern const Format format_kvquant;
const Format format_kvquant{
    .name = "kvquant",
    .paper = "2401.18079",
    .summary = "keys before RoPE, fitted levels, the largest 1 % exact",
    .departures =
        "The codebook is fitted on the prompt itself, or offline by `winnow calibrate`, which "
        "weighs "
        "each number by the squared change of the attention output, from forward passes (official: "
        "the loss's squared gradient). The ceil(1 %) of largest magnitude per vector is exact "
        "(official: 0.5 % at each end), a channel's "
        "vector is a tile of up to 512 tokens. --outlier-threshold keeps at most as many.",
    .default_key_axis = 0,
    .default_value_axis = 1,
    .pre_rope_keys = true,
    .exact_head = 1,
    .check = check,
    .tile_tokens =
        [](const FormatSpec& spec) { return kMaxTileTokens / spec.group_size * spec.group_size; },
    .bytes = bytes,
    .side_floats =
        [](const FormatSpec& spec) {
            return codebook_floats(spec.bits_k) + codebook_floats(spec.bits_v);
        },
    .fit = fit,
    .tile_is_sound = tile_is_sound,
    .side_is_sound = side_is_sound,
    .pack = pack,
    .unpack = unpack,
    .dot_k = dot_k,
    .add_v = add_v,
};

}  // namespace winnow
