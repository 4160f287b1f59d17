// One prompt read once and packed again and again under other plans of `mixed`: how `winnow tune`
// tries them.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "engine/mixed.h"

namespace winnow {

class Trials {
  public:
    /// Reads `tokens` but the last `forced` + 1 at full precision, and notes what the full cache
    /// predicts for the forced ones. Holds the prompt's K and V. Throws as Session::prefill does.
    Trials(const std::shared_ptr<const Model>& model, std::span<const std::int32_t> tokens,
           int forced, const ProgressCallback& progress);

    /// Tokens of the prompt.
    int prompt_tokens() const { return prompt_; }
    /// Mean KL of the forced tokens' predictions to the full cache's, in nats, when a session packs
    /// the prompt by `plan`, which must be of mixed.
    double kl(const Plan& plan);

  private:
    struct Layer {
        LayerKv kv;
        std::vector<float> queries;
        int window;
    };
    using Tiers = std::vector<std::pair<int, int>>;
    const std::vector<HeadWorth>& worth_of(Session::Impl& session, int layer,
                                           const LayerView& view);

    std::shared_ptr<const Model> model_;
    int prompt_;
    std::vector<std::int32_t> forced_;
    std::vector<Layer> layers_;
    std::vector<float> full_;  // [forced][V] logarithms of probabilities
    std::map<std::pair<Tiers, int>, std::vector<HeadWorth>> worth_;
};

}  // namespace winnow
