#include "engine/plan.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <string>

#include "winnow/error.h"
#include "winnow/winnow.h"

namespace winnow {

namespace {

constexpr int kDefaultCap = 512;

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

CacheOptions fill_defaults(CacheOptions o) {
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
    // Any head dimension that the group divides; the model's own is checked by the session.
    const FormatSpec spec = spec_of(filled, 8 * filled.group_size, 0);
    if (spec.format->check != nullptr) {
        spec.format->check(spec);
    }
}

Plan make_plan(const CacheOptions& options, const Hparams& hparams,
               std::shared_ptr<RopeTable> rope) {
    Plan plan;
    plan.options = fill_defaults(options);
    const CacheOptions& o = plan.options;
    require_int(o.quant_end_layers <= hparams.layers, "quant-end-layers", o.quant_end_layers,
                ("at most " + std::to_string(hparams.layers) + ", the model's layers").c_str());
    const std::vector<const Policy*> policies = find_policies(o.method);
    plan.policy = policies.front();
    plan.params = params_of(o);
    plan.params.bases.assign(policies.begin() + 1, policies.end());
    const unsigned needs = plan.needs = needs_of(policies);
    const bool peaks = (needs & kNeedsPeaks) != 0;
    plan.memory = {.window = (needs & kNeedsWindow) != 0 ? plan.params.window_size : 0,
                   .column_sums = peaks || (needs & kNeedsColumnSums) != 0,
                   .one_row = peaks,
                   .largest = peaks,
                   .moments = (needs & kNeedsQueryStats) != 0,
                   .moments_skip = plan.params.n_sink};
    plan.rope = rope != nullptr ? std::move(rope) : std::make_shared<RopeTable>(hparams.rope);
    for (int layer = 0; layer < hparams.layers; ++layer) {
        LayerPlan part;
        part.layout.spec = spec_of(o, hparams.head_dim, layer);
        const FormatSpec& spec = part.layout.spec;
        if (spec.format->check != nullptr) {
            spec.format->check(spec);
        }
        part.layout.head_tokens = std::max(o.sinks_full_precision, spec.format->exact_head);
        part.layout.residual_length = o.residual_length;
        part.layout.rope = plan.rope.get();
        if (o.quant_method == "layerquant") {
            part.cap_factor = 16.0 / spec.bits_k;
        }
        plan.layers.push_back(part);
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
