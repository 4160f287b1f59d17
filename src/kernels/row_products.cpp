// One source, compiled once per instruction set by Highway. The scalar reference is ggml's to_float
// and a plain sum (tests/row_products_test.cpp).
//
// A vector of 16-bit words takes 16 bytes of codes from each of several rows, one row per 128 bits.
// Words hold their codes in a fixed pattern, of which shifts and masks make 8 codes of a row at
// once, always every other one of 16; activations are stored in that order. A row's sums stay in
// its 4 lanes, and its scales are spread over them.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/row_products.cpp"
#include <hwy/foreach_target.h>
// foreach_target must come before highway.h.
#include <hwy/highway.h>

#include "kernels/fetch.h"
#include "kernels/row_products.h"

HWY_BEFORE_NAMESPACE();
namespace winnow {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using D16 = hn::CappedTag<int16_t, 32>;
using DU16 = hn::RebindToUnsigned<D16>;
using D8 = hn::Repartition<uint8_t, D16>;
using D32 = hn::RepartitionToWide<D16>;
using DF = hn::RebindToFloat<D32>;
using V16 = hn::VFromD<D16>;
using VU16 = hn::VFromD<DU16>;
using VF = hn::VFromD<DF>;

constexpr int kRows = HWY_MAX_LANES_D(D16) / 8;  // at once
constexpr size_t kFetch = 8192;                  // bytes of weights asked for ahead

// 16 bytes of each row.
template <class D>
HWY_INLINE hn::VFromD<D> LoadBlocks(D d, const uint8_t* const* at, size_t offset) {
    if constexpr (HWY_MAX_LANES_D(D) <= 16) {
        return hn::LoadU(d, at[0] + offset);
    } else {
        const hn::Half<D> half;
        return hn::Combine(d, LoadBlocks(half, at + HWY_MAX_LANES_D(D) / 32, offset),
                           LoadBlocks(half, at, offset));
    }
}

template <class T>
HWY_INLINE T Read(const uint8_t* at) {
    T value;
    hwy::CopyBytes<sizeof(T)>(at, &value);
    return value;
}

// The first two halves of each row's block, spread over its lanes.
HWY_INLINE void TwoHalves(const uint8_t* const* at, size_t offset, VF& first, VF& second) {
    const hn::CappedTag<float, 8> f8;
    const hn::Rebind<hwy::float16_t, decltype(f8)> half;
    const hn::Full128<uint32_t> u32;
    const DF f;
    const D32 i32;
    uint32_t each[4] = {};
    for (int r = 0; r < kRows; ++r) each[r] = Read<uint32_t>(at[r] + offset);
    const auto words = hn::Dup128VecFromValues(u32, each[0], each[1], each[2], each[3]);
    const auto floats = hn::ResizeBitCast(f, hn::PromoteTo(f8, hn::ResizeBitCast(half, words)));
    const auto place = hn::And(hn::ShiftRight<1>(hn::Iota(i32, 0)), hn::Set(i32, ~1));
    first = hn::TableLookupLanes(floats, hn::IndicesFromVec(f, place));
    second = hn::TableLookupLanes(floats, hn::IndicesFromVec(f, hn::Or(place, hn::Set(i32, 1))));
}

// The first 8 bytes of each row's block as four 16-bit numbers in the row's lanes.
template <class D>
HWY_INLINE hn::VFromD<D> FourHalves(D u16, const uint8_t* const* at, size_t offset) {
    if constexpr (HWY_MAX_LANES_D(D) <= 4) {
        const hn::Repartition<uint64_t, D> u64;
        return hn::BitCast(u16, hn::Set(u64, Read<uint64_t>(at[0] + offset)));
    } else if constexpr (HWY_MAX_LANES_D(D) <= 8) {
        const hn::Full128<uint64_t> u64;
        return hn::ResizeBitCast(u16, hn::Dup128VecFromValues(u64, Read<uint64_t>(at[0] + offset),
                                                              Read<uint64_t>(at[1] + offset)));
    } else {
        const hn::Half<D> half;
        return hn::Combine(u16, FourHalves(half, at + HWY_MAX_LANES_D(D) / 8, offset),
                           FourHalves(half, at, offset));
    }
}

// Codes of 32 columns: every other one of the first 16 from 0 and from 1, then of the second 16.
struct Parts {
    V16 even0, odd0, even1, odd1;
};

template <int kShift>
HWY_INLINE V16 Nibble(VU16 words) {
    const DU16 u16;
    const auto low = kShift == 0 ? words : hn::ShiftRight<kShift>(words);
    return hn::BitCast(D16(), kShift == 12 ? low : hn::And(low, hn::Set(u16, 15)));
}

// 16 bytes of nibbles: column i in the low half of byte i, i + 16 in the high half.
HWY_INLINE Parts Nibbles(const uint8_t* const* at, size_t offset) {
    const auto words = hn::BitCast(DU16(), LoadBlocks(D8(), at, offset));
    return {Nibble<0>(words), Nibble<8>(words), Nibble<4>(words), Nibble<12>(words)};
}

// Adds 16 where `words` has the bit of the code's place.
HWY_INLINE V16 AddFifth(V16 codes, VU16 words, VU16 bit) {
    const D16 i16;
    const auto seen = hn::RebindMask(i16, hn::TestBit(words, bit));
    return hn::MaskedAddOr(codes, seen, codes, hn::Set(i16, 16));
}

HWY_INLINE VF ReadQ5(const uint8_t* const* at, size_t offset, Parts& parts) {
    alignas(16) static constexpr uint16_t kLow[8] = {1, 4, 16, 64, 256, 1024, 4096, 16384};
    const DU16 u16;
    const DF f;
    const D32 i32;
    const hn::Rebind<uint16_t, DF> four;
    const hn::Rebind<hwy::float16_t, DF> half;
    const auto header = FourHalves(four, at, offset);  // d, fifth bits low and high, two codes
    // 16 bits in a row's 8 words each: pairs of the second and of the third number.
    const auto pairs = hn::PromoteTo(hn::RebindToUnsigned<D32>(), header);
    const auto twice = hn::BitCast(u16, hn::Or(pairs, hn::ShiftLeft<16>(pairs)));
    const auto low = hn::BitCast(u16, hn::Broadcast<1>(hn::BitCast(i32, twice)));
    const auto high = hn::BitCast(u16, hn::Broadcast<2>(hn::BitCast(i32, twice)));
    const auto even = hn::LoadDup128(u16, kLow), odd = hn::Add(even, even);
    parts = Nibbles(at, offset + 6);
    parts.even0 = AddFifth(parts.even0, low, even);
    parts.odd0 = AddFifth(parts.odd0, low, odd);
    parts.even1 = AddFifth(parts.even1, high, even);
    parts.odd1 = AddFifth(parts.odd1, high, odd);
    return hn::Broadcast<0>(hn::PromoteTo(f, hn::BitCast(half, header)));
}

HWY_INLINE void ReadBytes(const uint8_t* const* at, size_t offset, V16& even, V16& odd) {
    const auto words = hn::BitCast(D16(), LoadBlocks(D8(), at, offset));
    even = hn::ShiftRight<8>(hn::ShiftLeft<8>(words));
    odd = hn::ShiftRight<8>(words);
}

struct Job {
    const float* rounded;
    size_t row;  // floats of a token
    int columns;
};

// acc[t] += scale * (codes . activations of 32 columns from `first` on).
template <int kTokens>
HWY_INLINE void AddCodes(const Job& job, int first, const Parts& parts, VF scale, VF* acc) {
    const D16 d16;
    const D32 d32;
    const DF f;
    for (int t = 0; t < kTokens; ++t) {
        const float* token = job.rounded + t * job.row;
        const auto* x = reinterpret_cast<const int16_t*>(token) + first;
        auto low = hn::Zero(d32), high = hn::Zero(d32);
        const auto add = [&](V16 codes, int at) HWY_ATTR {
            low = hn::ReorderWidenMulAccumulate(d32, codes, hn::LoadDup128(d16, x + at), low, high);
        };
        add(parts.even0, 0);
        add(parts.odd0, 8);
        add(parts.even1, 16);
        add(parts.odd1, 24);
        const auto sum = hn::ConvertTo(f, hn::RearrangeToOddPlusEven(low, high));
        const auto factor = hn::Set(f, token[job.columns / 2 + first / 32]);
        acc[t] = hn::MulAdd(sum, hn::Mul(scale, factor), acc[t]);
    }
}

// acc[t] += min * the sum of the activations of block `block`.
template <int kTokens>
HWY_INLINE void AddMins(const Job& job, int block, VF min, VF* acc) {
    const DF f;
    const float* sums = job.rounded + job.columns / 2 + job.columns / 32;
    for (int t = 0; t < kTokens; ++t) {
        acc[t] = hn::MulAdd(hn::Set(f, sums[t * job.row + block]), min, acc[t]);
    }
}

constexpr size_t BlockBytes(CodeType type) {
    switch (type) {
        case CodeType::q4_0:
            return 18;
        case CodeType::q4_1:
            return 20;
        case CodeType::q5_0:
            return 22;
        default:
            return 34;
    }
}

// A block of 32 columns.
template <CodeType kType, int kTokens>
HWY_INLINE void AddBlock(const Job& job, const uint8_t* const* at, size_t offset, int block,
                         VF* acc) {
    const DF f;
    Parts parts;
    VF scale, min;
    if constexpr (kType == CodeType::q5_0) {
        scale = ReadQ5(at, offset, parts);
        min = hn::Mul(scale, hn::Set(f, -16.0F));
    } else {
        TwoHalves(at, offset, scale, min);
        if constexpr (kType == CodeType::q8_0) {
            ReadBytes(at, offset + 2, parts.even0, parts.odd0);
            ReadBytes(at, offset + 18, parts.even1, parts.odd1);
        } else {
            parts = Nibbles(at, offset + (kType == CodeType::q4_1 ? 4 : 2));
        }
        if constexpr (kType == CodeType::q4_0) min = hn::Mul(scale, hn::Set(f, -8.0F));
    }
    AddCodes<kTokens>(job, 32 * block, parts, scale, acc);
    if constexpr (kType != CodeType::q8_0) AddMins<kTokens>(job, block, min, acc);
}

// kRows rows against kTokens tokens; `rows` of them are stored.
template <CodeType kType, int kTokens>
void Tile(const Job& job, const uint8_t* const* at, int rows, float* out, size_t stride) {
    constexpr size_t kBytes = BlockBytes(kType);
    const DF f;
    VF acc[kTokens];
    for (int t = 0; t < kTokens; ++t) acc[t] = hn::Zero(f);
    for (int block = 0; block < job.columns / 32; ++block) {
        const size_t offset = static_cast<size_t>(block) * kBytes;
        fetch_ahead(at[0], kFetch + kRows * offset, kRows * kBytes);
        AddBlock<kType, kTokens>(job, at, offset, block, acc);
    }
    HWY_ALIGN float lanes[4 * kRows];
    for (int t = 0; t < kTokens; ++t) {
        const auto pairs = hn::Add(acc[t], hn::Shuffle2301(acc[t]));
        hn::Store(hn::Add(pairs, hn::Shuffle1032(pairs)), f, lanes);
        for (int r = 0; r < rows; ++r) out[t * stride + r] = lanes[4 * r];
    }
}

template <CodeType kType>
void Rows(const StoredCodes& w, int first, int rows, const float* rounded, int tokens, float* out,
          size_t stride) {
    const size_t row = rounded_floats(w.columns);
    for (int i = 0; i < rows; i += kRows) {
        const int now = HWY_MIN(kRows, rows - i);
        const uint8_t* at[kRows];
        for (int r = 0; r < kRows; ++r) {
            at[r] = w.data + static_cast<size_t>(first + i + HWY_MIN(r, now - 1)) * w.row_bytes;
        }
        int t = 0;
        const auto take = [&](auto count) HWY_ATTR {
            constexpr int kTokens = decltype(count)::value;
            for (; t + kTokens <= tokens; t += kTokens) {
                Tile<kType, kTokens>(
                    {.rounded = rounded + t * row, .row = row, .columns = w.columns}, at, now,
                    out + t * stride + first + i, stride);
            }
        };
        take(std::integral_constant<int, kRowTokens>());
        take(std::integral_constant<int, 4>());
        take(std::integral_constant<int, 2>());
        take(std::integral_constant<int, 1>());
    }
}

void MultiplyRows(const StoredCodes& w, int first, int rows, const float* rounded, int tokens,
                  float* out, size_t stride) {
    switch (w.type) {
        case CodeType::q4_0:
            return Rows<CodeType::q4_0>(w, first, rows, rounded, tokens, out, stride);
        case CodeType::q4_1:
            return Rows<CodeType::q4_1>(w, first, rows, rounded, tokens, out, stride);
        case CodeType::q5_0:
            return Rows<CodeType::q5_0>(w, first, rows, rounded, tokens, out, stride);
        default:
            return Rows<CodeType::q8_0>(w, first, rows, rounded, tokens, out, stride);
    }
}

// Puts every 16 activations into the order of Parts, and makes the sums what AddMins takes.
void OrderForRows(CodeType type, int columns, float* rounded) {
    const hn::Full128<int16_t> i16;
    const hn::RepartitionToWide<decltype(i16)> i32;
    const bool offset = type == CodeType::q4_0 || type == CodeType::q5_0;
    auto* x = reinterpret_cast<int16_t*>(rounded);
    const float* factors = rounded + columns / 2;
    float* sums = rounded + columns / 2 + columns / 32;
    for (int block = 0; block < columns / 32; ++block) {
        auto low = hn::Zero(i32), high = hn::Zero(i32);
        for (int i = 0; i < 2; ++i, x += 16) {
            const auto a = hn::LoadU(i16, x), b = hn::LoadU(i16, x + 8);
            hn::StoreU(hn::ConcatEven(i16, b, a), i16, x);
            hn::StoreU(hn::ConcatOdd(i16, b, a), i16, x + 8);
            const auto one = hn::Set(i16, 1);
            low = hn::ReorderWidenMulAccumulate(i32, a, one, low, high);
            low = hn::ReorderWidenMulAccumulate(i32, b, one, low, high);
        }
        // An offset belongs to the codes, so it takes what they are multiplied with.
        if (offset) {
            const auto sum = hn::ReduceSum(i32, hn::Add(low, high));
            sums[block] = factors[block] * static_cast<float>(sum);
        }
        sums[block] *= 0.25F;  // a row's four lanes all add it
    }
}

}  // namespace HWY_NAMESPACE
}  // namespace winnow
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace winnow {

HWY_EXPORT(MultiplyRows);
HWY_EXPORT(OrderForRows);

void round_for_rows(CodeType type, const float* x, int columns, float* out) {
    round_activations(x, columns, out);
    HWY_DYNAMIC_DISPATCH(OrderForRows)(type, columns, out);
}
void multiply_rows(const StoredCodes& weights, int first, int rows, const float* rounded,
                   int tokens, float* out, std::size_t out_stride) {
    HWY_DYNAMIC_DISPATCH(MultiplyRows)(weights, first, rows, rounded, tokens, out, out_stride);
}

}  // namespace winnow
#endif  // HWY_ONCE
