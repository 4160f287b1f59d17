// winnow info: a model's shape, and what its cache costs.
#include <winnow/winnow.h>

#include "commands.h"
#include "costs.h"
#include "flags.h"
#include "json_output.h"
#include "terminal.h"

namespace winnow::cli {
namespace {

constexpr double kThousand = 1000.0;
constexpr double kMebi = 1024.0 * 1024.0;

std::string row(const char* label, const std::string& value) {
    return "  " + padded(label, 18) + value + "\n";
}

std::string count(int number) {
    return with_commas(static_cast<std::uint64_t>(number));
}

std::string shape(const ModelInfo& info) {
    return row("name", info.name) + row("architecture", info.architecture) +
           row("file", info.path) + row("parameters", with_commas(info.parameters)) +
           row("weights", human_bytes(static_cast<double>(info.weight_bytes))) +
           row("layers", count(info.layers)) +
           row("heads", count(info.query_heads) + " query, " + count(info.kv_heads) +
                            " key-value, of dimension " + count(info.head_dim)) +
           row("embedding", count(info.embedding)) + row("feed-forward", count(info.feed_forward)) +
           row("vocabulary", count(info.vocabulary)) +
           row("trained context", count(info.trained_context) + " tokens") +
           row("full f16 cache",
               human_bytes(static_cast<double>(info.full_cache_bytes(1))) + " per token, " +
                   human_bytes(static_cast<double>(
                       info.full_cache_bytes(static_cast<std::uint64_t>(info.trained_context)))) +
                   " for the trained context");
}

}  // namespace

int info_command(const Arguments& args) {
    Options options;
    auto parser = make_parser("info", "Shows a model's shape and what its cache costs.", options,
                              kModelFlags);
    add_switch(*parser, "--json", options.json, "one JSON object on stdout, and nothing else");
    if (!parse(*parser, args)) return 0;
    settle(options, "info", kModelFlags);
    const auto model = load_model(options);
    const ModelInfo& info = model->info();
    const double heads = static_cast<double>(info.layers) * info.kv_heads;
    const auto costs = format_costs(info.head_dim);
    if (options.json) {
        Json object = model_json(info);
        object["sha256"] = model->sha256();
        object["cache_bytes_per_1000_tokens"] = costs_json(costs, heads * kThousand);
        write_json(object);
        return 0;
    }
    write_out(shape(info) + "\nMiB of cache per 1,000 kept tokens\n\n" +
              cost_table(costs, heads * kThousand / kMebi, 3));
    flush_out();
    return 0;
}

}  // namespace winnow::cli
