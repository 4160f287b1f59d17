// From raw options to named configurations.
#include <winnow/error.h>
#include <winnow/plan.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <set>

#include "eval/sweep.h"

namespace winnow::eval {

namespace {

bool is_full(const CacheOptions& o) {
    return o.method == "full" || o.method.empty();
}

std::string shown(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.6g", value);
    return text;
}

std::string cap_part(const CacheOptions& o) {
    if (o.max_capacity_prompts_ratio > 0.0) {
        return "r" + shown(o.max_capacity_prompts_ratio);
    }
    return std::to_string(o.max_capacity_prompts);
}

std::string quant_part(const CacheOptions& o) {
    if (o.quant_method == "none" ||
        (o.nbits_k == 16 && o.nbits_v == 16 && o.quant_method != "layerquant")) {
        return "16";
    }
    return o.nbits_k == o.nbits_v
               ? o.quant_method + std::to_string(o.nbits_k)
               : o.quant_method + "k" + std::to_string(o.nbits_k) + "v" + std::to_string(o.nbits_v);
}

std::string base_id(const CacheOptions& o, std::string budget) {
    const std::string hidden = o.question_hidden ? "-hidden" : "";
    std::replace(budget.begin(), budget.end(), '/', ':');
    budget = is_full(o) ? "" : (budget.empty() ? cap_part(o) : "b" + budget) + "-";
    if (o.method == "mixed" && o.nbits_k == 0) {  // it chooses the bits
        return "mixed-" + budget.substr(0, budget.size() - 1) + hidden;
    }
    return (is_full(o) ? "full" : o.method) + "-" + budget + quant_part(o) + hidden;
}

// "w32" for window_size 32; other settings by their own names.
std::string suffix(const std::string& name, const OrderedJson& value) {
    const std::string text = value.is_string()         ? value.get<std::string>()
                             : value.is_number_float() ? shown(value.get<double>())
                                                       : value.dump();
    return "-" + (name == "window_size" ? "w" : name) + text;
}

// Settings in which configurations of one id differ are told at its end.
void tell_apart(std::vector<Config>& configs) {
    std::map<std::string, std::vector<std::size_t>> same;
    for (std::size_t i = 0; i < configs.size(); ++i) {
        same[configs[i].id].push_back(i);
    }
    for (const auto& [id, members] : same) {
        if (members.size() < 2) {
            continue;
        }
        std::vector<OrderedJson> all;
        for (const std::size_t i : members) {
            all.push_back(options_json(configs[i].options));
        }
        for (const auto& [name, first] : all[0].items()) {
            const bool differs = std::any_of(
                all.begin(), all.end(),
                [&, key = name](const OrderedJson& o) { return o[key] != all[0][key]; });
            for (std::size_t i = 0; differs && i < members.size(); ++i) {
                configs[members[i]].id += suffix(name, all[i][name]);
            }
        }
    }
}

// The controls that every table shows, where the user did not name them.
void add_controls(std::vector<CacheOptions>& options) {
    const bool has_random = std::any_of(options.begin(), options.end(),
                                        [](const CacheOptions& o) { return o.method == "random"; });
    std::vector<CacheOptions> random;
    for (const CacheOptions& from : options) {
        if (is_full(from) || has_random) {
            continue;
        }
        CacheOptions control = from;
        control.method = "random";
        control.n_sink = -1;
        control.quant_method = "none";
        control.profile.clear();
        control.nbits = 16;
        control.nbits_k = control.nbits_v = 0;
        random.push_back(control);
    }
    options.insert(options.begin(), CacheOptions{});
    options.insert(options.end(), random.begin(), random.end());
}

// A sweep's budget, out of kv_budget.
std::string take_budget(CacheOptions& o) {
    if (!o.kv_budget.starts_with(kEqualBytes)) {
        return "";
    }
    const std::string budget = is_full(o) ? "" : o.kv_budget.substr(std::strlen(kEqualBytes));
    o.kv_budget.clear();
    return budget;
}

CacheOptions filled(const CacheOptions& options, const std::shared_ptr<const Model>& model) {
    CacheOptions o = Session(model, options).options();
    // At 16 bits every format is plain rows.
    if (quant_part(o) == "16") {
        o.quant_method = "none";
        o.nbits = o.nbits_k = o.nbits_v = 16;
    }
    if (is_full(o)) {  // nothing is dropped, so nothing of a policy matters
        const CacheOptions plain;
        o.n_sink = plain.n_sink;
        o.window_size = plain.window_size;
        // Packed rows may be fitted to the prompt, and then the question must not be part of it.
        o.question_hidden = o.question_hidden && quant_part(o) != "16";
        o = Session(model, o).options();
    }
    return o;
}

}  // namespace

OrderedJson options_json(const CacheOptions& options) {
    OrderedJson object = OrderedJson::object();
    visit_cache_options(options, [&](const char* name, const auto& field, const char*) {
        std::string key = name;
        std::replace(key.begin(), key.end(), '-', '_');
        object[key] = field;
    });
    return object;
}

std::vector<Config> make_configs(std::vector<CacheOptions> options, const Suite& suite,
                                 const Settings& settings,
                                 const std::shared_ptr<const Model>& model) {
    add_controls(options);
    std::vector<Config> configs;
    std::set<std::string> seen;
    for (CacheOptions& raw : options) {
        if (suite.adjust != nullptr) {
            suite.adjust(settings, raw);
        }
        const std::string budget = take_budget(raw);
        const CacheOptions o = filled(raw, model);
        if (seen.insert(budget + options_json(o).dump()).second) {
            configs.push_back({.id = base_id(o, budget), .options = o, .budget = budget});
        }
    }
    tell_apart(configs);
    return configs;
}

std::vector<Config> fit_budgets(const std::vector<Config>& configs, const Model& model,
                                int tokens) {
    const auto full =
        static_cast<double>(model.info().full_cache_bytes(static_cast<std::uint64_t>(tokens)));
    std::vector<Config> fitted = configs;
    for (Config& config : fitted) {
        if (config.budget.empty()) {
            continue;
        }
        const std::size_t slash = config.budget.find('/');
        const std::uint64_t bytes =
            slash == std::string::npos
                ? parse_byte_count("sweep", config.budget)
                : static_cast<std::uint64_t>(full * std::stod(config.budget) /
                                             std::stod(config.budget.substr(slash + 1)));
        config.options = plan_equal_bytes(model, config.options, tokens, bytes);
    }
    return fitted;
}

}  // namespace winnow::eval
