#include "engine/plan.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <numeric>
#include <string>

#include "engine/budget.h"
#include "winnow/error.h"
#include "winnow/winnow.h"

namespace winnow {

namespace {

constexpr int kDefaultCap = 512;
// Newest queries of a prompt by which mixed judges its tokens.
constexpr int kObservingQueries = 64;
// Those by which the receipt judges what was dropped, where the method has no window.
constexpr int kReceiptQueries = 8;

void require(bool right, const std::string& flag, const std::string& found,
             const std::string& wanted) {
    if (!right) {
        throw usage_error("--" + flag + " is " + found + ", but must be " + wanted + ".");
    }
}

void require_int(bool right, const char* flag, int found, const char* wanted) {
    require(right, flag, std::to_string(found), wanted);
}

void require_bits(const char* flag, int bits) {
    require_int((bits >= 2 && bits <= 4) || bits == 8 || bits == 16, flag, bits,
                "2, 3, 4, 8 or 16");
}

void check_ranges(const CacheOptions& o) {
    require_int(o.max_capacity_prompts >= 0, "max-capacity-prompts", o.max_capacity_prompts,
                "at least 1");
    require(o.max_capacity_prompts_ratio >= 0.0 && o.max_capacity_prompts_ratio <= 1.0,
            "max-capacity-prompts-ratio", std::to_string(o.max_capacity_prompts_ratio),
            "above 0 and at most 1");
    require(o.max_capacity_prompts == 0 || o.max_capacity_prompts_ratio == 0.0,
            "max-capacity-prompts-ratio", std::to_string(o.max_capacity_prompts_ratio),
            "left out where --max-capacity-prompts is given");
    require_int(o.group_size >= 1, "group-size", o.group_size, "at least 1");
    require_int(o.key_axis >= -1 && o.key_axis <= 1, "key-axis", o.key_axis, "0 or 1");
    require_int(o.value_axis >= -1 && o.value_axis <= 1, "value-axis", o.value_axis, "0 or 1");
    require_int(o.residual_length >= 0 && o.residual_length <= (1 << 20), "residual-length",
                o.residual_length, "from 0 to 1048576");
    require_int(o.quant_begin_layers >= 0, "quant-begin-layers", o.quant_begin_layers, "0 or more");
    require_int(o.quant_end_layers >= 0, "quant-end-layers", o.quant_end_layers, "0 or more");
    require(o.outlier_threshold >= 0.0 && std::isfinite(o.outlier_threshold), "outlier-threshold",
            std::to_string(o.outlier_threshold), "0 or more");
    require_int(o.window_size >= 0, "window-size", o.window_size, "at least 1");
    require_int(o.kernel_size >= 1 && o.kernel_size % 2 == 1, "kernel-size", o.kernel_size,
                "odd and at least 1");
    require(o.pooling == "max" || o.pooling == "avg", "pooling", "'" + o.pooling + "'",
            "max or avg");
    require(o.gqa_score_agg == "mean" || o.gqa_score_agg == "max" || o.gqa_score_agg == "sum",
            "gqa-score-agg", "'" + o.gqa_score_agg + "'", "mean, max or sum");
    require_int(o.n_sink >= -1, "n-sink", o.n_sink, "0 or more");
    require_int(o.beta >= 1, "beta", o.beta, "at least 1");
    require_int(o.sinks_full_precision >= 0 && o.sinks_full_precision <= (1 << 20),
                "sinks-full-precision", o.sinks_full_precision, "from 0 to 1048576");
}

void fill_bits(CacheOptions& o) {
    const bool asked = o.nbits != 0 || o.nbits_k != 0 || o.nbits_v != 0;
    if (o.quant_method.empty()) {
        const bool lossy = asked && !(o.nbits == 16 && o.nbits_k == 0 && o.nbits_v == 0);
        o.quant_method = lossy ? "kivi" : "none";
    }
    const int fallback = o.quant_method == "none" ? 16 : 4;
    o.nbits = o.nbits == 0 ? fallback : o.nbits;
    o.nbits_k = o.nbits_k == 0 ? o.nbits : o.nbits_k;
    o.nbits_v = o.nbits_v == 0 ? o.nbits : o.nbits_v;
    require_bits("nbits", o.nbits);
    require_bits("nbits-k", o.nbits_k);
    require_bits("nbits-v", o.nbits_v);
    require(o.quant_method != "none" || (o.nbits_k == 16 && o.nbits_v == 16), "nbits",
            std::to_string(std::min(o.nbits_k, o.nbits_v)),
            "16 where --quant-method is none; leave that out or name a format");
}

const Format& format_of(const CacheOptions& o) {
    return find_format(o.quant_method == "layerquant" ? "kivi" : o.quant_method);
}

bool in_range(const CacheOptions& o, int layer) {
    return layer >= o.quant_begin_layers && layer < o.quant_end_layers;
}

FormatSpec spec_of(const CacheOptions& o, int head_dim, int layer) {
    FormatSpec spec;
    spec.format = &format_of(o);
    spec.head_dim = head_dim;
    spec.bits_k = o.nbits_k;
    spec.bits_v = o.nbits_v;
    if (o.quant_method == "layerquant" && in_range(o, layer)) {
        spec.bits_k = spec.bits_v = o.quant_layers_bits;
    }
    spec.group_size = o.group_size;
    spec.key_axis = o.key_axis;
    spec.value_axis = o.value_axis;
    spec.outlier_threshold = static_cast<float>(o.outlier_threshold);
    if (spec.outlier_threshold > 0.0F && spec.format->with_outliers != nullptr) {
        spec.format = spec.format->with_outliers;
    }
    // At 16 bits every format is plain rows, and a pre-RoPE one has nothing to turn back.
    if (spec.bits_k == 16 && spec.bits_v == 16) {
        spec.format = &find_format("none");
    }
    return spec;
}

PolicyParams params_of(const CacheOptions& o) {
    return {.cap = o.max_capacity_prompts,
            .window_size = o.window_size,
            .n_sink = o.n_sink,
            .kernel_size = o.kernel_size,
            .pooling = o.pooling == "avg" ? Pooling::avg : Pooling::max,
            .beta = o.beta,
            .agg = o.gqa_score_agg == "max"   ? GqaAgg::max
                   : o.gqa_score_agg == "sum" ? GqaAgg::sum
                                              : GqaAgg::mean,
            .seed = o.method_seed};
}

// "adakv:snapkv" where "adakv" was asked for: results name what ran.
std::string name_of(const std::vector<const Policy*>& chain) {
    std::string name;
    for (const Policy* policy : chain) {
        name += (name.empty() ? "" : ":") + std::string(policy->name);
    }
    return name;
}

}  // namespace

namespace {

// The method mixed chooses bits per token: nbits stays 0 unless one width is asked for.
CacheOptions fill_mixed(CacheOptions o) {
    o.method = "mixed";
    check_ranges(o);
    if (o.quant_method.empty()) {
        o.quant_method = "fitted";
    }
    const Format& format = find_format(o.quant_method);
    require(format.token_rows && format.side_per_head, "quant-method", "'" + o.quant_method + "'",
            "fitted or left out where --method is mixed, which moves tokens one at a time");
    o.nbits_k = o.nbits_k == 0 ? o.nbits : o.nbits_k;
    o.nbits_v = o.nbits_v == 0 ? o.nbits : o.nbits_v;
    for (const auto& [flag, bits] : {std::pair("nbits", o.nbits), std::pair("nbits-k", o.nbits_k),
                                     std::pair("nbits-v", o.nbits_v)}) {
        if (bits != 0) {
            require_bits(flag, bits);
        }
    }
    require((o.nbits_k == 0) == (o.nbits_v == 0), o.nbits_k == 0 ? "nbits-k" : "nbits-v",
            "not given", "given too where the other side's is");
    o.key_axis = o.key_axis == -1 ? format.default_key_axis : o.key_axis;
    o.value_axis = o.value_axis == -1 ? format.default_value_axis : o.value_axis;
    o.window_size = o.window_size == 0 ? 8 : o.window_size;
    o.n_sink = o.n_sink == -1 ? 1 : o.n_sink;
    if (o.kv_budget.empty() && o.max_capacity_prompts == 0 && o.max_capacity_prompts_ratio == 0.0) {
        o.max_capacity_prompts = kDefaultCap;
    }
    require(o.max_capacity_prompts_ratio == 0.0, "max-capacity-prompts-ratio",
            std::to_string(o.max_capacity_prompts_ratio), "left out where --method is mixed");
    require(o.kv_budget.empty() || o.max_capacity_prompts == 0, "max-capacity-prompts",
            std::to_string(o.max_capacity_prompts),
            "left out beside --kv-budget, or given with a --method that counts tokens");
    return o;
}

bool means_mixed(const CacheOptions& o) {
    return o.method == "mixed" || (o.method == "full" && !o.kv_budget.empty());
}

}  // namespace

CacheOptions fill_defaults(CacheOptions o) {
    if (!o.kv_budget.empty()) {
        require(!o.method.starts_with("kvzip"), "method", "'" + o.method + "'",
                "another beside --kv-budget: " + o.method +
                    " settles its layers' shares after the prompt");
        parse_bytes("kv-budget", o.kv_budget);
        require(o.max_capacity_prompts_ratio == 0.0, "max-capacity-prompts-ratio",
                std::to_string(o.max_capacity_prompts_ratio), "left out beside --kv-budget");
    }
    require(o.guard >= 0.0 && o.guard <= 1.0, "guard", std::to_string(o.guard), "from 0 to 1");
    require((o.guard == 0.0) == o.kv_budget_max.empty(), "kv-budget-max",
            o.kv_budget_max.empty() ? "not given" : "'" + o.kv_budget_max + "'",
            "given together with --guard");
    require(o.guard == 0.0 || (means_mixed(o) && !o.kv_budget.empty()), "guard",
            std::to_string(o.guard), "left out unless --kv-budget plans the method mixed");
    require(o.profile.empty() || means_mixed(o), "profile", "'" + o.profile + "'",
            "left out unless the method is mixed");
    if (means_mixed(o)) {
        return fill_mixed(o);
    }
    if (o.method == "layerquant") {
        require(o.quant_method.empty() || o.quant_method == "layerquant", "quant-method",
                "'" + o.quant_method + "'", "layerquant or left out where --method is layerquant");
        o.method = "snapkv";
        o.quant_method = "layerquant";
    }
    check_ranges(o);
    const std::vector<const Policy*> policies = find_policies(o.method);
    fill_bits(o);
    const Format& format = format_of(o);
    o.key_axis = o.key_axis == -1 ? format.default_key_axis : o.key_axis;
    o.value_axis = o.value_axis == -1 ? format.default_value_axis : o.value_axis;
    // A selector has no defaults of its own; it takes its base's.
    o.window_size = o.window_size == 0 ? policies.back()->default_window : o.window_size;
    o.n_sink = o.n_sink == -1 ? policies.back()->default_sinks : o.n_sink;
    o.method = name_of(policies);
    if (o.method == "full") {
        o.max_capacity_prompts = 0;
        o.max_capacity_prompts_ratio = 0.0;
    } else if (o.max_capacity_prompts == 0 && o.max_capacity_prompts_ratio == 0.0) {
        o.max_capacity_prompts = kDefaultCap;
    }
    require(o.kvquant_codebook.empty() || o.quant_method == "kvquant", "kvquant-codebook",
            "'" + o.kvquant_codebook + "'", "left out where --quant-method is not kvquant");
    const int fixed = o.n_sink + o.window_size;
    require(o.max_capacity_prompts == 0 || o.max_capacity_prompts >= fixed, "max-capacity-prompts",
            std::to_string(o.max_capacity_prompts),
            "at least " + std::to_string(fixed) + ", the " + std::to_string(o.n_sink) +
                " sinks and the " + std::to_string(o.window_size) + " tokens of the window");
    if (o.quant_method == "layerquant") {
        require_bits("quant-layers-bits", o.quant_layers_bits);
        require_int(o.quant_begin_layers <= o.quant_end_layers, "quant-begin-layers",
                    o.quant_begin_layers, "at most --quant-end-layers");
    }
    return o;
}

void validate(const CacheOptions& options) {
    const CacheOptions filled = fill_defaults(options);
    if (filled.method == "mixed") {
        return;
    }
    // Any head dimension that the group divides; the model's own is checked by the session.
    const FormatSpec spec = spec_of(filled, 8 * filled.group_size, 0);
    if (spec.format->check != nullptr) {
        spec.format->check(spec);
    }
}

namespace {

FormatSpec exact_spec(int head_dim) {
    return {.format = &find_format("none"), .head_dim = head_dim};
}

// The tiers, what a layer remembers, and the bytes.
void add_mixed(Plan& plan, const Hparams& h) {
    const CacheOptions& o = plan.options;
    if (o.nbits_k == 0) {
        plan.mixed.tiers = builtin_tiers();
    } else if (o.nbits_k != 16 || o.nbits_v != 16) {
        plan.mixed.tiers = {{o.nbits_k, o.nbits_v}};
    }
    plan.memory = {.window = kObservingQueries,
                   .column_sums = true,
                   .one_row = true,
                   .decode_squares = true,
                   .exact_room = true,
                   .release_ring = true};
    const std::uint64_t bytes = mixed_bytes(o, h);
    plan_mixed(plan, h, bytes);
    if (o.guard > 0.0) {
        plan.mixed.most = static_cast<double>(parse_bytes("kv-budget-max", o.kv_budget_max)) /
                          static_cast<double>(bytes);
        require(plan.mixed.most >= 1.0, "kv-budget-max", "'" + o.kv_budget_max + "'",
                "at least --kv-budget");
    }
}

}  // namespace

Plan make_plan(const CacheOptions& options, const Hparams& hparams,
               std::shared_ptr<RopeTable> rope) {
    if (!options.kv_budget.empty() && !means_mixed(options)) {
        fill_defaults(options);  // for its errors
        return plan_method(options, hparams, rope, parse_bytes("kv-budget", options.kv_budget));
    }
    Plan plan;
    plan.options = fill_defaults(options);
    const CacheOptions& o = plan.options;
    const bool mixed = o.method == "mixed";
    require_int(o.quant_end_layers <= hparams.layers, "quant-end-layers", o.quant_end_layers,
                ("at most " + std::to_string(hparams.layers) + ", the model's layers").c_str());
    const std::vector<const Policy*> policies = find_policies(mixed ? "full" : o.method);
    plan.policy = policies.front();
    plan.params = params_of(o);
    plan.params.bases.assign(policies.begin() + 1, policies.end());
    const unsigned needs = plan.needs = needs_of(policies);
    const bool peaks = (needs & kNeedsPeaks) != 0;
    plan.memory = {.window = (needs & kNeedsWindow) != 0 ? plan.params.window_size : 0,
                   .column_sums = peaks || (needs & kNeedsColumnSums) != 0,
                   .one_row = peaks && (needs & kNeedsPerInput) == 0,
                   .largest = peaks,
                   .moments = (needs & kNeedsQueryStats) != 0,
                   .moments_skip = plan.params.n_sink};
    // Whoever drops tokens tells how much attention went with them, also where nobody else looks.
    if (plan.memory.window == 0 && o.method != "full") {
        plan.memory.window = kReceiptQueries;
        plan.memory.release_ring = true;
    }
    plan.rope = rope != nullptr ? std::move(rope) : std::make_shared<RopeTable>(hparams.rope);
    for (int layer = 0; layer < hparams.layers; ++layer) {
        LayerPlan part;
        part.layout.spec =
            mixed ? exact_spec(hparams.head_dim) : spec_of(o, hparams.head_dim, layer);
        const FormatSpec& spec = part.layout.spec;
        if (spec.format->check != nullptr) {
            spec.format->check(spec);
        }
        part.layout.head_tokens =
            mixed ? 0 : std::max(o.sinks_full_precision, spec.format->exact_head);
        part.layout.residual_length = o.residual_length;
        part.layout.rope = plan.rope.get();
        if (o.quant_method == "layerquant") {
            part.cap_factor = 16.0 / spec.bits_k;
        }
        plan.layers.push_back(part);
    }
    if (mixed) {
        add_mixed(plan, hparams);
    }
    return plan;
}

PolicyParams Plan::layer_params(int layer, int prompt_tokens) const {
    PolicyParams p = params;
    if (options.max_capacity_prompts_ratio > 0.0) {
        p.cap = std::max(
            p.n_sink + p.window_size,
            static_cast<int>(std::lround(options.max_capacity_prompts_ratio * prompt_tokens)));
    }
    p.cap = static_cast<int>(p.cap * layers[layer].cap_factor);
    return p;
}

std::uint64_t Plan::budget_bytes() const {
    if (options.kv_budget.empty()) {
        return 0;
    }
    const double mixed_bytes =
        std::accumulate(mixed.layer_bytes.begin(), mixed.layer_bytes.end(), 0.0);
    return is_mixed() ? static_cast<std::uint64_t>(mixed_bytes + 0.5)
                      : parse_bytes("kv-budget", options.kv_budget);
}

std::vector<SpanLayout> Plan::layouts(int layer) const {
    std::vector<SpanLayout> all{layers[layer].layout};
    if (!is_mixed()) {
        return all;
    }
    // Tokens are exact, and stored one by one, until they are moved.
    all[0].spec.group_size = 1;
    all[0].residual_length = 1 << 20;
    all[0].exact_room = true;
    for (const auto& [bits_k, bits_v] : mixed.tiers) {
        SpanLayout lower = all[0];
        lower.spec.format = &find_format(options.quant_method);
        lower.spec.bits_k = bits_k;
        lower.spec.bits_v = bits_v;
        lower.residual_length = 0;
        all.push_back(lower);
    }
    return all;
}

int Plan::budget(int layer, int tokens, int prompt_tokens) const {
    if (options.method == "full") {
        return INT_MAX;
    }
    const PolicyParams p = layer_params(layer, prompt_tokens);
    // A short prompt is kept whole, and its answer may fill the cap in every layer.
    if (tokens <= p.cap) {
        return p.cap;
    }
    const int total = static_cast<int>(layers.size());
    return policy->budget != nullptr ? policy->budget(p, layer, total, tokens) : p.cap;
}

}  // namespace winnow
