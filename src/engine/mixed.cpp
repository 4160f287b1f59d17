#include "engine/mixed.h"

#include <algorithm>
#include <cmath>

#include "core/threads.h"

namespace winnow {

namespace {

// How many queries the prompt's observation counts for beside those of the answer.
constexpr float kPromptQueries = 64.0F;

// Bytes of one token per tier: its rows, its position and its running sum.
std::vector<double> token_costs(const LayerStore& store) {
    std::vector<double> cost;
    for (int tier = 0; tier < store.tiers(); ++tier) {
        const FormatSpec& spec = store.layout(tier).spec;
        const std::size_t rows =
            spec.format->bytes(spec, Side::key, 1) + spec.format->bytes(spec, Side::value, 1);
        cost.push_back(static_cast<double>(rows + sizeof(std::int32_t) + sizeof(float)));
    }
    cost.push_back(0.0);
    return cost;
}

// What decoding needs to know: per head the loss of each tier and of dropping, for a token of
// squared attention 1, and per token the squared attention it is taken to have received.
void note(LayerStore& store, int g, const HeadChoice& head, const MixedSettings& settings,
          int queries) {
    const HeadWorth& worth = *head.worth;
    const int tiers = store.tiers(), group = store.query_heads() / store.kv_heads();
    float* notes = store.notes().data() + g * (tiers + 1);
    double drop = 0.0, weight = 0.0;
    for (std::size_t t = 0; t < worth.away.size(); ++t) {
        drop += static_cast<double>(worth.away[t]);
        weight += static_cast<double>(worth.weight[t]);
    }
    const double away = weight > 0.0 ? drop / weight : 1.0;
    for (int tier = 0; tier < tiers; ++tier) {
        const TierError& error = worth.error[tier];
        notes[tier] = static_cast<float>(std::min(
            away, settings.score_error * error.score * away + settings.value_error * error.value));
    }
    notes[0] = 0.0F;
    notes[tiers] = static_cast<float>(away);
    std::vector<float> by_position;
    const auto seen = static_cast<float>(std::max(1, queries) * group);
    for (std::size_t t = 0; t < head.tier.size(); ++t) {
        if (head.tier[t] < tiers) {
            by_position.push_back(kPromptQueries * static_cast<float>(group) * worth.weight[t] /
                                  seen);
        }
    }
    const std::vector<std::int32_t> order = store.by_position(g);
    float* sums = store.sums(g);
    for (std::size_t i = 0; i < order.size(); ++i) {
        sums[order[i]] = by_position[i];
    }
}

using Kept = std::vector<std::vector<std::vector<std::int32_t>>>;  // [G][tier]

// Chooses every token's tier; where guard finds that too much attention would go, the layer's bytes
// grow by a tenth until it is content or has all that it may.
void keep_within(Session::Impl& session, int layer, const LayerStore& store,
                 std::vector<HeadChoice>& choices) {
    MixedPlan& plan = session.plan.mixed;
    const int tiers = store.tiers();
    const double fixed = static_cast<double>(choices.size()) * 4.0 * sizeof(float) +
                         static_cast<double>(store.side_bytes() + store.notes_bytes());
    const std::vector<double> cost = token_costs(store);
    const auto choose_all = [&] {
        choose_within(choices, plan.settings, cost, plan.layer_bytes[layer] - fixed);
        return mass_dropped(choices, tiers);
    };
    const double most = plan.layer_bytes[layer] * plan.most;
    const double guard = session.plan.options.guard;
    double mass = choose_all();
    while (guard > 0.0 && mass > guard && plan.layer_bytes[layer] < most) {
        plan.layer_bytes[layer] = std::min(most, 1.1 * plan.layer_bytes[layer]);
        plan.raised = true;
        mass = choose_all();
    }
    session.layers[layer].dropped_mass = mass;
}

}  // namespace

std::vector<HeadWorth> weigh_layer(Session::Impl& session, int layer, const LayerView& view) {
    LayerStore& store = *session.layers[layer].store;
    store.fit_once(*view.kv);
    std::vector<HeadWorth> worth(store.kv_heads());
    parallel_for(session.m().threads, store.kv_heads(),
                 [&](int g, int) { worth[g] = weigh_head(session, store, view, g); });
    return worth;
}

void compress_mixed(Session::Impl& session, int layer, const LayerView& view) {
    compress_mixed(session, layer, view, weigh_layer(session, layer, view));
}

void compress_mixed(Session::Impl& session, int layer, const LayerView& view,
                    const std::vector<HeadWorth>& worth) {
    LayerStore& store = *session.layers[layer].store;
    const int heads = store.kv_heads(), tiers = store.tiers();
    std::vector<HeadChoice> choices(heads);
    for (int g = 0; g < heads; ++g) {
        choices[g] = {.worth = &worth[g],
                      .tier = std::vector<std::uint8_t>(worth[g].away.size(), 0)};
    }
    keep_within(session, layer, store, choices);
    Kept kept(heads, std::vector<std::vector<std::int32_t>>(tiers));
    session.layers[layer].budget.assign(heads, 0);
    for (int g = 0; g < heads; ++g) {
        for (std::size_t t = 0; t < choices[g].tier.size(); ++t) {
            if (choices[g].tier[t] < tiers) {
                kept[g][choices[g].tier[t]].push_back(static_cast<std::int32_t>(t));
                ++session.layers[layer].budget[g];
            }
        }
    }
    store.release_queries();
    store.rebuild(*view.kv, kept);
    for (int g = 0; g < heads; ++g) {
        store.resize_sums(g, 0);
        note(store, g, choices[g], session.plan.mixed.settings, view.window);
    }
    store.notes().back() = kPromptQueries;
}

}  // namespace winnow
