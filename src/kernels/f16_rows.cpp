// Attention over rows of f16 or floats. One source, compiled once per instruction set by Highway.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/f16_rows.cpp"
#include <hwy/foreach_target.h>
// foreach_target must come before highway.h.
#include <hwy/highway.h>

#include "kernels/fetch.h"
#include "kernels/packed.h"
#include "kernels/reduce-inl.h"

HWY_BEFORE_NAMESPACE();
namespace winnow {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Accumulators are heads x 4 vectors; with 16 registers more than 3 heads would spill.
constexpr int kMaxHeads = HWY_MAX_BYTES >= 64 ? 4 : 3;

// Bytes of rows that all heads and columns take before the next ones: they stay in the first cache.
constexpr size_t kStretch = 8192;

// From a row to the one asked for meanwhile: 32 rows, and no further than the next stretch's.
constexpr size_t AheadOf(size_t head_dim) {
    return HWY_MIN(kStretch, 64 * head_dim);
}

template <class T>
struct RowsJob {
    const T* rows;  // [count][D], float16_t or float
    int count;
    size_t head_dim;
    const float* in;  // queries [head][D], or weights [head][in_head]
    size_t in_head;
    float* out;
    size_t out_head;
};

template <class D>
HWY_INLINE hn::VFromD<D> LoadRow(D f, const hwy::float16_t* from) {
    return hn::PromoteTo(f, hn::LoadU(hn::Rebind<hwy::float16_t, D>(), from));
}
template <class D>
HWY_INLINE hn::VFromD<D> LoadRow(D f, const float* from) {
    return hn::LoadU(f, from);
}

// Floats are a caller's scratch, which lies in the first cache.
HWY_INLINE void FetchRows(const hwy::float16_t* from, size_t ahead, size_t count) {
    fetch_ahead(from, ahead, count * sizeof(hwy::float16_t));
}
HWY_INLINE void FetchRows(const float* /*from*/, size_t /*ahead*/, size_t /*count*/) {}

// Four rows at once; fewer take the same way, so that a row's score does not depend on its place.
template <int kRows, int kHeads, class T, class D>
HWY_INLINE void DotTile(D f, const RowsJob<T>& job, int row) {
    hn::VFromD<D> acc[kHeads][4];
    for (int h = 0; h < kHeads; ++h) {
        for (int i = 0; i < 4; ++i) {
            acc[h][i] = hn::Zero(f);
        }
    }
    const T* from = job.rows + static_cast<size_t>(row) * job.head_dim;
    for (size_t c = 0; c < job.head_dim; c += hn::Lanes(f)) {
        hn::VFromD<D> x[kRows];
        for (int i = 0; i < kRows; ++i) {
            x[i] = LoadRow(f, from + i * job.head_dim + c);
        }
        for (int h = 0; h < kHeads; ++h) {
            const auto q = hn::LoadU(f, job.in + h * job.in_head + c);
            for (int i = 0; i < kRows; ++i) {
                acc[h][i] = hn::MulAdd(q, x[i], acc[h][i]);
            }
        }
    }
    for (int h = 0; h < kHeads; ++h) {
        const hn::Full128<float> four;
        const auto sums = ReduceFour(AddOp(), f, acc[h]);
        float* out = job.out + h * job.out_head + row;
        if constexpr (kRows == 4) {
            hn::StoreU(sums, four, out);
        } else {
            hn::StoreN(sums, four, out, kRows);
        }
    }
}

template <int kHeads, class T, class D>
HWY_INLINE void DotHeads(D f, const RowsJob<T>& job) {
    int row = 0;
    for (; row + 4 <= job.count; row += 4) {
        FetchRows(job.rows + static_cast<size_t>(row) * job.head_dim, AheadOf(job.head_dim),
                  4 * job.head_dim);
        DotTile<4, kHeads>(f, job, row);
    }
    for (; row < job.count; ++row) {
        DotTile<1, kHeads>(f, job, row);
    }
}

// kChunks vectors of the output of kHeads heads stay in registers over all rows.
template <int kChunks, int kHeads, class T, class D>
HWY_INLINE void AddTile(D f, const RowsJob<T>& job, size_t column) {
    const size_t lanes = hn::Lanes(f);
    hn::VFromD<D> acc[kHeads][kChunks];
    for (int h = 0; h < kHeads; ++h) {
        for (int c = 0; c < kChunks; ++c) {
            acc[h][c] = hn::LoadU(f, job.out + h * job.out_head + column + c * lanes);
        }
    }
    const T* from = job.rows + column;
    for (int i = 0; i < job.count; ++i, from += job.head_dim) {
        hn::VFromD<D> x[kChunks];
        FetchRows(from, AheadOf(job.head_dim), kChunks * lanes);
        for (int c = 0; c < kChunks; ++c) {
            x[c] = LoadRow(f, from + c * lanes);
        }
        for (int h = 0; h < kHeads; ++h) {
            const auto w = hn::Set(f, job.in[h * job.in_head + i]);
            for (int c = 0; c < kChunks; ++c) {
                acc[h][c] = hn::MulAdd(w, x[c], acc[h][c]);
            }
        }
    }
    for (int h = 0; h < kHeads; ++h) {
        for (int c = 0; c < kChunks; ++c) {
            hn::StoreU(acc[h][c], f, job.out + h * job.out_head + column + c * lanes);
        }
    }
}

template <int kHeads, class T, class D>
HWY_INLINE void AddHeads(D f, const RowsJob<T>& job) {
    constexpr int kChunks = 4;
    const size_t lanes = hn::Lanes(f);
    size_t column = 0;
    for (; column + kChunks * lanes <= job.head_dim; column += kChunks * lanes) {
        AddTile<kChunks, kHeads>(f, job, column);
    }
    for (; column < job.head_dim; column += lanes) {
        AddTile<1, kHeads>(f, job, column);
    }
}

template <bool kDot, int kHeads, class T, class D>
HWY_INLINE void RunHeads(D f, const RowsJob<T>& job) {
    if constexpr (kDot) {
        DotHeads<kHeads>(f, job);
    } else {
        AddHeads<kHeads>(f, job);
    }
}

template <bool kDot, class T, class D>
HWY_INLINE void Run(D f, RowsJob<T> job, int heads) {
    for (int h = 0; h < heads;) {
        const int left = heads - h;
        const int now = left == kMaxHeads + 1 ? kMaxHeads - 1 : HWY_MIN(left, kMaxHeads);
        switch (now) {
            case 1:
                RunHeads<kDot, 1>(f, job);
                break;
            case 2:
                RunHeads<kDot, 2>(f, job);
                break;
            case 3:
                RunHeads<kDot, 3>(f, job);
                break;
            default:
                if constexpr (kMaxHeads >= 4) {
                    RunHeads<kDot, 4>(f, job);
                }
        }
        h += now;
        job.in += now * job.in_head;
        job.out += now * job.out_head;
    }
}

template <bool kDot, class T>
HWY_INLINE void RunWidest(RowsJob<T> job, int heads) {
    const size_t fit = kStretch / (job.head_dim * sizeof(T)) / 4 * 4;
    const int most = HWY_MAX(4, static_cast<int>(fit));
    for (int left = job.count; left > 0; left -= most) {
        job.count = HWY_MIN(left, most);
        if (job.head_dim % 16 == 0) {
            Run<kDot>(hn::CappedTag<float, 16>(), job, heads);
        } else {
            Run<kDot>(hn::CappedTag<float, 8>(), job, heads);
        }
        job.rows += static_cast<size_t>(most) * job.head_dim;
        if constexpr (kDot) {
            job.out += most;
        } else {
            job.in += most;
        }
    }
}

template <bool kDot, class T>
HWY_INLINE void RunRows(const T* rows, int tokens, int head_dim, const float* in, size_t in_head,
                        int heads, float* out, size_t out_head) {
    RunWidest<kDot>(RowsJob<T>{.rows = rows,
                               .count = tokens,
                               .head_dim = static_cast<size_t>(head_dim),
                               .in = in,
                               .in_head = in_head,
                               .out = out,
                               .out_head = out_head},
                    heads);
}

void F16Dot(const f16* rows, int tokens, int head_dim, const float* q, int heads, float* scores,
            size_t stride) {
    RunRows<true>(reinterpret_cast<const hwy::float16_t*>(rows), tokens, head_dim, q,
                  static_cast<size_t>(head_dim), heads, scores, stride);
}
void F16Add(const f16* rows, int tokens, int head_dim, const float* weights, size_t stride,
            int heads, float* out) {
    RunRows<false>(reinterpret_cast<const hwy::float16_t*>(rows), tokens, head_dim, weights, stride,
                   heads, out, static_cast<size_t>(head_dim));
}
void FloatDot(const float* rows, int tokens, int head_dim, const float* q, int heads, float* scores,
              size_t stride) {
    RunRows<true>(rows, tokens, head_dim, q, static_cast<size_t>(head_dim), heads, scores, stride);
}
void FloatAdd(const float* rows, int tokens, int head_dim, const float* weights, size_t stride,
              int heads, float* out) {
    RunRows<false>(rows, tokens, head_dim, weights, stride, heads, out,
                   static_cast<size_t>(head_dim));
}

}  // namespace HWY_NAMESPACE
}  // namespace winnow
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace winnow {

HWY_EXPORT(F16Dot);
HWY_EXPORT(F16Add);
HWY_EXPORT(FloatDot);
HWY_EXPORT(FloatAdd);

void f16_dot_rows(const f16* rows, int tokens, int head_dim, const float* q, int heads,
                  float* scores, std::size_t stride) {
    HWY_DYNAMIC_DISPATCH(F16Dot)(rows, tokens, head_dim, q, heads, scores, stride);
}

void f16_add_rows(const f16* rows, int tokens, int head_dim, const float* weights,
                  std::size_t stride, int heads, float* out) {
    HWY_DYNAMIC_DISPATCH(F16Add)(rows, tokens, head_dim, weights, stride, heads, out);
}

void float_dot_rows(const float* rows, int tokens, int head_dim, const float* q, int heads,
                    float* scores, std::size_t stride) {
    HWY_DYNAMIC_DISPATCH(FloatDot)(rows, tokens, head_dim, q, heads, scores, stride);
}

void float_add_rows(const float* rows, int tokens, int head_dim, const float* weights,
                    std::size_t stride, int heads, float* out) {
    HWY_DYNAMIC_DISPATCH(FloatAdd)(rows, tokens, head_dim, weights, stride, heads, out);
}

}  // namespace winnow
#endif  // HWY_ONCE
