// The way of a prompt: embed, then for each layer { for each chunk: qkv -> attend -> mix }, then
// once per layer: observe -> score -> select -> pack -> free that layer's full K and V. Several
// fresh sessions share all of it but the last line; working memory is counted by the first.
#include "engine/prefill.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <tuple>
#include <utility>

#include "core/free_memory.h"
#include "engine/pass.h"
#include "engine/question.h"
#include "engine/second_pass.h"
#include "winnow/error.h"

namespace winnow {

namespace {

constexpr int kHeadRows = 64;  // rows of logits computed at once

double ms_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
        .count();
}

bool reads_twice(const Session::Impl& session) {
    return (session.plan.needs & kNeedsPeaks) != 0;
}

// Says before the work starts that it would not fit.
void check_memory(std::span<Session::Impl* const> sessions, std::size_t tokens) {
    const Hparams& h = sessions[0]->hparams();
    const std::uint64_t layer = 4ULL * tokens * h.kv_heads * h.head_dim;
    // Pages of the mapped file count as free memory, but the weights have to stay there.
    const WeightStore& weights = *sessions[0]->m().weights;
    const std::uint64_t mapped =
        weights.bytes() - std::min(weights.bytes(), weights.repacked_bytes());
    std::uint64_t needed = layer + 4ULL * tokens * h.embedding;
    bool whole = false;
    for (const Session::Impl* session : sessions) {
        const CacheOptions& o = session->plan.options;
        // A policy that reads twice holds all layers whole until it has; one prompt at a time.
        const bool twice = reads_twice(*session);
        const double share = o.method == "full" || (twice && !whole) ? 1.0 : 0.0;
        whole = whole || twice;
        const double bits = twice ? 1.0 : (o.nbits_k + o.nbits_v) / 32.0;
        needed += static_cast<std::uint64_t>(share * bits * static_cast<double>(layer) * h.layers);
    }
    const std::uint64_t left = memory_beside(mapped);
    if (needed > left) {
        throw failure("reading " + std::to_string(tokens) + " tokens needs about " +
                      std::to_string(needed >> 20) + " MiB beside " + std::to_string(mapped >> 20) +
                      " MiB of weights, but only " + std::to_string(left >> 20) +
                      " MiB of memory are left; use --max-capacity-prompts, fewer bits or a "
                      "shorter prompt.");
    }
}

// A session as it was before a prefill, and put back unless the prefill is kept.
class Undo {
  public:
    explicit Undo(Session::Impl& session)
        : session_(session),
          budget_tokens_(session.budget_tokens),
          fresh_(session.position == 0),
          older_(session.layers.size()) {}
    Undo(Undo&& other) noexcept
        : session_(other.session_),
          budget_tokens_(other.budget_tokens_),
          fresh_(other.fresh_),
          older_(std::exchange(other.older_, {})) {}
    ~Undo() {
        for (std::size_t layer = 0; layer < older_.size(); ++layer) {
            if (older_[layer].store != nullptr) {
                session_.layers[layer] = std::move(older_[layer]);
            }
        }
        if (!older_.empty()) {
            session_.budget_tokens = budget_tokens_;
        }
    }
    /// A later prompt works on a copy of the layer, so that stopping leaves the session as it was.
    void open(int layer) {
        SessionLayer& state = session_.layers[layer];
        older_[layer].budget = state.budget;
        older_[layer].scores = state.scores;
        older_[layer].store = std::move(state.store);
        state.store = fresh_ ? session_.new_store(layer)
                             : older_[layer].store->clone(&session_.cache, &session_.policy);
    }
    void keep() { older_.clear(); }

  private:
    Session::Impl& session_;
    int budget_tokens_;
    bool fresh_;
    std::vector<SessionLayer> older_;
};

void check_sessions(std::span<Session::Impl* const> sessions,
                    std::span<const std::int32_t> tokens) {
    if (sessions.empty()) {
        throw usage_error("prefill was given no session; it takes at least one.");
    }
    const Session::Impl& first = *sessions[0];
    for (const Session::Impl* session : sessions) {
        session->check_tokens(tokens);
        check_pins(*session, std::max(session->budget_tokens,
                                      session->longest() + static_cast<int>(tokens.size())));
        if (&session->m() != &first.m()) {
            throw usage_error("prefill was given sessions of different models.");
        }
        if (sessions.size() > 1 &&
            (session->position != 0 || std::ranges::count(sessions, session) != 1)) {
            throw usage_error(
                "prefill was given a session twice, or one that has read tokens already; several "
                "sessions that share a prefill must be distinct and fresh.");
        }
        if (session->options.batch != first.options.batch) {
            throw usage_error("prefill was given sessions with batches of " +
                              std::to_string(first.options.batch) + " and " +
                              std::to_string(session->options.batch) +
                              " tokens; sessions that share a prefill must have the same.");
        }
    }
    check_memory(sessions, tokens.size());
}

// One pass for all sessions but those that read twice.
void read_once(std::span<Session::Impl* const> sessions, std::span<Undo> undo,
               std::span<const std::int32_t> tokens, const ProgressCallback& progress,
               std::vector<float>& logits) {
    std::vector<Session::Impl*> once;
    std::vector<Undo*> states;
    for (std::size_t i = 0; i < sessions.size(); ++i) {
        sessions[i]->timing.compress_ms = 0.0;
        if (!reads_twice(*sessions[i])) {
            once.push_back(sessions[i]);
            states.push_back(&undo[i]);
        }
    }
    if (once.empty()) {
        return;
    }
    Pass pass(once, tokens, true, &progress);
    pass.embed();
    for (int layer = 0; layer < once[0]->hparams().layers; ++layer) {
        for (Undo* state : states) {
            state->open(layer);
        }
        pass.run_layer(layer);
    }
    pass.logits_of(static_cast<int>(tokens.size()) - 1, 1, logits.data());
    for (std::size_t i = 0; i < once.size(); ++i) {
        once[i]->timing.compress_ms = pass.compress_ms(i);
    }
}

// The others: those that ask for the same second pass share both.
void read_the_rest(std::span<Session::Impl* const> sessions, std::span<Undo> undo,
                   std::span<const std::int32_t> tokens, const ProgressCallback& progress,
                   std::vector<float>& logits) {
    std::map<std::tuple<bool, int, int, bool>, std::vector<Session::Impl*>> alike;
    for (std::size_t i = 0; i < sessions.size(); ++i) {
        Session::Impl& session = *sessions[i];
        if (reads_twice(session)) {
            for (int layer = 0; layer < session.hparams().layers; ++layer) {
                undo[i].open(layer);
            }
            const bool again = needs_second_pass(session, static_cast<int>(tokens.size()));
            alike[{again, session.plan.repeat_tokens, session.plan.params.n_sink,
                   session.plan.memory.per_input()}]
                .push_back(&session);
        }
    }
    for (const auto& [key, group] : alike) {
        read_twice(group, tokens, progress, logits.data());
    }
}

void finish(Session::Impl& session, std::span<const std::int32_t> tokens,
            const std::vector<float>& logits) {
    session.logits = logits;
    session.position += static_cast<int>(tokens.size());
    session.tokens.insert(session.tokens.end(), tokens.begin(), tokens.end());
    session.prefill_peak = session.memory.peak();
    session.note_bytes();
    session.note_logits();
}

// A question over what is kept of a text; its tokens stay whatever comes.
void read_question(Session::Impl& session, std::span<const std::int32_t> tokens,
                   const ProgressCallback& progress) {
    const int count = static_cast<int>(tokens.size());
    session.check_tokens(tokens);
    check_question(session, count);
    Session::Impl* self = &session;
    check_memory(std::span(&self, 1), tokens.size());
    const std::lock_guard lock(session.m().compute);
    const auto start = std::chrono::steady_clock::now();
    session.memory.reset_peak();
    Undo undo(session);
    std::vector<float> logits(session.hparams().vocabulary);
    Pass pass(std::span(&self, 1), tokens, false, &progress);
    pass.embed();
    for (int layer = 0; layer < session.hparams().layers; ++layer) {
        undo.open(layer);
        pass.append_layer(layer);
    }
    pass.logits_of(count - 1, 1, logits.data());
    undo.keep();
    session.pins.add(session.position, session.position + count);
    session.timing.compress_ms = 0.0;
    const std::size_t before = session.prefill_peak;
    finish(session, tokens, logits);
    session.prefill_peak = std::max(before, session.prefill_peak);
    session.timing.prefill_ms = ms_since(start);
}

}  // namespace

void prefill(std::span<Session::Impl* const> sessions, std::span<const std::int32_t> tokens,
             const ProgressCallback& progress) {
    if (sessions.size() == 1 && sessions[0]->position > 0 &&
        sessions[0]->plan.options.question_hidden) {
        read_question(*sessions[0], tokens, progress);
        return;
    }
    check_sessions(sessions, tokens);
    const Session::Impl& first = *sessions[0];
    const std::lock_guard lock(first.m().compute);
    const auto start = std::chrono::steady_clock::now();
    std::vector<Undo> undo;
    for (Session::Impl* session : sessions) {
        session->memory.reset_peak();
        undo.emplace_back(*session);
        session->budget_tokens =
            std::max(session->budget_tokens, session->longest() + static_cast<int>(tokens.size()));
    }
    std::vector<float> logits(first.hparams().vocabulary);
    read_once(sessions, undo, tokens, progress, logits);
    read_the_rest(sessions, undo, tokens, progress, logits);
    for (std::size_t i = 0; i < sessions.size(); ++i) {
        undo[i].keep();
        finish(*sessions[i], tokens, logits);
        sessions[i]->timing.prefill_ms = ms_since(start);
    }
}

void score(Session::Impl& session, std::span<const std::int32_t> tokens, const LogitsSink& sink) {
    session.check_tokens(tokens);
    const std::lock_guard lock(session.m().compute);
    Session::Impl* self = &session;
    Pass pass(std::span(&self, 1), tokens, false, nullptr);
    pass.embed();
    for (int layer = 0; layer < session.hparams().layers; ++layer) {
        pass.run_layer(layer);
    }
    const std::size_t vocabulary = static_cast<std::size_t>(session.hparams().vocabulary);
    std::vector<float> logits(kHeadRows * vocabulary);
    const int count = static_cast<int>(tokens.size());
    for (int first = 0; first < count; first += kHeadRows) {
        const int rows = std::min(kHeadRows, count - first);
        pass.logits_of(first, rows, logits.data());
        for (int i = 0; i < rows; ++i) {
            sink(first + i, std::span(logits).subspan(i * vocabulary, vocabulary));
        }
    }
}

}  // namespace winnow
