#include "cache/rows.h"

#include <winnow/error.h>

#include <algorithm>
#include <bit>
#include <string>
#include <vector>

#include "kernels/packed.h"

namespace winnow {
namespace {

std::string name_of(const FormatSpec& spec) {
    return spec.format != nullptr ? spec.format->name : "the format";
}

void check_axis(const FormatSpec& spec, Side side) {
    const bool key = side == Side::key;
    const int axis = key ? spec.key_axis : spec.value_axis;
    const std::string flag = key ? "--key-axis" : "--value-axis";
    if (axis != 0 && axis != 1) {
        throw usage_error(flag + " is " + std::to_string(axis) +
                          "; use 0 (per channel) or 1 (per token).");
    }
    if (axis == 1 && bits_of(spec, side) < 16 && spec.head_dim % spec.group_size != 0) {
        throw usage_error("--group-size is " + std::to_string(spec.group_size) +
                          ", which does not divide the model's head_dim of " +
                          std::to_string(spec.head_dim) + "; " + name_of(spec) + " with " + flag +
                          " 1 needs a multiple of 8 that does.");
    }
}

}  // namespace

void floats_from_f16(const std::uint8_t* data, int count, float* out) {
    for (int i = 0; i < count; ++i) {
        const std::uint32_t half = load_f16(data + 2 * i);
        const std::uint32_t magnitude = half & 0x7FFFU;
        // Both forms are computed and one is chosen, so that the loop becomes vector code.
        const float small = static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24F;
        const std::uint32_t normal = (magnitude << 13) + 0x38000000U;
        const std::uint32_t bits =
            magnitude < 0x400U ? std::bit_cast<std::uint32_t>(small) : normal;
        out[i] = std::bit_cast<float>(bits | (half & 0x8000U) << 16);
    }
}

float dot(const float* a, const float* b, int count) {
    float part[8] = {};
    int i = 0;
    for (; i + 8 <= count; i += 8) {
        for (int lane = 0; lane < 8; ++lane) part[lane] += a[i + lane] * b[i + lane];
    }
    for (; i < count; ++i) part[i % 8] += a[i] * b[i];
    return ((part[0] + part[4]) + (part[1] + part[5])) +
           ((part[2] + part[6]) + (part[3] + part[7]));
}

void add_scaled(float weight, const float* x, int count, float* out) {
    for (int i = 0; i < count; ++i) out[i] += weight * x[i];
}

float* thread_scratch(std::size_t floats) {
    thread_local std::vector<float> memory;
    if (memory.size() < floats) memory.resize(floats);
    return memory.data();
}

void require_no_nan(const FormatSpec& spec, Side side, const float* rows, int tokens) {
    const std::size_t count =
        static_cast<std::size_t>(tokens) * static_cast<std::size_t>(spec.head_dim);
    int found = 0;
    for (std::size_t i = 0; i < count; ++i) found |= rows[i] == rows[i] ? 0 : 1;
    if (found == 0) return;
    const float* place = std::find_if(rows, rows + count, [](float x) { return x != x; });
    const auto index = static_cast<std::size_t>(place - rows);
    const auto head_dim = static_cast<std::size_t>(spec.head_dim);
    throw failure(
        name_of(spec) + " cannot store " + (side == Side::key ? "keys" : "values") +
        " that hold NaN (token " + std::to_string(index / head_dim) + " of the tile, channel " +
        std::to_string(index % head_dim) +
        "); every number must be finite or infinite. The model's weights may be damaged.");
}

void require_whole_groups(const FormatSpec& spec, int tokens) {
    if (tokens >= 0 && tokens % spec.group_size == 0) return;
    throw failure(name_of(spec) + " stores whole groups of " + std::to_string(spec.group_size) +
                  " tokens, but was given " + std::to_string(tokens) + ".");
}

void f16_rows_pack(const FormatSpec& spec, Side side, const float* rows, int tokens,
                   std::uint8_t* out) {
    require_no_nan(spec, side, rows, tokens);
    const std::size_t count =
        static_cast<std::size_t>(tokens) * static_cast<std::size_t>(spec.head_dim);
    for (std::size_t i = 0; i < count; ++i) {
        store_f16(out + 2 * i, f32_to_f16(std::clamp(rows[i], -kF16Max, kF16Max)));
    }
}

void f16_rows_unpack(const FormatSpec& spec, const TileView& tile, float* rows) {
    for (int t = 0; t < tile.tokens; ++t) {
        const std::size_t at =
            static_cast<std::size_t>(t) * static_cast<std::size_t>(spec.head_dim);
        floats_from_f16(tile.data + 2 * at, spec.head_dim, rows + at);
    }
}

void f16_rows_dot_k(const FormatSpec& spec, const TileView& tile, const float* q, int heads,
                    float* scores, std::size_t stride) {
    if (spec.head_dim % 8 != 0) {
        f16_rows_dot_k_reference(spec, tile, q, heads, scores, stride);
        return;
    }
    f16_dot_rows(reinterpret_cast<const f16*>(tile.data), tile.tokens, spec.head_dim, q, heads,
                 scores, stride);
}

void f16_rows_add_v(const FormatSpec& spec, const TileView& tile, const float* weights,
                    std::size_t stride, int heads, float* out) {
    if (spec.head_dim % 8 != 0) {
        f16_rows_add_v_reference(spec, tile, weights, stride, heads, out);
        return;
    }
    f16_add_rows(reinterpret_cast<const f16*>(tile.data), tile.tokens, spec.head_dim, weights,
                 stride, heads, out);
}

void f16_rows_dot_k_reference(const FormatSpec& spec, const TileView& tile, const float* q,
                              int heads, float* scores, std::size_t stride) {
    float row[kMaxHeadDim];
    const auto head_dim = static_cast<std::size_t>(spec.head_dim);
    for (int t = 0; t < tile.tokens; ++t) {
        floats_from_f16(tile.data + 2 * head_dim * static_cast<std::size_t>(t), spec.head_dim, row);
        for (int r = 0; r < heads; ++r) {
            scores[static_cast<std::size_t>(r) * stride + static_cast<std::size_t>(t)] =
                dot(q + static_cast<std::size_t>(r) * head_dim, row, spec.head_dim);
        }
    }
}

void f16_rows_add_v_reference(const FormatSpec& spec, const TileView& tile, const float* weights,
                              std::size_t stride, int heads, float* out) {
    float row[kMaxHeadDim];
    const auto head_dim = static_cast<std::size_t>(spec.head_dim);
    for (int t = 0; t < tile.tokens; ++t) {
        floats_from_f16(tile.data + 2 * head_dim * static_cast<std::size_t>(t), spec.head_dim, row);
        for (int r = 0; r < heads; ++r) {
            const float weight =
                weights[static_cast<std::size_t>(r) * stride + static_cast<std::size_t>(t)];
            add_scaled(weight, row, spec.head_dim, out + static_cast<std::size_t>(r) * head_dim);
        }
    }
}

void check_shape(const FormatSpec& spec) {
    if (spec.head_dim < 8 || spec.head_dim % 8 != 0 || spec.head_dim > kMaxHeadDim) {
        throw usage_error(name_of(spec) + " packs heads whose head_dim is a multiple of 8 up to " +
                          std::to_string(kMaxHeadDim) + "; this model's is " +
                          std::to_string(spec.head_dim) + ". Use --quant-method none.");
    }
    if (spec.group_size < 8 || spec.group_size % 8 != 0 || spec.group_size > kMaxGroupSize) {
        throw usage_error("--group-size is " + std::to_string(spec.group_size) +
                          "; it must be a multiple of 8 from 8 to " +
                          std::to_string(kMaxGroupSize) + ".");
    }
}

void check_bits(const FormatSpec& spec, std::initializer_list<int> allowed) {
    for (const Side side : {Side::key, Side::value}) {
        const int bits = bits_of(spec, side);
        if (std::find(allowed.begin(), allowed.end(), bits) != allowed.end()) continue;
        std::string list;
        for (const int each : allowed) list += (list.empty() ? "" : ", ") + std::to_string(each);
        throw usage_error(std::string(side == Side::key ? "--nbits-k" : "--nbits-v") + " is " +
                          std::to_string(bits) + "; " + name_of(spec) + " takes " + list + ".");
    }
}

void check_axes(const FormatSpec& spec) {
    check_axis(spec, Side::key);
    check_axis(spec, Side::value);
}

void check_no_outliers(const FormatSpec& spec) {
    if (spec.outlier_threshold == 0.0F) return;
    throw usage_error("--outlier-threshold is " + std::to_string(spec.outlier_threshold) +
                      ", but " + name_of(spec) +
                      " keeps no exact outliers; use --quant-method kvquant or leave it 0.");
}

}  // namespace winnow
