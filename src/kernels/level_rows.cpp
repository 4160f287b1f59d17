// One source, compiled once per instruction set by Highway.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/level_rows.cpp"
#include <hwy/foreach_target.h>
// foreach_target must come before highway.h.
#include <hwy/highway.h>

#include "kernels/codes-inl.h"
#include "kernels/fetch.h"
#include "kernels/level_rows.h"
#include "kernels/packed.h"
#include "kernels/reduce-inl.h"

HWY_BEFORE_NAMESPACE();
namespace winnow {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

constexpr int kMaxHeads = 3;         // four heads and four rows would spill
constexpr int kMaxQueries = 1024;    // channels of a head; see kMaxHeadDim
constexpr size_t kFetchRuns = 2048;  // bytes ahead
constexpr size_t kFetchAngles = 8192;

struct AddJob {
    CodeRuns runs;
    const float* levels;
    const float* weights;
    size_t stride;
    float* sums;
};

// The stripes of one place stay in registers over all runs.
template <int kBits, int kHeads, class D>
HWY_INLINE void AddPlace(D f, const AddJob& job, const Table<kBits, D>& table, int at) {
    constexpr int kCount = kStripes<kBits>;
    const int stripe = job.runs.count / kCount;
    hn::VFromD<D> acc[kHeads][kCount];
    for (int h = 0; h < kHeads; ++h) {
        for (int s = 0; s < kCount; ++s) {
            acc[h][s] = hn::LoadU(f, job.sums + h * job.runs.count + s * stripe + at);
        }
    }
    const uint8_t* run = job.runs.data;
    for (int r = 0; r < job.runs.runs; ++r, run += job.runs.step) {
        if (at == 0) fetch_ahead(run, kFetchRuns, job.runs.step);
        hn::VFromD<D> w[kHeads];
        for (int h = 0; h < kHeads; ++h) {
            w[h] = hn::Set(f, job.weights[h * job.stride + static_cast<size_t>(r)]);
        }
        CodesAt<kBits>(f, run, job.runs.count, at, [&](int s, auto codes) HWY_ATTR {
            const auto level = table(f, codes);
            for (int h = 0; h < kHeads; ++h) {
                acc[h][s] = hn::MulAdd(w[h], level, acc[h][s]);
            }
        });
    }
    for (int h = 0; h < kHeads; ++h) {
        for (int s = 0; s < kCount; ++s) {
            hn::StoreU(acc[h][s], f, job.sums + h * job.runs.count + s * stripe + at);
        }
    }
}

template <int kBits, class D>
HWY_INLINE void AddHeads(D f, AddJob job, int heads) {
    // 3 bits hold eight vectors a head.
    constexpr int kMost = kBits == 3 && HWY_MAX_BYTES < 64 ? 1 : kMaxHeads;
    const Table<kBits, D> table(f, job.levels);
    const int stripe = job.runs.count / kStripes<kBits>, lanes = static_cast<int>(hn::Lanes(f));
    for (int h = 0; h < heads;) {
        const int now = HWY_MIN(heads - h, kMost);
        for (int at = 0; at < stripe; at += lanes) {
            if (now == 1) {
                AddPlace<kBits, 1>(f, job, table, at);
            } else if (now == 2) {
                AddPlace<kBits, HWY_MIN(2, kMost)>(f, job, table, at);
            } else {
                AddPlace<kBits, kMost>(f, job, table, at);
            }
        }
        h += now;
        job.weights += static_cast<size_t>(now) * job.stride;
        job.sums += now * job.runs.count;
    }
}

// False where the stripes are too short for vectors.
template <int kBits>
HWY_INLINE bool AddWidest(const AddJob& job, int heads) {
    const hn::CappedTag<float, 16> wide;
    const hn::CappedTag<float, 8> narrow;
    const int stripe = job.runs.count / kStripes<kBits>;
    if (stripe % static_cast<int>(hn::Lanes(wide)) == 0) {
        AddHeads<kBits>(wide, job, heads);
    } else if (stripe % static_cast<int>(hn::Lanes(narrow)) == 0) {
        AddHeads<kBits>(narrow, job, heads);
    } else {
        return false;
    }
    return true;
}

bool AddLevels(const CodeRuns& runs, const float* levels, const float* weights, size_t stride,
               int heads, float* sums) {
    const AddJob job{runs, levels, weights, stride, sums};
    switch (runs.bits) {
        case 2:
            return AddWidest<2>(job, heads);
        case 3:
            return AddWidest<3>(job, heads);
        case 4:
            return AddWidest<4>(job, heads);
        default:
            return AddWidest<8>(job, heads);
    }
}

struct TurnedJob {
    const float* rows;  // [tokens][D]
    int head_dim, pairs;
    const float* const* angles;
    const float* q;  // [head][D]: the first of every pair, the second ones, the rest
    size_t stride;
    float* scores;
};

// Four rows at once; fewer take the same way, so that a row's score does not depend on its place.
template <int kRows, int kHeads, bool kHalves, class D>
HWY_INLINE void TurnedTile(D f, const TurnedJob& job, int row) {
    const int lanes = static_cast<int>(hn::Lanes(f));
    hn::VFromD<D> acc[kHeads][4];
    for (int h = 0; h < kHeads; ++h) {
        for (int i = 0; i < 4; ++i) {
            acc[h][i] = hn::Zero(f);
        }
    }
    const float* from = job.rows + static_cast<size_t>(row) * static_cast<size_t>(job.head_dim);
    const float* const* angles = job.angles + row;
    for (int p = 0; p < job.pairs; p += lanes) {
        hn::VFromD<D> first[kRows], second[kRows];
        for (int i = 0; i < kRows; ++i) {
            const float* x = from + i * job.head_dim;
            hn::VFromD<D> a, b;
            if constexpr (kHalves) {
                a = hn::LoadU(f, x + p);
                b = hn::LoadU(f, x + job.pairs + p);
            } else {
                hn::LoadInterleaved2(f, x + 2 * p, a, b);
            }
            const auto cos = hn::LoadU(f, angles[i] + p);
            const auto sin = hn::LoadU(f, angles[i] + job.pairs + p);
            first[i] = hn::NegMulAdd(b, sin, hn::Mul(a, cos));
            second[i] = hn::MulAdd(a, sin, hn::Mul(b, cos));
        }
        for (int h = 0; h < kHeads; ++h) {
            const float* q = job.q + h * job.head_dim + p;
            const auto qa = hn::LoadU(f, q), qb = hn::LoadU(f, q + job.pairs);
            for (int i = 0; i < kRows; ++i) {
                acc[h][i] = hn::MulAdd(qb, second[i], hn::MulAdd(qa, first[i], acc[h][i]));
            }
        }
    }
    for (int c = 2 * job.pairs; c < job.head_dim; c += lanes) {
        for (int h = 0; h < kHeads; ++h) {
            const auto q = hn::LoadU(f, job.q + h * job.head_dim + c);
            for (int i = 0; i < kRows; ++i) {
                acc[h][i] = hn::MulAdd(q, hn::LoadU(f, from + i * job.head_dim + c), acc[h][i]);
            }
        }
    }
    for (int h = 0; h < kHeads; ++h) {
        const hn::Full128<float> four;
        hn::StoreN(ReduceFour(AddOp(), f, acc[h]), four,
                   job.scores + static_cast<size_t>(h) * job.stride + row, kRows);
    }
}

template <int kHeads, bool kHalves, class D>
HWY_INLINE void TurnedHeads(D f, const TurnedJob& job, int tokens) {
    int row = 0;
    for (; row + 4 <= tokens; row += 4) {
        for (int i = 0; i < 4; ++i) {
            fetch_ahead(job.angles[row + i], kFetchAngles,
                        2 * sizeof(float) * static_cast<size_t>(job.pairs));
        }
        TurnedTile<4, kHeads, kHalves>(f, job, row);
    }
    for (; row < tokens; ++row) {
        TurnedTile<1, kHeads, kHalves>(f, job, row);
    }
}

template <bool kHalves, class D>
HWY_INLINE void Turned(D f, TurnedJob job, int tokens, const float* q, int heads) {
    HWY_ALIGN float apart[kMaxHeads * kMaxQueries];
    const int d = job.head_dim, lanes = static_cast<int>(hn::Lanes(f));
    for (int h = 0; h < heads;) {
        const int now = HWY_MIN(heads - h, kMaxHeads);
        job.q = q;
        if constexpr (!kHalves) {
            job.q = apart;
            for (int i = 0; i < now; ++i) {
                const float* from = q + i * d;
                float* to = apart + i * d;
                for (int p = 0; p < job.pairs; p += lanes) {
                    hn::VFromD<D> a, b;
                    hn::LoadInterleaved2(f, from + 2 * p, a, b);
                    hn::StoreU(a, f, to + p);
                    hn::StoreU(b, f, to + job.pairs + p);
                }
                for (int c = 2 * job.pairs; c < d; ++c) to[c] = from[c];
            }
        }
        if (now == 1) {
            TurnedHeads<1, kHalves>(f, job, tokens);
        } else if (now == 2) {
            TurnedHeads<2, kHalves>(f, job, tokens);
        } else {
            TurnedHeads<3, kHalves>(f, job, tokens);
        }
        h += now;
        q += now * d;
        job.scores += static_cast<size_t>(now) * job.stride;
    }
}

// False where the pairs do not fill vectors.
bool DotTurned(const float* rows, int tokens, int head_dim, int pairs, bool halves,
               const float* const* angles, const float* q, int heads, float* scores,
               size_t stride) {
    const hn::CappedTag<float, 16> f;
    const int lanes = static_cast<int>(hn::Lanes(f));
    if (pairs % lanes != 0 || (head_dim - 2 * pairs) % lanes != 0 || head_dim > kMaxQueries) {
        return false;
    }
    const TurnedJob job{rows, head_dim, pairs, angles, q, stride, scores};
    if (halves) {
        Turned<true>(f, job, tokens, q, heads);
    } else {
        Turned<false>(f, job, tokens, q, heads);
    }
    return true;
}

}  // namespace HWY_NAMESPACE
}  // namespace winnow
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace winnow {

HWY_EXPORT(AddLevels);
HWY_EXPORT(DotTurned);

void add_level_rows(const CodeRuns& runs, const float* levels, const float* weights,
                    std::size_t stride, int heads, float* sums) {
    if (!HWY_DYNAMIC_DISPATCH(AddLevels)(runs, levels, weights, stride, heads, sums)) {
        reference::add_level_rows(runs, levels, weights, stride, heads, sums);
    }
}
void dot_turned_rows(float* rows, int tokens, int head_dim, int pairs, bool halves,
                     const float* const* angles, const float* q, int heads, float* scores,
                     std::size_t stride) {
    if (HWY_DYNAMIC_DISPATCH(DotTurned)(rows, tokens, head_dim, pairs, halves, angles, q, heads,
                                        scores, stride)) {
        return;
    }
    rotate_rows(rows, tokens, head_dim, pairs, halves, angles);
    float_dot_rows(rows, tokens, head_dim, q, heads, scores, stride);
}

float sum_of(const float* x, int n) {
    float part[16] = {};
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        for (int lane = 0; lane < 16; ++lane) part[lane] += x[i + lane];
    }
    for (; i < n; ++i) part[i % 16] += x[i];
    float sum = 0.0F;
    for (const float each : part) sum += each;
    return sum;
}

}  // namespace winnow
#endif  // HWY_ONCE
