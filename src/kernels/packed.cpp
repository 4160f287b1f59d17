// One source, compiled once per instruction set by Highway.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/packed.cpp"
#include <hwy/foreach_target.h>
// foreach_target must come before highway.h.
#include <hwy/highway.h>

#include <algorithm>

#include "kernels/packed-inl.h"
#include "kernels/packed.h"

HWY_BEFORE_NAMESPACE();
namespace winnow {
namespace HWY_NAMESPACE {

// Scratch of a call: coefficients of a block, on the stack (the largest are 8 heads x 1,024).
constexpr int kHeadsAtOnce = 8;
constexpr int kMaxRow = 1024;

HWY_INLINE size_t CodesOffset(const AffineBlocks& b) {
    return 4 * static_cast<size_t>(b.head_dim);
}

// Scales and zeros of a block as floats, zeros as what is added to code * scale.
template <class D>
HWY_INLINE void LoadScales(D f, const uint8_t* block, int count, bool zero_in_codes, float* scale,
                           float* zero) {
    const hn::Rebind<hwy::float16_t, D> h;
    const auto* s = reinterpret_cast<const hwy::float16_t*>(block);
    const size_t lanes = hn::Lanes(f);
    for (size_t i = 0; i < static_cast<size_t>(count); i += lanes) {
        const auto factor = hn::PromoteTo(f, hn::LoadU(h, s + i));
        const auto offset = hn::PromoteTo(f, hn::LoadU(h, s + count + i));
        hn::StoreU(factor, f, scale + i);
        hn::StoreU(zero_in_codes ? hn::Neg(hn::Mul(factor, offset)) : offset, f, zero + i);
    }
}

// out[i] = a[i] * b[i]; returns sum + a[i] * c[i], lane by lane.
template <class D>
HWY_INLINE hn::VFromD<D> ScaleAndDot(D f, const float* a, const float* b, const float* c, int count,
                                     float* out, hn::VFromD<D> sum) {
    const size_t lanes = hn::Lanes(f);
    for (size_t i = 0; i < static_cast<size_t>(count); i += lanes) {
        const auto x = hn::LoadU(f, a + i);
        hn::StoreU(hn::Mul(x, hn::LoadU(f, b + i)), f, out + i);
        sum = hn::MulAdd(x, hn::LoadU(f, c + i), sum);
    }
    return sum;
}

// Keys per channel: a score is the sum of (q s) code over channels, plus q.zero.
template <int kBits, class D>
void DotChannels(D f, const AffineBlocks& b, const float* q, int heads, float* scores,
                 size_t stride) {
    const int d = b.head_dim;
    HWY_ALIGN float scale[kMaxRow], zero[kMaxRow];
    HWY_ALIGN float coefs[kHeadsAtOnce * kMaxRow];
    const uint8_t* block = b.data;
    for (int i = 0; i < b.blocks; ++i, block += b.block_bytes, scores += b.group) {
        LoadScales(f, block, d, b.zero_in_codes, scale, zero);
        for (int r = 0; r < heads; ++r) {
            const float bias = hn::ReduceSum(
                f, ScaleAndDot(f, q + r * d, scale, zero, d, coefs + r * d, hn::Zero(f)));
            std::fill_n(scores + r * stride, b.group, bias);
        }
        const size_t row_bytes = static_cast<size_t>(b.group) * kBits / 8;
        Outer<kBits>(f,
                     {.codes = block + CodesOffset(b),
                      .row_bytes = row_bytes,
                      .plane_columns = row_bytes,
                      .rows = d,
                      .coefs = coefs,
                      .coef_head = static_cast<size_t>(d),
                      .coef_group = 0,
                      .group_columns = b.group,
                      .out = scores,
                      .out_head = stride},
                     heads);
    }
}

// Values per token: weights take the scale of their token and channel group; zeros are summed
// lane by lane over all blocks and added once.
template <int kBits, class D>
void AddTokens(D f, const AffineBlocks& b, const float* weights, size_t stride, int heads,
               float* out) {
    const int d = b.head_dim, n = b.group, groups = d / n;
    HWY_ALIGN float scale[kMaxRow], zero[kMaxRow];
    HWY_ALIGN float coefs[kHeadsAtOnce * kMaxRow];
    const size_t lanes = hn::Lanes(f);
    // [R][D/n][lanes], summed lane by lane; a group is at least 8 channels.
    HWY_ALIGN float offsets[kHeadsAtOnce * kMaxRow / 8 * 16];
    std::fill_n(offsets, static_cast<size_t>(heads * groups) * lanes, 0.0F);
    const uint8_t* block = b.data;
    for (int i = 0; i < b.blocks; ++i, block += b.block_bytes, weights += n) {
        LoadScales(f, block, d, b.zero_in_codes, scale, zero);
        for (int r = 0; r < heads; ++r) {
            for (int g = 0; g < groups; ++g) {
                float* sum = offsets + (r * groups + g) * lanes;
                hn::StoreU(ScaleAndDot(f, weights + r * stride, scale + g * n, zero + g * n, n,
                                       coefs + r * d + g * n, hn::LoadU(f, sum)),
                           f, sum);
            }
        }
        const size_t row_bytes = static_cast<size_t>(d) * kBits / 8;
        Outer<kBits>(f,
                     {.codes = block + CodesOffset(b),
                      .row_bytes = row_bytes,
                      .plane_columns = row_bytes,
                      .rows = n,
                      .coefs = coefs,
                      .coef_head = static_cast<size_t>(d),
                      .coef_group = static_cast<size_t>(n),
                      .group_columns = n,
                      .out = out,
                      .out_head = static_cast<size_t>(d)},
                     heads);
    }
    for (int r = 0; r < heads; ++r) {
        for (int g = 0; g < groups; ++g) {
            const auto offset =
                hn::Set(f, hn::ReduceSum(f, hn::LoadU(f, offsets + (r * groups + g) * lanes)));
            for (float* at = out + r * d + g * n; at < out + r * d + (g + 1) * n; at += lanes) {
                hn::StoreU(hn::Add(hn::LoadU(f, at), offset), f, at);
            }
        }
    }
}

// Keys per token: each code is scaled by its token and channel group.
template <int kBits, class D>
void DotTokens(D f, const AffineBlocks& b, const float* q, int heads, float* scores,
               size_t stride) {
    const int d = b.head_dim, n = b.group, groups = d / n;
    HWY_ALIGN float scale[kMaxRow], zero[kMaxRow];
    float sums[kHeadsAtOnce * kMaxRow / 8] = {};  // [R][D/n] q summed over a group
    for (int r = 0; r < heads; ++r) {
        for (int c = 0; c < d; ++c) {
            sums[r * groups + c / n] += q[r * d + c];
        }
    }
    const uint8_t* block = b.data;
    for (int i = 0; i < b.blocks; ++i, block += b.block_bytes, scores += n) {
        LoadScales(f, block, d, b.zero_in_codes, scale, zero);
        const size_t row_bytes = static_cast<size_t>(d) * kBits / 8;
        Inner<kBits, true>(f,
                           {.codes = block + CodesOffset(b),
                            .row_bytes = row_bytes,
                            .plane_columns = row_bytes,
                            .rows = n,
                            .x = q,
                            .x_head = static_cast<size_t>(d),
                            .scale = scale,
                            .scale_group = static_cast<size_t>(n),
                            .group_columns = n,
                            .out = scores,
                            .out_head = stride},
                           heads);
        for (int r = 0; r < heads; ++r) {
            for (int g = 0; g < groups; ++g) {
                for (int t = 0; t < n; ++t) {
                    scores[r * stride + t] += zero[g * n + t] * sums[r * groups + g];
                }
            }
        }
    }
}

// Values per channel: the weighted sum of a channel's codes takes the channel's scale.
template <int kBits, class D>
void AddChannels(D f, const AffineBlocks& b, const float* weights, size_t stride, int heads,
                 float* out) {
    const int d = b.head_dim, n = b.group;
    HWY_ALIGN float scale[kMaxRow], zero[kMaxRow];
    HWY_ALIGN float sums[kHeadsAtOnce * kMaxRow];
    const uint8_t* block = b.data;
    for (int i = 0; i < b.blocks; ++i, block += b.block_bytes, weights += n) {
        LoadScales(f, block, d, b.zero_in_codes, scale, zero);
        const size_t row_bytes = static_cast<size_t>(n) * kBits / 8;
        Inner<kBits, false>(f,
                            {.codes = block + CodesOffset(b),
                             .row_bytes = row_bytes,
                             .plane_columns = row_bytes,
                             .rows = d,
                             .x = weights,
                             .x_head = stride,
                             .scale = nullptr,
                             .scale_group = 0,
                             .group_columns = n,
                             .out = sums,
                             .out_head = static_cast<size_t>(d)},
                            heads);
        for (int r = 0; r < heads; ++r) {
            float total = 0.0F;
            for (int t = 0; t < n; ++t) {
                total += weights[r * stride + t];
            }
            for (int c = 0; c < d; ++c) {
                out[r * d + c] += sums[r * d + c] * scale[c] + total * zero[c];
            }
        }
    }
}

template <int kBits, class D>
void AffineDotBits(D f, const AffineBlocks& b, const float* q, int heads, float* scores,
                   size_t stride) {
    for (int h = 0; h < heads; h += kHeadsAtOnce) {
        const int now = HWY_MIN(heads - h, kHeadsAtOnce);
        (b.axis == 0 ? DotChannels<kBits, D> : DotTokens<kBits, D>)(f, b, q + h * b.head_dim, now,
                                                                    scores + h * stride, stride);
    }
}

template <int kBits, class D>
void AffineAddBits(D f, const AffineBlocks& b, const float* weights, size_t stride, int heads,
                   float* out) {
    for (int h = 0; h < heads; h += kHeadsAtOnce) {
        const int now = HWY_MIN(heads - h, kHeadsAtOnce);
        (b.axis == 0 ? AddChannels<kBits, D> : AddTokens<kBits, D>)(f, b, weights + h * stride,
                                                                    stride, now,
                                                                    out + h * b.head_dim);
    }
}

// Columns of one plane, which must be whole vectors, and so must a group of scales.
HWY_INLINE size_t PlaneColumns(const AffineBlocks& b, bool runs_over_tokens) {
    return static_cast<size_t>(runs_over_tokens ? b.group : b.head_dim) * b.bits / 8;
}

// Calls body with the widest tag, at most 16 lanes, that divides the plane and the group.
template <class Body>
HWY_INLINE void WithTag(const AffineBlocks& b, const Body& body) {
    const size_t plane = PlaneColumns(b, b.axis == 0);
    if (plane % 16 == 0 && b.group % 16 == 0 && b.head_dim % 16 == 0) {
        body(hn::CappedTag<float, 16>());
    } else {
        body(hn::CappedTag<float, 8>());
    }
}

void AffineDot(const AffineBlocks& b, const float* q, int heads, float* scores, size_t stride) {
    WithTag(b, [&](auto f) HWY_ATTR {
        switch (b.bits) {
            case 8:
                return AffineDotBits<8>(f, b, q, heads, scores, stride);
            case 4:
                return AffineDotBits<4>(f, b, q, heads, scores, stride);
            default:
                return AffineDotBits<2>(f, b, q, heads, scores, stride);
        }
    });
}

void AffineAdd(const AffineBlocks& b, const float* weights, size_t stride, int heads, float* out) {
    WithTag(b, [&](auto f) HWY_ATTR {
        switch (b.bits) {
            case 8:
                return AffineAddBits<8>(f, b, weights, stride, heads, out);
            case 4:
                return AffineAddBits<4>(f, b, weights, stride, heads, out);
            default:
                return AffineAddBits<2>(f, b, weights, stride, heads, out);
        }
    });
}

template <class Body>
HWY_INLINE void WithRowTag(int head_dim, const Body& body) {
    if (head_dim % 16 == 0) {
        body(hn::CappedTag<float, 16>());
    } else {
        body(hn::CappedTag<float, 8>());
    }
}

void F16Dot(const f16* rows, int tokens, int head_dim, const float* q, int heads, float* scores,
            size_t stride) {
    WithRowTag(head_dim, [&](auto f) HWY_ATTR {
        const size_t d = static_cast<size_t>(head_dim);
        Inner<16, false>(f,
                         {.codes = reinterpret_cast<const uint8_t*>(rows),
                          .row_bytes = 2 * d,
                          .plane_columns = d,
                          .rows = tokens,
                          .x = q,
                          .x_head = d,
                          .scale = nullptr,
                          .scale_group = 0,
                          .group_columns = head_dim,
                          .out = scores,
                          .out_head = stride},
                         heads);
    });
}

void F16Add(const f16* rows, int tokens, int head_dim, const float* weights, size_t stride,
            int heads, float* out) {
    WithRowTag(head_dim, [&](auto f) HWY_ATTR {
        const size_t d = static_cast<size_t>(head_dim);
        Outer<16>(f,
                  {.codes = reinterpret_cast<const uint8_t*>(rows),
                   .row_bytes = 2 * d,
                   .plane_columns = d,
                   .rows = tokens,
                   .coefs = weights,
                   .coef_head = stride,
                   .coef_group = 0,
                   .group_columns = head_dim,
                   .out = out,
                   .out_head = d},
                  heads);
    });
}

}  // namespace HWY_NAMESPACE
}  // namespace winnow
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace winnow {

HWY_EXPORT(AffineDot);
HWY_EXPORT(AffineAdd);
HWY_EXPORT(F16Dot);
HWY_EXPORT(F16Add);

bool packed_kernels_take(const AffineBlocks& b) {
    const int run = b.axis == 0 ? b.group : b.head_dim;
    const bool bits = b.bits == 2 || b.bits == 4 || b.bits == 8;
    return bits && run * b.bits / 8 % 8 == 0 && b.group % 8 == 0 && b.head_dim % 8 == 0 &&
           b.head_dim <= 1024 && b.group <= 1024;
}

void affine_dot_rows(const AffineBlocks& blocks, const float* q, int heads, float* scores,
                     std::size_t stride) {
    HWY_DYNAMIC_DISPATCH(AffineDot)(blocks, q, heads, scores, stride);
}

void affine_add_rows(const AffineBlocks& blocks, const float* weights, std::size_t stride,
                     int heads, float* out) {
    HWY_DYNAMIC_DISPATCH(AffineAdd)(blocks, weights, stride, heads, out);
}

void f16_dot_rows(const f16* rows, int tokens, int head_dim, const float* q, int heads,
                  float* scores, std::size_t stride) {
    HWY_DYNAMIC_DISPATCH(F16Dot)(rows, tokens, head_dim, q, heads, scores, stride);
}

void f16_add_rows(const f16* rows, int tokens, int head_dim, const float* weights,
                  std::size_t stride, int heads, float* out) {
    HWY_DYNAMIC_DISPATCH(F16Add)(rows, tokens, head_dim, weights, stride, heads, out);
}

}  // namespace winnow
#endif  // HWY_ONCE
