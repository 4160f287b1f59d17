#include "engine/compress.h"

#include <algorithm>
#include <chrono>
#include <climits>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/threads.h"
#include "engine/mixed.h"
#include "engine/mixed_loss.h"
#include "engine/output_projection.h"
#include "prune/select.h"

namespace winnow {

namespace {

using Kept = std::vector<std::vector<std::int32_t>>;
using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

/// A layer's tokens in the shape a policy reads.
class Observed {
  public:
    Observed(Session::Impl& session, int layer, const LayerView& view,
             const std::vector<int>& budget) {
        const Hparams& h = session.hparams();
        const LayerStore& store = *session.layers[layer].store;
        const int sum_rows = store.sum_rows();
        int newest = -1;
        for (int g = 0; g < h.kv_heads; ++g) {
            const LayerKv::Head& head = view.kv->head(g);
            HeadObservation& seen =
                heads_.emplace_back(HeadObservation{.tokens = head.tokens,
                                                    .budget = budget[g],
                                                    .k = head.k,
                                                    .v = head.v,
                                                    .positions = head.positions});
            newest = head.tokens > 0 ? std::max(newest, head.positions[head.tokens - 1]) : newest;
            if (view.column_sums != nullptr) {
                std::vector<float>& sums = sums_.emplace_back();
                for (int r = 0; r < sum_rows; ++r) {
                    const float* row = view.column_sums + (g * sum_rows + r) * view.stride;
                    sums.insert(sums.end(), row, row + head.tokens);
                }
                seen.column_sums = sums.data();
            }
            scores_.emplace_back(static_cast<std::size_t>(head.tokens));
            if (view.scores != nullptr) {
                std::copy_n(view.scores + g * view.stride, head.tokens, scores_.back().data());
            }
        }
        for (std::vector<float>& scores : scores_) {
            rows_.push_back(scores.data());
        }
        seen_ = {.layer = layer,
                 .layers = h.layers,
                 .query_heads = h.query_heads,
                 .kv_heads = h.kv_heads,
                 .head_dim = h.head_dim,
                 .window = view.window,
                 .window_queries = view.window_queries.data(),
                 .scale = 1.0F / std::sqrt(static_cast<float>(h.head_dim)),
                 .threads = session.m().threads,
                 .rope = session.plan.rope.get(),
                 .next_position = newest + 1,
                 .embedding = h.embedding,
                 .heads = heads_};
        scored_ = view.scores != nullptr;
        if (!scored_) {
            observe_more(session, layer, store);
        }
    }

    /// Lets the policy score all tokens, once.
    void score(const Policy& policy, const PolicyParams& params) {
        if (policy.score != nullptr && !scored_) {
            policy.score(seen_, params, rows_);
        }
        scored_ = true;
    }

    const Observation& seen() const { return seen_; }
    std::span<float* const> rows() const { return rows_; }
    const std::vector<float>& scores(int g) const { return scores_[g]; }

  private:
    void observe_more(Session::Impl& session, int layer, const LayerStore& store) {
        if ((session.plan.needs & kNeedsQueryStats) != 0) {
            store.moments().read(mean_, covariance_);
            seen_.queries = {.count = store.moments().count(),
                             .mean = mean_.data(),
                             .covariance = covariance_.data()};
        }
        if ((session.plan.needs & kNeedsOutput) != 0) {
            output_ = output_projection(session.m(), layer, &session.work);
            seen_.output = output_.data();
        }
    }

    std::vector<HeadObservation> heads_;
    std::vector<std::vector<float>> sums_;
    std::vector<std::vector<float>> scores_;
    std::vector<float*> rows_;
    std::vector<float> mean_, covariance_;  // of the queries, where the policy needs them
    Buffer<float> output_;                  // W_o, likewise
    Observation seen_;
    bool scored_ = false;
};

using SharedScores = std::shared_ptr<Observed>;

struct Selection {
    Kept kept;
    bool all = true;  // nothing is dropped
};

// `shared` holds the scores of an equal session, or takes this one's.
Selection select_layer(Session::Impl& session, int layer, const LayerView& view, int layer_budget,
                       std::vector<int>& budget, bool fix_budget, SharedScores* shared = nullptr) {
    const Policy& policy = *session.plan.policy;
    const PolicyParams params = session.plan.layer_params(layer, session.budget_tokens);
    const int heads = view.kv->kv_heads();
    const bool over = [&] {
        for (int g = 0; g < heads; ++g) {
            if (view.kv->head(g).tokens > (fix_budget ? layer_budget : budget[g])) {
                return true;
            }
        }
        return false;
    }();
    SessionLayer& state = session.layers[layer];
    Selection result;
    if (fix_budget) {
        budget.assign(heads, layer_budget);
    }
    if (!over) {
        state.scores.clear();
        return result;
    }
    SharedScores own;
    SharedScores& scores_of = shared != nullptr ? *shared : own;
    if (scores_of == nullptr) {
        scores_of = std::make_shared<Observed>(session, layer, view, budget);
    }
    Observed& observed = *scores_of;
    observed.score(policy, params);
    std::vector<std::vector<std::int32_t>> pinned(heads);
    for (int g = 0; g < heads; ++g) {
        const LayerKv::Head& head = view.kv->head(g);
        pinned[g] = session.pins.among(std::span(head.positions, head.tokens));
    }
    if (policy.head_budgets != nullptr) {
        // Nobody shares these scores, and who divides by them gives pinned tokens their places.
        for (int g = 0; g < heads; ++g) {
            for (const std::int32_t at : pinned[g]) {
                observed.rows()[g][at] = std::numeric_limits<float>::infinity();
            }
        }
        // While decoding the heads share out anew what the prompt left them together.
        const std::int64_t sum = std::accumulate(budget.begin(), budget.end(), std::int64_t{0});
        policy.head_budgets(observed.seen(), params, observed.rows(), static_cast<int>(sum / heads),
                            budget);
    }
    state.scores.assign(session.options.keep_scores ? heads : 0, {});
    for (int g = 0; g < heads; ++g) {
        const int tokens = view.kv->head(g).tokens;
        const Protected fixed =
            policy.protect != nullptr ? policy.protect(params, budget[g], tokens) : Protected{};
        const std::span<const float> scores = policy.score != nullptr
                                                  ? std::span<const float>(observed.scores(g))
                                                  : std::span<const float>();
        result.kept.push_back(select(scores, tokens, budget[g], fixed, pinned[g]));
        result.all = result.all && static_cast<int>(result.kept.back().size()) == tokens;
        if (session.options.keep_scores) {
            for (std::int32_t at : result.kept.back()) {
                const bool by_rule = scores.empty() || at < fixed.front ||
                                     at >= tokens - fixed.back ||
                                     std::ranges::binary_search(pinned[g], at);
                state.scores[g].push_back(by_rule ? std::nanf("") : scores[at]);
            }
        }
    }
    return result;
}

// The rows of a layer's store, unpacked for as long as the policy needs them.
LayerKv unpack_layer(Session::Impl& session, const LayerStore& store) {
    std::vector<int> kept;
    for (int g = 0; g < store.kv_heads(); ++g) {
        kept.push_back(store.tokens(g));
    }
    LayerKv kv(&session.work, kept, 0, session.hparams().head_dim);
    for (int g = 0; g < store.kv_heads(); ++g) {
        const LayerKv::Head& head = kv.head(g);
        store.read(g, head.k, head.v, head.positions);
    }
    return kv;
}

void keep_sums(LayerStore& store, const LayerView& view, const Kept* kept) {
    const int rows = store.sum_rows();
    for (int g = 0; store.has_sums() && g < store.kv_heads(); ++g) {
        std::vector<std::int32_t> all;
        if (kept == nullptr) {
            for (int t = 0; t < view.kv->head(g).tokens; ++t) {
                all.push_back(t);
            }
        }
        store.replace_sums(g, view.column_sums + g * rows * view.stride, view.stride,
                           kept == nullptr ? all : (*kept)[g]);
    }
}

// Whether two sessions over the same tokens score them alike, whatever they keep of them.
bool same_scores(const Plan& a, const Plan& b) {
    const Policy& policy = *a.policy;
    return policy.score != nullptr && policy.score == b.policy->score &&
           policy.scores_without_cap && b.policy->scores_without_cap &&
           policy.head_budgets == nullptr && b.policy->head_budgets == nullptr &&
           a.params.window_size == b.params.window_size && a.params.n_sink == b.params.n_sink &&
           a.params.kernel_size == b.params.kernel_size && a.params.pooling == b.params.pooling &&
           a.params.agg == b.params.agg && a.params.seed == b.params.seed;
}

void pack_selected(Session::Impl& session, int layer, const LayerView& view,
                   const Selection& selected) {
    SessionLayer& state = session.layers[layer];
    if (selected.all) {
        state.store->append(*view.kv);
    } else {
        const bool again = state.store->tokens(0) > 0;
        session.repackings += again ? state.store->kv_heads() : 0;
        state.store->rebuild(*view.kv, selected.kept);
    }
    keep_sums(*state.store, view, selected.all ? nullptr : &selected.kept);
}

}  // namespace

void compress_layer(std::span<Session::Impl* const> sessions, int layer,
                    std::span<const LayerView> views, std::span<const int> tokens,
                    std::span<double> ms) {
    std::vector<SharedScores> scores(sessions.size());
    std::vector<Selection> selected(sessions.size());
    for (std::size_t i = 0; i < sessions.size(); ++i) {
        Session::Impl& session = *sessions[i];
        const auto start = Clock::now();
        std::size_t like = 0;
        while (like < i && !same_scores(session.plan, sessions[like]->plan)) {
            ++like;
        }
        if (session.plan.is_mixed()) {
            compress_mixed(session, layer, views[i]);
            ms[i] += ms_since(start);
            continue;
        }
        const int budget = session.plan.budget(layer, tokens[i], session.budget_tokens);
        selected[i] = select_layer(session, layer, views[i], budget, session.layers[layer].budget,
                                   true, &scores[like]);
        session.layers[layer].dropped_mass =
            selected[i].all ? 0.0 : dropped_mass(session, views[i], selected[i].kept);
        session.layers[layer].store->release_queries();
        ms[i] += ms_since(start);
    }
    scores.clear();
    parallel_for(sessions[0]->m().threads, static_cast<int>(sessions.size()), [&](int i, int) {
        if (sessions[i]->plan.is_mixed()) {
            return;  // packed already
        }
        const auto start = Clock::now();
        pack_selected(*sessions[i], layer, views[i], selected[i]);
        ms[i] += ms_since(start);
    });
}

void score_layer(Session::Impl& session, int layer, const LayerView& view, float* scores) {
    const std::vector<int> none(view.kv->kv_heads(), 0);
    Observed observed(session, layer, view, none);
    observed.score(*session.plan.policy, session.plan.layer_params(layer, session.budget_tokens));
    for (int g = 0; g < view.kv->kv_heads(); ++g) {
        std::ranges::copy(observed.scores(g), scores + g * view.stride);
    }
}

void compress_to(Session::Impl& session, int layer, const LayerView& view,
                 const std::vector<int>& budgets) {
    SessionLayer& state = session.layers[layer];
    std::vector<int>& budget = state.budget = budgets;
    const Selection selected = select_layer(session, layer, view, 0, budget, false);
    const Hparams& h = session.hparams();
    LayerView last{.kv = view.kv, .window = state.store->queries()};
    last.window_queries.resize(static_cast<std::size_t>(last.window) * h.query_heads * h.head_dim);
    state.store->read_queries(last.window_queries.data());
    state.dropped_mass = selected.all ? 0.0 : dropped_mass(session, last, selected.kept);
    state.store->release_queries();
    pack_selected(session, layer, view, selected);
}

namespace {

// Keeps budget[g] tokens of each head of a layer as it is stored, by what the policy has observed.
void evict(Session::Impl& session, int layer, std::vector<int>& budget) {
    LayerStore& store = *session.layers[layer].store;
    const LayerKv kv = unpack_layer(session, store);
    const Hparams& h = session.hparams();
    LayerView view{.kv = &kv, .window = store.queries()};
    view.window_queries.resize(static_cast<std::size_t>(view.window) * h.query_heads * h.head_dim);
    store.read_queries(view.window_queries.data());
    std::vector<float> sums;
    if (store.has_sums()) {
        const int rows = store.sum_rows();
        view.stride = static_cast<std::size_t>(store.longest());
        sums.resize(view.stride * h.kv_heads * rows);
        for (int row = 0; row < h.kv_heads * rows; ++row) {
            const int g = row / rows;
            const float* from = store.sums(g) + (row % rows) * store.sums_stride(g);
            std::copy_n(from, store.tokens(g), sums.data() + row * view.stride);
        }
        view.column_sums = sums.data();
    }
    const Selection selected = select_layer(session, layer, view, 0, budget, false);
    if (selected.all) {
        return;
    }
    for (int g = 0; g < store.kv_heads(); ++g) {
        session.evictions +=
            static_cast<std::uint64_t>(kv.head(g).tokens) - selected.kept[g].size();
        ++session.repackings;
    }
    store.rebuild(kv, selected.kept);
    keep_sums(store, view, &selected.kept);
}

// Whether a head would hold more than its budget and slack with `count` tokens more.
bool over_by(const Session::Impl& session, int layer, int count) {
    const SessionLayer& state = session.layers[layer];
    for (int g = 0; g < state.store->kv_heads(); ++g) {
        const int budget = g < static_cast<int>(state.budget.size()) ? state.budget[g] : INT_MAX;
        if (state.store->tokens(g) + count - slack_of(session, layer) > budget) {
            return true;
        }
    }
    return false;
}

}  // namespace

int slack_of(const Session::Impl& session, int layer) {
    const SpanLayout& layout = session.layers[layer].store->layout();
    return std::max(layout.residual_length + layout.spec.group_size, session.plan.policy->interval);
}

void evict_if_over(Session::Impl& session, int layer) {
    if (session.plan.is_mixed()) {
        make_room_mixed(session, layer);
    } else if (over_by(session, layer, 1)) {
        evict(session, layer, session.layers[layer].budget);
    }
}

void make_room(Session::Impl& session, int layer, int count) {
    std::vector<int>& budget = session.layers[layer].budget;
    const bool bytes = !session.plan.options.kv_budget.empty();
    const auto add = [&](int more) {
        for (int& tokens : budget) {
            tokens = tokens == INT_MAX ? tokens : tokens + more;
        }
    };
    if (!bytes) {
        add(count);
    } else if (over_by(session, layer, count)) {
        const int less = std::max(0, count - slack_of(session, layer));
        add(-less);
        evict(session, layer, budget);
        add(less);
    }
}

}  // namespace winnow
