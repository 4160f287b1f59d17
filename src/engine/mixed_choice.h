// The choice that `mixed` makes for a layer: which tier each token of each kv head lies in.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/mixed_loss.h"

namespace winnow {

/// What a kv head's tokens are worth, whatever the budget.
struct HeadWorth {
    std::vector<float> away;       ///< [T] squared attention times |v - o|^2: the loss of dropping
    std::vector<float> weight;     ///< [T] squared attention
    std::vector<float> mass;       ///< [T] attention received
    std::vector<TierError> error;  ///< [tiers]; none for tier 0
    std::vector<int> least;        ///< [T] the tier it lies in already: it gets no more bits
    std::vector<char> pinned;      ///< [T] never dropped
    int sinks = 0;                 ///< oldest tokens, which stay as they are
};

/// A head's tokens and the tier of each; `tiers` means dropped.
struct HeadChoice {
    const HeadWorth* worth = nullptr;
    std::vector<std::uint8_t> tier;  ///< [T]

    /// Loss of token t in tier `at` of `tiers`, which itself means dropped.
    float loss(const MixedSettings& settings, int at, int tiers, int t) const;
};

/// What observing head g of `view` says. `tiers` errors are measured at the store's layouts.
HeadWorth weigh_head(const Session::Impl& session, const LayerStore& store, const LayerView& view,
                     int g);

/// The best tier of every token at the lowest price per byte at which all of them fit `bytes`.
/// cost[tier] are the bytes of one token; the last is 0, of dropping.
void choose_within(std::vector<HeadChoice>& heads, const MixedSettings& settings,
                   const std::vector<double>& cost, double bytes);

/// The share of the observed attention that falls on dropped tokens, mean over the heads.
double mass_dropped(const std::vector<HeadChoice>& heads, int tiers);

}  // namespace winnow
