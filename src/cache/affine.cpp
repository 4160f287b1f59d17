#include "cache/affine.h"

#include <algorithm>

#include "cache/code_pack.h"
#include "cache/rows.h"
#include "kernels/packed.h"

namespace winnow {
namespace {

using Size = std::size_t;

// Where the parts of one block of group_size tokens lie.
struct Block {
    int head_dim;
    int bits;
    int group;  // tokens per block, and tokens or channels per scale
    int axis;
    Size scales;  // scales per block
    Size run;     // bytes of one run of codes: a channel (axis 0) or a token (axis 1)
    Size bytes;

    Block(const FormatSpec& spec, Side side)
        : head_dim(spec.head_dim),
          bits(bits_of(spec, side)),
          group(spec.group_size),
          axis(side == Side::key ? spec.key_axis : spec.value_axis) {
        const Size d = static_cast<Size>(head_dim);
        scales = axis == 0 ? d : d / static_cast<Size>(group) * static_cast<Size>(group);
        run = packed_bytes(bits, axis == 0 ? group : head_dim);
        bytes = 4 * scales + run * (axis == 0 ? d : static_cast<Size>(group));
    }
    Size codes() const { return 4 * scales; }
    int channel_groups() const { return head_dim / group; }  // axis 1 only
};

float clamped(float x) {
    return std::clamp(x, -kF16Max, kF16Max);
}

// Scales and zeros of a block as floats, the zeros turned into what is added to code * s.
void load_scales(const Block& block, AffineZero kind, const std::uint8_t* data, float* scale,
                 float* zero) {
    const int count = static_cast<int>(block.scales);
    floats_from_f16(data, count, scale);
    floats_from_f16(data + 2 * block.scales, count, zero);
    if (kind == AffineZero::value) return;
    for (int i = 0; i < count; ++i) zero[i] *= -scale[i];
}

void pack_channels(const Block& block, GroupSolver solve, const float* rows, std::uint8_t* out) {
    float x[kMaxGroupSize];
    std::uint8_t codes[kMaxGroupSize];
    const int group = block.group;
    for (int c = 0; c < block.head_dim; ++c) {
        for (int t = 0; t < group; ++t) x[t] = clamped(rows[t * block.head_dim + c]);
        f16 scale, zero;
        solve(x, group, block.bits, scale, zero, codes);
        store_f16(out + 2 * c, scale);
        store_f16(out + 2 * (block.head_dim + c), zero);
        pack_codes(block.bits, codes, group,
                   out + block.codes() + static_cast<Size>(c) * block.run);
    }
}

void pack_tokens(const Block& block, GroupSolver solve, const float* rows, std::uint8_t* out) {
    float x[kMaxGroupSize];
    std::uint8_t codes[kMaxHeadDim];
    const int group = block.group;
    for (int t = 0; t < group; ++t) {
        for (int g = 0; g < block.channel_groups(); ++g) {
            const float* row = rows + t * block.head_dim + g * group;
            for (int c = 0; c < group; ++c) x[c] = clamped(row[c]);
            f16 scale, zero;
            solve(x, group, block.bits, scale, zero, codes + g * group);
            store_f16(out + 2 * (g * group + t), scale);
            store_f16(out + 2 * block.scales + 2 * (g * group + t), zero);
        }
        std::uint8_t* run = out + block.codes() + static_cast<Size>(t) * block.run;
        pack_codes(block.bits, codes, block.head_dim, run);
    }
}

void dot_channels(const Block& block, AffineZero kind, const std::uint8_t* data, const float* q,
                  int heads, float* scores, Size stride) {
    const int d = block.head_dim;
    float scale[kMaxHeadDim], zero[kMaxHeadDim], codes[kMaxGroupSize];
    load_scales(block, kind, data, scale, zero);
    float* scaled = thread_scratch(static_cast<Size>(heads) * static_cast<Size>(d));  // [R][D]
    for (int r = 0; r < heads; ++r) {
        // q.k = sum of (q s) code + q.zero: both factors leave the loop over tokens.
        for (int c = 0; c < d; ++c) scaled[r * d + c] = q[r * d + c] * scale[c];
        float* row = scores + static_cast<Size>(r) * stride;
        std::fill(row, row + block.group, dot(q + r * d, zero, d));
    }
    for (int c = 0; c < d; ++c) {
        const std::uint8_t* run = data + block.codes() + static_cast<Size>(c) * block.run;
        unpack_codes(block.bits, run, block.group, codes);
        for (int r = 0; r < heads; ++r) {
            float* row = scores + static_cast<Size>(r) * stride;
            add_scaled(scaled[r * d + c], codes, block.group, row);
        }
    }
}

void dot_tokens(const Block& block, AffineZero kind, const std::uint8_t* data, const float* q,
                int heads, float* scores, Size stride) {
    const int d = block.head_dim, group = block.group, groups = block.channel_groups();
    const Size sums_count = static_cast<Size>(heads) * static_cast<Size>(groups);
    float* scale = thread_scratch(2 * block.scales + sums_count);
    float* zero = scale + block.scales;
    float* sums = zero + block.scales;  // [R][D/n], q summed over a group
    load_scales(block, kind, data, scale, zero);
    for (int r = 0; r < heads; ++r) {
        for (int g = 0; g < groups; ++g) {
            float sum = 0.0F;
            for (int c = 0; c < group; ++c) sum += q[r * d + g * group + c];
            sums[r * groups + g] = sum;
        }
    }
    float row[kMaxHeadDim];
    for (int t = 0; t < group; ++t) {
        const std::uint8_t* run = data + block.codes() + static_cast<Size>(t) * block.run;
        unpack_codes(block.bits, run, d, row);
        for (int r = 0; r < heads; ++r) {
            float score = 0.0F;
            for (int g = 0; g < groups; ++g) {
                const float product = dot(q + r * d + g * group, row + g * group, group);
                score +=
                    scale[g * group + t] * product + zero[g * group + t] * sums[r * groups + g];
            }
            scores[static_cast<Size>(r) * stride + static_cast<Size>(t)] = score;
        }
    }
}

void add_channels(const Block& block, AffineZero kind, const std::uint8_t* data,
                  const float* weights, Size stride, int heads, float* out) {
    const int d = block.head_dim;
    float scale[kMaxHeadDim], zero[kMaxHeadDim], codes[kMaxGroupSize];
    load_scales(block, kind, data, scale, zero);
    for (int r = 0; r < heads; ++r) {
        const float* w = weights + static_cast<Size>(r) * stride;
        float sum = 0.0F;
        for (int t = 0; t < block.group; ++t) sum += w[t];
        add_scaled(sum, zero, d, out + r * d);
    }
    for (int c = 0; c < d; ++c) {
        const std::uint8_t* run = data + block.codes() + static_cast<Size>(c) * block.run;
        unpack_codes(block.bits, run, block.group, codes);
        for (int r = 0; r < heads; ++r) {
            const float* w = weights + static_cast<Size>(r) * stride;
            out[r * d + c] += scale[c] * dot(w, codes, block.group);
        }
    }
}

// Row t of a per-token block, restored; scale and zero are those of the block, [D/n][n].
void restore_token(const Block& block, const std::uint8_t* data, const float* scale,
                   const float* zero, int t, float* row) {
    const std::uint8_t* run = data + block.codes() + static_cast<Size>(t) * block.run;
    unpack_codes(block.bits, run, block.head_dim, row);
    for (int g = 0; g < block.channel_groups(); ++g) {
        const float s = scale[g * block.group + t], z = zero[g * block.group + t];
        float* x = row + g * block.group;
        for (int c = 0; c < block.group; ++c) x[c] = x[c] * s + z;
    }
}

void add_tokens(const Block& block, AffineZero kind, const std::uint8_t* data, const float* weights,
                Size stride, int heads, float* out) {
    float* scale = thread_scratch(2 * block.scales);
    float* zero = scale + block.scales;
    load_scales(block, kind, data, scale, zero);
    float row[kMaxHeadDim];
    for (int t = 0; t < block.group; ++t) {
        restore_token(block, data, scale, zero, t, row);
        for (int r = 0; r < heads; ++r) {
            const float weight = weights[static_cast<Size>(r) * stride + static_cast<Size>(t)];
            add_scaled(weight, row, block.head_dim, out + r * block.head_dim);
        }
    }
}

AffineBlocks blocks_of(const FormatSpec& spec, Side side, AffineZero zero, const TileView& tile) {
    require_whole_groups(spec, tile.tokens);
    const Block block(spec, side);
    return {.data = tile.data,
            .block_bytes = block.bytes,
            .blocks = tile.tokens / spec.group_size,
            .group = spec.group_size,
            .head_dim = spec.head_dim,
            .bits = block.bits,
            .axis = block.axis,
            .zero_in_codes = zero == AffineZero::code};
}

}  // namespace

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
    for (int t = 0; t < tokens; t += block.group, out += block.bytes) {
        const float* first = rows + static_cast<Size>(t) * static_cast<Size>(block.head_dim);
        (block.axis == 0 ? pack_channels : pack_tokens)(block, solve, first, out);
    }
}

void affine_unpack(const FormatSpec& spec, Side side, AffineZero zero_kind, const TileView& tile,
                   float* rows) {
    if (bits_of(spec, side) == 16) return f16_rows_unpack(spec, tile, rows);
    require_whole_groups(spec, tile.tokens);
    const Block block(spec, side);
    const int d = block.head_dim, group = block.group;
    float* scale = thread_scratch(2 * block.scales);
    float* zero = scale + block.scales;
    float code[kMaxGroupSize];
    const std::uint8_t* data = tile.data;
    for (int first = 0; first < tile.tokens;
         first += group, data += block.bytes, rows += group * d) {
        load_scales(block, zero_kind, data, scale, zero);
        if (block.axis == 1) {
            for (int t = 0; t < group; ++t) {
                restore_token(block, data, scale, zero, t, rows + t * d);
            }
            continue;
        }
        for (int c = 0; c < d; ++c) {
            const std::uint8_t* run = data + block.codes() + static_cast<Size>(c) * block.run;
            unpack_codes(block.bits, run, group, code);
            for (int t = 0; t < group; ++t) rows[t * d + c] = code[t] * scale[c] + zero[c];
        }
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
    const std::uint8_t* run =
        data + block.codes() + static_cast<Size>(per_channel ? channel : t) * block.run;
    const auto code =
        static_cast<float>(per_channel ? unpack_code(block.bits, run, block.group, t)
                                       : unpack_code(block.bits, run, block.head_dim, channel));
    return zero_kind == AffineZero::value ? code * scale + zero : (code - zero) * scale;
}

void affine_dot_k_reference(const FormatSpec& spec, AffineZero zero, const TileView& tile,
                            const float* q, int heads, float* scores, std::size_t stride) {
    if (spec.bits_k == 16) return f16_rows_dot_k_reference(spec, tile, q, heads, scores, stride);
    require_whole_groups(spec, tile.tokens);
    const Block block(spec, Side::key);
    const auto kernel = block.axis == 0 ? dot_channels : dot_tokens;
    const std::uint8_t* data = tile.data;
    for (int t = 0; t < tile.tokens; t += block.group, data += block.bytes) {
        kernel(block, zero, data, q, heads, scores + t, stride);
    }
}

void affine_add_v_reference(const FormatSpec& spec, AffineZero zero, const TileView& tile,
                            const float* weights, std::size_t stride, int heads, float* out) {
    if (spec.bits_v == 16) return f16_rows_add_v_reference(spec, tile, weights, stride, heads, out);
    require_whole_groups(spec, tile.tokens);
    const Block block(spec, Side::value);
    const auto kernel = block.axis == 0 ? add_channels : add_tokens;
    const std::uint8_t* data = tile.data;
    for (int t = 0; t < tile.tokens; t += block.group, data += block.bytes) {
        kernel(block, zero, data, weights + t, stride, heads, out);
    }
}

void affine_dot_k(const FormatSpec& spec, AffineZero zero, const TileView& tile, const float* q,
                  int heads, float* scores, std::size_t stride) {
    if (spec.bits_k == 16) return f16_rows_dot_k(spec, tile, q, heads, scores, stride);
    const AffineBlocks blocks = blocks_of(spec, Side::key, zero, tile);
    if (!packed_kernels_take(blocks)) {
        return affine_dot_k_reference(spec, zero, tile, q, heads, scores, stride);
    }
    affine_dot_rows(blocks, q, heads, scores, stride);
}

void affine_add_v(const FormatSpec& spec, AffineZero zero, const TileView& tile,
                  const float* weights, std::size_t stride, int heads, float* out) {
    if (spec.bits_v == 16) return f16_rows_add_v(spec, tile, weights, stride, heads, out);
    const AffineBlocks blocks = blocks_of(spec, Side::value, zero, tile);
    if (!packed_kernels_take(blocks)) {
        return affine_add_v_reference(spec, zero, tile, weights, stride, heads, out);
    }
    affine_add_rows(blocks, weights, stride, heads, out);
}

}  // namespace winnow
