#include "engine/budget.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numeric>

#include "winnow/error.h"

namespace winnow {

namespace {

[[noreturn]] void too_small(std::uint64_t bytes, std::uint64_t least, const std::string& what) {
    throw usage_error("--kv-budget is " + show_bytes(bytes) + ", but " + what + " needs at least " +
                      std::to_string(least) + " bytes (" + show_bytes(least) + ").");
}

// Bytes of a span that holds `tokens` tokens, its tail's room included.
std::uint64_t span_bytes(const SpanLayout& layout, int tokens) {
    const FormatSpec& spec = layout.spec;
    const int exact = std::min(tokens, layout.head_tokens + layout.tail_capacity());
    std::uint64_t bytes = 4ULL * exact * spec.head_dim + 4ULL * tokens;
    const int over = tokens - layout.head_tokens - layout.residual_length;
    if (tokens > exact && over > 0) {
        const int group = spec.group_size, groups = over / group;
        const auto of = [&](int n) {
            return spec.format->bytes(spec, Side::key, n) +
                   spec.format->bytes(spec, Side::value, n);
        };
        // Where tiles cannot be joined, an answer makes one of every group.
        bytes += spec.format->tile_tokens != nullptr ? groups * of(group) : of(groups * group);
    }
    return bytes;
}

}  // namespace

std::vector<double> builtin_shares(int layers) {
    std::vector<double> shares;
    for (int layer = 0; layer < layers; ++layer) {
        shares.push_back(layers == 1 ? 1.0 : 0.6 + 0.8 * layer / (layers - 1));
    }
    return shares;
}

std::vector<std::pair<int, int>> builtin_tiers() {
    return {{8, 8}, {4, 4}, {3, 3}, {2, 2}};
}

std::uint64_t mixed_bytes(const CacheOptions& o, const Hparams& h) {
    const std::uint64_t per_token = 4ULL * h.layers * h.kv_heads * h.head_dim;
    return o.kv_budget.empty() ? per_token * o.max_capacity_prompts
                               : parse_bytes("kv-budget", o.kv_budget);
}

std::uint64_t parse_bytes(const std::string& flag, const std::string& text) {
    double number = 0.0;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
    std::string unit;
    for (const char* c = end; c != text.data() + text.size(); ++c) {
        if (*c != ' ') {
            unit += static_cast<char>(std::tolower(static_cast<unsigned char>(*c)));
        }
    }
    static constexpr std::pair<const char*, double> kUnits[] = {
        {"", 1.0},          {"b", 1.0},  {"kib", 1024.0},       {"kb", 1e3},
        {"mib", 1048576.0}, {"mb", 1e6}, {"gib", 1073741824.0}, {"gb", 1e9}};
    for (const auto& [name, factor] : kUnits) {
        const double bytes = number * factor;
        if (code == std::errc() && unit == name && bytes >= 1.0 && bytes <= 1e18) {
            return static_cast<std::uint64_t>(bytes);
        }
    }
    throw usage_error("--" + flag + " is '" + text +
                      "', but must be a number of bytes such as 24MiB, 1.5GB or 65536.");
}

std::string show_bytes(std::uint64_t bytes) {
    if (bytes < 10240) {
        return std::to_string(bytes) + " bytes";
    }
    const bool mebi = bytes >= 1048576;
    char text[64];
    std::snprintf(text, sizeof text, "%.1f %s",
                  static_cast<double>(bytes) / (mebi ? 1048576.0 : 1024.0), mebi ? "MiB" : "KiB");
    return text;
}

std::uint64_t worst_layer_bytes(const Plan& plan, const Hparams& h, int layer, int tokens) {
    const SpanLayout& layout = plan.layers[layer].layout;
    const FormatSpec& spec = layout.spec;
    const auto slack = static_cast<std::uint64_t>(
        std::max(layout.residual_length + spec.group_size, plan.policy->interval));
    const int most = static_cast<int>(std::min<std::uint64_t>(tokens + slack, 1ULL << 28));
    std::uint64_t head = span_bytes(layout, most);
    if (plan.policy->head_budgets != nullptr) {  // uneven heads round their groups apart
        head += span_bytes(layout, most + spec.group_size) - span_bytes(layout, most);
    }
    std::uint64_t bytes = head * h.kv_heads;
    if (spec.format->side_floats != nullptr) {
        bytes +=
            4ULL * spec.format->side_floats(spec) * (spec.format->side_per_head ? h.kv_heads : 1);
    }
    if (plan.memory.column_sums) {
        bytes += 4ULL * h.query_heads * (most + 8);
    }
    if (plan.memory.window > 0 && !plan.memory.release_ring) {
        bytes += 2ULL * plan.memory.window * h.query_heads * h.head_dim;
    }
    return bytes;
}

std::uint64_t worst_bytes(const Plan& plan, const Hparams& h) {
    std::uint64_t worst = 0;
    const int cap = plan.params.cap;
    // Budgets of layers may depend on how many tokens there are; the sum hardly does.
    for (const int tokens : {cap, cap + cap / 4 + 1, 2 * cap, 4 * cap, 16 * cap, 1 << 24}) {
        std::uint64_t total = 0;
        for (int layer = 0; layer < h.layers; ++layer) {
            const int budget = std::min(plan.budget(layer, tokens, tokens), 1 << 24);
            total += worst_layer_bytes(plan, h, layer, budget);
        }
        worst = std::max(worst, total);
    }
    return worst;
}

std::size_t mixed_token_bytes(const Hparams& hparams) {
    // f16 rows, a position, and a sum with its room.
    return static_cast<std::size_t>(hparams.kv_heads) *
           (4U * static_cast<std::size_t>(hparams.head_dim) + 4U + 6U * sizeof(float));
}

double least_mixed_bytes(const Plan& plan, const Hparams& h, int layer, int pinned) {
    const std::vector<SpanLayout> tiers = plan.layouts(layer);
    const FormatSpec& lowest = tiers.back().spec;
    const double side = lowest.format->side_floats == nullptr
                            ? 0.0
                            : 4.0 * lowest.format->side_floats(lowest) * h.kv_heads;
    const auto row = static_cast<double>(lowest.format->bytes(lowest, Side::key, 1) +
                                         lowest.format->bytes(lowest, Side::value, 1) + 8);
    return side + 4.0 * plan.memory.notes +
           static_cast<double>((plan.params.n_sink + 2) * mixed_token_bytes(h)) +
           h.kv_heads * (plan.params.window_size + pinned) * row;
}

std::uint64_t bytes_after_prefill(const Plan& plan, const Hparams& h, int tokens) {
    std::uint64_t total = 0;
    for (int layer = 0; layer < h.layers; ++layer) {
        const SpanLayout& layout = plan.layers[layer].layout;
        const FormatSpec& spec = layout.spec;
        const int kept = std::min(tokens, plan.budget(layer, tokens, tokens));
        const int over = kept - layout.head_tokens - layout.residual_length;
        const int group = std::max(1, spec.group_size);
        const int packed = layout.tail_capacity() + layout.head_tokens < kept && over > 0
                               ? over / group * group
                               : 0;
        std::uint64_t head = 4ULL * (kept - packed) * spec.head_dim;
        head += kept < tokens ? 4ULL * kept : 0;
        if (packed > 0) {
            head += spec.format->bytes(spec, Side::key, packed) +
                    spec.format->bytes(spec, Side::value, packed);
        }
        total += head * h.kv_heads;
        if (spec.format->side_floats != nullptr) {
            total += 4ULL * spec.format->side_floats(spec) *
                     (spec.format->side_per_head ? h.kv_heads : 1);
        }
        if (plan.memory.column_sums) {
            total += 4ULL * (plan.memory.one_row ? h.kv_heads : h.query_heads) * kept;
        }
        if (plan.memory.window > 0 && !plan.memory.release_ring) {
            total += 2ULL * plan.memory.window * h.query_heads * h.head_dim;
        }
    }
    return total;
}

void plan_mixed(Plan& plan, const Hparams& h, std::uint64_t bytes) {
    std::vector<double> shares = plan.mixed.shares;
    if (shares.empty()) {
        shares = builtin_shares(h.layers);
    }
    const double whole = std::accumulate(shares.begin(), shares.end(), 0.0);
    plan.mixed.layer_bytes.assign(h.layers, 1.0);  // a plan of mixed from here on
    plan.memory.notes = h.kv_heads * (static_cast<int>(plan.mixed.tiers.size()) + 2) + 1;
    const double needed = least_mixed_bytes(plan, h, 0, 0);
    double least = 0.0;
    for (int layer = 0; layer < h.layers; ++layer) {
        least = std::max(least, needed * whole / shares[layer]);
        plan.mixed.layer_bytes[layer] = static_cast<double>(bytes) * shares[layer] / whole;
    }
    if (static_cast<double>(bytes) < least) {
        too_small(bytes, static_cast<std::uint64_t>(std::ceil(least)), "mixed");
    }
}

Plan plan_method(const CacheOptions& options, const Hparams& h,
                 const std::shared_ptr<RopeTable>& rope, std::uint64_t bytes) {
    const bool cap_given = options.max_capacity_prompts > 0;
    const bool bits_given = options.nbits != 0 || options.nbits_k != 0 || options.nbits_v != 0 ||
                            options.quant_method == "none" || options.method == "layerquant";
    std::vector<int> bits{4};
    if (bits_given) {
        bits = {options.nbits};
    } else if (cap_given) {
        bits = {16, 8, 4, 2};
    }
    std::uint64_t least = 0;
    for (const int nbits : bits) {
        CacheOptions tried = options;
        tried.kv_budget.clear();
        tried.nbits = nbits;
        const CacheOptions filled = fill_defaults(tried);
        const int smallest = cap_given ? filled.max_capacity_prompts
                                       : std::max(1, filled.n_sink + filled.window_size);
        const auto at = [&](int cap) {
            CacheOptions with = tried;
            with.max_capacity_prompts = cap;
            Plan plan = make_plan(with, h, rope);
            plan.memory.exact_room = true;
            for (LayerPlan& layer : plan.layers) {
                layer.layout.exact_room = true;
            }
            plan.options.kv_budget = options.kv_budget;
            return plan;
        };
        const auto fits = [&](int cap) { return worst_bytes(at(cap), h) <= bytes; };
        least = worst_bytes(at(smallest), h);
        if (least > bytes) {
            continue;
        }
        int low = smallest, high = cap_given ? smallest + 1 : 2;
        while (!cap_given && high < (1 << 22) && (high <= low || fits(high))) {
            low = std::max(low, high);
            high *= 2;
        }
        while (high - low > 1) {
            const int middle = low + (high - low) / 2;
            (fits(middle) ? low : high) = middle;
        }
        return at(low);
    }
    too_small(bytes, least, options.method + (cap_given ? " with this cap" : ""));
}

}  // namespace winnow
