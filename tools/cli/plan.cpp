// winnow plan: what a byte budget would keep, before any weights are read.
#include <winnow/plan.h>

#include <optional>

#include "commands.h"
#include "flags.h"
#include "json_output.h"
#include "terminal.h"

namespace winnow::cli {
namespace {

std::string bytes_of(std::uint64_t bytes) {
    return human_bytes(static_cast<double>(bytes));
}

std::string tier_name(const PlannedTier& tier) {
    return tier.bits_k == tier.bits_v
               ? std::to_string(tier.bits_k)
               : std::to_string(tier.bits_k) + "/" + std::to_string(tier.bits_v);
}

Json plan_json(const CachePlan& plan) {
    Json layers = Json::array(), tiers = Json::array();
    for (const PlannedLayer& layer : plan.layers) {
        layers.push_back({{"bytes", layer.bytes},
                          {"fixed_bytes", layer.fixed},
                          {"tokens", layer.tokens},
                          {"tokens_exact", layer.tokens_exact},
                          {"tokens_most", layer.tokens_most}});
    }
    for (const PlannedTier& tier : plan.tiers) {
        tiers.push_back(
            {{"bits_k", tier.bits_k}, {"bits_v", tier.bits_v}, {"token_bytes", tier.token_bytes}});
    }
    return {{"method", plan.cache.method},
            {"quant_method", plan.cache.quant_method},
            {"max_capacity_prompts", plan.cache.max_capacity_prompts},
            {"profile", plan.cache.profile},
            {"context", plan.context},
            {"bytes", plan.bytes},
            {"bytes_full_f16", plan.full_bytes},
            {"prefill_peak_bytes", plan.prefill_peak},
            {"tiers", std::move(tiers)},
            {"layers", std::move(layers)}};
}

std::string table(const CachePlan& plan) {
    const bool mixed = plan.cache.method == "mixed";
    std::string text = mixed ? "layer       bytes      fixed   tokens   at 16   at fewest\n"
                             : "layer       bytes      fixed   tokens\n";
    for (std::size_t l = 0; l < plan.layers.size(); ++l) {
        const PlannedLayer& layer = plan.layers[l];
        text += format("%5zu  %10s %10s  %7d", l, bytes_of(layer.bytes).c_str(),
                       bytes_of(layer.fixed).c_str(), layer.tokens);
        if (mixed) text += format(" %7d %11d", layer.tokens_exact, layer.tokens_most);
        text += "\n";
    }
    text += "\nbits (K/V) and bytes of one token of a kv head, position and sums included:";
    for (const PlannedTier& tier : plan.tiers) {
        text += "  " + tier_name(tier) + format(" %.1f", tier.token_bytes);
    }
    return text + (mixed ? "\n(of these 4 the position and 4 the sum)\n" : "\n");
}

std::string summary(const std::string& label, const std::optional<CachePlan>& plan) {
    if (!plan) return "  " + padded(label, 8) + "too small to work\n";
    double tokens = 0.0;
    for (const PlannedLayer& layer : plan->layers) {
        tokens += layer.tokens / static_cast<double>(plan->layers.size());
    }
    return "  " + padded(label, 8) + padded(bytes_of(plan->bytes), 12) +
           format("about %.0f of %d tokens per head, prefill peak about ", tokens, plan->context) +
           bytes_of(plan->prefill_peak) + "\n";
}

// The same with another budget; none where that is too small.
std::optional<CachePlan> neighbour(const Options& options, int context, double factor) {
    if (options.cache.kv_budget.empty()) return std::nullopt;
    CacheOptions cache = options.cache;
    const auto bytes = parse_byte_count("kv-budget", cache.kv_budget);
    cache.kv_budget =
        std::to_string(static_cast<std::uint64_t>(static_cast<double>(bytes) * factor));
    cache.guard = 0.0;
    cache.kv_budget_max.clear();
    try {
        return plan_cache(options.model, cache, context);
    } catch (const Error& error) {
        if (error.kind() == ErrorKind::usage) return std::nullopt;
        throw;
    }
}

}  // namespace

int plan_command(const Arguments& args) {
    Options options;
    int context = 4096;
    auto parser = make_parser("plan", "Shows what a cache would keep, without loading weights.",
                              options, kModelFlags | kCacheFlags);
    add_switch(*parser, "--json", options.json, "one JSON object on stdout, and nothing else");
    add_value(*parser, "Plan", {"--context", "N", "tokens of the prompt", 1, kIntMax}, context);
    if (!parse(*parser, args)) return 0;
    settle(options, "plan", kModelFlags | kCacheFlags);
    const CachePlan plan = plan_cache(options.model, options.cache, context);
    const auto half = neighbour(options, context, 0.5), twice = neighbour(options, context, 2.0);
    if (options.json) {
        Json object = plan_json(plan);
        object["half"] = half ? plan_json(*half) : Json(nullptr);
        object["double"] = twice ? plan_json(*twice) : Json(nullptr);
        object["version"] = version();
        write_json(object);
        return 0;
    }
    std::string text = table(plan) + "\n" + summary("this", plan);
    if (!options.cache.kv_budget.empty()) text += summary("half", half) + summary("double", twice);
    if (plan.cache.method == "mixed") {
        const bool builtin = plan.cache.profile == "none";
        text += "  " + padded("profile", 8) + (builtin ? "built in" : plan.cache.profile) + "\n";
    }
    text += "  " + padded("full", 8) + padded(bytes_of(plan.full_bytes), 12) + "at 16 bits\n";
    write_out(text);
    flush_out();
    return 0;
}

}  // namespace winnow::cli
