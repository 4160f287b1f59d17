// One source, compiled once per instruction set by Highway.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/restore.cpp"
#include <hwy/foreach_target.h>
// foreach_target must come before highway.h.
#include <hwy/highway.h>

#include "core/f16.h"
#include "kernels/codes-inl.h"
#include "kernels/fetch.h"
#include "kernels/restore.h"

HWY_BEFORE_NAMESPACE();
namespace winnow {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kFetch = 2048;  // bytes of codes asked for ahead

HWY_INLINE float HalfAt(const uint8_t* halves, int i) {
    hwy::float16_t value;
    hwy::CopyBytes<2>(halves + 2 * i, &value);
    return hwy::F32FromF16(value);
}

struct Levels {
    const float* levels;
    const uint8_t *scales, *offsets;

    template <int kBits, class D>
    HWY_INLINE void Run(D f, const CodeRuns& runs, float* out) const {
        const Table<kBits, D> table(f, levels);
        for (int r = 0; r < runs.runs; ++r, out += runs.count) {
            const uint8_t* run = runs.data + static_cast<size_t>(r) * runs.step;
            fetch_ahead(run, kFetch, runs.step);
            const auto scale = hn::Set(f, HalfAt(scales, r)),
                       offset = hn::Set(f, HalfAt(offsets, r));
            EachCodes<kBits>(f, run, runs.count, [&](int at, auto codes) HWY_ATTR {
                hn::StoreU(hn::Add(hn::Mul(table(f, codes), scale), offset), f, out + at);
            });
        }
    }
};

struct Channels {
    const float *offset, *spread, *scale;

    template <int kBits, class D>
    HWY_INLINE void Run(D f, const CodeRuns& runs, float* out) const {
        const auto half = hn::Set(f, static_cast<float>((1 << kBits) - 1) / 2.0F);
        const auto most = hn::Set(f, kF16Max), least = hn::Neg(most);
        for (int r = 0; r < runs.runs; ++r, out += runs.count) {
            const uint8_t* run = runs.data + static_cast<size_t>(r) * runs.step;
            fetch_ahead(run, kFetch, runs.step);
            const auto s = hn::Set(f, scale[r]);
            EachCodes<kBits>(f, run, runs.count, [&](int at, auto codes) HWY_ATTR {
                const auto step = hn::Mul(hn::LoadU(f, spread + at), s);
                const auto code = hn::Sub(hn::ConvertTo(f, codes), half);
                const auto x = hn::Add(hn::Mul(step, code), hn::LoadU(f, offset + at));
                hn::StoreU(hn::Max(hn::Min(x, most), least), f, out + at);
            });
        }
    }
};

template <int kBits, class Job>
HWY_INLINE bool WithLanes(const Job& job, const CodeRuns& runs, float* out) {
    const hn::CappedTag<float, 16> wide;
    const hn::CappedTag<float, 8> middle;
    const hn::CappedTag<float, 4> narrow;
    const int plane = kBits == 3 ? runs.count / 8 : runs.count * kBits / 8;
    if (plane % static_cast<int>(hn::Lanes(wide)) == 0) {
        job.template Run<kBits>(wide, runs, out);
    } else if (plane % static_cast<int>(hn::Lanes(middle)) == 0) {
        job.template Run<kBits>(middle, runs, out);
    } else if (plane % static_cast<int>(hn::Lanes(narrow)) == 0) {
        job.template Run<kBits>(narrow, runs, out);
    } else {
        return false;
    }
    return true;
}

template <class Job>
HWY_INLINE bool WithBits(const Job& job, const CodeRuns& runs, float* out) {
    switch (runs.bits) {
        case 2:
            return WithLanes<2>(job, runs, out);
        case 3:
            return WithLanes<3>(job, runs, out);
        case 4:
            return WithLanes<4>(job, runs, out);
        default:
            return WithLanes<8>(job, runs, out);
    }
}

// False where the planes are too short for vectors.
bool RestoreLevels(const CodeRuns& runs, const float* levels, const uint8_t* scales,
                   const uint8_t* offsets, float* out) {
    return WithBits(Levels{levels, scales, offsets}, runs, out);
}
bool RestoreChannels(const CodeRuns& runs, const float* offset, const float* spread,
                     const float* scale, float* out) {
    return WithBits(Channels{offset, spread, scale}, runs, out);
}

// The codes of one bunch, a vector's worth from the `at`-th on.
template <int kBits, class D>
HWY_INLINE hn::VFromD<hn::RebindToSigned<D>> BunchCodes(D /*f*/, const uint8_t* from, int at) {
    const hn::RebindToSigned<D> i32;
    if constexpr (kBits == 8) {
        return hn::PromoteTo(i32, hn::LoadU(hn::Rebind<uint8_t, D>(), from + at));
    } else {
        const hn::RebindToUnsigned<D> u32;
        uint32_t word = 0;
        hwy::CopyBytes<kBits>(from, &word);
        const auto place = hn::Iota(u32, static_cast<uint32_t>(at));
        const auto codes = hn::Shr(hn::Set(u32, word), hn::Mul(place, hn::Set(u32, kBits)));
        return hn::BitCast(i32, hn::And(codes, hn::Set(u32, (1U << kBits) - 1U)));
    }
}

// One bunch of all runs; `data` is its first byte.
template <int kBits, class D>
void Bunch(D f, const BunchRuns& runs, const uint8_t* data, const float* offset,
           const float* spread, const float* scale, float* out) {
    const auto half = hn::Set(f, static_cast<float>((1 << kBits) - 1) / 2.0F);
    const auto most = hn::Set(f, kF16Max), least = hn::Neg(most);
    for (int at = 0; at < 8; at += static_cast<int>(hn::Lanes(f))) {
        const auto zero = hn::LoadU(f, offset + at), wide = hn::LoadU(f, spread + at);
        const uint8_t* run = data;
        float* to = out + at;
        for (int r = 0; r < runs.runs; ++r, run += runs.step, to += 8 * runs.bunches) {
            const auto code = hn::Sub(hn::ConvertTo(f, BunchCodes<kBits>(f, run, at)), half);
            const auto x = hn::Add(hn::Mul(hn::Mul(wide, hn::Set(f, scale[r])), code), zero);
            hn::StoreU(hn::Max(hn::Min(x, most), least), f, to);
        }
    }
}

// Where a bunch has no codes.
template <class D>
void Flat(D f, const BunchRuns& runs, const float* offset, float* out) {
    const auto most = hn::Set(f, kF16Max), least = hn::Neg(most);
    for (int at = 0; at < 8; at += static_cast<int>(hn::Lanes(f))) {
        const auto x = hn::Max(hn::Min(hn::LoadU(f, offset + at), most), least);
        for (int r = 0; r < runs.runs; ++r) {
            hn::StoreU(x, f, out + r * 8 * runs.bunches + at);
        }
    }
}

void RestoreBunches(const BunchRuns& runs, const float* offset, const float* spread,
                    const float* scale, float* out) {
    const hn::CappedTag<float, 8> f;
    const uint8_t* data = runs.data;
    for (int j = 0; j < runs.bunches; ++j, offset += 8, spread += 8, out += 8) {
        switch (runs.widths[j]) {
            case 2:
                Bunch<2>(f, runs, data, offset, spread, scale, out);
                break;
            case 3:
                Bunch<3>(f, runs, data, offset, spread, scale, out);
                break;
            case 4:
                Bunch<4>(f, runs, data, offset, spread, scale, out);
                break;
            case 8:
                Bunch<8>(f, runs, data, offset, spread, scale, out);
                break;
            default:
                Flat(f, runs, offset, out);
        }
        data += runs.widths[j];
    }
}

// 16-bit words of a plane of kBits bits, shifted to codes e.. of eight rows.
template <int kBits, class D16>
HWY_INLINE hn::VFromD<D16> PlaneCodes(D16 u16, const uint8_t* plane, int lanes, int e) {
    const int words = lanes * kBits / 2;
    const auto from =
        hn::BitCast(u16, hn::LoadU(hn::Repartition<uint8_t, D16>(), plane + 2 * (e % words)));
    return hn::And(hn::ShiftRightSame(from, e / words * kBits), hn::Set(u16, (1 << kBits) - 1));
}

template <int kBits, class D16>
void PanelRows(D16 u16, const uint8_t* panel, int rows, int lanes, const float* scale,
               const float* zero, float* out) {
    const hn::RepartitionToWide<D16> u32;
    const hn::RebindToFloat<decltype(u32)> f;
    const hn::RebindToSigned<decltype(u32)> i32;
    const int step = static_cast<int>(hn::Lanes(f));
    const auto put = [&](auto codes, int row, int lane) HWY_ATTR {
        const auto x = hn::Mul(hn::ConvertTo(f, hn::BitCast(i32, codes)), hn::Set(f, scale[row]));
        hn::StoreU(hn::Add(x, hn::Set(f, zero[row])), f, out + row * lanes + lane);
    };
    for (int row = 0; row < rows; row += 2) {
        const uint8_t* run = panel + row / 8 * lanes * kBits;
        for (int lane = 0; lane < lanes; lane += step) {
            const int e = row % 8 * lanes + 2 * lane;
            auto codes = PlaneCodes < kBits == 3 ? 2 : kBits > (u16, run, lanes, e);
            if constexpr (kBits == 3) {
                const auto high = PlaneCodes<1>(u16, run + 2 * lanes, lanes, e);
                codes = hn::Or(codes, hn::ShiftLeft<2>(high));
            }
            const auto both = hn::BitCast(u32, codes);
            put(hn::And(both, hn::Set(u32, 0xFFFF)), row, lane);
            put(hn::ShiftRight<16>(both), row + 1, lane);
        }
    }
}

template <int kBits, int kWords>
HWY_INLINE bool Panel(const uint8_t* panel, int rows, int lanes, const float* scale,
                      const float* zero, float* out) {
    const hn::CappedTag<uint16_t, kWords> u16;
    const int words = static_cast<int>(hn::Lanes(u16));
    const int plane = kBits == 3 ? lanes / 2 : HWY_MIN(lanes * kBits / 2, 2 * lanes);
    if (plane % words == 0) {
        PanelRows<kBits>(u16, panel, rows, lanes, scale, zero, out);
        return true;
    }
    if constexpr (kWords > 8) {
        return Panel<kBits, kWords / 2>(panel, rows, lanes, scale, zero, out);
    }
    return false;
}

bool RestorePanel(const uint8_t* panel, int bits, int rows, int lanes, const float* scale,
                  const float* zero, float* out) {
    switch (bits) {
        case 2:
            return Panel<2, 32>(panel, rows, lanes, scale, zero, out);
        case 3:
            return Panel<3, 32>(panel, rows, lanes, scale, zero, out);
        case 4:
            return Panel<4, 32>(panel, rows, lanes, scale, zero, out);
        default:
            return Panel<8, 32>(panel, rows, lanes, scale, zero, out);
    }
}

// Blocks of 4 x 4.
void Transpose(const float* from, int rows, int columns, float* to) {
    const hn::Full128<float> f;
    const hn::Full128<double> pair;
    const auto both = [&](auto a, auto b) HWY_ATTR {  // lanes 0 and 1 of a and b, by turns
        return hn::BitCast(pair, hn::InterleaveLower(f, a, b));
    };
    const auto upper = [&](auto a, auto b)
                           HWY_ATTR { return hn::BitCast(pair, hn::InterleaveUpper(f, a, b)); };
    int r = 0;
    for (; r + 4 <= rows; r += 4) {
        int c = 0;
        for (; c + 4 <= columns; c += 4) {
            const float* at = from + r * columns + c;
            const auto a = hn::LoadU(f, at), b = hn::LoadU(f, at + columns);
            const auto x = hn::LoadU(f, at + 2 * columns), y = hn::LoadU(f, at + 3 * columns);
            const auto ab = both(a, b), xy = both(x, y), ab1 = upper(a, b), xy1 = upper(x, y);
            float* out = to + c * rows + r;
            hn::StoreU(hn::BitCast(f, hn::InterleaveLower(pair, ab, xy)), f, out);
            hn::StoreU(hn::BitCast(f, hn::InterleaveUpper(pair, ab, xy)), f, out + rows);
            hn::StoreU(hn::BitCast(f, hn::InterleaveLower(pair, ab1, xy1)), f, out + 2 * rows);
            hn::StoreU(hn::BitCast(f, hn::InterleaveUpper(pair, ab1, xy1)), f, out + 3 * rows);
        }
        for (; c < columns; ++c) {
            for (int i = r; i < r + 4; ++i) to[c * rows + i] = from[i * columns + c];
        }
    }
    for (; r < rows; ++r) {
        for (int c = 0; c < columns; ++c) to[c * rows + r] = from[r * columns + c];
    }
}

HWY_INLINE void Turn(float& a, float& b, float cos, float sin) {
    const float x = a, y = b;
    a = x * cos - y * sin;
    b = x * sin + y * cos;
}

void RotateRows(float* rows, int tokens, int head_dim, int pairs, bool halves,
                const float* const* angles) {
    const hn::CappedTag<float, 16> f;
    const int lanes = static_cast<int>(hn::Lanes(f));
    for (int t = 0; t < tokens; ++t, rows += head_dim) {
        const float *cos = angles[t], *sin = angles[t] + pairs;
        int p = 0;
        for (; p + lanes <= pairs; p += lanes) {
            const auto c = hn::LoadU(f, cos + p), s = hn::LoadU(f, sin + p);
            hn::VFromD<decltype(f)> x, y;
            if (halves) {
                x = hn::LoadU(f, rows + p);
                y = hn::LoadU(f, rows + pairs + p);
            } else {
                hn::LoadInterleaved2(f, rows + 2 * p, x, y);
            }
            const auto a = hn::Sub(hn::Mul(x, c), hn::Mul(y, s));
            const auto b = hn::Add(hn::Mul(x, s), hn::Mul(y, c));
            if (halves) {
                hn::StoreU(a, f, rows + p);
                hn::StoreU(b, f, rows + pairs + p);
            } else {
                hn::StoreInterleaved2(a, b, f, rows + 2 * p);
            }
        }
        for (; p < pairs; ++p) {
            Turn(rows[halves ? p : 2 * p], rows[halves ? p + pairs : 2 * p + 1], cos[p], sin[p]);
        }
    }
}

}  // namespace HWY_NAMESPACE
}  // namespace winnow
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace winnow {

HWY_EXPORT(RestoreLevels);
HWY_EXPORT(RestoreChannels);
HWY_EXPORT(RestoreBunches);
HWY_EXPORT(RestorePanel);
HWY_EXPORT(Transpose);
HWY_EXPORT(RotateRows);

void restore_levels(const CodeRuns& runs, const float* levels, const std::uint8_t* scales,
                    const std::uint8_t* offsets, float* out) {
    if (!HWY_DYNAMIC_DISPATCH(RestoreLevels)(runs, levels, scales, offsets, out)) {
        reference::restore_levels(runs, levels, scales, offsets, out);
    }
}
void restore_channels(const CodeRuns& runs, const float* offset, const float* spread,
                      const float* scale, float* out) {
    if (!HWY_DYNAMIC_DISPATCH(RestoreChannels)(runs, offset, spread, scale, out)) {
        reference::restore_channels(runs, offset, spread, scale, out);
    }
}
void restore_bunches(const BunchRuns& runs, const float* offset, const float* spread,
                     const float* scale, float* out) {
    HWY_DYNAMIC_DISPATCH(RestoreBunches)(runs, offset, spread, scale, out);
}
void restore_panel(const std::uint8_t* panel, int bits, int rows, int lanes, const float* scale,
                   const float* zero, float* out) {
    if (!HWY_DYNAMIC_DISPATCH(RestorePanel)(panel, bits, rows, lanes, scale, zero, out)) {
        reference::restore_panel(panel, bits, rows, lanes, scale, zero, out);
    }
}
void transpose(const float* from, int rows, int columns, float* to) {
    HWY_DYNAMIC_DISPATCH(Transpose)(from, rows, columns, to);
}
void rotate_rows(float* rows, int tokens, int head_dim, int pairs, bool halves,
                 const float* const* angles) {
    HWY_DYNAMIC_DISPATCH(RotateRows)(rows, tokens, head_dim, pairs, halves, angles);
}

}  // namespace winnow
#endif  // HWY_ONCE
