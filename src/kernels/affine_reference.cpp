// What the integer kernels of affine groups compute, in plain loops.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/packed.h"

namespace winnow::reference {
namespace {

using Size = std::size_t;

// One plane of a run of 8 rows: the bits of one code (cache/code_pack.h draws a panel).
int bits_at(const std::uint8_t* plane, int width, int lanes, int element) {
    const int words = lanes * width / 2;
    std::uint16_t word;
    std::memcpy(&word, plane + 2 * (element % words), sizeof word);
    return word >> (element / words * width) & ((1 << width) - 1);
}

int code_at(const std::uint8_t* panel, int bits, int lanes, int row, int lane) {
    const std::uint8_t* run = panel + static_cast<Size>(row / 8) * static_cast<Size>(lanes * bits);
    const int element = row % 8 / 2 * 2 * lanes + 2 * lane + row % 2;
    if (bits == 3) {
        return bits_at(run, 2, lanes, element) | bits_at(run + 2 * lanes, 1, lanes, element) << 2;
    }
    return bits_at(run, bits, lanes, element);
}

// Rounds x [count] to integers times the result, at most 32,767 and less where `terms` products
// with codes could overflow 32 bits.
float round_coefs(const float* x, int count, int bits, int terms, std::int32_t* out) {
    const int most = 0x7FFFFFFF / (((1 << bits) - 1) * terms);
    const float largest = static_cast<float>(std::min(most, 32767));
    float peak = 0.0F;
    for (int i = 0; i < count; ++i) peak = std::max(peak, std::abs(x[i]));
    const bool tiny = !(peak > 1e-30F);
    const float inverse = tiny ? 0.0F : largest / peak;
    for (int i = 0; i < count; ++i) {
        out[i] = static_cast<std::int32_t>(std::nearbyint(x[i] * inverse));
    }
    return tiny ? 0.0F : peak / largest;
}

struct Scales {
    std::vector<float> scale, zero;

    Scales(const AffineBlocks& b, const std::uint8_t* block)
        : scale(static_cast<Size>(b.head_dim)), zero(scale.size()) {
        for (Size i = 0; i < scale.size(); ++i) {
            f16 halves[2];
            std::memcpy(&halves[0], block + 2 * i, 2);
            std::memcpy(&halves[1], block + 2 * (scale.size() + i), 2);
            scale[i] = f16_to_f32(halves[0]);
            zero[i] = f16_to_f32(halves[1]);
            if (b.zero_in_codes) zero[i] *= -scale[i];
        }
    }
};

}  // namespace

void affine_dot_rows(const AffineBlocks& b, const float* q, int heads, float* scores,
                     std::size_t stride) {
    const int d = b.head_dim, n = b.group;
    std::vector<float> x(static_cast<Size>(d));
    std::vector<std::int32_t> coefs(x.size());
    for (int block = 0; block < b.blocks; ++block) {
        const std::uint8_t* data = b.data + static_cast<Size>(block) * b.block_bytes;
        const Scales s(b, data);
        for (int r = 0; r < heads; ++r) {
            for (int c = 0; c < d; ++c) x[c] = q[r * d + c] * (b.axis == 0 ? s.scale[c] : 1.0F);
            const float factor =
                round_coefs(x.data(), d, b.bits, b.axis == 0 ? d : n, coefs.data());
            double common = 0.0;  // what rounding adds to every lane alike
            for (int c = 0; b.centred && b.axis == 0 && c < d; ++c) {
                common += (static_cast<double>(coefs[c]) * static_cast<double>(factor) -
                           static_cast<double>(x[c])) *
                          ((1 << b.bits) - 1) / 2.0;
            }
            for (int t = 0; t < n; ++t) {
                double score = -common;
                for (int c = 0; c < d; ++c) {
                    const int group = c / n * n + t;
                    const double by = b.axis == 0 ? 1.0 : static_cast<double>(s.scale[group]);
                    const int code = code_at(data + 4 * d, b.bits, n, c, t);
                    score +=
                        static_cast<double>(coefs[c] * code) * by * static_cast<double>(factor) +
                        static_cast<double>(q[r * d + c]) *
                            static_cast<double>(s.zero[b.axis == 0 ? c : group]);
                }
                scores[static_cast<Size>(r) * stride + static_cast<Size>(block * n + t)] =
                    static_cast<float>(score);
            }
        }
    }
}

void affine_add_rows(const AffineBlocks& b, const float* weights, std::size_t stride, int heads,
                     float* out) {
    const int d = b.head_dim, n = b.group;
    const int rounded = b.axis == 0 ? n : d / n * n;  // weights times scales of one head
    std::vector<float> x(static_cast<Size>(rounded));
    std::vector<std::int32_t> coefs(x.size());
    for (int block = 0; block < b.blocks; ++block) {
        const std::uint8_t* data = b.data + static_cast<Size>(block) * b.block_bytes;
        const Scales s(b, data);
        for (int r = 0; r < heads; ++r) {
            const float* w = weights + static_cast<Size>(r) * stride + static_cast<Size>(block * n);
            for (int i = 0; i < rounded; ++i) {
                x[i] = b.axis == 0 ? w[i] : w[i % n] * s.scale[i];
            }
            const float factor = round_coefs(x.data(), rounded, b.bits, n, coefs.data());
            for (int c = 0; c < d; ++c) {
                double sum = 0.0;
                for (int t = 0; t < n; ++t) {
                    const int group = b.axis == 0 ? t : c / n * n + t;
                    const double by = b.axis == 0 ? static_cast<double>(s.scale[c]) : 1.0;
                    const int code = code_at(data + 4 * d, b.bits, d, t, c);
                    sum += static_cast<double>(coefs[group] * code) * by *
                               static_cast<double>(factor) +
                           static_cast<double>(w[t]) *
                               static_cast<double>(s.zero[b.axis == 0 ? c : group]);
                }
                out[r * d + c] += static_cast<float>(sum);
            }
        }
    }
}

}  // namespace winnow::reference
