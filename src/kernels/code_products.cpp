// One source, compiled once per instruction set by Highway. The scalar reference is ggml's to_float
// and a plain sum (tests/code_products_test.cpp).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/code_products.cpp"
#include <hwy/foreach_target.h>
// foreach_target must come before highway.h.
#include <hwy/highway.h>

#include "kernels/code_products.h"

#ifndef WINNOW_CODE_PRODUCTS_ONCE
#define WINNOW_CODE_PRODUCTS_ONCE
namespace winnow {

constexpr int kActivationBlock = 32;

// Columns that share a weight scale.
inline int scale_block(CodeType type) {
    return type == CodeType::q6_k ? 16 : 32;
}
inline bool has_mins(CodeType type) {
    return type == CodeType::q4_1 || type == CodeType::q4_k;
}

}  // namespace winnow
#endif

HWY_BEFORE_NAMESPACE();
namespace winnow {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using D16 = hn::CappedTag<int16_t, 32>;
using D32 = hn::RepartitionToWide<D16>;
using DF = hn::RebindToFloat<D32>;
constexpr int kMaxStrip = 2 * HWY_MAX_LANES_D(D32);
constexpr int kTokens = HWY_MAX_BYTES >= 64 ? 4 : 2;  // of a tile; more would spill

HWY_INLINE int StripRows() {
    return 2 * static_cast<int>(hn::Lanes(D32()));
}

HWY_INLINE float Half(const uint8_t* at) {
    const hn::CappedTag<float, 1> one;
    const hn::Rebind<hwy::float16_t, decltype(one)> half;
    hwy::float16_t value;
    hwy::CopyBytes<2>(at, &value);
    return hn::GetLane(hn::PromoteTo(one, hn::LoadU(half, &value)));
}

// One unit of stored columns: 32, or 256 for the k types.
struct Unit {
    int8_t codes[256];
    float scales[16], mins[8];
};

HWY_INLINE void ReadNibbles(const uint8_t* from, int8_t offset, int8_t* codes) {
    const hn::Full128<uint8_t> u8;
    const hn::Full128<int8_t> i8;
    const auto bytes = hn::LoadU(u8, from);
    const auto zero = hn::Set(i8, offset);
    const auto low = hn::BitCast(i8, hn::And(bytes, hn::Set(u8, 15)));
    const auto high = hn::BitCast(i8, hn::ShiftRight<4>(bytes));
    hn::StoreU(hn::Sub(low, zero), i8, codes);
    hn::StoreU(hn::Sub(high, zero), i8, codes + 16);
}

// d f16, 32 fifth bits, nibbles.
HWY_INLINE void ReadQ5(const uint8_t* at, Unit& unit) {
    const hn::Full128<uint8_t> u8;
    const hn::Full128<int8_t> i8;
    alignas(16) static constexpr uint8_t kBits[16] = {1, 2, 4, 8, 16, 32, 64, 128,
                                                      1, 2, 4, 8, 16, 32, 64, 128};
    const auto bits = hn::Load(u8, kBits);
    ReadNibbles(at + 6, 16, unit.codes);
    for (int half = 0; half < 2; ++half) {
        uint64_t each[2];
        for (int i = 0; i < 2; ++i) {
            each[i] = at[2 + 2 * half + i] * 0x0101010101010101ULL;
        }
        const auto seen = hn::TestBit(hn::LoadU(u8, reinterpret_cast<const uint8_t*>(each)), bits);
        const auto fifth = hn::BitCast(i8, hn::IfThenElseZero(seen, hn::Set(u8, 16)));
        int8_t* codes = unit.codes + 16 * half;
        hn::StoreU(hn::Add(hn::LoadU(i8, codes), fifth), i8, codes);
    }
    unit.scales[0] = Half(at);
}

// d f16, dmin f16, 8 scales and mins of 6 bits in 12 bytes, nibbles [4][32] of two blocks each.
HWY_INLINE void ReadQ4K(const uint8_t* at, Unit& unit) {
    const float d = Half(at), low = Half(at + 2);
    const uint8_t* s = at + 4;
    for (int j = 0; j < 8; ++j) {
        const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        const int least = j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) | (s[j] >> 6) << 4;
        unit.scales[j] = d * static_cast<float>(scale);
        unit.mins[j] = -low * static_cast<float>(least);
    }
    const uint8_t* q = at + 16;
    for (int j = 0; j < 4; ++j, q += 32) {
        for (int i = 0; i < 32; ++i) {
            unit.codes[64 * j + i] = static_cast<int8_t>(q[i] & 15);
            unit.codes[64 * j + 32 + i] = static_cast<int8_t>(q[i] >> 4);
        }
    }
}

// Low nibbles [128], high pairs [64], 16 scales int8, d f16.
HWY_INLINE void ReadQ6K(const uint8_t* at, Unit& unit) {
    const float d = Half(at + 208);
    for (int j = 0; j < 16; ++j) {
        unit.scales[j] = d * static_cast<float>(static_cast<int8_t>(at[192 + j]));
    }
    for (int half = 0; half < 2; ++half) {
        const uint8_t* low = at + 64 * half;
        const uint8_t* high = at + 128 + 32 * half;
        int8_t* codes = unit.codes + 128 * half;
        for (int i = 0; i < 32; ++i) {
            codes[i] = static_cast<int8_t>(((low[i] & 15) | (high[i] & 3) << 4) - 32);
            codes[i + 32] =
                static_cast<int8_t>(((low[i + 32] & 15) | (high[i] >> 2 & 3) << 4) - 32);
            codes[i + 64] = static_cast<int8_t>(((low[i] >> 4) | (high[i] >> 4 & 3) << 4) - 32);
            codes[i + 96] = static_cast<int8_t>(((low[i + 32] >> 4) | (high[i] >> 6) << 4) - 32);
        }
    }
}

// Returns the bytes read.
HWY_INLINE size_t ReadUnit(CodeType type, const uint8_t* at, Unit& unit) {
    switch (type) {
        case CodeType::q4_0:
            ReadNibbles(at + 2, 8, unit.codes);
            unit.scales[0] = Half(at);
            return 18;
        case CodeType::q4_1:
            ReadNibbles(at + 4, 0, unit.codes);
            unit.scales[0] = Half(at);
            unit.mins[0] = Half(at + 2);
            return 20;
        case CodeType::q5_0:
            ReadQ5(at, unit);
            return 22;
        case CodeType::q8_0:
            hwy::CopyBytes<32>(at + 2, unit.codes);
            unit.scales[0] = Half(at);
            return 34;
        case CodeType::q4_k:
            ReadQ4K(at, unit);
            return 144;
        default:
            ReadQ6K(at, unit);
            return 210;
    }
}

// A strip of weights: pairs of codes [columns/2][strip] as 32-bit words, then scales
// [columns/block][strip] and mins [columns/32][strip].
struct Strip {
    uint32_t* codes;
    float *scales, *mins;
};

HWY_INLINE Strip StripAt(uint8_t* scratch, const StoredCodes& w) {
    const size_t rows = static_cast<size_t>(StripRows()), columns = static_cast<size_t>(w.columns);
    Strip strip;
    strip.codes = reinterpret_cast<uint32_t*>(scratch);
    strip.scales = reinterpret_cast<float*>(scratch + rows * columns * 2);
    strip.mins = strip.scales + rows * columns / static_cast<size_t>(scale_block(w.type));
    return strip;
}

HWY_INLINE void WidenStrip(const StoredCodes& w, int first, const Strip& strip) {
    const int rows = StripRows();
    const bool super = w.type == CodeType::q4_k || w.type == CodeType::q6_k;
    const int unit_columns = super ? 256 : 32;
    const int scales = unit_columns / scale_block(w.type), mins = unit_columns / 32;
    Unit unit;
    for (int r = 0; r < rows; ++r) {
        const uint8_t* at = w.data + static_cast<size_t>(first + r) * w.row_bytes;
        uint32_t* codes = strip.codes + r;
        float* scale = strip.scales + r;
        float* least = strip.mins + r;
        for (int c = 0; c < w.columns; c += unit_columns) {
            at += ReadUnit(w.type, at, unit);
            for (int i = 0; i < unit_columns; i += 2, codes += rows) {
                *codes = static_cast<uint16_t>(unit.codes[i]) |
                         static_cast<uint32_t>(static_cast<uint16_t>(unit.codes[i + 1])) << 16;
            }
            for (int i = 0; i < scales; ++i, scale += rows) {
                *scale = unit.scales[i];
            }
            for (int i = 0; has_mins(w.type) && i < mins; ++i, least += rows) {
                *least = unit.mins[i];
            }
        }
    }
}

void RoundActivations(const float* x, int columns, float* out) {
    const hn::CappedTag<float, 16> f;
    const hn::Rebind<int16_t, decltype(f)> i16;
    const int lanes = static_cast<int>(hn::Lanes(f));
    auto* integers = reinterpret_cast<int16_t*>(out);
    float* factors = out + columns / 2;
    float* sums = factors + columns / kActivationBlock;
    for (int c = 0; c < columns; c += kActivationBlock, x += kActivationBlock) {
        auto peak = hn::Zero(f), sum = hn::Zero(f);
        for (int i = 0; i < kActivationBlock; i += lanes) {
            const auto part = hn::LoadU(f, x + i);
            peak = hn::Max(peak, hn::Abs(part));
            sum = hn::Add(sum, part);
        }
        const float most = hn::ReduceMax(f, peak);
        const bool tiny = !(most > 1e-30F);
        const auto inverse = hn::Set(f, tiny ? 0.0F : 32767.0F / most);
        for (int i = 0; i < kActivationBlock; i += lanes) {
            const auto whole = hn::NearestInt(hn::Mul(hn::LoadU(f, x + i), inverse));
            hn::StoreU(hn::DemoteTo(i16, whole), i16, integers + c + i);
        }
        const float total = hn::ReduceSum(f, sum);
        // Not a number stays one, and infinity makes one: neither may look like a result.
        *factors++ = (tiny ? 0.0F : most / 32767.0F) + (total - total);
        *sums++ = total;
    }
}

// kCount tokens against two vectors of rows.
template <int kCount, int kBlock, bool kMins>
HWY_INLINE void Tile(const Strip& strip, int columns, const float* rounded, float* out,
                     size_t out_stride) {
    const D16 d16;
    const D32 d32;
    const DF f;
    const size_t lanes = hn::Lanes(d32), row = rounded_floats(columns);
    const auto* codes = reinterpret_cast<const int16_t*>(strip.codes);
    const float* scales = strip.scales;
    const float* mins = strip.mins;
    const float* factors = rounded + columns / 2;
    const float* sums = factors + columns / kActivationBlock;
    hn::VFromD<DF> acc[kCount][2];
    for (int t = 0; t < kCount; ++t) {
        acc[t][0] = acc[t][1] = hn::Zero(f);
    }
    for (int c = 0; c < columns; c += kBlock, scales += 2 * lanes) {
        hn::VFromD<D32> low[kCount][2], high[kCount][2];
        for (int t = 0; t < kCount; ++t) {
            low[t][0] = low[t][1] = high[t][0] = high[t][1] = hn::Zero(d32);
        }
        const float* pairs = rounded + c / 2;
        for (int p = 0; p < kBlock / 2; ++p, codes += 4 * lanes) {
            const auto w0 = hn::LoadU(d16, codes), w1 = hn::LoadU(d16, codes + 2 * lanes);
            for (int t = 0; t < kCount; ++t) {
                int32_t pair;
                hwy::CopyBytes<4>(pairs + t * row + p, &pair);
                const auto x = hn::BitCast(d16, hn::Set(d32, pair));
                low[t][0] = hn::ReorderWidenMulAccumulate(d32, w0, x, low[t][0], high[t][0]);
                low[t][1] = hn::ReorderWidenMulAccumulate(d32, w1, x, low[t][1], high[t][1]);
            }
        }
        for (int t = 0; t < kCount; ++t) {
            const auto factor = hn::Set(f, factors[t * row + c / kActivationBlock]);
            for (int s = 0; s < 2; ++s) {
                const auto sum =
                    hn::ConvertTo(f, hn::RearrangeToOddPlusEven(low[t][s], high[t][s]));
                acc[t][s] =
                    hn::MulAdd(hn::Mul(sum, factor), hn::LoadU(f, scales + s * lanes), acc[t][s]);
            }
        }
        if constexpr (kMins) {
            for (int t = 0; t < kCount; ++t) {
                const auto sum = hn::Set(f, sums[t * row + c / kActivationBlock]);
                for (int s = 0; s < 2; ++s) {
                    acc[t][s] = hn::MulAdd(sum, hn::LoadU(f, mins + s * lanes), acc[t][s]);
                }
            }
            mins += 2 * lanes;
        }
    }
    for (int t = 0; t < kCount; ++t) {
        hn::StoreU(acc[t][0], f, out + t * out_stride);
        hn::StoreU(acc[t][1], f, out + t * out_stride + lanes);
    }
}

template <int kBlock, bool kMins>
HWY_INLINE void Tiles(const Strip& strip, int columns, const float* rounded, int tokens, float* out,
                      size_t out_stride) {
    const size_t row = rounded_floats(columns);
    int t = 0;
    for (; t + kTokens <= tokens; t += kTokens) {
        Tile<kTokens, kBlock, kMins>(strip, columns, rounded + t * row, out + t * out_stride,
                                     out_stride);
    }
    for (; t < tokens; ++t) {
        Tile<1, kBlock, kMins>(strip, columns, rounded + t * row, out + t * out_stride, out_stride);
    }
}

void MultiplyStrip(const StoredCodes& w, int first, const float* rounded, int tokens,
                   uint8_t* scratch, float* out, size_t out_stride) {
    const Strip strip = StripAt(scratch, w);
    WidenStrip(w, first, strip);
    if (scale_block(w.type) == 16) {
        Tiles<16, false>(strip, w.columns, rounded, tokens, out, out_stride);
    } else if (has_mins(w.type)) {
        Tiles<32, true>(strip, w.columns, rounded, tokens, out, out_stride);
    } else {
        Tiles<32, false>(strip, w.columns, rounded, tokens, out, out_stride);
    }
}

int StripRowsOf() {
    return StripRows();
}
bool Pays() {
    return HWY_TARGET <= HWY_AVX2;
}

}  // namespace HWY_NAMESPACE
}  // namespace winnow
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace winnow {

HWY_EXPORT(RoundActivations);
HWY_EXPORT(MultiplyStrip);
HWY_EXPORT(StripRowsOf);
HWY_EXPORT(Pays);

bool code_products_pay() {
    return HWY_DYNAMIC_DISPATCH(Pays)();
}
void round_activations(const float* x, int columns, float* out) {
    HWY_DYNAMIC_DISPATCH(RoundActivations)(x, columns, out);
}
int strip_rows() {
    return HWY_DYNAMIC_DISPATCH(StripRowsOf)();
}
std::size_t strip_bytes(int columns) {
    // Codes, scales of blocks of 16, mins of blocks of 32.
    return static_cast<std::size_t>(strip_rows()) * static_cast<std::size_t>(columns) * 5 / 2;
}
void multiply_strip(const StoredCodes& weights, int first, const float* rounded, int tokens,
                    std::uint8_t* scratch, float* out, std::size_t out_stride) {
    HWY_DYNAMIC_DISPATCH(MultiplyStrip)(weights, first, rounded, tokens, scratch, out, out_stride);
}

}  // namespace winnow
#endif  // HWY_ONCE
