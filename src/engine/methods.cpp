// The lists behind `winnow methods`.
#include <algorithm>

#include "cache/format.h"
#include "core/nearest.h"
#include "engine/plan.h"
#include "prune/policy.h"
#include "winnow/winnow.h"

namespace winnow {

namespace {

template <class T>
const T& find_by_name(std::span<const T* const> table, const std::string& name,
                      const std::string& flag, const std::string& also) {
    std::vector<std::string> known;
    for (const T* entry : table) {
        if (name == entry->name) {
            return *entry;
        }
        known.emplace_back(entry->name);
    }
    if (!also.empty()) {
        known.push_back(also);
    }
    throw usage_error("--" + flag + " '" + name + "' is not known" + did_you_mean(name, known));
}

}  // namespace

const Policy& find_policy(const std::string& name) {
    return *find_policies(name).front();
}

std::vector<const Policy*> find_policies(const std::string& name) {
    std::vector<const Policy*> chain;
    std::size_t at = 0;
    while (at <= name.size()) {
        const std::size_t end = std::min(name.find(':', at), name.size());
        chain.push_back(&find_by_name(policies(), name.substr(at, end - at), "method",
                                      name.find(':') == name.npos ? "layerquant" : ""));
        at = end + 1;
    }
    while (chain.back()->default_base != nullptr) {
        chain.push_back(&find_by_name(policies(), chain.back()->default_base, "method", ""));
    }
    for (std::size_t i = 0; i + 1 < chain.size(); ++i) {
        const Policy& base = *chain[i + 1];
        if (chain[i]->default_base == nullptr) {
            throw usage_error("--method '" + name + "': " + chain[i]->name +
                              " takes no other method behind a colon; adakv, criticalkv and "
                              "chunkkv do.");
        }
        if (base.score == nullptr || base.head_budgets != nullptr ||
            (base.needs & kNeedsPeaks) != 0) {
            throw usage_error("--method '" + name + "': " + base.name + " has no scores that " +
                              chain[i]->name + " could take; try " + chain[i]->name + ":" +
                              chain[i]->default_base + ".");
        }
    }
    return chain;
}

unsigned needs_of(std::span<const Policy* const> chain) {
    unsigned needs = kNeedsNothing;
    for (const Policy* policy : chain) {
        needs |= policy->needs;
    }
    return needs;
}

const Format& find_format(const std::string& name) {
    return find_by_name(formats(), name, "quant-method", "layerquant");
}

std::vector<MethodInfo> policy_list() {
    std::vector<MethodInfo> list;
    for (const Policy* policy : policies()) {
        std::string defaults;
        if (std::string(policy->name) != "full") {
            defaults = "max-capacity-prompts 512";
            if (policy->default_base != nullptr) {
                defaults += std::string(", base ") + policy->default_base;
            } else {
                defaults += ", window-size " + std::to_string(policy->default_window);
            }
            if (policy->default_sinks > 0) {
                defaults += ", n-sink " + std::to_string(policy->default_sinks);
            }
        }
        list.push_back(
            {policy->name, policy->paper, policy->summary, policy->departures, defaults});
    }
    list.push_back({"mixed", "",
                    "bits from 16 to none per token, by loss per byte within --kv-budget",
                    "stores with the format fitted alone",
                    "the bytes of 512 tokens at 16 bits, window-size 8, n-sink 1"});
    list.push_back({"layerquant", "2412.12706",
                    "snapkv with layers at different bits and equal bytes",
                    "the official code has its flag inverted: not copied",
                    "nbits 4, quant-layers-bits 2 in the given range"});
    return list;
}

std::vector<MethodInfo> format_list() {
    std::vector<MethodInfo> list;
    for (const Format* format : formats()) {
        std::string defaults;
        if (std::string(format->name) != "none") {
            defaults = "nbits " + std::to_string(format->default_bits) + ", group-size 32, " +
                       "residual-length 32, key-axis " + std::to_string(format->default_key_axis) +
                       ", value-axis " + std::to_string(format->default_value_axis);
        }
        list.push_back(
            {format->name, format->paper, format->summary, format->departures, defaults});
    }
    return list;
}

double packed_bytes_per_token(const CacheOptions& cache, int head_dim) {
    const CacheOptions o = fill_defaults(cache);
    Hparams shape;
    shape.layers = 1;
    shape.head_dim = head_dim;
    shape.rope.dims = head_dim;
    CacheOptions one = o;
    one.quant_end_layers = 0;
    one.quant_begin_layers = 0;
    const Plan plan = make_plan(one, shape);
    const FormatSpec& spec = plan.layers[0].layout.spec;
    // A long tile, so that a format with per-tile costs is shown as it is met in use.
    const int tokens =
        spec.format->tile_tokens != nullptr ? spec.format->tile_tokens(spec) : spec.group_size;
    return static_cast<double>(spec.format->bytes(spec, Side::key, tokens) +
                               spec.format->bytes(spec, Side::value, tokens)) /
           tokens;
}

}  // namespace winnow
