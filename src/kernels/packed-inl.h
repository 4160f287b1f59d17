// The two shapes every packed kernel has, for the instruction set that includes this file:
//
//   outer  acc[r][j] += x[r][i] * code[i][j]    rows enter scaled by one number per head
//   inner  y[r][i]    = sum_j x[r][j] * code[i][j]
//
// Codes of a row lie in planes (cache/code_pack.h): byte b of a row of S bytes holds the codes of
// columns b, b + S, .. from its low bits up. A vector of bytes is widened to 32-bit lanes once and
// gives one vector of floats per plane by a shift and a mask.

// Included once per target, so the guard toggles.
#if defined(WINNOW_PACKED_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WINNOW_PACKED_INL_H
#undef WINNOW_PACKED_INL_H
#else
#define WINNOW_PACKED_INL_H
#endif

#include <hwy/highway.h>

#include "core/f16.h"

HWY_BEFORE_NAMESPACE();
namespace winnow {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Accumulators are heads x 4 vectors; with 16 registers more than 3 heads would spill.
inline constexpr int kMaxHeads = HWY_MAX_BYTES >= 64 ? 4 : 3;

template <int kBits>
inline constexpr int kPlanes = kBits == 16 ? 1 : 8 / kBits;
// Bytes of memory behind one lane.
template <int kBits>
inline constexpr size_t kLaneBytes = kBits == 16 ? 2 : 1;

// The kPlanes vectors of floats that start at `from`.
template <int kBits, class D>
HWY_INLINE void LoadPlanes(D f, const uint8_t* HWY_RESTRICT from, hn::VFromD<D>* out) {
    if constexpr (kBits == 16) {
        const hn::Rebind<hwy::float16_t, D> h;
        out[0] = hn::PromoteTo(f, hn::LoadU(h, reinterpret_cast<const hwy::float16_t*>(from)));
    } else {
        const hn::RebindToSigned<D> i;
        const hn::Rebind<uint8_t, D> u8;
        const auto raw = hn::PromoteTo(i, hn::LoadU(u8, from));
        const auto mask = hn::Set(i, (1 << kBits) - 1);
        if constexpr (kBits == 8) {
            out[0] = hn::ConvertTo(f, raw);
        } else if constexpr (kBits == 4) {
            out[0] = hn::ConvertTo(f, hn::And(raw, mask));
            out[1] = hn::ConvertTo(f, hn::ShiftRight<4>(raw));
        } else {
            out[0] = hn::ConvertTo(f, hn::And(raw, mask));
            out[1] = hn::ConvertTo(f, hn::And(hn::ShiftRight<2>(raw), mask));
            out[2] = hn::ConvertTo(f, hn::And(hn::ShiftRight<4>(raw), mask));
            out[3] = hn::ConvertTo(f, hn::ShiftRight<6>(raw));
        }
    }
}

// What the outer product reads and writes: `rows` rows of codes `row_bytes` apart, coefficients
// x[plane group][head][i], and out[head][column].
struct OuterJob {
    const uint8_t* codes;
    size_t row_bytes;
    size_t plane_columns;  // columns per plane: the byte count S of a row (lanes for f16)
    int rows;
    const float* coefs;
    size_t coef_head;   // floats from one head's coefficients to the next
    size_t coef_group;  // floats from one column group's coefficients to the next; 0: all share
    int group_columns;  // columns per coefficient group
    float* out;
    size_t out_head;
};

// kChunks vectors of bytes, all planes, kHeads heads: the accumulators stay in registers.
template <int kBits, int kChunks, int kHeads, class D>
HWY_INLINE void OuterTile(D f, const OuterJob& job, size_t column) {
    constexpr int kP = kPlanes<kBits>;
    const size_t lanes = hn::Lanes(f);
    hn::VFromD<D> acc[kHeads][kChunks * kP];
    const float* coefs[kP * kChunks];
    for (int c = 0; c < kChunks; ++c) {
        for (int p = 0; p < kP; ++p) {
            const size_t at = column + c * lanes + p * job.plane_columns;
            coefs[c * kP + p] =
                job.coefs + (job.coef_group == 0 ? 0 : at / job.group_columns * job.coef_group);
            for (int h = 0; h < kHeads; ++h) {
                acc[h][c * kP + p] = hn::LoadU(f, job.out + h * job.out_head + at);
            }
        }
    }
    const uint8_t* HWY_RESTRICT codes = job.codes + column * kLaneBytes<kBits>;
    if (job.coef_group == 0) {
        for (int i = 0; i < job.rows; ++i, codes += job.row_bytes) {
            hn::VFromD<D> x[kChunks * kP];
            for (int c = 0; c < kChunks; ++c) {
                LoadPlanes<kBits>(f, codes + c * lanes * kLaneBytes<kBits>, x + c * kP);
            }
            for (int h = 0; h < kHeads; ++h) {
                const auto w = hn::Set(f, job.coefs[h * job.coef_head + i]);
                for (int v = 0; v < kChunks * kP; ++v) {
                    acc[h][v] = hn::MulAdd(w, x[v], acc[h][v]);
                }
            }
        }
    } else {
        for (int i = 0; i < job.rows; ++i, codes += job.row_bytes) {
            for (int c = 0; c < kChunks; ++c) {
                hn::VFromD<D> x[kP];
                LoadPlanes<kBits>(f, codes + c * lanes * kLaneBytes<kBits>, x);
                for (int p = 0; p < kP; ++p) {
                    for (int h = 0; h < kHeads; ++h) {
                        const auto w = hn::Set(f, coefs[c * kP + p][h * job.coef_head + i]);
                        acc[h][c * kP + p] = hn::MulAdd(w, x[p], acc[h][c * kP + p]);
                    }
                }
            }
        }
    }
    for (int c = 0; c < kChunks; ++c) {
        for (int p = 0; p < kP; ++p) {
            const size_t at = column + c * lanes + p * job.plane_columns;
            for (int h = 0; h < kHeads; ++h) {
                hn::StoreU(acc[h][c * kP + p], f, job.out + h * job.out_head + at);
            }
        }
    }
}

template <int kBits, int kHeads, class D>
HWY_INLINE void OuterHeads(D f, const OuterJob& job) {
    constexpr int kChunks = 4 / kPlanes<kBits>;
    const size_t lanes = hn::Lanes(f);
    size_t column = 0;
    for (; column + kChunks * lanes <= job.plane_columns; column += kChunks * lanes) {
        OuterTile<kBits, kChunks, kHeads>(f, job, column);
    }
    for (; column < job.plane_columns; column += lanes) {
        OuterTile<kBits, 1, kHeads>(f, job, column);
    }
}

template <int kBits, class D>
HWY_INLINE void Outer(D f, OuterJob job, int heads) {
    for (int h = 0; h < heads;) {
        const int left = heads - h;
        const int now = left == kMaxHeads + 1 ? kMaxHeads - 1 : HWY_MIN(left, kMaxHeads);
        switch (now) {
            case 1:
                OuterHeads<kBits, 1>(f, job);
                break;
            case 2:
                OuterHeads<kBits, 2>(f, job);
                break;
            case 3:
                OuterHeads<kBits, 3>(f, job);
                break;
            default:
                if constexpr (kMaxHeads >= 4) {
                    OuterHeads<kBits, 4>(f, job);
                }
        }
        h += now;
        job.coefs += now * job.coef_head;
        job.out += now * job.out_head;
    }
}

// Rows against vectors. scale, if any, is read as scale[column / group_columns][i].
struct InnerJob {
    const uint8_t* codes;
    size_t row_bytes;
    size_t plane_columns;
    int rows;
    const float* x;  // [head][column]
    size_t x_head;
    const float* scale;
    size_t scale_group;  // floats from one column group's scales to the next
    int group_columns;
    float* out;  // out[head][i], overwritten
    size_t out_head;
};

template <int kBits, int kRows, int kHeads, bool kScaled, class D>
HWY_INLINE void InnerTile(D f, const InnerJob& job, int row) {
    constexpr int kP = kPlanes<kBits>;
    const size_t lanes = hn::Lanes(f);
    hn::VFromD<D> acc[kRows][kHeads];
    for (int i = 0; i < kRows; ++i) {
        for (int h = 0; h < kHeads; ++h) {
            acc[i][h] = hn::Zero(f);
        }
    }
    for (size_t column = 0; column < job.plane_columns; column += lanes) {
        hn::VFromD<D> codes[kRows][kP];
        for (int i = 0; i < kRows; ++i) {
            LoadPlanes<kBits>(f, job.codes + (row + i) * job.row_bytes + column * kLaneBytes<kBits>,
                              codes[i]);
        }
        for (int p = 0; p < kP; ++p) {
            const size_t at = column + p * job.plane_columns;
            if constexpr (kScaled) {
                const float* scale = job.scale + at / job.group_columns * job.scale_group + row;
                for (int i = 0; i < kRows; ++i) {
                    codes[i][p] = hn::Mul(codes[i][p], hn::Set(f, scale[i]));
                }
            }
            for (int h = 0; h < kHeads; ++h) {
                const auto x = hn::LoadU(f, job.x + h * job.x_head + at);
                for (int i = 0; i < kRows; ++i) {
                    acc[i][h] = hn::MulAdd(x, codes[i][p], acc[i][h]);
                }
            }
        }
    }
    for (int h = 0; h < kHeads; ++h) {
        for (int i = 0; i < kRows; ++i) {
            job.out[h * job.out_head + row + i] = hn::ReduceSum(f, acc[i][h]);
        }
    }
}

template <int kBits, int kHeads, bool kScaled, class D>
HWY_INLINE void InnerHeads(D f, const InnerJob& job) {
    constexpr int kRows = 4;
    int row = 0;
    for (; row + kRows <= job.rows; row += kRows) {
        InnerTile<kBits, kRows, kHeads, kScaled>(f, job, row);
    }
    for (; row < job.rows; ++row) {
        InnerTile<kBits, 1, kHeads, kScaled>(f, job, row);
    }
}

template <int kBits, bool kScaled, class D>
HWY_INLINE void Inner(D f, InnerJob job, int heads) {
    for (int h = 0; h < heads;) {
        const int now = HWY_MIN(heads - h, 3);
        switch (now) {
            case 1:
                InnerHeads<kBits, 1, kScaled>(f, job);
                break;
            case 2:
                InnerHeads<kBits, 2, kScaled>(f, job);
                break;
            default:
                InnerHeads<kBits, 3, kScaled>(f, job);
                break;
        }
        h += now;
        job.x += now * job.x_head;
        job.out += now * job.out_head;
    }
}

}  // namespace HWY_NAMESPACE
}  // namespace winnow
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
