// Four reductions across lanes at once, for the instruction set that includes this file.

// Included once per target, so the guard toggles.
#if defined(WINNOW_REDUCE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WINNOW_REDUCE_INL_H
#undef WINNOW_REDUCE_INL_H
#else
#define WINNOW_REDUCE_INL_H
#endif

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace winnow {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

struct AddOp {
    template <class V>
    HWY_INLINE V operator()(V a, V b) const {
        return hn::Add(a, b);
    }
};
struct MaxOp {
    template <class V>
    HWY_INLINE V operator()(V a, V b) const {
        return hn::Max(a, b);
    }
};

// Lanes i, i + 4, i + 8, .. as one.
template <class Op, class D>
HWY_INLINE hn::Vec128<float> FoldBlocks(Op op, D f, hn::VFromD<D> x) {
    if constexpr (HWY_MAX_LANES_D(D) > 4) {
        const hn::Half<D> half;
        return FoldBlocks(op, half, op(hn::LowerHalf(half, x), hn::UpperHalf(half, x)));
    } else {
        (void)f;
        return x;
    }
}

// Lane i is x[i] reduced, i < 4: a third of the shuffles that four reductions take one by one.
template <class Op, class D>
HWY_INLINE hn::Vec128<float> ReduceFour(Op op, D f, const hn::VFromD<D>* x) {
    static_assert(HWY_MAX_LANES_D(D) >= 4);
    const hn::RepartitionToWide<D> wide;
    const auto pair = [&](auto a, auto b) HWY_ATTR {
        return hn::BitCast(wide, op(hn::InterleaveLower(f, a, b), hn::InterleaveUpper(f, a, b)));
    };
    const auto ab = pair(x[0], x[1]), cd = pair(x[2], x[3]);
    return FoldBlocks(op, f,
                      op(hn::BitCast(f, hn::InterleaveLower(wide, ab, cd)),
                         hn::BitCast(f, hn::InterleaveUpper(wide, ab, cd))));
}

// out[i] is row i of x [rows][lanes] reduced; rows are rounded up to a multiple of 4 on both sides.
template <class Op, class D>
HWY_INLINE void ReduceRows(Op op, D f, const float* x, int rows, float* out) {
    const size_t lanes = hn::Lanes(f);
    if constexpr (HWY_MAX_LANES_D(D) >= 4) {
        for (int row = 0; row < rows; row += 4, x += 4 * lanes) {
            const hn::VFromD<D> four[4] = {hn::LoadU(f, x), hn::LoadU(f, x + lanes),
                                           hn::LoadU(f, x + 2 * lanes),
                                           hn::LoadU(f, x + 3 * lanes)};
            hn::StoreU(ReduceFour(op, f, four), hn::Full128<float>(), out + row);
        }
    } else {
        for (int row = 0; row < rows; ++row, x += lanes) {
            const hn::CappedTag<float, 1> one;
            out[row] = hn::GetLane(op(hn::LoadU(one, x), hn::LoadU(one, x + lanes - 1)));
        }
    }
}

}  // namespace HWY_NAMESPACE
}  // namespace winnow
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
