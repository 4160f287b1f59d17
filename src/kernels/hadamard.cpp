// One source, compiled once per instruction set by Highway.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/hadamard.cpp"
#include <hwy/foreach_target.h>
// foreach_target must come before highway.h.
#include <hwy/highway.h>

#include <cmath>
#include <utility>

#include "kernels/hadamard.h"

HWY_BEFORE_NAMESPACE();
namespace winnow {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// The value kStep lanes away, from the other half of a pair of kStep lanes.
template <int kStep, class D, class V>
HWY_INLINE V Partner(D f, V x) {
    if constexpr (kStep == 1) {
        return hn::Reverse2(f, x);
    } else if constexpr (kStep == 2) {
        return hn::Reverse4(f, hn::Reverse2(f, x));
    } else if constexpr (kStep == 4) {
        return hn::Reverse8(f, hn::Reverse4(f, x));
    } else {
        return hn::ConcatLowerUpper(f, x, x);
    }
}

// Pairs kStep apart inside a vector: (a, b) becomes (a + b, a - b).
template <int kStep, class D>
HWY_INLINE void StageInside(D f, float* x, int width) {
    const size_t lanes = hn::Lanes(f);
    if constexpr (kStep * 2 > HWY_MAX_LANES_D(D)) {
        return;
    } else {
        const hn::RebindToSigned<D> i;
        const auto upper = hn::Ne(hn::And(hn::Iota(i, 0), hn::Set(i, kStep)), hn::Zero(i));
        const auto sign =
            hn::IfThenElse(hn::RebindMask(f, upper), hn::Set(f, -1.0F), hn::Set(f, 1.0F));
        for (size_t at = 0; at < static_cast<size_t>(width); at += lanes) {
            const auto v = hn::LoadU(f, x + at);
            hn::StoreU(hn::MulAdd(v, sign, Partner<kStep>(f, v)), f, x + at);
        }
    }
}

// Whole vectors `step` apart.
template <class D>
HWY_INLINE void StageAcross(D f, float* x, int width, int step) {
    const int lanes = static_cast<int>(hn::Lanes(f));
    for (int first = 0; first < width; first += 2 * step) {
        for (int at = first; at < first + step; at += lanes) {
            const auto a = hn::LoadU(f, x + at);
            const auto b = hn::LoadU(f, x + at + step);
            hn::StoreU(hn::Add(a, b), f, x + at);
            hn::StoreU(hn::Sub(a, b), f, x + at + step);
        }
    }
}

// A stage of a piece that is in registers.
template <int kStep, int kVectors, class D>
HWY_INLINE void StageOf(D f, hn::VFromD<D>* v) {
    constexpr int kLanes = HWY_MAX_LANES_D(D);
    if constexpr (kStep < kLanes) {
        const hn::RebindToSigned<D> i;
        const auto upper = hn::Ne(hn::And(hn::Iota(i, 0), hn::Set(i, kStep)), hn::Zero(i));
        const auto sign =
            hn::IfThenElse(hn::RebindMask(f, upper), hn::Set(f, -1.0F), hn::Set(f, 1.0F));
        for (int k = 0; k < kVectors; ++k) v[k] = hn::MulAdd(v[k], sign, Partner<kStep>(f, v[k]));
    } else {
        constexpr int kApart = kStep / kLanes;
        for (int k = 0; k < kVectors; ++k) {
            if ((k & kApart) != 0) continue;
            const auto a = v[k], b = v[k + kApart];
            v[k] = hn::Add(a, b);
            v[k + kApart] = hn::Sub(a, b);
        }
    }
}

// Pieces of kWidth channels, each loaded and stored once. The same sums as stage by stage.
template <int kWidth, class D>
void InRegisters(D f, float* x, int pieces) {
    constexpr int kLanes = HWY_MAX_LANES_D(D), kVectors = kWidth / kLanes;
    const auto factor = hn::Set(f, 1.0F / std::sqrt(static_cast<float>(kWidth)));
    for (int piece = 0; piece < pieces; ++piece, x += kWidth) {
        hn::VFromD<D> v[kVectors];
        for (int k = 0; k < kVectors; ++k) v[k] = hn::LoadU(f, x + k * kLanes);
        StageOf<1, kVectors>(f, v);
        StageOf<2, kVectors>(f, v);
        StageOf<4, kVectors>(f, v);
        StageOf<8, kVectors>(f, v);
        StageOf<16, kVectors>(f, v);
        StageOf<32, kVectors>(f, v);
        if constexpr (kWidth > 64) StageOf<64, kVectors>(f, v);
        for (int k = 0; k < kVectors; ++k) {
            hn::StoreU(hn::Mul(v[k], factor), f, x + k * kLanes);
        }
    }
}

void Hadamard(float* x, int rows, int head_dim) {
    const hn::CappedTag<float, 16> wide;
    const hn::CappedTag<float, 8> f;
    const int lanes = static_cast<int>(hn::Lanes(f));
    const int width = hadamard_width(head_dim);
    const auto factor = hn::Set(f, 1.0F / std::sqrt(static_cast<float>(width)));
    const int pieces = rows * (head_dim / width);
    if (width == 64) return InRegisters<64>(wide, x, pieces);
    if (width == 128) return InRegisters<128>(wide, x, pieces);
    for (int piece = 0; piece < pieces; ++piece, x += width) {
        StageInside<1>(f, x, width);
        StageInside<2>(f, x, width);
        StageInside<4>(f, x, width);
        for (int step = lanes; step < width; step *= 2) StageAcross(f, x, width, step);
        for (int at = 0; at < width; at += lanes) {
            hn::StoreU(hn::Mul(hn::LoadU(f, x + at), factor), f, x + at);
        }
    }
}

}  // namespace HWY_NAMESPACE
}  // namespace winnow
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace winnow {

HWY_EXPORT(Hadamard);
void hadamard(float* x, int rows, int head_dim) {
    HWY_DYNAMIC_DISPATCH(Hadamard)(x, rows, head_dim);
}

namespace reference {
void hadamard(float* x, int rows, int head_dim) {
    const int width = hadamard_width(head_dim);
    const float factor = 1.0F / std::sqrt(static_cast<float>(width));
    for (int piece = 0; piece < rows * (head_dim / width); ++piece, x += width) {
        for (int step = 1; step < width; step *= 2) {
            for (int i = 0; i < width; ++i) {
                if ((i & step) != 0) continue;
                const float a = x[i], b = x[i + step];
                x[i] = a + b;
                x[i + step] = a - b;
            }
        }
        for (int i = 0; i < width; ++i) x[i] *= factor;
    }
}
}  // namespace reference

}  // namespace winnow
#endif  // HWY_ONCE
