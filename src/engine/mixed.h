// `mixed`: how many bits each token of a layer gets, from 16 to none, by one rule: a byte stays
// where it saves the most loss.
//
// The loss of a token is the squared error that it brings into the attention output: its squared
// attention times what dropping it (|v - o|^2) or storing it (the measured error of K's scores and
// of V) costs. Tiers are tried for every token at once with one price per byte over all kv heads of
// the layer; the price is the lowest that fits the layer's bytes.
#pragma once

#include <vector>

#include "engine/compress.h"
#include "engine/mixed_choice.h"

namespace winnow {

/// The worth of every head's tokens in a layer, [G]; fits the store's formats on the way. Does not
/// depend on the layer's bytes.
std::vector<HeadWorth> weigh_layer(Session::Impl& session, int layer, const LayerView& view);

/// Packs a layer after prefill within session.plan.mixed.layer_bytes[layer], policy bytes included.
void compress_mixed(Session::Impl& session, int layer, const LayerView& view);
/// The same where the worths are known. The store must be fitted.
void compress_mixed(Session::Impl& session, int layer, const LayerView& view,
                    const std::vector<HeadWorth>& worth);

/// Makes room in a layer for one more token: the cheapest steps 16 -> 8 -> .. -> gone until it
/// fits. Tokens never skip a step, so that nothing is dropped that was not at the fewest bits.
void make_room_mixed(Session::Impl& session, int layer);

/// The same for a token of a question, for which tokens seen before it give way, by their sums as
/// they are; other tokens of the question only where those cannot.
void make_room_for_question(Session::Impl& session, int layer);

}  // namespace winnow
