// The way of a token: embed, then for each layer: qkv -> append to the tail -> attend over packed
// and tail -> mix. The model's products run once over all sessions, attention per session.
#include "engine/decode.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "attend/decode_attention.h"
#include "attend/peaks.h"
#include "engine/compress.h"
#include "winnow/error.h"

namespace winnow {

namespace {

void check_sessions(std::span<Session::Impl* const> sessions,
                    std::span<const std::int32_t> tokens) {
    if (sessions.empty() || sessions.size() != tokens.size()) {
        throw usage_error("decode was given " + std::to_string(sessions.size()) + " sessions and " +
                          std::to_string(tokens.size()) +
                          " tokens; it takes one token for each of at least one session.");
    }
    for (std::size_t i = 0; i < sessions.size(); ++i) {
        if (&sessions[i]->m() != &sessions[0]->m()) {
            throw usage_error("decode was given sessions of different models.");
        }
        if (std::count(sessions.begin(), sessions.end(), sessions[i]) != 1) {
            throw usage_error("decode was given the same session twice.");
        }
        sessions[i]->check_tokens(tokens.subspan(i, 1));
    }
}

// Adds the milliseconds of `work` to `sum`.
template <class Work>
void timed(double& sum, const Work& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double, std::milli> spent =
        std::chrono::steady_clock::now() - start;
    sum += spent.count();
}

}  // namespace

void decode(std::span<Session::Impl* const> sessions, std::span<const std::int32_t> tokens) {
    check_sessions(sessions, tokens);
    const Model::Impl& m = sessions[0]->m();
    const std::lock_guard lock(m.compute);
    const Hparams& h = m.hparams;
    const std::size_t n = sessions.size();
    const std::size_t q_row = static_cast<std::size_t>(h.query_heads) * h.head_dim;
    const std::size_t k_row = static_cast<std::size_t>(h.kv_heads) * h.head_dim;
    const float scale = 1.0F / std::sqrt(static_cast<float>(h.head_dim));

    DecodeGraphs& graphs = m.graphs(static_cast<int>(n));
    DecodeAttention& attention = m.decode_attention();
    std::vector<float> q(n * q_row), k(n * k_row), v(n * k_row), attended(n * q_row);
    std::vector<std::int32_t> positions(n);
    for (std::size_t i = 0; i < n; ++i) {
        positions[i] = sessions[i]->position;
    }
    for (Session::Impl* session : sessions) {
        if (session->plan.pre_rope()) {
            session->plan.rope->remember(session->position + 1);
        }
    }
    std::vector<DecodeItem> items(n);
    double attention_ms = 0.0, graph_ms = 0.0;
    timed(graph_ms,
          [&] { graphs.begin(tokens.data(), positions.data(), q.data(), k.data(), v.data()); });
    for (int layer = 0; layer < h.layers; ++layer) {
        for (std::size_t i = 0; i < n; ++i) {
            evict_if_over(*sessions[i], layer);
            LayerStore& store = *sessions[i]->layers[layer].store;
            store.append(k.data() + i * k_row, v.data() + i * k_row, positions[i]);
            if (store.rings_while_decoding()) {
                store.push_query(q.data() + i * q_row);
            }
            store.add_queries(q.data() + i * q_row, 1, positions[i], 1);
            items[i] = {
                .store = &store, .q = q.data() + i * q_row, .out = attended.data() + i * q_row};
            if (store.memory().per_input()) {
                const float* hidden = graphs.hidden() + i * static_cast<std::size_t>(h.embedding);
                items[i].factor = inverse_length(hidden, h.embedding);
            }
        }
        timed(attention_ms, [&] { attention.attend(items, scale); });
        if (layer + 1 < h.layers) {
            timed(graph_ms,
                  [&] { graphs.next(layer, attended.data(), q.data(), k.data(), v.data()); });
        }
    }
    std::vector<float> logits(n * static_cast<std::size_t>(h.vocabulary));
    timed(graph_ms, [&] { graphs.finish(attended.data(), logits.data()); });
    for (std::size_t i = 0; i < n; ++i) {
        Session::Impl& session = *sessions[i];
        session.logits.assign(logits.begin() + i * h.vocabulary,
                              logits.begin() + (i + 1) * h.vocabulary);
        ++session.position;
        session.tokens.push_back(tokens[i]);
        session.timing.decode_attention_ms += attention_ms;
        session.timing.decode_graph_ms += graph_ms;
        session.note_bytes();
        session.note_logits();
    }
}

}  // namespace winnow
