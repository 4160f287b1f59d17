// What it costs to keep a token at fewer bits, or to drop it: the losses that `mixed` weighs.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/compress.h"

namespace winnow {

/// Per token of one kv head, in the squared error of the head's attention output summed over the
/// observing queries and the R query heads.
struct TokenLoss {
    std::vector<float> weight;  ///< [T] sum of a^2: a value wrong by e costs weight * |e|^2
    std::vector<float> drop;    ///< [T] sum of a^2 |v - o|^2: what dropping the token costs
    std::vector<float> mass;    ///< [T] sum of a, the attention received
};

/// What `window` observing queries of `view` say about head g's tokens. Queries of the window see
/// no later tokens. Same bits for any thread count.
TokenLoss observe_head(const Session::Impl& session, const LayerView& view, int g);

/// The share of the observing queries' softmax that falls on tokens outside kept[g], mean over
/// heads.
double dropped_mass(const Session::Impl& session, const LayerView& view,
                    const std::vector<std::vector<std::int32_t>>& kept);

/// Mean errors of one kv head's rows at the bits of a tier, measured on a sample of its tokens.
struct TierError {
    double score = 0.0;  ///< of (q.k' - q.k)^2 / D over the observing queries
    double value = 0.0;  ///< of |v' - v|^2
};
TierError measure_tier(const Session::Impl& session, const LayerStore& store, const LayerView& view,
                       int g, int tier);

}  // namespace winnow
