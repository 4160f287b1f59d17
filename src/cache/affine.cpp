#include "cache/affine.h"

#include <algorithm>
#include <vector>

#include "cache/code_pack.h"
#include "cache/rows.h"
#include "kernels/packed.h"
#include "kernels/restore.h"

namespace winnow {
namespace {

using Size = std::size_t;

// Where the parts of one block of group_size tokens lie.
struct Block {
    Side side;
    int head_dim;
    int bits;
    int group;  // tokens per block, and tokens or channels per scale
    int axis;
    int rows, lanes;  // of the panel of codes
    Size scales;      // scales per block
    Size bytes;

    Block(const FormatSpec& spec, Side which)
        : side(which),
          head_dim(spec.head_dim),
          bits(bits_of(spec, which)),
          group(spec.group_size),
          axis(which == Side::key ? spec.key_axis : spec.value_axis),
          rows(which == Side::key ? head_dim : group),
          lanes(which == Side::key ? group : head_dim) {
        const Size d = static_cast<Size>(head_dim);
        scales = axis == 0 ? d : d / static_cast<Size>(group) * static_cast<Size>(group);
        bytes = 4 * scales + packed_bytes(bits, head_dim * group);
    }
    Size codes() const { return 4 * scales; }
    int channel_groups() const { return head_dim / group; }  // axis 1 only
    // Where the code of a token and a channel lies in an unpacked panel.
    Size at(int token, int channel) const {
        return side == Side::key ? static_cast<Size>(channel) * static_cast<Size>(group) + token
                                 : static_cast<Size>(token) * static_cast<Size>(head_dim) + channel;
    }
};

// The unpacked codes of a block, in this thread's memory.
std::uint8_t* code_scratch(const Block& block) {
    thread_local std::vector<std::uint8_t> memory;
    const Size size = static_cast<Size>(block.rows) * static_cast<Size>(block.lanes);
    if (memory.size() < size) memory.resize(size);
    return memory.data();
}

const std::uint8_t* unpacked(const Block& block, const std::uint8_t* data) {
    std::uint8_t* codes = code_scratch(block);
    unpack_panel(block.bits, data + block.codes(), block.rows, block.lanes, codes);
    return codes;
}

float clamped(float x) {
    return std::clamp(x, -kF16Max, kF16Max);
}

// Scales and zeros of a block as floats, the zeros turned into what is added to code * s.
void load_scales(const Block& block, AffineZero kind, const std::uint8_t* data, float* scale,
                 float* zero) {
    const int count = static_cast<int>(block.scales);
    floats_from_f16(data, count, scale);
    floats_from_f16(data + 2 * block.scales, count, zero);
    if (kind != AffineZero::code) return;
    for (int i = 0; i < count; ++i) zero[i] *= -scale[i];
}

void pack_channels(const Block& block, GroupSolver solve, const float* rows, std::uint8_t* codes,
                   std::uint8_t* out) {
    float x[kMaxGroupSize];
    std::uint8_t group_codes[kMaxGroupSize];
    for (int c = 0; c < block.head_dim; ++c) {
        for (int t = 0; t < block.group; ++t) x[t] = clamped(rows[t * block.head_dim + c]);
        f16 scale, zero;
        solve(x, block.group, block.bits, scale, zero, group_codes);
        store_f16(out + 2 * c, scale);
        store_f16(out + 2 * (block.head_dim + c), zero);
        for (int t = 0; t < block.group; ++t) codes[block.at(t, c)] = group_codes[t];
    }
}

void pack_tokens(const Block& block, GroupSolver solve, const float* rows, std::uint8_t* codes,
                 std::uint8_t* out) {
    float x[kMaxGroupSize];
    std::uint8_t group_codes[kMaxGroupSize];
    const int group = block.group;
    for (int t = 0; t < group; ++t) {
        for (int g = 0; g < block.channel_groups(); ++g) {
            const float* row = rows + t * block.head_dim + g * group;
            for (int c = 0; c < group; ++c) x[c] = clamped(row[c]);
            f16 scale, zero;
            solve(x, group, block.bits, scale, zero, group_codes);
            store_f16(out + 2 * (g * group + t), scale);
            store_f16(out + 2 * block.scales + 2 * (g * group + t), zero);
            for (int c = 0; c < group; ++c) codes[block.at(t, g * group + c)] = group_codes[c];
        }
    }
}

// A block as rows [n][D].
void restore(const Block& block, AffineZero kind, const std::uint8_t* data, float* rows) {
    float* scale = thread_scratch(2 * block.scales);
    float* zero = scale + block.scales;
    load_scales(block, kind, data, scale, zero);
    if (block.axis == 0 && block.side == Side::key) {  // a row of the panel is a channel
        thread_local std::vector<float> turned;
        turned.resize(static_cast<Size>(block.rows) * static_cast<Size>(block.lanes));
        restore_panel(data + block.codes(), block.bits, block.rows, block.lanes, scale, zero,
                      turned.data());
        return transpose(turned.data(), block.rows, block.lanes, rows);
    }
    const std::uint8_t* codes = unpacked(block, data);
    const Size step = block.at(0, 1);
    const int run = block.axis == 0 ? block.head_dim : block.group;  // channels read alike
    for (int t = 0; t < block.group; ++t) {
        for (int c = 0; c < block.head_dim; c += run) {
            const std::uint8_t* code = codes + block.at(t, c);
            float* row = rows + t * block.head_dim + c;
            for (int i = 0; i < run; ++i) {
                const int at = block.axis == 0 ? i : c + t;
                row[i] = static_cast<float>(code[i * step]) * scale[at] + zero[at];
            }
        }
    }
}

float* restored(const Block& block, AffineZero kind, const std::uint8_t* data) {
    thread_local std::vector<float> memory;
    const Size size = static_cast<Size>(block.rows) * static_cast<Size>(block.lanes);
    if (memory.size() < size) memory.resize(size);
    restore(block, kind, data, memory.data());
    return memory.data();
}

}  // namespace

AffineBlocks affine_blocks(const FormatSpec& spec, Side side, AffineZero zero,
                           const TileView& tile) {
    require_whole_groups(spec, tile.tokens);
    const Block block(spec, side);
    return {.data = tile.data,
            .block_bytes = block.bytes,
            .blocks = tile.tokens / spec.group_size,
            .group = spec.group_size,
            .head_dim = spec.head_dim,
            .bits = block.bits,
            .axis = block.axis,
            .zero_in_codes = zero == AffineZero::code,
            .centred = zero == AffineZero::centred};
}

void solve_min_max(const float* x, int count, int bits, f16& scale, f16& zero,
                   std::uint8_t* codes) {
    const auto [low, high] = std::minmax_element(x, x + count);
    const float top = static_cast<float>((1 << bits) - 1);
    scale = f32_to_f16((*high - *low) / top);
    zero = f32_to_f16(*low);
    const float s = f16_to_f32(scale), z = f16_to_f32(zero);
    if (s == 0.0F) {
        std::fill(codes, codes + count, std::uint8_t{0});
        return;
    }
    for (int i = 0; i < count; ++i) {
        const float code = std::clamp((x[i] - z) / s, 0.0F, top);
        codes[i] = static_cast<std::uint8_t>(static_cast<int>(code + 0.5F));
    }
}

void affine_check(const FormatSpec& spec) {
    check_shape(spec);
    check_bits(spec, {2, 3, 4, 8, 16});
    check_axes(spec);
    check_no_outliers(spec);
}

std::size_t affine_bytes(const FormatSpec& spec, Side side, int tokens) {
    if (bits_of(spec, side) == 16) return f16_rows_bytes(spec, tokens);
    require_whole_groups(spec, tokens);
    return Block(spec, side).bytes * static_cast<Size>(tokens / spec.group_size);
}

void affine_pack(const FormatSpec& spec, Side side, GroupSolver solve, const float* rows,
                 int tokens, std::uint8_t* out) {
    if (bits_of(spec, side) == 16) return f16_rows_pack(spec, side, rows, tokens, out);
    require_whole_groups(spec, tokens);
    require_no_nan(spec, side, rows, tokens);
    const Block block(spec, side);
    std::uint8_t* codes = code_scratch(block);
    for (int t = 0; t < tokens; t += block.group, out += block.bytes) {
        const float* first = rows + static_cast<Size>(t) * static_cast<Size>(block.head_dim);
        (block.axis == 0 ? pack_channels : pack_tokens)(block, solve, first, codes, out);
        pack_panel(block.bits, codes, block.rows, block.lanes, out + block.codes());
    }
}

void affine_unpack(const FormatSpec& spec, Side side, AffineZero zero_kind, const TileView& tile,
                   float* rows) {
    if (bits_of(spec, side) == 16) return f16_rows_unpack(spec, tile, rows);
    require_whole_groups(spec, tile.tokens);
    const Block block(spec, side);
    const std::uint8_t* data = tile.data;
    for (int t = 0; t < tile.tokens; t += block.group, data += block.bytes) {
        restore(block, zero_kind, data, rows + t * block.head_dim);
    }
}

float affine_value(const FormatSpec& spec, Side side, AffineZero zero_kind,
                   const std::uint8_t* tile, int token, int channel) {
    const Block block(spec, side);
    const int t = token % block.group;
    const std::uint8_t* data = tile + block.bytes * static_cast<Size>(token / block.group);
    const bool per_channel = block.axis == 0;
    const int at = per_channel ? channel : channel / block.group * block.group + t;
    const float scale = f16_to_f32(load_f16(data + 2 * at));
    const float zero = f16_to_f32(load_f16(data + 2 * block.scales + 2 * at));
    const bool key = side == Side::key;
    const auto code = static_cast<float>(panel_code(block.bits, data + block.codes(), block.lanes,
                                                    key ? channel : t, key ? t : channel));
    return zero_kind == AffineZero::value ? code * scale + zero : (code - zero) * scale;
}

void affine_dot_k_reference(const FormatSpec& spec, AffineZero zero, const TileView& tile,
                            const float* q, int heads, float* scores, std::size_t stride) {
    if (spec.bits_k == 16) return f16_rows_dot_k_reference(spec, tile, q, heads, scores, stride);
    require_whole_groups(spec, tile.tokens);
    const Block block(spec, Side::key);
    const int d = block.head_dim;
    const std::uint8_t* data = tile.data;
    for (int first = 0; first < tile.tokens; first += block.group, data += block.bytes) {
        const float* rows = restored(block, zero, data);
        for (int t = 0; t < block.group; ++t) {
            for (int r = 0; r < heads; ++r) {
                scores[static_cast<Size>(r) * stride + static_cast<Size>(first + t)] =
                    dot(q + r * d, rows + t * d, d);
            }
        }
    }
}

void affine_add_v_reference(const FormatSpec& spec, AffineZero zero, const TileView& tile,
                            const float* weights, std::size_t stride, int heads, float* out) {
    if (spec.bits_v == 16) return f16_rows_add_v_reference(spec, tile, weights, stride, heads, out);
    require_whole_groups(spec, tile.tokens);
    const Block block(spec, Side::value);
    const int d = block.head_dim;
    const std::uint8_t* data = tile.data;
    for (int first = 0; first < tile.tokens; first += block.group, data += block.bytes) {
        const float* rows = restored(block, zero, data);
        for (int t = 0; t < block.group; ++t) {
            for (int r = 0; r < heads; ++r) {
                const Size at = static_cast<Size>(r) * stride + static_cast<Size>(first + t);
                add_scaled(weights[at], rows + t * d, d, out + r * d);
            }
        }
    }
}

void affine_dot_k(const FormatSpec& spec, AffineZero zero, const TileView& tile, const float* q,
                  int heads, float* scores, std::size_t stride) {
    if (spec.bits_k == 16) return f16_rows_dot_k(spec, tile, q, heads, scores, stride);
    affine_dot_rows(affine_blocks(spec, Side::key, zero, tile), q, heads, scores, stride);
}

void affine_add_v(const FormatSpec& spec, AffineZero zero, const TileView& tile,
                  const float* weights, std::size_t stride, int heads, float* out) {
    if (spec.bits_v == 16) return f16_rows_add_v(spec, tile, weights, stride, heads, out);
    affine_add_rows(affine_blocks(spec, Side::value, zero, tile), weights, stride, heads, out);
}

}  // namespace winnow
