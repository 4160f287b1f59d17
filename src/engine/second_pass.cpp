#include "engine/second_pass.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <string>

#include "engine/compress.h"
#include "engine/pass.h"
#include "prune/select.h"
#include "prune/whole_head.h"
#include "text/chat_template.h"
#include "text/vocab.h"
#include "winnow/error.h"

namespace winnow {

namespace {

constexpr int kQuoted = 8;  // tokens that say where a later piece begins

/// The tokens of a prompt while all layers are still whole.
struct WholePrompt {
    std::vector<LayerKv> layers;
    std::vector<Buffer<float>> peaks;   // [L] of [G * sum_rows()][stride]
    std::vector<Buffer<float>> scores;  // [L] of [G][stride], by
    const Policy* scored_by = nullptr;
    std::size_t stride = 0;

    LayerView view(int layer) const {
        return {.kv = &layers[layer], .column_sums = peaks[layer].data(), .stride = stride};
    }
};

// One bar for both passes: a layer of any pass counts as one.
ProgressCallback in_steps(const ProgressCallback& progress, int done, int total) {
    if (!progress) {
        return {};
    }
    return [&progress, done, total](Progress at) {
        at.layer += done;
        at.layers = total;
        return progress(at);
    };
}

// The largest attention that older tokens have received so far; new ones begin at zero.
void open_peaks(Session::Impl& session, WholePrompt& prompt) {
    for (const LayerKv& kv : prompt.layers) {
        for (const LayerKv::Head& head : kv.heads()) {
            prompt.stride = std::max(prompt.stride, static_cast<std::size_t>(head.tokens));
        }
    }
    for (std::size_t layer = 0; layer < prompt.layers.size(); ++layer) {
        const LayerKv& kv = prompt.layers[layer];
        LayerStore& store = *session.layers[layer].store;
        const int rows = store.sum_rows();
        Buffer<float>& peaks = prompt.peaks.emplace_back(
            &session.work, prompt.stride * kv.kv_heads() * rows, "peaks of attention");
        for (int row = 0; row < kv.kv_heads() * rows; ++row) {
            const int g = row / rows;
            std::copy_n(store.sums(g) + (row % rows) * store.sums_stride(g), kv.head(g).kept,
                        peaks.data() + row * prompt.stride);
        }
    }
}

void repeat(Session::Impl& session, std::span<const std::int32_t> tokens, int first, int count,
            const ProgressCallback& progress, WholePrompt& prompt) {
    const std::vector<std::int32_t> repeated = repeat_prompt(session.m(), tokens, first, count);
    const KeyStretch stretch{.sinks = session.plan.params.n_sink,
                             .from_end = static_cast<int>(tokens.size()) - first,
                             .count = count};
    Session::Impl* self = &session;
    Pass pass(std::span(&self, 1), repeated, false, &progress);
    pass.start_at(session.position + static_cast<int>(tokens.size()));
    pass.embed();
    for (std::size_t layer = 0; layer < prompt.layers.size(); ++layer) {
        pass.repeat_layer(static_cast<int>(layer), prompt.layers[layer], stretch,
                          prompt.peaks[layer].data(), prompt.stride);
    }
}

using Budgets = std::vector<std::vector<int>>;  // [L][G]

// Tokens that each head keeps of `total`.
Budgets share_out(const Session::Impl& session, const WholePrompt& prompt, std::int64_t total) {
    std::vector<WholeHead> heads;
    for (std::size_t layer = 0; layer < prompt.layers.size(); ++layer) {
        const PolicyParams params =
            session.plan.layer_params(static_cast<int>(layer), session.budget_tokens);
        for (int g = 0; g < prompt.layers[layer].kv_heads(); ++g) {
            const LayerKv::Head& head = prompt.layers[layer].head(g);
            const Protected fixed = session.plan.policy->protect(params, params.cap, head.tokens);
            const float* scores = prompt.scores[layer].data() + g * prompt.stride;
            WholeHead& whole = heads.emplace_back();
            for (int t = 0; t < head.tokens; ++t) {
                if (t < fixed.front || t >= head.tokens - fixed.back ||
                    session.pinned(head.positions[t])) {
                    ++whole.kept;
                } else {
                    whole.open.push_back(scores[t]);
                }
            }
        }
    }
    std::vector<int> shares(heads.size());
    if (session.plan.policy->share_out != nullptr) {
        session.plan.policy->share_out(heads, total, shares);
    } else {
        share_by_score(heads, total, 0, {}, shares);
    }
    // Room that no token needs now is shared out for the answer.
    const std::int64_t spare = total - std::accumulate(shares.begin(), shares.end(), 0LL);
    const auto n = static_cast<std::int64_t>(heads.size());
    for (std::int64_t i = 0; spare > 0 && i < n; ++i) {
        shares[i] += static_cast<int>(spare / n + (i < spare % n ? 1 : 0));
    }
    Budgets budgets;
    for (std::size_t layer = 0, i = 0; layer < prompt.layers.size(); ++layer) {
        const int kv_heads = prompt.layers[layer].kv_heads();
        budgets.emplace_back(shares.begin() + i, shares.begin() + i + kv_heads);
        i += kv_heads;
    }
    return budgets;
}

// What ends a request and begins an answer: as the chat template has it where the prompt opens a
// turn by one of its control tokens, else an empty line.
std::vector<std::int32_t> answer_opening(const Vocab& vocab, std::span<const std::int32_t> tokens) {
    const std::string content = "the request";
    std::string before, after;
    try {
        const auto text_of = [&](std::int32_t token) {
            return token < 0 ? std::string() : vocab.piece(token, true);
        };
        const ChatTurn turn{.role = "user", .content = content};
        const std::string text =
            ChatTemplate(vocab.chat_template_source(), text_of(vocab.bos()), text_of(vocab.eos()))
                .apply(std::span(&turn, 1), true);
        if (const std::size_t at = text.find(content); at != std::string::npos) {
            before = text.substr(0, at);
            after = text.substr(at + content.size());
        }
    } catch (const Error&) {
        // A file without a template that can be used has no turns.
    }
    for (const std::int32_t token : vocab.tokenize(before, false, true)) {
        const bool control = vocab.piece(token, false).empty() && token != vocab.bos();
        if (control && std::ranges::find(tokens, token) != tokens.end()) {
            return vocab.tokenize(after, false, true);
        }
    }
    return vocab.tokenize("\n\n", false, false);
}

}  // namespace

std::vector<std::int32_t> repeat_prompt(const Model::Impl& model,
                                        std::span<const std::int32_t> tokens, int first,
                                        int count) {
    std::vector<std::int32_t> out;
    if (model.vocab->has_tokens()) {
        std::string request = "\n\nRepeat the text above word for word";
        if (first > 0) {
            const int quoted = std::min(kQuoted, first);
            request += ", from behind these words: " +
                       model.vocab->detokenize(tokens.subspan(first - quoted, quoted));
        }
        out = model.vocab->tokenize(request, false, false);
        const std::vector<std::int32_t> opening = answer_opening(*model.vocab, tokens);
        out.insert(out.end(), opening.begin(), opening.end());
    }
    const auto piece = tokens.subspan(first, count);
    out.insert(out.end(), piece.begin(), piece.end());
    return out;
}

namespace {

// Tokens of all heads and layers that the cap allows.
std::int64_t allowed(const Session::Impl& session) {
    std::int64_t total = 0;
    for (int layer = 0; layer < session.hparams().layers; ++layer) {
        total +=
            static_cast<std::int64_t>(session.plan.layer_params(layer, session.budget_tokens).cap) *
            session.hparams().kv_heads;
    }
    return total;
}

// Sessions of one policy are scored once.
void score(Session::Impl& session, WholePrompt& prompt) {
    if (prompt.scored_by == session.plan.policy) {
        return;
    }
    prompt.scores.clear();
    for (int layer = 0; layer < session.hparams().layers; ++layer) {
        prompt.scores.emplace_back(&session.work, prompt.stride * session.hparams().kv_heads,
                                   "scores");
        score_layer(session, layer, prompt.view(layer), prompt.scores.back().data());
    }
    prompt.scored_by = session.plan.policy;
}

// By the session's own cap. Layers of the whole prompt go as soon as the last session has packed
// them.
void pack_whole(Session::Impl& session, WholePrompt& prompt, bool last) {
    score(session, prompt);
    const Budgets budgets = share_out(session, prompt, allowed(session));
    for (std::size_t layer = 0; layer < prompt.layers.size(); ++layer) {
        LayerView view = prompt.view(static_cast<int>(layer));
        view.scores = prompt.scores[layer].data();
        compress_to(session, static_cast<int>(layer), view, budgets[layer]);
        if (last) {
            prompt.layers[layer] = LayerKv(nullptr, {}, 0, session.hparams().head_dim);
        }
    }
}

}  // namespace

bool needs_second_pass(const Session::Impl& session, int count) {
    std::int64_t held = 0;
    for (const SessionLayer& layer : session.layers) {
        for (int g = 0; g < layer.store->kv_heads(); ++g) {
            held += layer.store->tokens(g) + count;
        }
    }
    return held > allowed(session);
}

void read_twice(std::span<Session::Impl* const> sessions, std::span<const std::int32_t> tokens,
                const ProgressCallback& progress, float* logits) {
    Session::Impl& session = *sessions[0];
    const int layers = session.hparams().layers;
    const int count = static_cast<int>(tokens.size());
    const int pieces = needs_second_pass(session, count)
                           ? (count + session.plan.repeat_tokens - 1) / session.plan.repeat_tokens
                           : 0;
    const int steps = layers * (1 + pieces);
    WholePrompt prompt;
    {
        const ProgressCallback first = in_steps(progress, 0, steps);
        Pass pass(sessions, tokens, true, &first);
        pass.embed();
        for (int layer = 0; layer < layers; ++layer) {
            prompt.layers.push_back(pass.read_layer(layer));
        }
        pass.logits_of(count - 1, 1, logits);
    }
    const auto ms_since = [](std::chrono::steady_clock::time_point start) {
        return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
            .count();
    };
    const auto start = std::chrono::steady_clock::now();
    open_peaks(session, prompt);
    for (int piece = 0; piece < pieces; ++piece) {
        const int first = piece * session.plan.repeat_tokens;
        repeat(session, tokens, first, std::min(session.plan.repeat_tokens, count - first),
               in_steps(progress, layers * (1 + piece), steps), prompt);
    }
    const double repeat_ms = ms_since(start);
    for (Session::Impl* each : sessions) {
        const auto packing = std::chrono::steady_clock::now();
        pack_whole(*each, prompt, each == sessions.back());
        each->timing.compress_ms += repeat_ms + ms_since(packing);
    }
}

}  // namespace winnow
