#include "engine/trials.h"

#include <algorithm>
#include <climits>
#include <cmath>

namespace winnow {

namespace {

constexpr int kObserved = 64;  // queries that mixed judges by

void to_log_probabilities(std::span<const float> logits, float* out) {
    const float best = *std::max_element(logits.begin(), logits.end());
    double total = 0.0;
    for (const float x : logits) {
        total += static_cast<double>(std::exp(x - best));
    }
    const float shift = best + static_cast<float>(std::log(total));
    std::transform(logits.begin(), logits.end(), out, [&](float x) { return x - shift; });
}

}  // namespace

Trials::Trials(const std::shared_ptr<const Model>& model, std::span<const std::int32_t> tokens,
               int forced, const ProgressCallback& progress)
    : model_(model),
      prompt_(static_cast<int>(tokens.size()) - forced),
      forced_(tokens.end() - forced, tokens.end()) {
    Session whole(model,
                  {.method = "snapkv", .max_capacity_prompts = 1 << 24, .window_size = kObserved});
    whole.prefill(tokens.first(static_cast<std::size_t>(prompt_)), progress);
    Session::Impl& from = whole.impl();
    const Hparams& h = from.hparams();
    for (const SessionLayer& state : from.layers) {
        const LayerStore& store = *state.store;
        Layer layer{.kv = LayerKv(nullptr, std::vector<int>(h.kv_heads, prompt_), 0, h.head_dim),
                    .queries = {},
                    .window = store.queries()};
        for (int g = 0; g < h.kv_heads; ++g) {
            const LayerKv::Head& head = layer.kv.head(g);
            store.read(g, head.k, head.v, head.positions);
        }
        layer.queries.resize(static_cast<std::size_t>(layer.window) * h.query_heads * h.head_dim);
        store.read_queries(layer.queries.data());
        layers_.push_back(std::move(layer));
    }
    const auto vocabulary = static_cast<std::size_t>(h.vocabulary);
    full_.resize(forced_.size() * vocabulary);
    whole.score(forced_, [&](int i, std::span<const float> logits) {
        to_log_probabilities(logits, full_.data() + i * vocabulary);
    });
}

// Tokens' worths depend on the prompt and on the tiers' bits, not on the bytes.
const std::vector<HeadWorth>& Trials::worth_of(Session::Impl& session, int layer,
                                               const LayerView& view) {
    const auto key = std::pair(session.plan.mixed.tiers, layer);
    const auto found = worth_.find(key);
    if (found != worth_.end()) {
        session.layers[layer].store->fit_once(*view.kv);
        return found->second;
    }
    return worth_[key] = weigh_layer(session, layer, view);
}

double Trials::kl(const Plan& plan) {
    Session session(model_);
    Session::Impl& impl = session.impl();
    impl.plan = plan;  // stores are made by it below
    for (std::size_t l = 0; l < layers_.size(); ++l) {
        const int layer = static_cast<int>(l);
        impl.layers[l].store = impl.new_store(layer);
        const LayerView view{.kv = &layers_[l].kv,
                             .window_queries = layers_[l].queries,
                             .window = layers_[l].window};
        compress_mixed(impl, layer, view, worth_of(impl, layer, view));
    }
    impl.position = prompt_;
    double sum = 0.0;
    std::vector<float> q(static_cast<std::size_t>(impl.hparams().vocabulary));
    session.score(forced_, [&](int i, std::span<const float> logits) {
        to_log_probabilities(logits, q.data());
        const float* p = full_.data() + i * q.size();
        for (std::size_t x = 0; x < q.size(); ++x) {
            sum += static_cast<double>(std::exp(p[x]) * (p[x] - q[x]));
        }
    });
    return sum / static_cast<double>(forced_.size());
}

}  // namespace winnow
