#include "engine/mixed.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/threads.h"
#include "engine/mixed_loss.h"

namespace winnow {

namespace {

// Found by the KL to the full cache at 1/32 and 1/8 of its bytes (SmolLM2): an error of storage is
// independent from token to token and averages out, one of dropping does not.
constexpr double kScoreError = 0.1;
constexpr double kValueError = 0.3;
constexpr float kFloor = 0.02F;  // of the mean loss: no token is worth nothing
// How many queries the prompt's observation counts for beside those of the answer.
constexpr float kPromptQueries = 64.0F;
constexpr float kPinned = 1e30F;
constexpr float kNever = std::numeric_limits<float>::infinity();

/// One kv head's tokens and what each tier would cost them.
struct HeadChoice {
    std::vector<float> away;       // [T] squared attention times |v - o|^2
    std::vector<float> drop;       // [T] loss of dropping: the same, or never for a pinned token
    std::vector<float> mass;       // [T] attention received
    std::vector<float> weight;     // [T] squared attention
    std::vector<TierError> error;  // [tiers]; none for tier 0
    std::vector<int> least;        // [T] the tier it lies in already: it gets no more bits
    std::vector<int> tier;         // [T] chosen; tiers means dropped
    int sinks = 0;                 // oldest tokens, which stay as they are

    // Loss of token t in tier `at` of `tiers`, which itself means dropped.
    float loss(int at, int tiers, int t) const {
        if (at < least[t] || (t < sinks && at > least[t])) {
            return kNever;
        }
        if (at == 0 || at == tiers) {
            return at == 0 ? 0.0F : drop[t];
        }
        const float stored = static_cast<float>(kScoreError * error[at].score) * away[t] +
                             static_cast<float>(kValueError * error[at].value) * weight[t];
        return std::min(away[t], stored);
    }
};

std::vector<float> max_pooled(const std::vector<float>& x, int kernel) {
    const int n = static_cast<int>(x.size()), half = kernel / 2;
    float mean = 0.0F;
    for (const float value : x) {
        mean += value / static_cast<float>(n);
    }
    std::vector<float> out(x.size());
    for (int t = 0; t < n; ++t) {
        const auto first = x.begin() + std::max(0, t - half);
        const auto last = x.begin() + std::min(n, t + half + 1);
        out[t] = *std::max_element(first, last) + kFloor * mean;
    }
    return out;
}

std::size_t row_cost(const SpanLayout& layout) {
    const FormatSpec& spec = layout.spec;
    return spec.format->bytes(spec, Side::key, 1) + spec.format->bytes(spec, Side::value, 1);
}

// Bytes of one token per tier: its rows, its position and its running sum.
std::vector<double> token_costs(const LayerStore& store) {
    std::vector<double> cost;
    for (int tier = 0; tier < store.tiers(); ++tier) {
        cost.push_back(static_cast<double>(row_cost(store.layout(tier)) + sizeof(std::int32_t) +
                                           sizeof(float)));
    }
    cost.push_back(0.0);
    return cost;
}

// The tier of every token of head g by position, for the rows of a span read back.
std::vector<int> tiers_by_position(const LayerStore& store, int g, int tokens) {
    std::vector<int> of_storage;
    for (int tier = 1; tier <= store.tiers(); ++tier) {
        of_storage.insert(of_storage.end(), store.span(g, tier % store.tiers()).tokens(),
                          tier % store.tiers());
    }
    std::vector<int> result;
    for (const std::int32_t at : store.by_position(g)) {
        result.push_back(of_storage[at]);
    }
    result.resize(tokens, 0);  // new tokens are exact
    return result;
}

HeadChoice look_at(const Session::Impl& session, const LayerStore& store, const LayerView& view,
                   int g) {
    const int tokens = view.kv->head(g).tokens;
    const PolicyParams& params = session.plan.params;
    const TokenLoss seen = observe_head(session, view, g);
    HeadChoice head;
    head.mass = seen.mass;
    head.away = max_pooled(seen.drop, params.kernel_size);
    head.drop = head.away;
    head.weight = max_pooled(seen.weight, params.kernel_size);
    head.error.resize(store.tiers());
    for (int tier = 1; tier < store.tiers(); ++tier) {
        head.error[tier] = measure_tier(session, store, view, g, tier);
    }
    for (int t = 0; t < tokens; ++t) {
        if (t >= tokens - params.window_size || session.pinned(view.kv->head(g).positions[t])) {
            head.drop[t] = kPinned;
        }
    }
    head.least = tiers_by_position(store, g, tokens);
    head.tier.assign(tokens, 0);
    head.sinks = std::min(params.n_sink, tokens);
    return head;
}

// The best tier of every token at a price per byte; returns the bytes.
double choose(std::vector<HeadChoice>& heads, const std::vector<double>& cost, double price) {
    const int tiers = static_cast<int>(cost.size()) - 1;
    double bytes = 0.0;
    for (HeadChoice& head : heads) {
        for (int t = 0; t < static_cast<int>(head.tier.size()); ++t) {
            double least = std::numeric_limits<double>::infinity();
            for (int tier = 0; tier <= tiers; ++tier) {
                const double total =
                    static_cast<double>(head.loss(tier, tiers, t)) + price * cost[tier];
                if (total < least) {
                    least = total;
                    head.tier[t] = tier;
                }
            }
            bytes += cost[head.tier[t]];
        }
    }
    return bytes;
}

// The lowest price at which the bytes fit, by bisection of its logarithm.
void choose_within(std::vector<HeadChoice>& heads, const std::vector<double>& cost, double bytes) {
    if (choose(heads, cost, 0.0) <= bytes) {
        return;
    }
    double low = -120.0, high = 120.0;
    for (int i = 0; i < 48; ++i) {
        const double middle = (low + high) / 2.0;
        (choose(heads, cost, std::exp2(middle)) > bytes ? low : high) = middle;
    }
    choose(heads, cost, std::exp2(high));
}

// What decoding needs to know: per head the loss of each tier and of dropping, for a token of
// squared attention 1, and per token the attention it is taken to have received.
void note(LayerStore& store, int g, const HeadChoice& head, const LayerView& view) {
    const int tiers = store.tiers(), group = store.query_heads() / store.kv_heads();
    float* notes = store.notes().data() + g * (tiers + 1);
    double drop = 0.0, weight = 0.0;
    for (std::size_t t = 0; t < head.away.size(); ++t) {
        drop += static_cast<double>(head.away[t]);
        weight += static_cast<double>(head.weight[t]);
    }
    const double away = weight > 0.0 ? drop / weight : 1.0;
    for (int tier = 0; tier < tiers; ++tier) {
        const TierError& error = head.error[tier];
        notes[tier] = static_cast<float>(
            std::min(away, kScoreError * error.score * away + kValueError * error.value));
    }
    notes[0] = 0.0F;
    notes[tiers] = static_cast<float>(away);
    std::vector<float> by_position;
    const auto queries = static_cast<float>(std::max(1, view.window) * group);
    for (std::size_t t = 0; t < head.tier.size(); ++t) {
        if (head.tier[t] < tiers) {
            by_position.push_back(kPromptQueries * static_cast<float>(group) *
                                  std::sqrt(head.weight[t] / queries));
        }
    }
    const std::vector<std::int32_t> order = store.by_position(g);
    float* sums = store.sums(g);
    for (std::size_t i = 0; i < order.size(); ++i) {
        sums[order[i]] = by_position[i];
    }
}

using Kept = std::vector<std::vector<std::vector<std::int32_t>>>;  // [G][tier]

// The share of the observed attention that falls on dropped tokens, mean over the layer's heads.
double mass_dropped(const std::vector<HeadChoice>& heads, int tiers) {
    double sum = 0.0;
    for (const HeadChoice& head : heads) {
        double gone = 0.0, whole = 0.0;
        for (std::size_t t = 0; t < head.mass.size(); ++t) {
            whole += static_cast<double>(head.mass[t]);
            gone += head.tier[t] == tiers ? static_cast<double>(head.mass[t]) : 0.0;
        }
        sum += whole > 0.0 ? gone / whole : 0.0;
    }
    return sum / static_cast<double>(heads.size());
}

// Chooses every token's tier; where guard finds that too much attention would go, the layer's bytes
// grow by a tenth until it is content or has all that it may.
Kept keep_within(Session::Impl& session, int layer, const LayerStore& store,
                 std::vector<HeadChoice>& choices) {
    MixedPlan& plan = session.plan.mixed;
    const int tiers = store.tiers();
    const double fixed = static_cast<double>(choices.size()) * 4.0 * sizeof(float) +
                         static_cast<double>(store.side_bytes() + store.notes_bytes());
    const std::vector<double> cost = token_costs(store);
    const double most = plan.layer_bytes[layer] * plan.most;
    const double guard = session.plan.options.guard;
    choose_within(choices, cost, plan.layer_bytes[layer] - fixed);
    double mass = mass_dropped(choices, tiers);
    while (guard > 0.0 && mass > guard && plan.layer_bytes[layer] < most) {
        plan.layer_bytes[layer] = std::min(most, 1.1 * plan.layer_bytes[layer]);
        plan.raised = true;
        choose_within(choices, cost, plan.layer_bytes[layer] - fixed);
        mass = mass_dropped(choices, tiers);
    }
    session.layers[layer].dropped_mass = mass;
    Kept kept(choices.size(), std::vector<std::vector<std::int32_t>>(tiers));
    for (std::size_t g = 0; g < choices.size(); ++g) {
        for (std::size_t t = 0; t < choices[g].tier.size(); ++t) {
            if (choices[g].tier[t] < tiers) {
                kept[g][choices[g].tier[t]].push_back(static_cast<std::int32_t>(t));
            }
        }
    }
    return kept;
}

}  // namespace

void compress_mixed(Session::Impl& session, int layer, const LayerView& view) {
    LayerStore& store = *session.layers[layer].store;
    const int heads = store.kv_heads();
    store.fit_once(*view.kv);
    std::vector<HeadChoice> choices(heads);
    parallel_for(session.m().threads, heads,
                 [&](int g, int) { choices[g] = look_at(session, store, view, g); });
    const Kept kept = keep_within(session, layer, store, choices);
    session.layers[layer].budget.assign(heads, 0);
    for (int g = 0; g < heads; ++g) {
        for (const std::vector<std::int32_t>& tier : kept[g]) {
            session.layers[layer].budget[g] += static_cast<int>(tier.size());
        }
    }
    store.release_queries();
    store.rebuild(*view.kv, kept);
    for (int g = 0; g < heads; ++g) {
        store.resize_sums(g, 0);
        note(store, g, choices[g], view);
    }
    store.notes().back() = kPromptQueries;
}

}  // namespace winnow
