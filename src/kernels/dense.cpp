// One source, compiled once per instruction set by Highway.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/dense.cpp"
#include <hwy/foreach_target.h>
// foreach_target must come before highway.h.
#include <hwy/highway.h>

#include "kernels/dense.h"

HWY_BEFORE_NAMESPACE();
namespace winnow {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using F32 = hn::ScalableTag<float>;
using F16 = hn::Rebind<hwy::float16_t, F32>;

// kRows x 2 vectors of C stay in registers while k runs.
template <int kRows>
HWY_INLINE void MultiplyBlock(const float* HWY_RESTRICT a, size_t a_stride,
                              const float* HWY_RESTRICT b, size_t b_stride, float* HWY_RESTRICT c,
                              size_t c_stride, int columns, int depth, bool accumulate) {
    const F32 f;
    const int lanes = static_cast<int>(hn::Lanes(f));
    for (int n = 0; n < columns; n += 2 * lanes) {
        hn::VFromD<F32> sums[kRows][2];  // NOLINT: fixed-size vector types on all our targets
        for (int m = 0; m < kRows; ++m) {
            for (int i = 0; i < 2; ++i) {
                sums[m][i] =
                    accumulate ? hn::LoadU(f, c + m * c_stride + n + i * lanes) : hn::Zero(f);
            }
        }
        for (int k = 0; k < depth; ++k) {
            const auto b0 = hn::LoadU(f, b + k * b_stride + n);
            const auto b1 = hn::LoadU(f, b + k * b_stride + n + lanes);
            for (int m = 0; m < kRows; ++m) {
                const auto value = hn::Set(f, a[m * a_stride + k]);
                sums[m][0] = hn::MulAdd(value, b0, sums[m][0]);
                sums[m][1] = hn::MulAdd(value, b1, sums[m][1]);
            }
        }
        for (int m = 0; m < kRows; ++m) {
            for (int i = 0; i < 2; ++i) {
                hn::StoreU(sums[m][i], f, c + m * c_stride + n + i * lanes);
            }
        }
    }
}

void Multiply(const float* a, size_t a_stride, const float* b, size_t b_stride, float* c,
              size_t c_stride, int rows, int columns, int depth, bool accumulate) {
    int m = 0;
    for (; m + 6 <= rows; m += 6) {
        MultiplyBlock<6>(a + m * a_stride, a_stride, b, b_stride, c + m * c_stride, c_stride,
                         columns, depth, accumulate);
    }
    for (; m + 2 <= rows; m += 2) {
        MultiplyBlock<2>(a + m * a_stride, a_stride, b, b_stride, c + m * c_stride, c_stride,
                         columns, depth, accumulate);
    }
    if (m < rows) {
        MultiplyBlock<1>(a + m * a_stride, a_stride, b, b_stride, c + m * c_stride, c_stride,
                         columns, depth, accumulate);
    }
}

float MaxOf(const float* x, int n) {
    const F32 f;
    const int lanes = static_cast<int>(hn::Lanes(f));
    auto best = hn::Set(f, -hwy::HighestValue<float>() * 2.0F);
    int i = 0;
    for (; i + lanes <= n; i += lanes) {
        best = hn::Max(best, hn::LoadU(f, x + i));
    }
    float result = hn::ReduceMax(f, best);
    for (; i < n; ++i) {
        result = x[i] > result ? x[i] : result;
    }
    return result;
}

// exp for what softmax needs: within 2 ulp, 0 below -86.6 (2^-125), no infinities. Half the
// instructions of a general one, which rounds at the edges of the range.
HWY_INLINE hn::VFromD<F32> SoftmaxExp(F32 f, hn::VFromD<F32> x) {
    const hn::RebindToSigned<F32> i;
    const auto seen = hn::Gt(x, hn::Set(f, -86.6F));
    x = hn::Min(x, hn::Set(f, 88.0F));
    const auto magic = hn::Set(f, 12582912.0F);  // 1.5 * 2^23: the sum's low bits are the integer
    const auto rounded = hn::MulAdd(x, hn::Set(f, 1.442695041F), magic);
    const auto whole = hn::Sub(rounded, magic);
    auto r = hn::NegMulAdd(whole, hn::Set(f, 0.693359375F), x);
    r = hn::NegMulAdd(whole, hn::Set(f, -2.12194440e-4F), r);
    // (e^r - 1 - r) / r^2 for |r| <= ln 2 / 2.
    auto p = hn::Set(f, 1.9875691500e-4F);
    p = hn::MulAdd(p, r, hn::Set(f, 1.3981999507e-3F));
    p = hn::MulAdd(p, r, hn::Set(f, 8.3334519073e-3F));
    p = hn::MulAdd(p, r, hn::Set(f, 4.1665795894e-2F));
    p = hn::MulAdd(p, r, hn::Set(f, 1.6666665459e-1F));
    p = hn::MulAdd(p, r, hn::Set(f, 5.0000001201e-1F));
    p = hn::Add(hn::MulAdd(p, hn::Mul(r, r), r), hn::Set(f, 1.0F));
    const auto exponent = hn::ShiftLeft<23>(hn::BitCast(i, rounded));
    return hn::IfThenElseZero(seen, hn::BitCast(f, hn::Add(hn::BitCast(i, p), exponent)));
}

float ExpAndSum(float* x, int n, float subtract) {
    const F32 f;
    const int lanes = static_cast<int>(hn::Lanes(f));
    const auto offset = hn::Set(f, subtract);
    auto sum = hn::Zero(f);
    int i = 0;
    for (; i + lanes <= n; i += lanes) {
        const auto e = SoftmaxExp(f, hn::Sub(hn::LoadU(f, x + i), offset));
        hn::StoreU(e, f, x + i);
        sum = hn::Add(sum, e);
    }
    if (i < n) {
        const size_t left = static_cast<size_t>(n - i);
        const auto e = SoftmaxExp(f, hn::Sub(hn::LoadN(f, x + i, left), offset));
        hn::StoreN(e, f, x + i, left);
        sum = hn::Add(sum, hn::IfThenElseZero(hn::FirstN(f, left), e));
    }
    return hn::ReduceSum(f, sum);
}

void ScaleBy(float* x, int n, float factor) {
    const F32 f;
    const int lanes = static_cast<int>(hn::Lanes(f));
    const auto by = hn::Set(f, factor);
    int i = 0;
    for (; i + lanes <= n; i += lanes) {
        hn::StoreU(hn::Mul(hn::LoadU(f, x + i), by), f, x + i);
    }
    for (; i < n; ++i) {
        x[i] *= factor;
    }
}

void AddScaled(float* out, const float* x, int n, float factor) {
    const F32 f;
    const int lanes = static_cast<int>(hn::Lanes(f));
    const auto by = hn::Set(f, factor);
    int i = 0;
    for (; i + lanes <= n; i += lanes) {
        hn::StoreU(hn::MulAdd(hn::LoadU(f, x + i), by, hn::LoadU(f, out + i)), f, out + i);
    }
    for (; i < n; ++i) {
        out[i] += x[i] * factor;
    }
}

void Widen(const f16* from, float* to, size_t n) {
    const F32 f;
    const F16 h;
    const size_t lanes = hn::Lanes(f);
    const auto* source = reinterpret_cast<const hwy::float16_t*>(from);
    size_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        hn::StoreU(hn::PromoteTo(f, hn::LoadU(h, source + i)), f, to + i);
    }
    for (; i < n; ++i) {
        to[i] = f16_to_f32(from[i]);
    }
}

void Narrow(const float* from, f16* to, size_t n) {
    const F32 f;
    const F16 h;
    const size_t lanes = hn::Lanes(f);
    auto* target = reinterpret_cast<hwy::float16_t*>(to);
    size_t i = 0;
#if HWY_TARGET <= HWY_AVX2 || HWY_TARGET == HWY_NEON
    // The older x86 targets emulate this with another rounding; they take the scalar loop.
    for (; i + lanes <= n; i += lanes) {
        hn::StoreU(hn::DemoteTo(h, hn::LoadU(f, from + i)), h, target + i);
    }
#else
    (void)h, (void)lanes, (void)target;
#endif
    for (; i < n; ++i) {
        to[i] = f32_to_f16(from[i]);
    }
}

// Rows are widened a small block at a time, so that the scattered writes stay in the first cache.
void WidenTransposed(const f16* from, int tokens, int head_dim, float* to, int padded) {
    constexpr int kTokens = 8;
    HWY_ALIGN float block[kTokens * 512];
    const int chunk = head_dim <= 512 ? head_dim : 512;
    for (int d0 = 0; d0 < head_dim; d0 += chunk) {
        const int dims = head_dim - d0 < chunk ? head_dim - d0 : chunk;
        for (int t0 = 0; t0 < tokens; t0 += kTokens) {
            const int n = tokens - t0 < kTokens ? tokens - t0 : kTokens;
            for (int t = 0; t < n; ++t) {
                Widen(from + static_cast<size_t>(t0 + t) * head_dim + d0, block + t * 512,
                      static_cast<size_t>(dims));
            }
            for (int d = 0; d < dims; ++d) {
                float* row = to + static_cast<size_t>(d0 + d) * padded + t0;
                for (int t = 0; t < n; ++t) {
                    row[t] = block[t * 512 + d];
                }
            }
        }
        for (int d = 0; d < dims; ++d) {
            float* row = to + static_cast<size_t>(d0 + d) * padded;
            for (int t = tokens; t < padded; ++t) {
                row[t] = 0.0F;
            }
        }
    }
}

const char* IsaName() {
    return hwy::TargetName(HWY_TARGET);
}

}  // namespace HWY_NAMESPACE
}  // namespace winnow
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/isa.h"

namespace winnow {

HWY_EXPORT(Multiply);
HWY_EXPORT(MaxOf);
HWY_EXPORT(ExpAndSum);
HWY_EXPORT(ScaleBy);
HWY_EXPORT(AddScaled);
HWY_EXPORT(Widen);
HWY_EXPORT(Narrow);
HWY_EXPORT(WidenTransposed);
HWY_EXPORT(IsaName);

void multiply(const float* a, std::size_t a_stride, const float* b, std::size_t b_stride, float* c,
              std::size_t c_stride, int rows, int columns, int depth, bool accumulate) {
    HWY_DYNAMIC_DISPATCH(Multiply)
    (a, a_stride, b, b_stride, c, c_stride, rows, columns, depth, accumulate);
}
float max_of(const float* x, int n) {
    return HWY_DYNAMIC_DISPATCH(MaxOf)(x, n);
}
float exp_and_sum(float* x, int n, float subtract) {
    return HWY_DYNAMIC_DISPATCH(ExpAndSum)(x, n, subtract);
}
void scale_by(float* x, int n, float factor) {
    HWY_DYNAMIC_DISPATCH(ScaleBy)(x, n, factor);
}
void add_scaled(float* out, const float* x, int n, float factor) {
    HWY_DYNAMIC_DISPATCH(AddScaled)(out, x, n, factor);
}
void widen(const f16* from, float* to, std::size_t n) {
    HWY_DYNAMIC_DISPATCH(Widen)(from, to, n);
}
void narrow(const float* from, f16* to, std::size_t n) {
    HWY_DYNAMIC_DISPATCH(Narrow)(from, to, n);
}
void widen_transposed(const f16* from, int tokens, int head_dim, float* to, int padded) {
    HWY_DYNAMIC_DISPATCH(WidenTransposed)(from, tokens, head_dim, to, padded);
}
const char* kernel_isa() {
    return HWY_DYNAMIC_DISPATCH(IsaName)();
}

}  // namespace winnow
#endif  // HWY_ONCE
