// Striped runs of codes (cache/code_pack.h) as vectors, for the instruction set that includes this
// file.

// Included once per target, so the guard toggles.
#if defined(WINNOW_CODES_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WINNOW_CODES_INL_H
#undef WINNOW_CODES_INL_H
#else
#define WINNOW_CODES_INL_H
#endif

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace winnow {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Vectors of codes that one place of a run gives, and the codes between them.
template <int kBits>
constexpr int kStripes = kBits == 3 ? 8 : 8 / kBits;

// Calls use(stripe, codes) for the codes stripe * count / kStripes + at.. of a run.
template <int kBits, class D, class Use>
HWY_INLINE void CodesAt(D /*f*/, const uint8_t* run, int count, int at, const Use& use) {
    const hn::RebindToSigned<D> i32;
    const hn::Rebind<uint8_t, D> u8;
    if constexpr (kBits == 3) {
        const int high = count / 8, low = count / 4;
        const auto bits = hn::PromoteTo(i32, hn::LoadU(u8, run + low + at));
        for (int eighth = 0; eighth < 8; ++eighth) {
            const auto pairs = hn::PromoteTo(i32, hn::LoadU(u8, run + eighth % 2 * high + at));
            const auto two = hn::And(hn::ShiftRightSame(pairs, eighth / 2 * 2), hn::Set(i32, 3));
            const auto one = hn::And(hn::ShiftRightSame(bits, eighth), hn::Set(i32, 1));
            use(eighth, hn::Or(two, hn::ShiftLeft<2>(one)));
        }
    } else {
        auto raw = hn::PromoteTo(i32, hn::LoadU(u8, run + at));
        for (int stripe = 0; stripe < kStripes<kBits>; ++stripe) {
            use(stripe, hn::And(raw, hn::Set(i32, (1 << kBits) - 1)));
            raw = hn::ShiftRight<kBits>(raw);
        }
    }
}

// Calls use(i, codes i.. of the run) for whole vectors of D, which divide the stripes.
template <int kBits, class D, class Use>
HWY_INLINE void EachCodes(D f, const uint8_t* run, int count, const Use& use) {
    const int stripe = count / kStripes<kBits>;
    for (int at = 0; at < stripe; at += static_cast<int>(hn::Lanes(f))) {
        CodesAt<kBits>(f, run, count, at,
                       [&](int which, auto codes) HWY_ATTR { use(which * stripe + at, codes); });
    }
}

// A table of 2^kBits floats, in registers where they fit.
template <int kBits, class D>
class Table {
  public:
    static constexpr int kLevels = 1 << kBits;

    Table(D f, const float* levels) : levels_(levels) {
        if constexpr (kBits <= 4) {
            HWY_ALIGN float values[HWY_MAX(kLevels, HWY_MAX_BYTES / 4)] = {};
            hwy::CopyBytes<sizeof(float) * kLevels>(levels, values);
            const int lanes = static_cast<int>(hn::Lanes(f));
            for (int i = 0; i < kParts && i * lanes < kLevels; ++i) {
                parts_[i] = hn::Load(f, values + i * lanes);
            }
        }
    }

    template <class VI>
    HWY_INLINE hn::VFromD<D> operator()(D f, VI code) const {
        const hn::RebindToSigned<D> i;
        if constexpr (kBits > 4) {
            return hn::GatherIndex(f, levels_, code);
        } else {
            const int lanes = static_cast<int>(hn::Lanes(f));
            if (lanes >= kLevels) {
                return hn::TableLookupLanes(parts_[0], hn::IndicesFromVec(f, code));
            }
            const auto low = hn::IndicesFromVec(f, hn::And(code, hn::Set(i, lanes - 1)));
            auto result = hn::TableLookupLanes(parts_[0], low);
            for (int part = 1; part * lanes < kLevels; ++part) {
                const auto from = hn::Set(i, part * lanes - 1);
                result = hn::IfThenElse(hn::RebindMask(f, hn::Gt(code, from)),
                                        hn::TableLookupLanes(parts_[part], low), result);
            }
            return result;
        }
    }

  private:
    static constexpr int kParts = kBits > 4 ? 1 : HWY_MAX(1, kLevels / 4);
    const float* levels_;
    hn::VFromD<D> parts_[kParts];
};

}  // namespace HWY_NAMESPACE
}  // namespace winnow
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
