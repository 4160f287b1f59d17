// A configuration from its options, or from its id where they are missing; how it is called.
#include "report/config.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <tuple>

#include "report/fields.h"
#include "report/text.h"

namespace winnow::report {

namespace {

// "snapkv-512-kivi4", "full-16": method, cap, format and bits.
void read_id(Config& config) {
    const std::string& id = config.id;
    const std::size_t dash = id.find('-');
    if (config.method.empty()) config.method = id.substr(0, dash);
    if (dash == std::string::npos) return;
    const std::string rest = id.substr(dash + 1);
    const std::size_t next = rest.find('-');
    if (next != std::string::npos) config.cap = std::atoi(rest.c_str());
    const std::string tail = next == std::string::npos ? rest : rest.substr(next + 1);
    const std::size_t digit = tail.find_first_of("0123456789");
    if (digit == std::string::npos) return;
    config.quant = digit == 0 ? "none" : tail.substr(0, digit);
    config.bits_k = config.bits_v = std::atoi(tail.c_str() + digit);
}

// Options that leave the bits to the format: its id says them, else what was measured.
int bits_of(const Json& options, const std::string& own, int of_id, double measured) {
    for (const std::string& name : {own, std::string("nbits")}) {
        const double bits = number_or(options, name, 0);
        if (bits > 0) return static_cast<int>(bits);
    }
    if (of_id != 16 || std::isnan(measured)) return of_id;
    return static_cast<int>(std::lround(measured));
}

// What stands in the id behind method, tokens and format, less the byte budget.
std::string variant_of(const Config& config) {
    std::size_t parts = config.cap > 0 || config.ratio > 0 ? 3 : 2;
    if (config.method == "mixed") parts = config.id.starts_with("full-") ? 2 : 3;
    std::size_t at = 0;
    for (; parts > 0 && at < config.id.size(); --parts) {
        at = std::min(config.id.find('-', at), config.id.size() - 1) + 1;
    }
    std::string rest = config.id.substr(at);
    const std::string budget = "kv_budget" + config.kv_budget;
    if (const std::size_t found = rest.find(budget);
        !config.kv_budget.empty() && found != std::string::npos) {
        rest.erase(found, budget.size() + (found + budget.size() < rest.size() ? 1 : 0));
    }
    while (!rest.empty() && rest.back() == '-') rest.pop_back();
    return rest;
}

}  // namespace

Config make_config(const std::string& id, const Json* options, const KvSize& kv) {
    Config config;
    config.id = id;
    if (options == nullptr || !options->is_object() || options->empty()) {
        read_id(config);
        return config;
    }
    config.method = text_or(*options, "method", id.substr(0, id.find('-')));
    config.cap = static_cast<int>(number_or(*options, "max_capacity_prompts", 0));
    config.ratio = number_or(*options, "max_capacity_prompts_ratio", 0);
    config.quant = text_or(*options, "quant_method", "none");
    if (config.quant.empty()) config.quant = "none";
    if (config.quant != "none") {
        Config said;
        said.id = id;
        read_id(said);
        config.bits_k = bits_of(*options, "nbits_k", said.bits_k, kv.bits_k);
        config.bits_v = bits_of(*options, "nbits_v", said.bits_v, kv.bits_v);
    }
    config.kv_budget = text_or(*options, "kv_budget", "");
    if (config.method == "full") {
        config.cap = 0;
        if (!config.kv_budget.empty()) config.method = "mixed";  // what a budget alone means
    }
    config.variant = variant_of(config);
    return config;
}

double bytes_of(const std::string& budget) {
    char* unit = nullptr;
    const double number = std::strtod(budget.c_str(), &unit);
    const char first = *unit;
    const bool binary = first != '\0' && unit[1] == 'i';
    const double step = binary ? 1024.0 : 1000.0;
    const std::string order = "KMGT";
    const std::size_t place = order.find(static_cast<char>(std::toupper(first)));
    if (first == '\0' || place == std::string::npos) return number;
    return number * std::pow(step, static_cast<double>(place + 1));
}

bool shown_before(const Config& a, const Config& b) {
    const auto rank = [](const Config& c) {
        const int group = c.method == "full" ? 0 : c.method == "random" ? 2 : 1;
        return std::make_tuple(group, c.method, c.ratio, c.cap, bytes_of(c.kv_budget),
                               -c.bits_k - c.bits_v, c.quant, c.id);
    };
    return rank(a) < rank(b);
}

std::string Config::format_label(bool with_quant) const {
    const std::string bits =
        bits_k == bits_v ? std::to_string(bits_k) + " bits"
                         : "K" + std::to_string(bits_k) + " V" + std::to_string(bits_v) + " bits";
    std::string label = method == "mixed"       ? "mixed bits"
                        : with_quant && packs() ? quant + " " + bits
                                                : bits;
    if (!variant.empty()) label += ", " + variant;
    return label;
}

std::string Config::budget_label() const {
    if (ratio > 0) return format("%g %% of the prompt", ratio * 100);
    if (!kv_budget.empty()) return kv_budget;
    return cap > 0 ? with_commas(cap) + " tokens" : "all tokens";
}

}  // namespace winnow::report
