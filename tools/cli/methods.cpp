// winnow methods: the pruning methods and the cache formats, with what they cost.
#include <winnow/winnow.h>

#include "commands.h"
#include "costs.h"
#include "flags.h"
#include "json_output.h"
#include "terminal.h"

namespace winnow::cli {
namespace {

constexpr std::size_t kIndent = 22;
constexpr std::size_t kTextWidth = 80;
// Without a model the table is about one kv head of the commonest head dimension.
constexpr int kCommonHeadDim = 128;

std::string entry(const MethodInfo& method) {
    const std::string margin(kIndent, ' ');
    const auto part = [&](const char* label, const std::string& text) {
        if (text.empty()) return std::string();
        return margin + wrapped(label + text, kTextWidth, kIndent) + "\n";
    };
    const std::string name =
        method.paper.empty() ? method.name : padded(method.name, kIndent - 2) + method.paper;
    return "  " + name + "\n" + part("", method.summary) + part("defaults: ", method.defaults) +
           part("departures: ", method.departures);
}

Json entry_json(const MethodInfo& method) {
    return {{"name", method.name},
            {"paper", method.paper},
            {"summary", method.summary},
            {"defaults", method.defaults},
            {"departures", method.departures}};
}

double heads_of(const ModelInfo& info) {
    return static_cast<double>(info.layers) * info.kv_heads;
}

std::string listing(const ModelInfo* info) {
    std::string text = "Which tokens to keep (--method)\n\n";
    for (const MethodInfo& method : policy_list()) text += entry(method);
    text += "\nHow to store them (--quant-method, --nbits)\n\n";
    for (const MethodInfo& method : format_list()) text += entry(method);
    if (info == nullptr) {
        return text + "\nBytes per kept token of one layer and kv head, K and V, head dimension " +
               std::to_string(kCommonHeadDim) + " (-m FILE: for that model)\n\n" +
               cost_table(format_costs(kCommonHeadDim), 1.0, 2);
    }
    return text + "\nBytes per kept token of " + info->name + ", all layers and kv heads\n\n" +
           cost_table(format_costs(info->head_dim), heads_of(*info), 1);
}

Json listing_json(const ModelInfo* info) {
    Json policies = Json::array();
    for (const MethodInfo& method : policy_list()) policies.push_back(entry_json(method));
    Json formats = Json::array();
    for (const MethodInfo& method : format_list()) formats.push_back(entry_json(method));
    Json object{{"policies", std::move(policies)}, {"formats", std::move(formats)}};
    if (info != nullptr) {
        object["model"] = model_json(*info);
        object["bytes_per_token"] = costs_json(format_costs(info->head_dim), heads_of(*info));
    }
    return object;
}

}  // namespace

int methods_command(const Arguments& args) {
    Options options;
    auto parser = make_parser("methods", "Lists the pruning methods and the cache formats.",
                              options, kModelFlags);
    add_switch(*parser, "--json", options.json, "one JSON object on stdout, and nothing else");
    if (!parse(*parser, args)) return 0;
    std::shared_ptr<const Model> model;
    if (!options.model.empty()) model = load_model(options);
    const ModelInfo* info = model ? &model->info() : nullptr;
    if (options.json) {
        write_json(listing_json(info));
    } else {
        write_out(listing(info));
        flush_out();
    }
    return 0;
}

}  // namespace winnow::cli
