// What a policy is shown of a reference::Layer, and what it makes of it.
#pragma once

#include <algorithm>
#include <bit>
#include <numeric>
#include <vector>

#include "policy_reference.h"
#include "prune/policy.h"
#include "prune/select.h"

namespace winnow::shown {

using reference::Layer;
using Scores = std::vector<std::vector<float>>;  // [G] of [T]

// What a policy would be shown of `layer`; keeps the views alive.
struct Shown {
    std::vector<HeadObservation> heads;
    std::vector<std::vector<std::int32_t>> positions;
    std::vector<std::vector<float>> sums;
    std::vector<float> queries;
    Observation seen;

    Shown(const Layer& layer, int window, int threads, bool with_sums = false, int budget = 0) {
        seen.query_heads = layer.query_heads;
        seen.kv_heads = layer.kv_heads;
        seen.head_dim = layer.head_dim;
        seen.window = std::min(window, layer.steps);
        seen.scale = static_cast<float>(layer.scale());
        seen.threads = threads;
        const auto length =
            static_cast<std::ptrdiff_t>(seen.window) * layer.query_heads * layer.head_dim;
        queries.assign(layer.queries.end() - length, layer.queries.end());
        seen.window_queries = queries.data();
        positions.resize(layer.kv_heads);
        sums.resize(layer.kv_heads);
        for (int g = 0; g < layer.kv_heads; ++g) {
            positions[g].resize(layer.tokens[g]);
            std::iota(positions[g].begin(), positions[g].end(), 0);
            for (int r = 0; with_sums && r < layer.group(); ++r) {
                for (const double x : reference::column_sums(layer, g, r, layer.tokens[g])) {
                    sums[g].push_back(static_cast<float>(x));
                }
            }
            heads.push_back({.tokens = layer.tokens[g],
                             .budget = budget,
                             .k = layer.keys[g].data(),
                             .v = layer.values[g].data(),
                             .positions = positions[g].data(),
                             .column_sums = sums[g].data()});
        }
        seen.heads = heads;
    }
    Shown(const Shown&) = delete;
    Shown& operator=(const Shown&) = delete;
};

inline Scores score(const Policy& policy, const Observation& seen, const PolicyParams& params) {
    Scores scores;
    std::vector<float*> rows;
    for (const HeadObservation& head : seen.heads) {
        scores.emplace_back(head.tokens, -7.0F);
    }
    for (std::vector<float>& row : scores) {
        rows.push_back(row.data());
    }
    policy.score(seen, params, rows);
    return scores;
}

inline std::vector<std::int32_t> keep(const Policy& policy, const PolicyParams& params,
                                      const std::vector<float>& scores, int tokens, int layer = 0,
                                      int layers = 1) {
    const int budget = policy.budget ? policy.budget(params, layer, layers, tokens) : params.cap;
    return select(scores, tokens, budget, policy.protect(params, budget, tokens));
}

inline bool same_bits(const Scores& a, const Scores& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
        return std::equal(x.begin(), x.end(), y.begin(), y.end(), [](float p, float q) {
            return std::bit_cast<std::uint32_t>(p) == std::bit_cast<std::uint32_t>(q);
        });
    });
}

}  // namespace winnow::shown
