// Integer products over panels of codes, for the instruction set that includes this file:
//
//   out[h][lane] += factor[h] * scale[lane] * sum over rows of coef[h][row] * code[row][lane]
//
// cache/code_pack.h draws a panel: each 32-bit lane holds the codes of two rows as 16-bit halves,
// so one multiply-add of pairs (pmaddwd, vpdpwssd, smlal) takes two rows of a lane, and unpacking
// is a shift and a mask of 16-bit words for all heads. Coefficients are rounded to 16 bits, each
// head's to its own factor: an error of 1.5e-5 of the largest, far below that of 8-bit codes.

// Included once per target, so the guard toggles.
#if defined(WINNOW_PANEL_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WINNOW_PANEL_INL_H
#undef WINNOW_PANEL_INL_H
#else
#define WINNOW_PANEL_INL_H
#endif

#include <hwy/highway.h>

#include "kernels/fetch.h"
#include "kernels/reduce-inl.h"

HWY_BEFORE_NAMESPACE();
namespace winnow {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Heads that share one unpacking; more would spill with 16 registers.
inline constexpr int kPanelHeads = 4;

struct PanelJob {
    const uint8_t* codes;
    int rows, lanes;       // multiples of 8
    const int16_t* coefs;  // [group of lanes][head][rows]
    size_t coef_head;
    size_t coef_group;  // 0: all lanes share
    int group_lanes;
    const float* factors;  // [head]
    const float* scale;    // [lanes], or null: 1
    float* out;
    size_t out_head;
    size_t ahead;  // bytes from codes read to codes asked for
};

// Takes the lowest codes out of 16-bit words, of which kLeft are left. (Shifting the words by a
// different amount each time would make the compiler load them again and again.)
template <int kWidth, int kLeft, class V>
HWY_INLINE V NextCodes(V& words) {
    if constexpr (kLeft == 1) {
        return words;
    } else {
        const V codes = hn::And(words, hn::Set(hn::DFromV<V>(), (1 << kWidth) - 1));
        words = hn::ShiftRight<kWidth>(words);
        return codes;
    }
}

// The third bits of codes k, in place; kHalf says which half of the 1-bit plane's turn it is.
template <int k, bool kHalf, class V>
HWY_INLINE V HighBits(V words) {
    constexpr int kBit = 2 * k + (kHalf ? 1 : 0);
    const hn::DFromV<V> d;
    if constexpr (kBit >= 2) {
        return hn::And(hn::ShiftRight<kBit - 2>(words), hn::Set(d, 4));
    } else {
        return hn::And(hn::ShiftLeft<2 - kBit>(words), hn::Set(d, 4));
    }
}

// Sums that take turns: where one instruction multiplies and adds, its result is there after more
// cycles than six heads and blocks fill. Elsewhere only the addition waits, for one cycle.
inline constexpr int kChains = HWY_TARGET <= HWY_AVX3_DL ? 2 : 1;

// The sums of kBlocks blocks of lanes for kHeads heads, in registers.
template <int kBlocks, int kHeads, class D16>
class PanelSums {
    using D32 = hn::RepartitionToWide<hn::RebindToSigned<D16>>;
    using V16 = hn::VFromD<hn::RebindToSigned<D16>>;

  public:
    HWY_INLINE PanelSums() {
        for (int c = 0; c < kChains; ++c) {
            for (int b = 0; b < kBlocks; ++b) {
                for (int h = 0; h < kHeads; ++h) {
                    low_[c][b][h] = high_[c][b][h] = hn::Zero(D32());
                }
            }
        }
    }
    // Pair kPair of rows: codes of every block, and where each block's coefficients for it stand;
    // kShared says that it is the same place.
    template <bool kShared, int kPair, class V>
    HWY_INLINE void Add(const V* codes, const int16_t* const* coefs, size_t coef_head) {
        const hn::RebindToSigned<D16> i16;
        constexpr int kChain = kPair % kChains;
        for (int h = 0; h < kHeads; ++h) {
            V16 both;
            for (int b = 0; b < kBlocks; ++b) {
                if (b == 0 || !kShared) {
                    int32_t pair;
                    hwy::CopyBytes<4>(coefs[b] + h * coef_head, &pair);
                    both = hn::BitCast(i16, hn::Set(D32(), pair));
                }
                low_[kChain][b][h] =
                    hn::ReorderWidenMulAccumulate(D32(), hn::BitCast(i16, codes[b]), both,
                                                  low_[kChain][b][h], high_[kChain][b][h]);
            }
        }
    }
    HWY_INLINE void Store(const PanelJob& job, int block, size_t lane) const {
        const hn::RebindToFloat<D32> f;
        for (int h = 0; h < kHeads; ++h) {
            auto factor = hn::Set(f, job.factors[h]);
            if (job.scale != nullptr) {
                factor = hn::Mul(factor, hn::LoadU(f, job.scale + lane));
            }
            auto sums = hn::RearrangeToOddPlusEven(low_[0][block][h], high_[0][block][h]);
            for (int c = 1; c < kChains; ++c) {
                sums = hn::Add(sums,
                               hn::RearrangeToOddPlusEven(low_[c][block][h], high_[c][block][h]));
            }
            const auto sum = hn::ConvertTo(f, sums);
            float* out = job.out + h * job.out_head + lane;
            hn::StoreU(hn::MulAdd(sum, factor, hn::LoadU(f, out)), f, out);
        }
    }

  private:
    hn::VFromD<D32> low_[kChains][kBlocks][kHeads], high_[kChains][kBlocks][kHeads];
};

HWY_INLINE const int16_t* CoefsOf(const PanelJob& job, size_t lane) {
    return job.coefs + (job.coef_group == 0 ? 0 : lane / job.group_lanes * job.coef_group);
}

// Loads codes and asks for those that come later, a line at a time: asked for block by block, they
// would fill the queue of misses and hold up the loads behind them.
template <class D16>
HWY_INLINE hn::VFromD<D16> LoadWords(D16 d16, const PanelJob& job, const uint16_t* at) {
    fetch_ahead(at, job.ahead, 1);
    return hn::LoadU(d16, at);
}

// 4 and 8 bits: a word's codes belong to one lane. Two blocks of lanes share the coefficients'
// registers and give the multiplier enough independent sums.
template <int kBits, int kBlocks, int kHeads, class D16>
HWY_INLINE void WideTile(D16 d16, const PanelJob& job, size_t word) {
    using V = hn::VFromD<D16>;
    PanelSums<kBlocks, kHeads, D16> sums;
    const size_t lanes = static_cast<size_t>(job.lanes), step = hn::Lanes(d16);
    const int16_t* coefs[1] = {CoefsOf(job, word / 2)};  // the blocks' scale group is the same
    const auto* at = reinterpret_cast<const uint16_t*>(job.codes) + word;
    for (int row = 0; row < job.rows; row += 8, at += lanes * kBits / 2) {
        V words[kBlocks], more[kBlocks];
        for (int b = 0; b < kBlocks; ++b) {
            words[b] = LoadWords(d16, job, at + b * step);
            more[b] = kBits == 8 ? LoadWords(d16, job, at + b * step + 2 * lanes) : words[b];
        }
        const auto pair = [&](auto which) HWY_ATTR {
            constexpr int kPair = decltype(which)::value;
            V codes[kBlocks];
            for (int b = 0; b < kBlocks; ++b) {
                if constexpr (kBits == 4) {
                    codes[b] = NextCodes<4, 4 - kPair>(words[b]);
                } else {
                    codes[b] = NextCodes<8, 2 - kPair / 2>(kPair % 2 == 0 ? words[b] : more[b]);
                }
            }
            sums.template Add<true, kPair>(codes, coefs, job.coef_head);
            coefs[0] += 2;
        };
        pair(std::integral_constant<int, 0>());
        pair(std::integral_constant<int, 1>());
        pair(std::integral_constant<int, 2>());
        pair(std::integral_constant<int, 3>());
    }
    for (int b = 0; b < kBlocks; ++b) {
        sums.Store(job, b, (word + b * step) / 2);
    }
}

// 2 and 3 bits: a word holds two lanes, half a panel apart.
template <int kBits, int kHeads, bool kHalf, bool kShared, class D16>
HWY_INLINE void NarrowTile(D16 d16, const PanelJob& job, size_t word) {
    using V = hn::VFromD<D16>;
    PanelSums<2, kHeads, D16> sums;
    const size_t lanes = static_cast<size_t>(job.lanes), half = lanes / 2;
    const int16_t* coefs[2] = {CoefsOf(job, word / 2), CoefsOf(job, word / 2 + half)};
    const auto* at = reinterpret_cast<const uint16_t*>(job.codes) + word;
    const size_t third = lanes - (kHalf ? half : 0);  // from a word of the 2-bit plane to its bits
    for (int row = 0; row < job.rows; row += 8, at += lanes * kBits / 2) {
        V words = LoadWords(d16, job, at);
        const V bits = kBits == 3 ? LoadWords(d16, job, at + third) : words;
        const auto pair = [&](auto which) HWY_ATTR {
            constexpr int kPair = decltype(which)::value;
            V codes[2];
            codes[0] = NextCodes<2, 8 - 2 * kPair>(words);
            codes[1] = NextCodes<2, 7 - 2 * kPair>(words);
            if constexpr (kBits == 3) {
                codes[0] = hn::Or(codes[0], HighBits<2 * kPair, kHalf>(bits));
                codes[1] = hn::Or(codes[1], HighBits<2 * kPair + 1, kHalf>(bits));
            }
            sums.template Add<kShared, kPair>(codes, coefs, job.coef_head);
            coefs[0] += 2;
            coefs[1] += 2;
        };
        pair(std::integral_constant<int, 0>());
        pair(std::integral_constant<int, 1>());
        pair(std::integral_constant<int, 2>());
        pair(std::integral_constant<int, 3>());
    }
    sums.Store(job, 0, word / 2);
    sums.Store(job, 1, word / 2 + half);
}

template <int kBits, int kHeads, class D16>
void WidePanel(D16 d16, const PanelJob& job) {
    const size_t step = hn::Lanes(d16), lanes = static_cast<size_t>(job.lanes);
    size_t word = 0;
    for (; word + 2 * step <= 2 * lanes; word += 2 * step) {
        WideTile<kBits, 2, kHeads>(d16, job, word);
    }
    for (; word < 2 * lanes; word += step) {
        WideTile<kBits, 1, kHeads>(d16, job, word);
    }
}

template <int kBits, int kHeads, bool kShared, class D16>
void NarrowPanel(D16 d16, const PanelJob& job) {
    const size_t step = hn::Lanes(d16), lanes = static_cast<size_t>(job.lanes);
    size_t word = 0;
    for (; word < (kBits == 3 ? lanes / 2 : lanes); word += step) {
        NarrowTile<kBits, kHeads, false, kShared>(d16, job, word);
    }
    if constexpr (kBits == 3) {
        for (; word < lanes; word += step) {
            NarrowTile<kBits, kHeads, true, kShared>(d16, job, word);
        }
    }
}

template <int kBits, int kHeads, class D16>
HWY_INLINE void PanelHeads(D16 d16, const PanelJob& job) {
    if constexpr (kBits >= 4) {
        WidePanel<kBits, kHeads>(d16, job);
    } else if (job.coef_group == 0) {
        NarrowPanel<kBits, kHeads, true>(d16, job);
    } else {
        NarrowPanel<kBits, kHeads, false>(d16, job);
    }
}

template <int kBits, class D16>
HWY_INLINE void AddPanel(D16 d16, PanelJob job, int heads) {
    for (int h = 0; h < heads;) {
        const int left = heads - h;
        // Five or six heads as three and the rest: alike is faster than four and one.
        const int now = left == 5 || left == 6 ? 3 : HWY_MIN(left, kPanelHeads);
        switch (now) {
            case 1:
                PanelHeads<kBits, 1>(d16, job);
                break;
            case 2:
                PanelHeads<kBits, 2>(d16, job);
                break;
            case 3:
                PanelHeads<kBits, 3>(d16, job);
                break;
            default:
                PanelHeads<kBits, 4>(d16, job);
        }
        h += now;
        job.coefs += now * job.coef_head;
        job.factors += now;
        job.out += now * job.out_head;
    }
}

// The largest coefficient that cannot overflow a 32-bit sum.
HWY_INLINE float LargestCoef(int bits, int rows) {
    const int most = 0x7FFFFFFF / (((1 << bits) - 1) * rows);
    return static_cast<float>(HWY_MIN(most, 32767));
}

// Rounds rows x [rows][count] to 16-bit multiples of factors [rows]. peaks [rows][lanes] bound a
// row's magnitudes lane by lane; arrays of rows have room for a multiple of 4.
template <class D>
HWY_INLINE void RoundRows(D f, const float* x, int rows, int count, const float* peaks,
                          float largest, float* factors, int16_t* out) {
    const hn::Rebind<uint16_t, D> u16;
    const hn::RebindToUnsigned<D> u32;
    const auto magic = hn::Set(f, 12582912.0F);  // 1.5 * 2^23: the sum's low bits are the integer
    ReduceRows(MaxOp(), f, peaks, rows, factors);
    for (int row = 0; row < rows; ++row, x += count, out += count) {
        const bool tiny = !(factors[row] > 1e-30F);
        const auto inverse = hn::Set(f, tiny ? 0.0F : largest / factors[row]);
        factors[row] = tiny ? 0.0F : factors[row] / largest;
        for (int i = 0; i < count; i += static_cast<int>(hn::Lanes(f))) {
            // Two roundings, as without fused instructions: the same integers everywhere.
            const auto sum = hn::Add(hn::Mul(hn::LoadU(f, x + i), inverse), magic);
            hn::StoreU(hn::TruncateTo(u16, hn::BitCast(u32, sum)), u16,
                       reinterpret_cast<uint16_t*>(out) + i);
        }
    }
}

}  // namespace HWY_NAMESPACE
}  // namespace winnow
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
