// One source, compiled once per instruction set by Highway.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/levels.cpp"
#include <hwy/foreach_target.h>
// foreach_target must come before highway.h.
#include <hwy/highway.h>

#include "kernels/levels.h"

HWY_BEFORE_NAMESPACE();
namespace winnow {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// A table of 2^kBits floats in registers. Lanes hold at least 4 floats on every target.
template <int kBits, class D>
class Table {
  public:
    static constexpr int kLevels = 1 << kBits;

    Table(D f, const float* levels, float scale, float offset) {
        HWY_ALIGN float values[HWY_MAX(kLevels, HWY_MAX_BYTES / 4)] = {};
        for (int i = 0; i < kLevels; ++i) {
            values[i] = offset + scale * levels[i];
        }
        const int lanes = static_cast<int>(hn::Lanes(f));
        for (int i = 0; i < kParts && i * lanes < kLevels; ++i) {
            parts_[i] = hn::Load(f, values + i * lanes);
        }
    }

    template <class VI>
    HWY_INLINE hn::VFromD<D> operator()(D f, VI code) const {
        const hn::RebindToSigned<D> i;
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

  private:
    static constexpr int kParts = HWY_MAX(1, kLevels / 4);
    hn::VFromD<D> parts_[kParts];
};

template <int kBits, class D>
HWY_INLINE void RestoreRun(D f, const uint8_t* HWY_RESTRICT run, int count, const float* levels,
                           float scale, float offset, float* HWY_RESTRICT out) {
    constexpr int kPlanes = 8 / kBits;
    const hn::RebindToSigned<D> i;
    const hn::Rebind<uint8_t, D> u8;
    const Table<kBits, D> table(f, levels, scale, offset);
    const int lanes = static_cast<int>(hn::Lanes(f));
    const int plane = count / kPlanes;
    const auto mask = hn::Set(i, (1 << kBits) - 1);
    for (int at = 0; at < plane; at += lanes) {
        auto raw = hn::PromoteTo(i, hn::LoadU(u8, run + at));
        for (int p = 0; p < kPlanes; ++p) {
            hn::StoreU(table(f, hn::And(raw, mask)), f, out + p * plane + at);
            raw = hn::ShiftRight<kBits>(raw);
        }
    }
}

// Whether the run was restored; planes must be whole vectors.
bool RestoreLevels(const uint8_t* run, int bits, int count, const float* levels, float scale,
                   float offset, float* out) {
    const hn::CappedTag<float, 16> wide;
    const hn::CappedTag<float, 8> narrow;
    const int plane = count * bits / 8;
    const bool fits_wide = plane % static_cast<int>(hn::Lanes(wide)) == 0;
    if ((bits != 2 && bits != 4) ||
        (!fits_wide && plane % static_cast<int>(hn::Lanes(narrow)) != 0)) {
        return false;
    }
    if (bits == 4) {
        fits_wide ? RestoreRun<4>(wide, run, count, levels, scale, offset, out)
                  : RestoreRun<4>(narrow, run, count, levels, scale, offset, out);
    } else {
        fits_wide ? RestoreRun<2>(wide, run, count, levels, scale, offset, out)
                  : RestoreRun<2>(narrow, run, count, levels, scale, offset, out);
    }
    return true;
}

}  // namespace HWY_NAMESPACE
}  // namespace winnow
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace winnow {

HWY_EXPORT(RestoreLevels);

namespace reference {

void restore_levels(const std::uint8_t* run, int bits, int count, const float* levels, float scale,
                    float offset, float* out) {
    const int low_bits = bits == 3 ? 2 : bits;
    const int low_plane = count * low_bits / 8;
    for (int i = 0; i < count; ++i) {
        int code = run[i % low_plane] >> (i / low_plane * low_bits) & ((1 << low_bits) - 1);
        if (bits == 3) {  // the high bit lies in a plane of its own
            const int high_plane = count / 8;
            code |= (run[low_plane + i % high_plane] >> (i / high_plane) & 1) << 2;
        }
        out[i] = offset + scale * levels[code];
    }
}

}  // namespace reference

void restore_levels(const std::uint8_t* run, int bits, int count, const float* levels, float scale,
                    float offset, float* out) {
    if (!HWY_DYNAMIC_DISPATCH(RestoreLevels)(run, bits, count, levels, scale, offset, out)) {
        reference::restore_levels(run, bits, count, levels, scale, offset, out);
    }
}

}  // namespace winnow
#endif  // HWY_ONCE
