// Expected attention (arXiv 2510.00636): the attention that queries like the prompt's would pay to
// a key over the next positions, times the length of its value.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/rope.h"
#include "core/threads.h"
#include "kernels/dense.h"
#include "prune/selector.h"
#include "prune/token_rows.h"

namespace winnow {

namespace {

constexpr int kFuture = 512;       // positions that the rotation is averaged over
constexpr float kEpsilon = 0.01F;  // keeps long values that nobody is expected to attend to

int padded(int dims) {
    return (dims + kColumnBlock - 1) / kColumnBlock * kColumnBlock;
}

/// The rotation of a query, averaged over the positions to come.
class MeanRotation {
  public:
    MeanRotation(const RopeTable& rope, int next_position) : params_(rope.params()) {
        const int pairs = params_.dims / 2;
        std::vector<std::int32_t> positions(kFuture);
        std::iota(positions.begin(), positions.end(), next_position);
        std::vector<float> cos(static_cast<std::size_t>(pairs) * kFuture), sin(cos);
        rope.angles(positions.data(), kFuture, cos.data(), sin.data());
        for (int p = 0; p < pairs; ++p) {
            const auto mean = [p](const std::vector<float>& of) {
                const auto row = of.begin() + static_cast<std::ptrdiff_t>(p) * kFuture;
                return static_cast<float>(std::accumulate(row, row + kFuture, 0.0) / kFuture);
            };
            cos_.push_back(mean(cos));
            sin_.push_back(mean(sin));
        }
    }
    /// x[0], x[stride], ..: a vector of D channels, in place.
    void turn(float* x, std::size_t stride) const {
        for (std::size_t p = 0; p < cos_.size(); ++p) {
            float& a = x[(params_.halves ? p : 2 * p) * stride];
            float& b = x[(params_.halves ? p + cos_.size() : 2 * p + 1) * stride];
            const float turned = a * cos_[p] - b * sin_[p];
            b = a * sin_[p] + b * cos_[p];
            a = turned;
        }
    }

  private:
    const RopeParams& params_;
    std::vector<float> cos_, sin_;  // [pairs]
};

// Softmax over all but the sinks of k.(Q mu)/sqrt(D) + k.(Q Sigma Q^T)k/(2D), for query head h:
// weights [T]. Costs T D^2.
void expect(const Observation& seen, const MeanRotation& rotation, int sinks, int h,
            std::vector<float>& weights) {
    const int dims = seen.head_dim, width = padded(dims);
    const HeadObservation& head = seen.heads[h / (seen.query_heads / seen.kv_heads)];
    const std::size_t d = static_cast<std::size_t>(dims);
    std::vector<float> mean(seen.queries.mean + h * d, seen.queries.mean + (h + 1) * d);
    rotation.turn(mean.data(), 1);
    std::vector<float> spread(d * width, 0.0F);  // [D][D padded]
    for (int i = 0; i < dims; ++i) {
        std::copy_n(seen.queries.covariance + (h * d + i) * d, d,
                    &spread[static_cast<std::size_t>(i) * width]);
        rotation.turn(&spread[static_cast<std::size_t>(i) * width], 1);
    }
    for (int i = 0; i < dims; ++i) {
        rotation.turn(&spread[i], width);
    }
    weights.assign(head.tokens, 0.0F);
    std::vector<float> rows, product(static_cast<std::size_t>(kRowBlock) * width);
    for (int first = sinks; first < head.tokens; first += kRowBlock) {
        const int count = std::min(kRowBlock, head.tokens - first);
        widen_rows(head.k, first, count, dims, rows);
        multiply(rows.data(), d, spread.data(), width, product.data(), width, count, width, dims,
                 false);
        for (int t = 0; t < count; ++t) {
            const float* k = rows.data() + t * d;
            weights[first + t] =
                dot_rows(k, mean.data(), dims) * seen.scale +
                dot_rows(k, product.data() + static_cast<std::size_t>(t) * width, dims) *
                    (0.5F * seen.scale * seen.scale);
        }
    }
    const int scored = head.tokens - sinks;
    float* open = weights.data() + sinks;
    const float sum = exp_and_sum(open, scored, max_of(open, scored));
    scale_by(open, scored, 1.0F / sum);
}

void score(const Observation& seen, const PolicyParams& params, std::span<float* const> scores) {
    const MeanRotation rotation(*seen.rope, seen.next_position);
    const int group = seen.query_heads / seen.kv_heads;
    std::vector<std::vector<float>> weights(seen.query_heads);
    parallel_for(seen.threads, seen.query_heads, [&](int h, int) {
        const int tokens = seen.heads[h / group].tokens;
        expect(seen, rotation, std::min(params.n_sink, tokens), h, weights[h]);
    });
    std::vector<std::vector<float>> rows(seen.threads);
    for_each_block(seen, [&](const RowBlock& block, int thread) {
        widen_rows(seen.heads[block.g].v, block.first, block.count, seen.head_dim, rows[thread]);
        for (int t = 0; t < block.count; ++t) {
            float x = weights[static_cast<std::size_t>(block.g) * group][block.first + t];
            for (int r = 1; r < group; ++r) {
                const float more =
                    weights[static_cast<std::size_t>(block.g) * group + r][block.first + t];
                x = params.agg == GqaAgg::max ? std::max(x, more) : x + more;
            }
            x /= params.agg == GqaAgg::mean ? static_cast<float>(group) : 1.0F;
            const float* v = rows[thread].data() + static_cast<std::size_t>(t) * seen.head_dim;
            scores[block.g][block.first + t] =
                (x + kEpsilon) * std::sqrt(dot_rows(v, v, seen.head_dim));
        }
    });
}

}  // namespace

extern const Policy policy_expected_attention;
const Policy policy_expected_attention{
    .name = "expected_attention",
    .paper = "2510.00636",
    .summary =
        "the attention that queries like those so far would pay over the next 512 positions, times "
        "the length of the value; the sinks",
    .departures =
        "0.01 is added to the expected attention; queries while decoding join the statistics, "
        "whose "
        "sums are part of policy_bytes",
    .needs = kNeedsKeys | kNeedsValues | kNeedsQueryStats,
    .default_sinks = 4,
    .protect = protect_ends,
    .score = score,
    .scores_without_cap = true,
};

}  // namespace winnow
