// What happens to a layer's tokens once they may no longer all stay: observe, score, select, pack.
#pragma once

#include <memory>
#include <span>

#include "engine/session_impl.h"

namespace winnow {

/// What a policy observes of a layer besides its keys and values.
struct LayerView {
    const LayerKv* kv = nullptr;          // all tokens of the layer, older and new
    std::vector<float> window_queries{};  // [window][H][D] of the newest tokens
    int window = 0;
    const float* column_sums = nullptr;  // [G * sum_rows()][stride]
    std::size_t stride = 0;
    const float* scores = nullptr;  // [G][stride] where the policy has given them already
};

/// Packs a layer after prefill for each session, from one and the same K and V: keeps every head
/// within its budget for a span of `tokens[i]` tokens, and remembers that budget for decoding.
/// views[i].kv is common to all. Adds to ms[i] what session i's part took. Sessions whose scores
/// cannot differ are scored once. The same bits as one session at a time.
void compress_layer(std::span<Session::Impl* const> sessions, int layer,
                    std::span<const LayerView> views, std::span<const int> tokens,
                    std::span<double> ms);

/// The policy's scores of a layer's tokens, [G][view.stride], where they do not hang on a budget.
void score_layer(Session::Impl& session, int layer, const LayerView& view, float* scores);

/// The same for one session with a budget per kv head that was found over all layers.
void compress_to(Session::Impl& session, int layer, const LayerView& view,
                 const std::vector<int>& budgets);

/// Runs the policy again over a span that one more token would take past its budget and slack.
void evict_if_over(Session::Impl& session, int layer);

/// Tokens a plain method may hold beyond its budget before it evicts.
int slack_of(const Session::Impl& session, int layer);

/// Lets a layer of a plain method take `count` tokens at once: its budget grows by them, or, where
/// the session has a budget of bytes, the policy makes room first, by what it has observed so far.
void make_room(Session::Impl& session, int layer, int count);

}  // namespace winnow
