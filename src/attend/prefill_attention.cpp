#include "attend/prefill_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "attend/peaks.h"
#include "core/threads.h"
#include "kernels/dense.h"

namespace winnow {

namespace {

constexpr int kKeys = 256;        // keys per tile; a multiple of kColumnBlock
constexpr int kBlockTokens = 32;  // prompt tokens per block of rows
constexpr int kSumTokens = 32;    // the same where a block keeps its raw scores
constexpr float kHidden = -std::numeric_limits<float>::infinity();

static_assert(kKeys % kColumnBlock == 0);

int padded(int keys) {
    return (keys + kColumnBlock - 1) / kColumnBlock * kColumnBlock;
}

// Turns a row's raw scores into weights over the keys that count, and raises those of the stretch
// to `factor` times them.
void raise_stretch(const KeyStretch& stretch, int kept, float* x, int visible, float* peaks,
                   float factor) {
    const int first = kept - stretch.from_end;
    const std::pair<int, int> parts[] = {
        {0, std::min(stretch.sinks, first)}, {first, stretch.count}, {kept, visible - kept}};
    float top = kHidden, total = 0.0F;
    for (const auto& [at, count] : parts) {
        top = count > 0 ? std::max(top, max_of(x + at, count)) : top;
    }
    for (const auto& [at, count] : parts) {
        total += count > 0 ? exp_and_sum(x + at, count, top) : 0.0F;
    }
    raise_to(peaks + first, x + first, stretch.count, factor / total);
}

}  // namespace

// One thread's working memory.
struct PrefillAttention::Scratch {
    Buffer<float> queries;           // [rows][D], scaled
    Buffer<float> tile;              // [D][kKeys] of K or [kKeys][D padded] of V
    Buffer<float> scores;            // [rows][kKeys]
    Buffer<float> raw;               // [rows][T padded] raw scores, when column sums are asked for
    Buffer<float> sums;              // [rows][D padded] output before division
    std::vector<float> best, total;  // [rows] running maximum and denominator

    Scratch(MemoryMeter* meter, int rows, int head_dim, int raw_columns)
        : queries(meter, static_cast<std::size_t>(rows) * head_dim, "attention"),
          tile(meter, static_cast<std::size_t>(kKeys) * padded(head_dim), "attention"),
          scores(meter, static_cast<std::size_t>(rows) * kKeys, "attention"),
          raw(meter, static_cast<std::size_t>(rows) * raw_columns, "attention"),
          sums(meter, static_cast<std::size_t>(rows) * padded(head_dim), "attention"),
          best(rows),
          total(rows) {}

    /// V rows [keys][D] widened to rows of `width` floats, zero beyond D.
    void widen_values(const f16* v, int keys, int head_dim, int width) {
        for (int t = 0; t < keys; ++t) {
            float* row = tile.data() + static_cast<std::size_t>(t) * width;
            widen(v + static_cast<std::size_t>(t) * head_dim, row,
                  static_cast<std::size_t>(head_dim));
            std::fill(row + head_dim, row + width, 0.0F);
        }
    }

    /// Turns a tile's raw scores x [rows][kKeys] into weights relative to the running maximum, and
    /// brings totals and sums up to it. A token has `group` rows; the first sees `before` + 1 keys.
    void fold(float* x, int rows, int group, int before, int keys, int width) {
        for (int row = 0; row < rows; ++row, x += kKeys) {
            const int visible = std::clamp(before + row / group + 1, 0, keys);
            std::fill(x + visible, x + keys, 0.0F);
            if (visible == 0) {
                continue;
            }
            const float top = std::max(best[row], max_of(x, visible));
            const float shrink = std::exp(best[row] - top);
            if (shrink != 1.0F) {
                scale_by(sums.data() + static_cast<std::size_t>(row) * width, width, shrink);
            }
            total[row] = total[row] * shrink + exp_and_sum(x, visible, top);
            best[row] = top;
        }
    }
    void start_rows(int rows, int width) {
        std::fill(best.begin(), best.end(), kHidden);
        std::fill(total.begin(), total.end(), 0.0F);
        std::fill_n(sums.data(), static_cast<std::size_t>(rows) * width, 0.0F);
    }
};

PrefillAttention::PrefillAttention(int threads, int head_dim, MemoryMeter* meter)
    : threads_(threads), head_dim_(head_dim), meter_(meter) {}

void PrefillAttention::attend(const LayerKv& kv, const PrefillQueries& queries, float* out) {
    const int group = queries.query_heads / kv.kv_heads();
    const int blocks = (queries.count + kBlockTokens - 1) / kBlockTokens;
    std::vector<Scratch> scratch;
    for (int i = 0; i < threads_; ++i) {
        scratch.emplace_back(meter_, kBlockTokens * group, head_dim_, 0);
    }
    // The longest rows first, so that the threads finish together.
    parallel_for(threads_, blocks * kv.kv_heads(), [&](int task, int thread) {
        attend_block(kv, queries, task % kv.kv_heads(), blocks - 1 - task / kv.kv_heads(), out,
                     scratch[thread]);
    });
}

// Rows are (token, query head of the group), token-major, so that a row's keys grow downwards.
void PrefillAttention::attend_block(const LayerKv& kv, const PrefillQueries& queries, int g,
                                    int block, float* out, Scratch& s) {
    const int dims = head_dim_;
    const int width = padded(dims);
    const int heads = queries.query_heads;
    const int group = heads / kv.kv_heads();
    const LayerKv::Head& head = kv.head(g);
    const int first = block * kBlockTokens;
    const int count = std::min(kBlockTokens, queries.count - first);
    const int rows = count * group;
    const auto source = [&](int row) {
        return (static_cast<std::size_t>(first + row / group) * heads + g * group + row % group) *
               dims;
    };
    for (int row = 0; row < rows; ++row) {
        float* q = s.queries.data() + static_cast<std::size_t>(row) * dims;
        std::copy_n(queries.q + source(row), dims, q);
        scale_by(q, dims, queries.scale);
    }
    s.start_rows(rows, width);

    const int seen = head.kept + queries.first + first;  // keys before the block's own
    const int end = seen + count;
    for (int start = 0; start < end; start += kKeys) {
        const int keys = std::min(kKeys, end - start);
        const int columns = padded(keys);
        widen_transposed(head.k + static_cast<std::size_t>(start) * dims, keys, dims, s.tile.data(),
                         columns);
        multiply(s.queries.data(), dims, s.tile.data(), columns, s.scores.data(), kKeys, rows,
                 columns, dims, false);
        s.fold(s.scores.data(), rows, group, seen - start, keys, width);
        s.widen_values(head.v + static_cast<std::size_t>(start) * dims, keys, dims, width);
        multiply(s.scores.data(), kKeys, s.tile.data(), width, s.sums.data(), width, rows, width,
                 keys, true);
    }
    for (int row = 0; row < rows; ++row) {
        float* result = out + source(row);
        std::copy_n(s.sums.data() + static_cast<std::size_t>(row) * width, dims, result);
        scale_by(result, dims, 1.0F / s.total[row]);
    }
}

void PrefillAttention::attend_and_sum(const LayerKv& kv, const PrefillQueries& queries, float* out,
                                      float* column_sums, std::size_t stride, bool largest,
                                      const KeyStretch* stretch) {
    int longest = 0;
    for (const LayerKv::Head& head : kv.heads()) {
        longest = std::max(longest, head.kept + queries.first + queries.count);
    }
    const int heads = queries.query_heads;
    const auto columns = static_cast<std::size_t>(padded(longest));
    Buffer<float> apart(meter_, columns * static_cast<std::size_t>(heads), "attention");
    std::vector<Scratch> scratch;
    const int workers = std::min(threads_, 2 * heads);
    for (int i = 0; i < workers; ++i) {
        scratch.emplace_back(meter_, kSumTokens, head_dim_, padded(longest));
    }
    // A head's later tokens, then its earlier ones: nine heads would keep two threads busy
    // unequally.
    const int half = queries.count / 2 / kSumTokens * kSumTokens;
    parallel_for(workers, 2 * heads, [&](int task, int thread) {
        const int h = task % heads;
        if (task < heads) {
            sum_head(kv, queries, h, half, queries.count, out, apart.data() + h * columns, largest,
                     stretch, scratch[thread]);
        } else {
            sum_head(kv, queries, h, 0, half, out, column_sums + h * stride, largest, stretch,
                     scratch[thread]);
        }
    });
    for (int h = 0; h < heads; ++h) {
        const int keys = kv.head(h / (heads / kv.kv_heads())).kept + queries.first + queries.count;
        (largest ? raise_to : add_scaled)(column_sums + h * stride, apart.data() + h * columns,
                                          keys, 1.0F);
    }
}

void PrefillAttention::sum_head(const LayerKv& kv, const PrefillQueries& queries, int h, int begin,
                                int stop, float* out, float* sums, bool largest,
                                const KeyStretch* stretch, Scratch& s) {
    const int dims = head_dim_;
    const int width = padded(dims);
    const int heads = queries.query_heads;
    const LayerKv::Head& head = kv.head(h / (heads / kv.kv_heads()));
    const auto source = [&](int token) {
        return (static_cast<std::size_t>(token) * heads + h) * dims;
    };
    for (int first = begin; first < stop; first += kSumTokens) {
        const int rows = std::min(kSumTokens, stop - first);
        const int seen = head.kept + queries.first + first;
        const int end = seen + rows;
        const auto stride = static_cast<std::size_t>(padded(end));
        for (int row = 0; row < rows; ++row) {
            float* q = s.queries.data() + static_cast<std::size_t>(row) * dims;
            std::copy_n(queries.q + source(first + row), dims, q);
            scale_by(q, dims, queries.scale);
        }
        s.start_rows(rows, width);
        for (int start = 0; start < end; start += kKeys) {
            const int keys = std::min(kKeys, end - start);
            const int columns = padded(keys);
            widen_transposed(head.k + static_cast<std::size_t>(start) * dims, keys, dims,
                             s.tile.data(), columns);
            multiply(s.queries.data(), dims, s.tile.data(), columns, s.scores.data(), kKeys, rows,
                     columns, dims, false);
            for (int row = 0; row < rows; ++row) {
                std::copy_n(s.scores.data() + static_cast<std::size_t>(row) * kKeys, keys,
                            s.raw.data() + row * stride + start);
            }
            s.fold(s.scores.data(), rows, 1, seen - start, keys, width);
            s.widen_values(head.v + static_cast<std::size_t>(start) * dims, keys, dims, width);
            multiply(s.scores.data(), kKeys, s.tile.data(), width, s.sums.data(), width, rows,
                     width, keys, true);
        }
        for (int row = 0; row < rows; ++row) {
            float* x = s.raw.data() + row * stride;
            const int visible = seen + row + 1;
            const float factor = queries.factors == nullptr ? 1.0F : queries.factors[first + row];
            if (stretch != nullptr) {
                raise_stretch(*stretch, head.kept, x, visible, sums, factor);
            } else {
                exp_and_sum(x, visible, s.best[row]);
                (largest ? raise_to : add_scaled)(sums, x, visible, factor / s.total[row]);
            }
            float* result = out + source(first + row);
            std::copy_n(s.sums.data() + static_cast<std::size_t>(row) * width, dims, result);
            scale_by(result, dims, 1.0F / s.total[row]);
        }
    }
}

}  // namespace winnow
