// SnapKV's observation (arXiv 2404.14469) without a [W][T] matrix: one pass over the keys for each
// query row's softmax maximum and sum, a second one for the column sums. Work is cut into chunks of
// tokens that do not depend on the thread count; working memory does not grow with T.
#include <winnow/error.h>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <numbers>
#include <string>

#include "core/threads.h"
#include "prune/policy.h"

namespace winnow {

namespace {

constexpr int kBlock = 64;    // tokens scored at once; a constant, so that loops vectorise
constexpr int kChunk = 1024;  // tokens of a task
constexpr int kUnroll = 4;    // channels per step of a dot product; rows are padded to it
constexpr float kInfinity = std::numeric_limits<float>::infinity();

using Block = std::array<float, kBlock>;

// f16_to_f32 without branches, for loops over keys.
inline float widen(f16 h) {
    const std::int32_t magnitude = (h & 0x7FFF) << 13;
    const float finite = std::bit_cast<float>(magnitude) * 0x1p112F;
    const std::int32_t bits =
        magnitude < 0x0F800000 ? std::bit_cast<std::int32_t>(finite) : magnitude | 0x7F800000;
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) | (h & 0x8000U) << 16);
}

// 2^x for x <= 0, relative error below 2e-7; 0 below 2^-126, NaN stays NaN. Branch-free.
inline float exp2_negative(float x) {
    constexpr float kRound = 0x1.8p23F;  // adding it leaves round(x) in the low bits
    const float shifted = x + kRound;
    const float f = x - (shifted - kRound);  // [-0.5, 0.5]
    float power = 1.540353039e-4F;           // Taylor: ln(2)^n / n!
    power = power * f + 1.333355815e-3F;
    power = power * f + 9.618129108e-3F;
    power = power * f + 5.550410866e-2F;
    power = power * f + 2.402265070e-1F;
    power = power * f + 6.931471806e-1F;
    power = power * f + 1.0F;
    const float scale = std::bit_cast<float>((std::bit_cast<std::uint32_t>(shifted) + 127U) << 23);
    return x < -126.0F ? 0.0F : power * scale;
}

inline float larger(float a, float b) {
    return a < b ? b : a;
}

float largest(const Block& s) {
    std::array<float, 8> lane;
    std::copy_n(s.begin(), 8, lane.begin());
    for (int t = 8; t < kBlock; t += 8) {
        for (int i = 0; i < 8; ++i) {
            lane[i] = larger(lane[i], s[t + i]);
        }
    }
    return larger(larger(larger(lane[0], lane[4]), larger(lane[1], lane[5])),
                  larger(larger(lane[2], lane[6]), larger(lane[3], lane[7])));
}

float total(const Block& s) {
    std::array<float, 8> lane{};
    for (int t = 0; t < kBlock; t += 8) {
        for (int i = 0; i < 8; ++i) {
            lane[i] += s[t + i];
        }
    }
    return ((lane[0] + lane[4]) + (lane[1] + lane[5])) +
           ((lane[2] + lane[6]) + (lane[3] + lane[7]));
}

// The softmax denominator of one query row over the keys seen so far, in powers of 2.
struct RowSum {
    float max = -kInfinity;
    float sum = 0.0F;  // of 2^(s - max)

    void add(Block s) {
        const float top = largest(s);
        if (top > max) {
            sum *= exp2_negative(max - top);
            max = top;
        }
        for (float& x : s) {
            x = exp2_negative(x - max);
        }
        sum += total(s);
    }
    void add(const RowSum& other) {
        const float top = larger(max, other.max);
        sum = sum * exp2_negative(max - top) + other.sum * exp2_negative(other.max - top);
        max = top;
    }
};

struct Task {
    int head = 0;
    int begin = 0;  // tokens [begin, end)
    int end = 0;
};

// A thread's working memory.
struct Scratch {
    std::vector<float> row;     // [D]
    std::vector<float> keys;    // [D padded][kBlock]
    std::vector<float> raw;     // [R][half + kChunk + half] column sums
    std::vector<float> pooled;  // [kChunk]
};

class WindowScorer {
  public:
    WindowScorer(const Observation& seen, const PolicyParams& params);
    void run(std::span<float* const> scores);

  private:
    /// Tokens before the window; 0 where there is nothing to score.
    int prefix(int head) const { return std::max(0, seen_.heads[head].tokens - seen_.window); }
    std::size_t rows() const { return static_cast<std::size_t>(group_) * seen_.window; }
    /// Query `row` of the window, of query head `r` of `head`'s group.
    const float* query(int head, int r, int row) const {
        const std::size_t query_head = static_cast<std::size_t>(head) * group_ + r;
        return &queries_[(query_head * seen_.window + row) * channels_];
    }
    void load_keys(int head, int begin, int count, Scratch& scratch) const;
    Block dots(const Scratch& scratch, const float* q) const;
    void sum_rows(const Task& task, Scratch& scratch, RowSum* sums) const;
    void sum_columns(const Task& task, Scratch& scratch, const RowSum* sums, float* scores) const;
    std::size_t raw_stride() const { return kChunk + 2 * static_cast<std::size_t>(half_); }
    void pool(const float* raw, std::vector<float>& pooled) const;
    void aggregate(int r, int count, const float* pooled, float* scores) const;

    const Observation& seen_;
    const PolicyParams& params_;
    int group_;                   // R
    int channels_;                // D, padded to kUnroll
    int half_;                    // neighbours on each side that pooling looks at
    std::vector<float> queries_;  // [H][W][D padded], scaled for powers of 2
};

WindowScorer::WindowScorer(const Observation& seen, const PolicyParams& params)
    : seen_(seen),
      params_(params),
      group_(seen.query_heads / seen.kv_heads),
      channels_((seen.head_dim + kUnroll - 1) / kUnroll * kUnroll),
      half_(params.kernel_size / 2),
      queries_(static_cast<std::size_t>(seen.query_heads) * seen.window * channels_) {
    int longest = 0;
    for (const HeadObservation& head : seen.heads) {
        longest = std::max(longest, head.tokens);
    }
    half_ = std::min(half_, longest);
    const float scale = seen.scale * std::numbers::log2e_v<float>;
    const float* q = seen.window_queries;  // [W][H][D]
    for (int row = 0; row < seen.window; ++row) {
        for (int h = 0; h < seen.query_heads; ++h, q += seen.head_dim) {
            const std::size_t place = static_cast<std::size_t>(h) * seen.window + row;
            std::transform(q, q + seen.head_dim, &queries_[place * channels_],
                           [scale](float x) { return x * scale; });
        }
    }
}

// Transposes keys [begin, begin + count) to [D][kBlock]; the rest of the block is zero.
void WindowScorer::load_keys(int head, int begin, int count, Scratch& scratch) const {
    const int dim = seen_.head_dim;
    const f16* k = seen_.heads[head].k + static_cast<std::size_t>(begin) * dim;
    float* row = scratch.row.data();
    if (count < kBlock) {
        std::fill(scratch.keys.begin(), scratch.keys.end(), 0.0F);
    }
    for (int t = 0; t < count; ++t, k += dim) {
        for (int d = 0; d < dim; ++d) {
            row[d] = widen(k[d]);
        }
        float* column = &scratch.keys[t];
        for (int d = 0; d < dim; ++d) {
            column[d * kBlock] = row[d];
        }
    }
}

Block WindowScorer::dots(const Scratch& scratch, const float* q) const {
    Block s{};
    const float* k = scratch.keys.data();
    for (int d = 0; d < channels_; d += kUnroll, k += kUnroll * kBlock) {
        const float q0 = q[d];
        const float q1 = q[d + 1];
        const float q2 = q[d + 2];
        const float q3 = q[d + 3];
        for (int t = 0; t < kBlock; ++t) {
            s[t] += (q0 * k[t] + q1 * k[kBlock + t]) +
                    (q2 * k[2 * kBlock + t] + q3 * k[3 * kBlock + t]);
        }
    }
    return s;
}

// First pass: the share of `task`'s tokens in every row's softmax denominator, sums[R][W].
void WindowScorer::sum_rows(const Task& task, Scratch& scratch, RowSum* sums) const {
    const int window = seen_.window;
    for (int begin = task.begin; begin < task.end; begin += kBlock) {
        const int count = std::min(kBlock, task.end - begin);
        load_keys(task.head, begin, count, scratch);
        for (int i = 0; i < group_ * window; ++i) {
            const int row = i % window;
            const int visible = std::min(count, prefix(task.head) + row + 1 - begin);
            if (visible > 0) {
                Block s = dots(scratch, query(task.head, i / window, row));
                std::fill(s.begin() + visible, s.end(), -kInfinity);
                sums[i].add(s);
            }
        }
    }
}

// Second pass: scores of `task`'s tokens, all of the prefix. Sums outside the task that pooling
// needs are computed again, with the same bits, rather than shared.
void WindowScorer::sum_columns(const Task& task, Scratch& scratch, const RowSum* sums,
                               float* scores) const {
    const int window = seen_.window;
    const int first = std::max(0, task.begin - half_);
    const int last = std::min(prefix(task.head), task.end + half_);
    std::fill(scratch.raw.begin(), scratch.raw.end(),
              params_.pooling == Pooling::max ? -kInfinity : 0.0F);
    for (int begin = first; begin < last; begin += kBlock) {
        const int count = std::min(kBlock, last - begin);
        load_keys(task.head, begin, count, scratch);
        for (int r = 0; r < group_; ++r) {
            Block column{};
            for (int row = 0; row < window; ++row) {
                const RowSum& softmax = sums[r * window + row];
                const Block s = dots(scratch, query(task.head, r, row));
                for (int t = 0; t < kBlock; ++t) {
                    column[t] += exp2_negative(s[t] - softmax.max) * softmax.sum;
                }
            }
            float* raw = &scratch.raw[r * raw_stride() + (begin - task.begin + half_)];
            std::copy_n(column.begin(), count, raw);
        }
    }
    for (int r = 0; r < group_; ++r) {
        pool(&scratch.raw[r * raw_stride()], scratch.pooled);
        aggregate(r, task.end - task.begin, scratch.pooled.data(), scores + task.begin);
    }
}

// pooled[t] of raw[t .. t + kernel), stride 1.
void WindowScorer::pool(const float* raw, std::vector<float>& pooled) const {
    std::copy_n(raw, kChunk, pooled.begin());
    float* out = pooled.data();
    for (int near = 1; near <= 2 * half_; ++near) {
        if (params_.pooling == Pooling::max) {
            for (int t = 0; t < kChunk; ++t) {
                out[t] = larger(out[t], raw[near + t]);
            }
        } else {
            for (int t = 0; t < kChunk; ++t) {
                out[t] += raw[near + t];
            }
        }
    }
    if (params_.pooling == Pooling::avg) {
        for (int t = 0; t < kChunk; ++t) {
            out[t] /= static_cast<float>(params_.kernel_size);
        }
    }
}

// Takes query head r's scores into the kv head's; heads come in order.
void WindowScorer::aggregate(int r, int count, const float* pooled, float* scores) const {
    for (int t = 0; t < count; ++t) {
        if (r == 0) {
            scores[t] = pooled[t];
        } else if (params_.agg == GqaAgg::max) {
            scores[t] = larger(scores[t], pooled[t]);
        } else {
            scores[t] += pooled[t];
        }
        if (params_.agg == GqaAgg::mean && r == group_ - 1) {
            scores[t] /= static_cast<float>(group_);
        }
    }
}

// Chunks of all heads' first tokens(head) tokens.
template <class Tokens>
std::vector<Task> cut(int heads, Tokens tokens) {
    std::vector<Task> tasks;
    for (int head = 0; head < heads; ++head) {
        for (int begin = 0; begin < tokens(head); begin += kChunk) {
            tasks.push_back({head, begin, std::min(begin + kChunk, tokens(head))});
        }
    }
    return tasks;
}

void WindowScorer::run(std::span<float* const> scores) {
    std::vector<Scratch> scratch(std::max(1, seen_.threads));
    for (Scratch& s : scratch) {
        s.row.resize(seen_.head_dim);
        s.keys.resize(static_cast<std::size_t>(channels_) * kBlock);
        s.raw.resize(group_ * raw_stride());
        s.pooled.resize(kChunk);
    }
    const std::vector<Task> all = cut(seen_.kv_heads, [this](int head) {
        return prefix(head) > 0 ? seen_.heads[head].tokens : 0;
    });
    std::vector<RowSum> parts(all.size() * rows());  // [tasks][R][W]
    parallel_for(seen_.threads, static_cast<int>(all.size()), [&](int task, int thread) {
        sum_rows(all[task], scratch[thread], &parts[task * rows()]);
    });
    std::vector<RowSum> sums(seen_.kv_heads * rows());  // [G][R][W]
    for (std::size_t task = 0; task < all.size(); ++task) {
        for (std::size_t i = 0; i < rows(); ++i) {
            sums[all[task].head * rows() + i].add(parts[task * rows() + i]);
        }
    }
    for (RowSum& row : sums) {  // factors from here on
        row.sum = 1.0F / row.sum;
    }
    const std::vector<Task> seen_before =
        cut(seen_.kv_heads, [this](int head) { return prefix(head); });
    parallel_for(seen_.threads, static_cast<int>(seen_before.size()), [&](int task, int thread) {
        const int head = seen_before[task].head;
        sum_columns(seen_before[task], scratch[thread], &sums[head * rows()], scores[head]);
    });
}

}  // namespace

void window_attention_scores(const Observation& seen, const PolicyParams& params,
                             std::span<float* const> scores) {
    if (params.kernel_size < 1 || params.kernel_size % 2 == 0) {
        throw usage_error("--kernel-size is " + std::to_string(params.kernel_size) +
                          "; it must be an odd number of at least 1");
    }
    // Only the prefix is scored: the window's own tokens are protected and get 0.
    for (int head = 0; head < seen.kv_heads; ++head) {
        std::fill_n(scores[head], seen.heads[head].tokens, 0.0F);
    }
    if (seen.window > 0) {
        WindowScorer(seen, params).run(scores);
    }
}

}  // namespace winnow
