// What happens to a layer's tokens once they may no longer all stay: observe, score, select, pack.
#pragma once

#include "engine/session_impl.h"

namespace winnow {

/// What a policy observes of a layer besides its keys and values.
struct LayerView {
    const LayerKv* kv = nullptr;          // all tokens of the layer, older and new
    std::vector<float> window_queries{};  // [window][H][D] of the newest tokens
    int window = 0;
    const float* column_sums = nullptr;  // [H][stride]
    std::size_t stride = 0;
};

/// Packs a layer after prefill: keeps every head within its budget for a span of `tokens` tokens,
/// and remembers that budget for decoding.
void compress_layer(Session::Impl& session, int layer, const LayerView& view, int tokens);

/// Runs the policy again over a span that one more token would take past its budget and slack.
void evict_if_over(Session::Impl& session, int layer);

}  // namespace winnow
