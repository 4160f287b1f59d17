// Attention over affine groups in integers: the coefficients of a block are rounded to 16 bits
// once, and codes never become floats. One source, compiled once per instruction set by Highway.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/affine_rows.cpp"
#include <hwy/foreach_target.h>
// foreach_target must come before highway.h.
#include <hwy/highway.h>

#include <algorithm>
#include <type_traits>

#include "kernels/fetch.h"
#include "kernels/packed.h"
#include "kernels/panel-inl.h"

HWY_BEFORE_NAMESPACE();
namespace winnow {
namespace HWY_NAMESPACE {

// Scratch of a call lies on the stack. A row is one head's coefficients in one block; those of
// several blocks are made at once, which hides the latency of finding the largest.
constexpr int kHeadsAtOnce = 8;
constexpr int kRowsAtOnce = 16;
constexpr int kMaxRow = 1024;
constexpr int kMaxLanes = 16;
constexpr size_t kAhead = 6144;  // bytes, rounded up to blocks

struct Rows {
    HWY_ALIGN float products[kHeadsAtOnce * kMaxRow];
    HWY_ALIGN int16_t coefs[kHeadsAtOnce * kMaxRow];
    HWY_ALIGN float peaks[kRowsAtOnce * kMaxLanes];
    HWY_ALIGN float sums[kRowsAtOnce * kMaxLanes];
    float factors[kRowsAtOnce], biases[kRowsAtOnce];
};

// Blocks whose rows fit, at least one.
HWY_INLINE int BlocksAtOnce(const AffineBlocks& b, int heads) {
    return HWY_MAX(1, HWY_MIN(kRowsAtOnce / heads, kHeadsAtOnce * kMaxRow / (heads * b.head_dim)));
}

// Floats of scales and sums: one for each 32-bit lane of the panel's vectors.
template <class D16>
using FloatsOf = hn::RebindToFloat<hn::RepartitionToWide<D16>>;

HWY_INLINE const uint8_t* CodesOfBlock(const AffineBlocks& b, const uint8_t* block) {
    return block + 4 * static_cast<size_t>(b.head_dim);
}

// While a block is worked on, one a few kilobytes on is asked for: its scales here, its codes by
// the panel.
HWY_INLINE size_t FetchScales(const AffineBlocks& b, const uint8_t* block) {
    const size_t ahead = (kAhead / b.block_bytes + 1) * b.block_bytes;
    fetch_ahead(block, ahead, 4 * static_cast<size_t>(b.head_dim));
    return ahead;
}

// Scales and zeros of a block as floats, zeros as what is added to code * scale.
template <class D>
HWY_INLINE void LoadScales(D f, const uint8_t* block, int count, bool zero_in_codes, float* scale,
                           float* zero) {
    const hn::Rebind<hwy::float16_t, D> h;
    const auto* s = reinterpret_cast<const hwy::float16_t*>(block);
    for (int i = 0; i < count; i += static_cast<int>(hn::Lanes(f))) {
        const auto factor = hn::PromoteTo(f, hn::LoadU(h, s + i));
        const auto offset = hn::PromoteTo(f, hn::LoadU(h, s + count + i));
        hn::StoreU(factor, f, scale + i);
        hn::StoreU(zero_in_codes ? hn::Neg(hn::Mul(factor, offset)) : offset, f, zero + i);
    }
}

// out = a b; peak grows to the largest magnitude; returns sum + a c, lane by lane.
template <class D>
HWY_INLINE hn::VFromD<D> ScaleAndDot(D f, const float* a, const float* b, const float* c, int count,
                                     float* out, hn::VFromD<D> sum, hn::VFromD<D>& peak) {
    for (int i = 0; i < count; i += static_cast<int>(hn::Lanes(f))) {
        const auto x = hn::LoadU(f, a + i);
        const auto product = hn::Mul(x, hn::LoadU(f, b + i));
        hn::StoreU(product, f, out + i);
        peak = hn::Max(peak, hn::Abs(product));
        sum = hn::MulAdd(x, hn::LoadU(f, c + i), sum);
    }
    return sum;
}

template <class D>
HWY_INLINE hn::VFromD<D> PeakOf(D f, const float* x, int count) {
    auto peak = hn::Zero(f);
    for (int i = 0; i < count; i += static_cast<int>(hn::Lanes(f))) {
        peak = hn::Max(peak, hn::Abs(hn::LoadU(f, x + i)));
    }
    return peak;
}

template <class D>
HWY_INLINE float SumOf(D f, const float* x, int count) {
    auto sum = hn::Zero(f);
    for (int i = 0; i < count; i += static_cast<int>(hn::Lanes(f))) {
        sum = hn::Add(sum, hn::LoadU(f, x + i));
    }
    return hn::ReduceSum(f, sum);
}

// out += by * x.
template <class D>
HWY_INLINE void AddTimes(D f, float by, const float* x, int count, float* out) {
    for (int i = 0; i < count; i += static_cast<int>(hn::Lanes(f))) {
        hn::StoreU(hn::MulAdd(hn::LoadU(f, x + i), hn::Set(f, by), hn::LoadU(f, out + i)), f,
                   out + i);
    }
}

// What rounding a row's coefficients adds to every lane alike: their error times the middle code.
template <class D>
HWY_INLINE float CommonError(D f, const float* products, const int16_t* coefs, float factor,
                             int count, int bits) {
    int sum = 0;
    for (int i = 0; i < count; ++i) {
        sum += coefs[i];
    }
    const float middle = static_cast<float>((1 << bits) - 1) / 2.0F;
    return middle * (factor * static_cast<float>(sum) - SumOf(f, products, count));
}

// Keys per channel: a score is the sum of (q s) code over channels, plus q.zero.
template <int kBits, class D16>
void DotChannels(D16 d16, const AffineBlocks& b, const float* q, int heads, float* scores,
                 size_t stride) {
    const FloatsOf<D16> f;
    const size_t lanes = hn::Lanes(f);
    const int d = b.head_dim, at_once = BlocksAtOnce(b, heads);
    HWY_ALIGN float scale[kMaxRow], zero[kMaxRow];
    Rows rows;
    for (int i = 0; i < b.blocks; i += at_once) {
        const int now = HWY_MIN(at_once, b.blocks - i);
        int row = 0;
        for (int j = 0; j < now; ++j) {
            LoadScales(f, b.data + (i + j) * b.block_bytes, d, b.zero_in_codes, scale, zero);
            for (int r = 0; r < heads; ++r, ++row) {
                auto peak = hn::Zero(f);
                const auto bias = ScaleAndDot(f, q + r * d, scale, zero, d, rows.products + row * d,
                                              hn::Zero(f), peak);
                hn::StoreU(bias, f, rows.sums + row * lanes);
                hn::StoreU(peak, f, rows.peaks + row * lanes);
            }
        }
        RoundRows(f, rows.products, row, d, rows.peaks, LargestCoef(kBits, d), rows.factors,
                  rows.coefs);
        ReduceRows(AddOp(), f, rows.sums, row, rows.biases);
        for (int each = 0; b.centred && each < row; ++each) {
            rows.biases[each] -= CommonError(f, rows.products + each * d, rows.coefs + each * d,
                                             rows.factors[each], d, kBits);
        }
        for (int j = 0; j < now; ++j, scores += b.group) {
            const size_t ahead = FetchScales(b, b.data + (i + j) * b.block_bytes);
            for (int r = 0; r < heads; ++r) {
                std::fill_n(scores + r * stride, b.group, rows.biases[j * heads + r]);
            }
            AddPanel<kBits>(d16,
                            {.codes = CodesOfBlock(b, b.data + (i + j) * b.block_bytes),
                             .rows = d,
                             .lanes = b.group,
                             .coefs = rows.coefs + j * heads * d,
                             .coef_head = static_cast<size_t>(d),
                             .coef_group = 0,
                             .group_lanes = b.group,
                             .factors = rows.factors + j * heads,
                             .scale = nullptr,
                             .out = scores,
                             .out_head = stride,
                             .ahead = ahead},
                            heads);
        }
    }
}

// Keys per token: the sum over a group of channels takes the scale of its token.
template <int kBits, class D16>
void DotTokens(D16 d16, const AffineBlocks& b, const float* q, int heads, float* scores,
               size_t stride) {
    const FloatsOf<D16> f;
    const int d = b.head_dim, n = b.group, groups = d / n;
    HWY_ALIGN float scale[kMaxRow], zero[kMaxRow];
    Rows rows;
    float sums[kHeadsAtOnce * kMaxRow / 8];  // [R][D/n], q summed over a group
    for (int r = 0; r < heads; ++r) {
        hn::StoreU(PeakOf(f, q + r * d, d), f, rows.peaks + r * hn::Lanes(f));
        for (int g = 0; g < groups; ++g) {
            sums[r * groups + g] = SumOf(f, q + r * d + g * n, n);
        }
    }
    RoundRows(f, q, heads, d, rows.peaks, LargestCoef(kBits, n), rows.factors, rows.coefs);
    const uint8_t* block = b.data;
    for (int i = 0; i < b.blocks; ++i, block += b.block_bytes, scores += n) {
        const size_t ahead = FetchScales(b, block);
        LoadScales(f, block, d, b.zero_in_codes, scale, zero);
        for (int r = 0; r < heads; ++r) {
            std::fill_n(scores + r * stride, n, 0.0F);
        }
        for (int g = 0; g < groups; ++g) {
            AddPanel<kBits>(
                d16,
                {.codes = CodesOfBlock(b, block) + static_cast<size_t>(g) * n * n * kBits / 8,
                 .rows = n,
                 .lanes = n,
                 .coefs = rows.coefs + g * n,
                 .coef_head = static_cast<size_t>(d),
                 .coef_group = 0,
                 .group_lanes = n,
                 .factors = rows.factors,
                 .scale = scale + g * n,
                 .out = scores,
                 .out_head = stride,
                 .ahead = ahead},
                heads);
            for (int r = 0; r < heads; ++r) {
                AddTimes(f, sums[r * groups + g], zero + g * n, n, scores + r * stride);
            }
        }
    }
}

// Values per token: weights take the scale of their token and channel group; zeros are summed
// lane by lane over all blocks and added once.
template <int kBits, class D16>
void AddTokens(D16 d16, const AffineBlocks& b, const float* weights, size_t stride, int heads,
               float* out) {
    const FloatsOf<D16> f;
    const int d = b.head_dim, n = b.group, groups = d / n, at_once = BlocksAtOnce(b, heads);
    const size_t lanes = hn::Lanes(f);
    HWY_ALIGN float scale[kMaxRow], zero[kMaxRow];
    HWY_ALIGN float offsets[kHeadsAtOnce * kMaxRow];  // [R][D/n][lanes]
    Rows rows;
    std::fill_n(offsets, static_cast<size_t>(heads * groups) * lanes, 0.0F);
    for (int i = 0; i < b.blocks; i += at_once) {
        const int now = HWY_MIN(at_once, b.blocks - i);
        int row = 0;
        for (int j = 0; j < now; ++j, weights += n) {
            LoadScales(f, b.data + (i + j) * b.block_bytes, d, b.zero_in_codes, scale, zero);
            for (int r = 0; r < heads; ++r, ++row) {
                auto peak = hn::Zero(f);
                for (int g = 0; g < groups; ++g) {
                    float* sum = offsets + (r * groups + g) * lanes;
                    const auto offset =
                        ScaleAndDot(f, weights + r * stride, scale + g * n, zero + g * n, n,
                                    rows.products + row * d + g * n, hn::LoadU(f, sum), peak);
                    hn::StoreU(offset, f, sum);
                }
                hn::StoreU(peak, f, rows.peaks + row * lanes);
            }
        }
        RoundRows(f, rows.products, row, d, rows.peaks, LargestCoef(kBits, n), rows.factors,
                  rows.coefs);
        for (int j = 0; j < now; ++j) {
            const size_t ahead = FetchScales(b, b.data + (i + j) * b.block_bytes);
            AddPanel<kBits>(d16,
                            {.codes = CodesOfBlock(b, b.data + (i + j) * b.block_bytes),
                             .rows = n,
                             .lanes = d,
                             .coefs = rows.coefs + j * heads * d,
                             .coef_head = static_cast<size_t>(d),
                             .coef_group = static_cast<size_t>(n),
                             .group_lanes = n,
                             .factors = rows.factors + j * heads,
                             .scale = nullptr,
                             .out = out,
                             .out_head = static_cast<size_t>(d),
                             .ahead = ahead},
                            heads);
        }
    }
    for (int r = 0; r < heads; ++r) {
        for (int g = 0; g < groups; ++g) {
            const auto offset =
                hn::Set(f, SumOf(f, offsets + (r * groups + g) * lanes, static_cast<int>(lanes)));
            for (float* at = out + r * d + g * n; at < out + r * d + (g + 1) * n; at += lanes) {
                hn::StoreU(hn::Add(hn::LoadU(f, at), offset), f, at);
            }
        }
    }
}

// Values per channel: the weighted sum of a channel's codes takes the channel's scale.
template <int kBits, class D16>
void AddChannels(D16 d16, const AffineBlocks& b, const float* weights, size_t stride, int heads,
                 float* out) {
    const FloatsOf<D16> f;
    const int d = b.head_dim, n = b.group;
    HWY_ALIGN float scale[kMaxRow], zero[kMaxRow];
    Rows rows;
    const uint8_t* block = b.data;
    for (int i = 0; i < b.blocks; ++i, block += b.block_bytes, weights += n) {
        const size_t ahead = FetchScales(b, block);
        LoadScales(f, block, d, b.zero_in_codes, scale, zero);
        for (int r = 0; r < heads; ++r) {
            const float* row = weights + r * stride;
            std::copy_n(row, n, rows.products + r * n);
            hn::StoreU(PeakOf(f, row, n), f, rows.peaks + r * hn::Lanes(f));
            AddTimes(f, SumOf(f, row, n), zero, d, out + r * d);
        }
        RoundRows(f, rows.products, heads, n, rows.peaks, LargestCoef(kBits, n), rows.factors,
                  rows.coefs);
        AddPanel<kBits>(d16,
                        {.codes = CodesOfBlock(b, block),
                         .rows = n,
                         .lanes = d,
                         .coefs = rows.coefs,
                         .coef_head = static_cast<size_t>(n),
                         .coef_group = 0,
                         .group_lanes = d,
                         .factors = rows.factors,
                         .scale = scale,
                         .out = out,
                         .out_head = static_cast<size_t>(d),
                         .ahead = ahead},
                        heads);
    }
}

// Calls body with the widest tag of 16-bit words whose vectors fit a panel of `lanes` lanes (see
// panel-inl.h) and whose 32-bit lanes divide a group and a head.
template <int kBits, int kWords, class Body>
HWY_INLINE void WithTag(const AffineBlocks& b, int lanes, const Body& body) {
    const hn::CappedTag<uint16_t, kWords> d16;
    const int words = static_cast<int>(hn::Lanes(d16));
    const int run = kBits == 3 ? lanes / 2 : kBits == 2 ? lanes : 2 * lanes;
    const int share = kBits >= 4 ? words : words / 2;  // lanes of a tile side by side
    if constexpr (kWords > (kBits == 3 ? 4 : 8)) {
        if (run % words != 0 || b.group % share != 0 || b.head_dim % (words / 2) != 0) {
            return WithTag<kBits, kWords / 2>(b, lanes, body);
        }
    }
    body(d16);
}

template <class Body>
HWY_INLINE void WithBits(int bits, const Body& body) {
    switch (bits) {
        case 8:
            return body(std::integral_constant<int, 8>());
        case 4:
            return body(std::integral_constant<int, 4>());
        case 3:
            return body(std::integral_constant<int, 3>());
        default:
            return body(std::integral_constant<int, 2>());
    }
}

void AffineDot(const AffineBlocks& b, const float* q, int heads, float* scores, size_t stride) {
    WithBits(b.bits, [&](auto bits) HWY_ATTR {
        constexpr int kBits = decltype(bits)::value;
        WithTag<kBits, 32>(b, b.group, [&](auto d16) HWY_ATTR {
            using D16 = decltype(d16);
            const auto kernel = b.axis == 0 ? DotChannels<kBits, D16> : DotTokens<kBits, D16>;
            for (int h = 0; h < heads; h += kHeadsAtOnce) {
                kernel(d16, b, q + h * b.head_dim, HWY_MIN(heads - h, kHeadsAtOnce),
                       scores + h * stride, stride);
            }
        });
    });
}

void AffineAdd(const AffineBlocks& b, const float* weights, size_t stride, int heads, float* out) {
    WithBits(b.bits, [&](auto bits) HWY_ATTR {
        constexpr int kBits = decltype(bits)::value;
        WithTag<kBits, 32>(b, b.head_dim, [&](auto d16) HWY_ATTR {
            using D16 = decltype(d16);
            const auto kernel = b.axis == 0 ? AddChannels<kBits, D16> : AddTokens<kBits, D16>;
            for (int h = 0; h < heads; h += kHeadsAtOnce) {
                kernel(d16, b, weights + h * stride, stride, HWY_MIN(heads - h, kHeadsAtOnce),
                       out + h * b.head_dim);
            }
        });
    });
}

}  // namespace HWY_NAMESPACE
}  // namespace winnow
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace winnow {

HWY_EXPORT(AffineDot);
HWY_EXPORT(AffineAdd);

void affine_dot_rows(const AffineBlocks& blocks, const float* q, int heads, float* scores,
                     std::size_t stride) {
    HWY_DYNAMIC_DISPATCH(AffineDot)(blocks, q, heads, scores, stride);
}

void affine_add_rows(const AffineBlocks& blocks, const float* weights, std::size_t stride,
                     int heads, float* out) {
    HWY_DYNAMIC_DISPATCH(AffineAdd)(blocks, weights, stride, heads, out);
}

}  // namespace winnow
#endif  // HWY_ONCE
