// From the user's options to what each layer keeps and how it stores it.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "cache/layer_store.h"
#include "core/rope.h"
#include "model/hparams.h"
#include "prune/policy.h"
#include "winnow/options.h"

namespace winnow {

/// One layer's part of a plan.
struct LayerPlan {
    SpanLayout layout;
    std::vector<float> side_data;  ///< the format's levels where a file gave them, else empty
    double cap_factor = 1.0;       ///< tokens this layer keeps per token of the cap (layerquant)
};

/// How mixed weighs what storing a token costs against dropping it. Found by the KL to the full
/// cache at 1/32 and 1/8 of its bytes (SmolLM2): an error of storage is independent from token to
/// token and averages out, one of dropping does not.
struct MixedSettings {
    double score_error = 0.1;  ///< factor of the error of K's scores
    double value_error = 0.3;  ///< factor of the error of V
};

/// The method mixed: what each layer may take, and the precisions below f16.
struct MixedPlan {
    std::vector<double> shares;                ///< [L] relative bytes per layer; empty: all alike
    std::vector<double> layer_bytes;           ///< [L] cache and policy together
    std::vector<std::pair<int, int>> tiers{};  ///< bits of K and V, most first
    MixedSettings settings{};
    bool raised = false;  ///< guard has raised them
    double most = 1.0;    ///< what guard may multiply layer_bytes by
};

/// What the options mean for a model. Copied into each session.
struct Plan {
    CacheOptions options;  ///< every default filled in
    const Policy* policy = nullptr;
    PolicyParams params;  ///< cap 0 where it is a share of the prompt
    unsigned needs = 0;   ///< of the policy and its bases
    LayerMemory memory;
    int repeat_tokens = 2048;  ///< tokens of the prompt that a second pass repeats at once
    std::vector<LayerPlan> layers;
    std::shared_ptr<RopeTable> rope;  ///< the model's; grown under its lock
    MixedPlan mixed;                  ///< of the method mixed; else empty

    bool is_mixed() const { return !mixed.layer_bytes.empty(); }
    /// What kv_budget allows, or 0.
    std::uint64_t budget_bytes() const;
    /// Whether some keys are kept before RoPE.
    bool pre_rope() const { return !mixed.tiers.empty() || layers[0].layout.pre_rope(); }
    /// The tiers of a layer's store.
    std::vector<SpanLayout> layouts(int layer) const;

    /// The policy's settings for `layer` when a prompt of `prompt_tokens` is read.
    PolicyParams layer_params(int layer, int prompt_tokens) const;
    /// Tokens per kv head that `layer` keeps of a span of `tokens`; all of them gives INT_MAX.
    int budget(int layer, int tokens, int prompt_tokens) const;
};

/// Fills in every default that does not depend on a model. Throws a usage Error naming the flag.
CacheOptions fill_defaults(CacheOptions options);

/// Throws a usage Error when the options do not fit the model's shape.
/// `rope` is shared by all sessions of a model; null makes one.
Plan make_plan(const CacheOptions& options, const Hparams& hparams,
               std::shared_ptr<RopeTable> rope = nullptr);

}  // namespace winnow
