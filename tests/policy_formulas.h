// The formulas of the policies past the paper, in double precision, for comparison with src/prune.
#pragma once

#include "policy_reference.h"

namespace winnow::reference {

/// Row t of kv head g's keys or values.
inline std::vector<double> row(const std::vector<f16>& rows, int t, int dims) {
    std::vector<double> out(static_cast<std::size_t>(dims));
    for (int d = 0; d < dims; ++d) {
        out[static_cast<std::size_t>(d)] = f16_to_f32(rows[static_cast<std::size_t>(t * dims + d)]);
    }
    return out;
}

inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
    return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

inline std::vector<double> knorm_scores(const Layer& layer, int g) {
    std::vector<double> out;
    for (int t = 0; t < layer.tokens[g]; ++t) {
        const std::vector<double> k = row(layer.keys[g], t, layer.head_dim);
        out.push_back(-std::sqrt(dot(k, k)));
    }
    return out;
}

inline std::vector<double> keydiff_scores(const Layer& layer, int g) {
    const int tokens = layer.tokens[g];
    std::vector<double> mean(static_cast<std::size_t>(layer.head_dim), 0.0);
    for (int t = 0; t < tokens; ++t) {
        const std::vector<double> k = row(layer.keys[g], t, layer.head_dim);
        for (std::size_t d = 0; d < mean.size(); ++d) {
            mean[d] += k[d] / std::sqrt(dot(k, k)) / tokens;
        }
    }
    std::vector<double> out;
    for (int t = 0; t < tokens; ++t) {
        const std::vector<double> k = row(layer.keys[g], t, layer.head_dim);
        out.push_back(-dot(k, mean) / std::sqrt(dot(k, k) * dot(mean, mean)));
    }
    return out;
}

/// LagKV's weights of one side inside the partition that begins at `first`.
inline std::vector<double> lag_weights(const std::vector<f16>& rows, int first, int lag, int dims) {
    std::vector<double> low(static_cast<std::size_t>(dims), HUGE_VAL);
    std::vector<double> high(static_cast<std::size_t>(dims), -HUGE_VAL);
    for (int n = first + lag; n < first + 2 * lag; ++n) {
        const std::vector<double> x = row(rows, n, dims);
        for (std::size_t d = 0; d < x.size(); ++d) {
            low[d] = std::min(low[d], x[d]);
            high[d] = std::max(high[d], x[d]);
        }
    }
    std::vector<double> deviation;
    for (int t = first; t < first + lag; ++t) {
        std::vector<double> scaled = row(rows, t, dims);
        for (std::size_t d = 0; d < scaled.size(); ++d) {
            scaled[d] = (scaled[d] - low[d]) / (high[d] - low[d]);
        }
        const double mean = std::accumulate(scaled.begin(), scaled.end(), 0.0) / dims;
        double squares = 0.0;
        for (const double x : scaled) {
            squares += (x - mean) * (x - mean);
        }
        deviation.push_back(std::sqrt(squares / (dims - 1)));
    }
    double sum = 0.0;
    for (double& x : deviation) {
        x = std::exp(x);
        sum += x;
    }
    for (double& x : deviation) {
        x /= sum;
    }
    return deviation;
}

/// Ranks over lag inside each partition; 1 for the sinks, the last whole partition and the rest.
inline std::vector<double> lagkv_scores(const Layer& layer, int g, int sinks, int lag) {
    const int tokens = layer.tokens[g];
    std::vector<double> out(static_cast<std::size_t>(tokens), 1.0);
    for (int first = sinks; first + 2 * lag <= tokens; first += lag) {
        const auto k = lag_weights(layer.keys[g], first, lag, layer.head_dim);
        const auto v = lag_weights(layer.values[g], first, lag, layer.head_dim);
        for (int a = 0; a < lag; ++a) {
            int below = 0;
            for (int b = 0; b < lag; ++b) {
                const double own = (k[a] + v[a]) / 2, other = (k[b] + v[b]) / 2;
                below += other < own || (other == own && b > a) ? 1 : 0;
            }
            out[static_cast<std::size_t>(first + a)] = static_cast<double>(below) / lag;
        }
    }
    return out;
}

/// The last query's attention, mean over all query heads; all heads hold the same tokens.
inline std::vector<double> tova_scores(const Layer& layer) {
    const int tokens = layer.tokens[0];
    std::vector<double> out(static_cast<std::size_t>(tokens), 0.0);
    for (int g = 0; g < layer.kv_heads; ++g) {
        for (int r = 0; r < layer.group(); ++r) {
            const std::vector<double> weight = attention_row(layer, g, r, tokens - 1);
            for (int t = 0; t < tokens; ++t) {
                out[t] += weight[t] / layer.query_heads;
            }
        }
    }
    return out;
}

/// Means over chunks of 20 of [front, T - back), summed over heads; scores [G] of [T].
inline std::vector<double> chunk_scores(const std::vector<std::vector<double>>& scores, int front,
                                        int back) {
    const int tokens = static_cast<int>(scores[0].size());
    std::vector<double> out(scores[0].size(), 0.0);
    for (int t = front; t < tokens - back; ++t) {
        const int first = front + (t - front) / 20 * 20;
        const int end = std::min(first + 20, tokens - back);
        for (const std::vector<double>& head : scores) {
            out[t] +=
                std::accumulate(head.begin() + first, head.begin() + end, 0.0) / (end - first);
        }
    }
    return out;
}

/// Ada-KV's kept tokens of each head: [G] of ascending indices, G * budget together. A plain loop
/// that takes the best token left, one at a time.
inline std::vector<std::vector<std::int32_t>> adakv_kept(
    const std::vector<std::vector<double>>& scores, int budget, int front, int back) {
    std::vector<std::vector<std::int32_t>> kept;
    int left = budget * static_cast<int>(scores.size());
    int longest = 0;
    for (const std::vector<double>& head : scores) {
        const int tokens = static_cast<int>(head.size());
        longest = std::max(longest, tokens);
        kept.push_back(keep_best(head, tokens, std::max(budget / 5, front + back), front, back));
        left -= static_cast<int>(kept.back().size());
    }
    for (; left > 0; --left) {
        int best_head = -1, best_token = 0;
        for (int t = 0; t < longest; ++t) {
            for (std::size_t g = 0; g < scores.size(); ++g) {
                const bool taken = t >= static_cast<int>(scores[g].size()) ||
                                   std::find(kept[g].begin(), kept[g].end(), t) != kept[g].end();
                if (!taken && (best_head < 0 || scores[g][t] > scores[best_head][best_token])) {
                    best_head = static_cast<int>(g);
                    best_token = t;
                }
            }
        }
        kept[best_head].push_back(best_token);
    }
    for (std::vector<std::int32_t>& head : kept) {
        std::sort(head.begin(), head.end());
    }
    return kept;
}

/// CriticalKV's kept tokens: half the budget by `scores`, the rest by (score + 1e-4) norm1(W_o v),
/// mean over query heads. output [H][D][E].
inline std::vector<std::int32_t> criticalkv_kept(const Layer& layer, int g,
                                                 const std::vector<double>& scores,
                                                 const std::vector<float>& output, int embedding,
                                                 int budget, int front, int back) {
    const int tokens = layer.tokens[g], dims = layer.head_dim;
    const int half = std::max(budget / 2, front + back);
    const auto first = keep_best(scores, tokens, half, front, back);
    std::vector<double> second;
    for (int t = 0; t < tokens; ++t) {
        const std::vector<double> v = row(layer.values[g], t, dims);
        double norm = 0.0;
        for (int r = 0; r < layer.group(); ++r) {
            for (int e = 0; e < embedding; ++e) {
                double sum = 0.0;
                for (int d = 0; d < dims; ++d) {
                    sum += v[d] * output[static_cast<std::size_t>(
                                      ((g * layer.group() + r) * dims + d) * embedding + e)];
                }
                norm += std::abs(sum) / layer.group();
            }
        }
        second.push_back((scores[t] + 1e-4) * norm);
    }
    for (const std::int32_t t : first) {
        second[t] = HUGE_VAL;
    }
    return keep_best(second, tokens, budget, front, back);
}

/// Expected attention of kv head g from the statistics of its query heads: mean [H][D] and
/// covariance [H][D][D], turned by the mean over 512 positions of a rotation by `turn`.
template <class Turn>
std::vector<double> expected_scores(const Layer& layer, int g, const std::vector<double>& mean,
                                    const std::vector<double>& covariance, int sinks,
                                    const Turn& turn) {
    const int tokens = layer.tokens[g];
    const std::size_t d = static_cast<std::size_t>(layer.head_dim);
    // Q as a matrix, column by column.
    std::vector<std::vector<double>> q(d, std::vector<double>(d, 0.0));
    for (std::size_t c = 0; c < d; ++c) {
        for (int t = 0; t < 512; ++t) {
            std::vector<double> unit(d, 0.0);
            unit[c] = 1.0;
            turn(unit, tokens + t);
            for (std::size_t i = 0; i < d; ++i) {
                q[i][c] += unit[i] / 512;
            }
        }
    }
    std::vector<double> out(static_cast<std::size_t>(tokens), 0.0);
    for (int r = 0; r < layer.group(); ++r) {
        const std::size_t h = static_cast<std::size_t>(g * layer.group() + r);
        std::vector<double> logits;
        for (int t = sinks; t < tokens; ++t) {
            const std::vector<double> k = row(layer.keys[g], t, layer.head_dim);
            std::vector<double> back(d, 0.0);  // Q^T k
            for (std::size_t c = 0; c < d; ++c) {
                for (std::size_t i = 0; i < d; ++i) {
                    back[c] += q[i][c] * k[i];
                }
            }
            double first = 0.0, second = 0.0;
            for (std::size_t a = 0; a < d; ++a) {
                first += back[a] * mean[h * d + a];
                for (std::size_t b = 0; b < d; ++b) {
                    second += back[a] * covariance[(h * d + a) * d + b] * back[b];
                }
            }
            logits.push_back(first * layer.scale() + second / (2.0 * layer.head_dim));
        }
        const double top = *std::max_element(logits.begin(), logits.end());
        double sum = 0.0;
        for (double& x : logits) {
            x = std::exp(x - top);
            sum += x;
        }
        for (int t = sinks; t < tokens; ++t) {
            out[t] += logits[static_cast<std::size_t>(t - sinks)] / sum / layer.group();
        }
    }
    for (int t = 0; t < tokens; ++t) {
        const std::vector<double> v = row(layer.values[g], t, layer.head_dim);
        out[t] = (out[t] + 0.01) * std::sqrt(dot(v, v));
    }
    return out;
}

/// R-KV's redundancy of kv head g, from the whole matrix of cosines.
inline std::vector<double> redundancy(const Layer& layer, int g) {
    const int tokens = layer.tokens[g];
    std::vector<double> mean(static_cast<std::size_t>(tokens), 0.0);
    for (int i = 0; i < tokens; ++i) {
        const std::vector<double> a = row(layer.keys[g], i, layer.head_dim);
        std::vector<double> cosine;
        int spared = -1;
        for (int j = 0; j < tokens; ++j) {
            const std::vector<double> b = row(layer.keys[g], j, layer.head_dim);
            cosine.push_back(i == j ? 0.0 : dot(a, b) / std::sqrt(dot(a, a) * dot(b, b)));
            spared = cosine.back() > 0.5 ? j : spared;
        }
        if (spared >= 0) {
            cosine[static_cast<std::size_t>(spared)] = 0.0;
        }
        for (int j = 0; j < tokens; ++j) {
            mean[j] += cosine[j] / tokens;
        }
    }
    double sum = 0.0;
    for (double& x : mean) {
        x = std::exp(x);
        sum += x;
    }
    for (double& x : mean) {
        x /= sum;
    }
    return mean;
}

/// 0.1 x the mean attention of the last W queries, pooled, less 0.9 x redundancy.
inline std::vector<double> r_kv_scores(const Layer& layer, int g, const PolicyParams& params) {
    std::vector<double> out = snapkv_scores(layer, g, params);
    out.resize(static_cast<std::size_t>(layer.tokens[g]), 0.0);
    const std::vector<double> repeats = redundancy(layer, g);
    for (std::size_t t = 0; t < out.size(); ++t) {
        out[t] = 0.1 * out[t] / std::min(params.window_size, layer.steps) - 0.9 * repeats[t];
    }
    return out;
}

}  // namespace winnow::reference
