// LagKV (arXiv 2504.04704): tokens that vary most after scaling by the partition that follows them.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/threads.h"
#include "prune/selector.h"
#include "prune/token_rows.h"

namespace winnow {

namespace {

// Tokens that are partitioned and ranked: whole partitions of W behind the sinks, the last of
// which only serves as reference. 0 where there are fewer than two.
int ranked(const PolicyParams& params, int tokens) {
    const int lag = std::max(1, params.window_size);
    const int whole = (tokens - std::min(tokens, params.n_sink)) / lag;
    return std::max(0, whole - 1) * lag;
}

// The sinks, the last whole partition and what follows it.
Protected protect(const PolicyParams& params, int budget, int tokens) {
    const int front = std::min({params.n_sink, budget, tokens});
    return {.front = front, .back = std::max(0, tokens - front - ranked(params, tokens))};
}

// weight[t] += softmax over a partition's tokens of the standard deviation over channels of x,
// scaled per channel to the range of the partition behind it. x [2 lag][D].
void add_weights(const float* x, int lag, int dims, std::vector<double>& weight) {
    const float* next = x + static_cast<std::size_t>(lag) * dims;
    std::vector<float> low(next, next + dims), high(low);
    for (int t = 1; t < lag; ++t) {
        for (int d = 0; d < dims; ++d) {
            low[d] = std::min(low[d], next[static_cast<std::size_t>(t) * dims + d]);
            high[d] = std::max(high[d], next[static_cast<std::size_t>(t) * dims + d]);
        }
    }
    std::vector<double> deviation(lag);
    std::vector<float> row(dims);
    for (int t = 0; t < lag; ++t) {
        double mean = 0.0;
        for (int d = 0; d < dims; ++d) {
            const float range = high[d] - low[d];
            const float value = x[static_cast<std::size_t>(t) * dims + d] - low[d];
            row[d] = range > 0.0F ? value / range : 0.0F;
            mean += row[d];
        }
        mean /= dims;
        double squares = 0.0;
        for (int d = 0; d < dims; ++d) {
            squares += (row[d] - mean) * (row[d] - mean);
        }
        deviation[t] = std::sqrt(squares / std::max(1, dims - 1));
    }
    const double top = *std::max_element(deviation.begin(), deviation.end());
    double sum = 0.0;
    for (double& x_t : deviation) {
        x_t = std::exp(x_t - top);
        sum += x_t;
    }
    for (int t = 0; t < lag; ++t) {
        weight[t] += deviation[t] / sum;
    }
}

// Ranks of a partition's weights over lag, so that every partition keeps the same share.
void rank(const std::vector<double>& weight, float* scores) {
    std::vector<int> order(weight.size());
    std::iota(order.begin(), order.end(), 0);
    // The earlier of two equal tokens gets the higher rank; NaN the lowest.
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
        return weight[a] > weight[b] || (std::isnan(weight[b]) && !std::isnan(weight[a]));
    });
    for (std::size_t i = 0; i < order.size(); ++i) {
        scores[order[i]] =
            static_cast<float>(order.size() - 1 - i) / static_cast<float>(order.size());
    }
}

void score(const Observation& seen, const PolicyParams& params, std::span<float* const> scores) {
    struct Task {
        int g, first;
    };
    const int lag = std::max(1, params.window_size);
    std::vector<Task> tasks;
    for (int g = 0; g < seen.kv_heads; ++g) {
        const int tokens = seen.heads[g].tokens;
        std::fill_n(scores[g], tokens, 1.0F);
        for (int at = 0; at < ranked(params, tokens); at += lag) {
            tasks.push_back({g, params.n_sink + at});
        }
    }
    std::vector<std::vector<float>> rows(seen.threads);
    parallel_for(seen.threads, static_cast<int>(tasks.size()), [&](int i, int thread) {
        const auto [g, first] = tasks[i];
        std::vector<double> weight(lag, 0.0);
        for (const f16* side : {seen.heads[g].k, seen.heads[g].v}) {
            widen_rows(side, first, 2 * lag, seen.head_dim, rows[thread]);
            add_weights(rows[thread].data(), lag, seen.head_dim, weight);
        }
        rank(weight, scores[g] + first);
    });
}

}  // namespace

extern const Policy policy_lagkv;
const Policy policy_lagkv{
    .name = "lagkv",
    .paper = "2504.04704",
    .summary =
        "tokens whose keys and values vary most, scaled by the next partition of W tokens; the "
        "sinks and the last partition",
    .departures =
        "W is the size of a partition; a channel that is constant in a partition counts as 0 "
        "there, where the formula divides by zero",
    .needs = kNeedsKeys | kNeedsValues,
    .default_window = 128,
    .default_sinks = 4,
    .protect = protect,
    .score = score,
    .scores_without_cap = true,
};

}  // namespace winnow
