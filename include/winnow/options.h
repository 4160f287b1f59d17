// The settings of a compressed cache: one struct, visited alike by the command line, the results
// of every run and the server.
#pragma once

#include <cstdint>
#include <string>

namespace winnow {

/// What to keep of a prompt and how to store it. Zero or "" means: the method's or the format's
/// own default. Names follow the command line of arXiv 2412.12706.
struct CacheOptions {
    std::string method = "full";              ///< pruning policy; see `winnow methods`
    int max_capacity_prompts = 0;             ///< tokens kept per kv head; 0: 512, `full`: all
    double max_capacity_prompts_ratio = 0.0;  ///< the same as a share of the prompt, (0, 1]
    std::string quant_method{};               ///< storage format; see `winnow methods`
    int nbits = 0;                            ///< 2, 3, 4, 8 or 16, for K and V
    int nbits_k = 0;                          ///< overrides nbits for K
    int nbits_v = 0;                          ///< overrides nbits for V
    int group_size = 32;                      ///< tokens or channels that share a scale
    int key_axis = -1;                        ///< 0 per channel, 1 per token; -1 the format's
    int value_axis = -1;
    int residual_length = 32;            ///< newest tokens that stay f16
    int quant_layers_bits = 2;           ///< layerquant: bits of the layers in the range
    int quant_begin_layers = 0;          ///< layerquant: first layer of the range
    int quant_end_layers = 0;            ///< layerquant: one past its last layer
    double outlier_threshold = 0.0;      ///< hqq, kvquant: abs(x) above it stays exact
    std::string kvquant_codebook{};      ///< kvquant: a file of `winnow calibrate`
    int window_size = 0;                 ///< newest tokens that are always kept, W
    int kernel_size = 7;                 ///< snapkv, pyramidkv, r_kv: pooling width, odd
    std::string pooling = "max";         ///< snapkv: max or avg
    int n_sink = -1;                     ///< oldest tokens that are always kept
    int beta = 20;                       ///< pyramidkv: steepness
    int sinks_full_precision = 0;        ///< oldest kept tokens stored as f16
    std::string gqa_score_agg = "mean";  ///< mean, max or sum over the heads of a group
    std::uint64_t method_seed = 42;      ///< of the `random` policy
    /// Prompts after a session's first are questions about it: they attend to what was kept, and
    /// nothing of it is chosen by them, so that another question finds the same. They stay whole,
    /// beside the cap; a budget of bytes holds with them.
    bool question_hidden = false;
    /// Bytes of a session's whole cache, answer and policy included: "24MiB", "1GB", "65536". Where
    /// method is full, `mixed` plans tokens and bits; else the method's cap and bits. Empty: none.
    std::string kv_budget{};
    std::string kv_budget_max{};  ///< what `guard` may raise kv_budget to
    double guard = 0.0;           ///< most attention mass a layer may drop before that; 0: off
    /// mixed: a file of `winnow tune`, or none. Empty: the model's own where tune left one; a
    /// session's options then name it, or none.
    std::string profile{};
};

/// Calls `v(name, field, help)` for every field, in a fixed order. Names are kebab case.
template <class Options, class Visitor>
void visit_cache_options(Options& o, Visitor&& v) {
    v("method", o.method,
      "which tokens to keep: full, streamingllm, h2o, snapkv, pyramidkv, tova, knorm, keydiff, "
      "expected_attention, lagkv, r_kv, kvzip, kvzip_plus, kvzip_heads, random, layerquant, mixed; "
      "adakv, criticalkv and chunkkv choose by the scores of another, as in adakv:snapkv");
    v("max-capacity-prompts", o.max_capacity_prompts,
      "tokens kept per kv head, window and sinks included (default 512 when a method is given)");
    v("max-capacity-prompts-ratio", o.max_capacity_prompts_ratio,
      "the same as a share of the prompt, above 0 and at most 1");
    v("quant-method", o.quant_method,
      "how to store them: none, kivi, hqq, kvquant, rotated, kvarn, graded, fitted, layerquant");
    v("nbits", o.nbits, "bits of a stored number: 2, 3, 4, 8 or 16");
    v("nbits-k", o.nbits_k, "bits of K where they differ from --nbits");
    v("nbits-v", o.nbits_v, "bits of V where they differ from --nbits");
    v("group-size", o.group_size, "numbers that share a scale and a zero");
    v("key-axis", o.key_axis, "K: 0 one scale per channel, 1 per token (default the format's)");
    v("value-axis", o.value_axis, "V: 0 one scale per channel, 1 per token (default the format's)");
    v("residual-length", o.residual_length, "newest tokens that stay f16");
    v("quant-layers-bits", o.quant_layers_bits, "layerquant: bits of the layers in the range");
    v("quant-begin-layers", o.quant_begin_layers, "layerquant: first layer of the range");
    v("quant-end-layers", o.quant_end_layers, "layerquant: one past the last layer of the range");
    v("outlier-threshold", o.outlier_threshold,
      "hqq, kvquant: larger magnitudes stay exact (kvquant: at most 1 % of them)");
    v("kvquant-codebook", o.kvquant_codebook,
      "kvquant: levels from a file of `winnow calibrate`, not from the prompt");
    v("window-size", o.window_size, "newest tokens that are always kept (default the method's)");
    v("kernel-size", o.kernel_size, "snapkv, pyramidkv, r_kv: pooling width, odd");
    v("pooling", o.pooling, "snapkv, pyramidkv, r_kv: max or avg");
    v("n-sink", o.n_sink, "oldest tokens that are always kept (default the method's)");
    v("beta", o.beta, "pyramidkv: how steeply budgets fall from layer to layer");
    v("sinks-full-precision", o.sinks_full_precision, "oldest kept tokens that stay f16");
    v("gqa-score-agg", o.gqa_score_agg, "scores of a group's query heads: mean, max or sum");
    v("method-seed", o.method_seed, "seed of the random method");
    v("question-hidden", o.question_hidden,
      "choose what to keep of the text without looking at the question, which is read after it");
    v("kv-budget", o.kv_budget,
      "most bytes of the whole cache, answer included, such as 24MiB; tokens and bits are planned");
    v("kv-budget-max", o.kv_budget_max, "what --guard may raise --kv-budget to");
    v("guard", o.guard,
      "mixed: most attention mass that a layer may drop before the budget is raised, 0 to 1");
    v("profile", o.profile,
      "mixed: how bytes are split, a file of `winnow tune`; none: the built-in split");
}

}  // namespace winnow
