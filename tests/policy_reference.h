// Pruning scores in double precision, straight from the formulas, for comparison with src/prune.
// Shares no code with it but the f16 conversion.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "core/f16.h"
#include "prune/policy.h"

namespace winnow::reference {

/// One layer of random queries and keys; heads may hold different numbers of tokens.
struct Layer {
    int query_heads = 0;                   // H
    int kv_heads = 0;                      // G
    int head_dim = 0;                      // D
    int steps = 0;                         // longest T: queries of that many newest tokens exist
    std::vector<int> tokens;               // [G]
    std::vector<float> queries;            // [steps][H][D]
    std::vector<std::vector<f16>> keys;    // [G] of [T][D]
    std::vector<std::vector<f16>> values;  // [G] of [T][D]

    Layer(int heads_per_group, std::vector<int> tokens_of_heads, int dim, unsigned seed,
          double spread = 1.5)
        : query_heads(heads_per_group * static_cast<int>(tokens_of_heads.size())),
          kv_heads(static_cast<int>(tokens_of_heads.size())),
          head_dim(dim),
          steps(*std::max_element(tokens_of_heads.begin(), tokens_of_heads.end())),
          tokens(std::move(tokens_of_heads)) {
        std::mt19937 generator(seed);
        std::normal_distribution<double> normal(0.0, spread);
        queries.resize(static_cast<std::size_t>(steps) * query_heads * dim);
        for (float& x : queries) {
            x = static_cast<float>(normal(generator));
        }
        for (const int count : tokens) {
            keys.emplace_back(static_cast<std::size_t>(count) * dim);
            for (f16& x : keys.back()) {
                x = f32_to_f16(static_cast<float>(normal(generator)));
            }
        }
        for (const int count : tokens) {
            values.emplace_back(static_cast<std::size_t>(count) * dim);
            for (f16& x : values.back()) {
                x = f32_to_f16(static_cast<float>(normal(generator)));
            }
        }
    }

    int group() const { return query_heads / kv_heads; }
    double scale() const { return 1.0 / std::sqrt(static_cast<double>(head_dim)); }
};

/// softmax(q_i k_j / sqrt(D)) over j <= i of kv head g, for its query head r; 0 for j > i.
inline std::vector<double> attention_row(const Layer& layer, int g, int r, int i) {
    const int count = layer.tokens[g];
    const int step = layer.steps - count + i;
    const std::size_t head = static_cast<std::size_t>(g) * layer.group() + r;
    const std::size_t place = static_cast<std::size_t>(step) * layer.query_heads + head;
    std::vector<double> weight(count, 0.0);
    double top = -std::numeric_limits<double>::infinity();
    for (int j = 0; j <= i; ++j) {
        double dot = 0.0;
        for (int d = 0; d < layer.head_dim; ++d) {
            dot += static_cast<double>(layer.queries[place * layer.head_dim + d]) *
                   f16_to_f32(layer.keys[g][static_cast<std::size_t>(j) * layer.head_dim + d]);
        }
        weight[j] = dot * layer.scale();
        top = std::max(top, weight[j]);
    }
    double sum = 0.0;
    for (int j = 0; j <= i; ++j) {
        weight[j] = std::exp(weight[j] - top);
        sum += weight[j];
    }
    for (int j = 0; j <= i; ++j) {
        weight[j] /= sum;
    }
    return weight;
}

/// Sums of the last `rows` rows of the causal attention matrix of one query head.
inline std::vector<double> column_sums(const Layer& layer, int g, int r, int rows) {
    std::vector<double> sum(layer.tokens[g], 0.0);
    for (int i = std::max(0, layer.tokens[g] - rows); i < layer.tokens[g]; ++i) {
        const std::vector<double> weight = attention_row(layer, g, r, i);
        for (std::size_t j = 0; j < weight.size(); ++j) {
            sum[j] += weight[j];
        }
    }
    return sum;
}

inline std::vector<double> pool(const std::vector<double>& x, int kernel, Pooling pooling) {
    std::vector<double> out(x.size());
    const int count = static_cast<int>(x.size());
    for (int t = 0; t < count; ++t) {
        double largest = -std::numeric_limits<double>::infinity();
        double sum = 0.0;
        for (int j = t - kernel / 2; j <= t + kernel / 2; ++j) {
            if (j >= 0 && j < count) {
                largest = std::max(largest, x[j]);
                sum += x[j];
            }
        }
        out[t] = pooling == Pooling::max ? largest : sum / kernel;
    }
    return out;
}

inline std::vector<double> aggregate(const std::vector<std::vector<double>>& heads, GqaAgg agg) {
    std::vector<double> out = heads.front();
    for (std::size_t r = 1; r < heads.size(); ++r) {
        for (std::size_t t = 0; t < out.size(); ++t) {
            out[t] = agg == GqaAgg::max ? std::max(out[t], heads[r][t]) : out[t] + heads[r][t];
        }
    }
    for (double& x : out) {
        x /= agg == GqaAgg::mean ? static_cast<double>(heads.size()) : 1.0;
    }
    return out;
}

/// SnapKV's scores of kv head g's prefix, [max(0, T - W)].
inline std::vector<double> snapkv_scores(const Layer& layer, int g, const PolicyParams& params) {
    std::vector<std::vector<double>> heads;
    for (int r = 0; r < layer.group(); ++r) {
        std::vector<double> sum = column_sums(layer, g, r, params.window_size);
        sum.resize(std::max(0, layer.tokens[g] - params.window_size));
        heads.push_back(pool(sum, params.kernel_size, params.pooling));
    }
    return aggregate(heads, params.agg);
}

/// H2O's scores of kv head g, [T].
inline std::vector<double> h2o_scores(const Layer& layer, int g, GqaAgg agg) {
    std::vector<std::vector<double>> heads;
    for (int r = 0; r < layer.group(); ++r) {
        heads.push_back(column_sums(layer, g, r, layer.tokens[g]));
    }
    return aggregate(heads, agg);
}

/// The first `front`, the last `back`, and the best of the others: `budget` indices, ascending.
/// A stable sort, so ties go to the earlier token; NaN comes after everything.
template <class Score>
std::vector<std::int32_t> keep_best(const std::vector<Score>& scores, int tokens, int budget,
                                    int front, int back) {
    std::vector<std::int32_t> order(tokens);
    std::iota(order.begin(), order.end(), 0);
    if (tokens <= budget) {
        return order;
    }
    front = std::min(front, budget);
    back = std::min(back, budget - front);
    const auto group = [&](std::int32_t t) {  // sinks, newest, others, NaN
        if (t < front) {
            return 0;
        }
        if (t >= tokens - back) {
            return 1;
        }
        return std::isnan(scores[t]) ? 3 : 2;
    };
    std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
        if (group(a) != group(b)) {
            return group(a) < group(b);
        }
        return group(a) == 2 && scores[a] > scores[b];
    });
    order.resize(budget);
    std::sort(order.begin(), order.end());
    return order;
}

}  // namespace winnow::reference
