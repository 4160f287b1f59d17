#include <algorithm>

#include "core/f16.h"
#include "kernels/level_rows.h"
#include "kernels/restore.h"

namespace winnow::reference {

namespace {

// Code i of a run; see cache/code_pack.h.
int code_at(const std::uint8_t* run, int bits, int count, int i) {
    const int low_bits = bits == 3 ? 2 : bits, low_plane = count * low_bits / 8;
    int code = run[i % low_plane] >> (i / low_plane * low_bits) & ((1 << low_bits) - 1);
    if (bits == 3) {  // the high bit lies in a plane of its own
        const int high_plane = count / 8;
        code |= (run[low_plane + i % high_plane] >> (i / high_plane) & 1) << 2;
    }
    return code;
}

// Code e of eight rows of a panel, from one plane of `bits` bits.
int word_at(const std::uint8_t* plane, int bits, int lanes, int e) {
    const int words = lanes * bits / 2;
    const int word = plane[e % words * 2] | plane[e % words * 2 + 1] << 8;
    return word >> (e / words * bits) & ((1 << bits) - 1);
}

float half_at(const std::uint8_t* halves, int i) {
    return f16_to_f32(static_cast<f16>(halves[2 * i] | halves[2 * i + 1] << 8));
}

}  // namespace

void restore_levels(const CodeRuns& runs, const float* levels, const std::uint8_t* scales,
                    const std::uint8_t* offsets, float* out) {
    for (int r = 0; r < runs.runs; ++r, out += runs.count) {
        const std::uint8_t* run = runs.data + static_cast<std::size_t>(r) * runs.step;
        for (int i = 0; i < runs.count; ++i) {
            const float level = levels[code_at(run, runs.bits, runs.count, i)];
            out[i] = half_at(offsets, r) + half_at(scales, r) * level;
        }
    }
}

void restore_channels(const CodeRuns& runs, const float* offset, const float* spread,
                      const float* scale, float* out) {
    const float half = static_cast<float>((1 << runs.bits) - 1) / 2.0F;
    for (int r = 0; r < runs.runs; ++r, out += runs.count) {
        const std::uint8_t* run = runs.data + static_cast<std::size_t>(r) * runs.step;
        for (int i = 0; i < runs.count; ++i) {
            const auto code = static_cast<float>(code_at(run, runs.bits, runs.count, i));
            const float x = offset[i] + spread[i] * scale[r] * (code - half);
            out[i] = std::clamp(x, -kF16Max, kF16Max);
        }
    }
}

void restore_bunches(const BunchRuns& runs, const float* offset, const float* spread,
                     const float* scale, float* out) {
    for (int r = 0; r < runs.runs; ++r) {
        const std::uint8_t* run = runs.data + static_cast<std::size_t>(r) * runs.step;
        int first = 0;  // bit
        for (int c = 0; c < 8 * runs.bunches; ++c) {
            const int bits = runs.widths[c / 8];
            int code = 0;
            for (int i = 0; i < bits; ++i, ++first) {
                code |= (run[first / 8] >> first % 8 & 1) << i;
            }
            const float half = static_cast<float>((1 << bits) - 1) / 2.0F;
            const float x = offset[c] + spread[c] * scale[r] * (static_cast<float>(code) - half);
            *out++ = std::clamp(x, -kF16Max, kF16Max);
        }
    }
}

void restore_panel(const std::uint8_t* panel, int bits, int rows, int lanes, const float* scale,
                   const float* zero, float* out) {
    for (int row = 0; row < rows; ++row) {
        const std::uint8_t* run = panel + row / 8 * lanes * bits;
        for (int lane = 0; lane < lanes; ++lane) {
            const int e = row % 8 / 2 * 2 * lanes + 2 * lane + row % 2;
            const int code =
                bits != 3 ? word_at(run, bits, lanes, e)
                          : word_at(run, 2, lanes, e) | word_at(run + 2 * lanes, 1, lanes, e) << 2;
            *out++ = static_cast<float>(code) * scale[row] + zero[row];
        }
    }
}

void transpose(const float* from, int rows, int columns, float* to) {
    for (int r = 0; r < rows; ++r) {
        for (int c = 0; c < columns; ++c) to[c * rows + r] = from[r * columns + c];
    }
}

void rotate_rows(float* rows, int tokens, int head_dim, int pairs, bool halves,
                 const float* const* angles) {
    for (int t = 0; t < tokens; ++t, rows += head_dim) {
        for (int p = 0; p < pairs; ++p) {
            float& a = rows[halves ? p : 2 * p];
            float& b = rows[halves ? p + pairs : 2 * p + 1];
            const float x = a, y = b, cos = angles[t][p], sin = angles[t][pairs + p];
            a = x * cos - y * sin;
            b = x * sin + y * cos;
        }
    }
}

void add_level_rows(const CodeRuns& runs, const float* levels, const float* weights,
                    std::size_t stride, int heads, float* sums) {
    for (int r = 0; r < runs.runs; ++r) {
        const std::uint8_t* run = runs.data + static_cast<std::size_t>(r) * runs.step;
        for (int h = 0; h < heads; ++h) {
            const float weight = weights[static_cast<std::size_t>(h) * stride + r];
            for (int i = 0; i < runs.count; ++i) {
                sums[h * runs.count + i] += weight * levels[code_at(run, runs.bits, runs.count, i)];
            }
        }
    }
}

void dot_turned_rows(float* rows, int tokens, int head_dim, int pairs, bool halves,
                     const float* const* angles, const float* q, int heads, float* scores,
                     std::size_t stride) {
    rotate_rows(rows, tokens, head_dim, pairs, halves, angles);
    for (int h = 0; h < heads; ++h) {
        for (int t = 0; t < tokens; ++t) {
            float sum = 0.0F;
            for (int c = 0; c < head_dim; ++c) {
                sum += q[h * head_dim + c] * rows[t * head_dim + c];
            }
            scores[static_cast<std::size_t>(h) * stride + t] = sum;
        }
    }
}

}  // namespace winnow::reference
