// winnow session inspect: what a file of --session holds, without its model.
#include <winnow/session_file.h>

#include <algorithm>

#include "commands.h"
#include "flags.h"
#include "json_output.h"
#include "receipt.h"
#include "terminal.h"

namespace winnow::cli {
namespace {

// Options that are not the default, as flags.
std::string flags_of(const CacheOptions& cache) {
    std::vector<std::string> plain;
    const CacheOptions standard;
    visit_cache_options(standard, [&](const char*, const auto& field, const char*) {
        plain.push_back(Json(field).dump());
    });
    std::string text;
    std::size_t i = 0;
    visit_cache_options(cache, [&](const char* name, const auto& field, const char*) {
        const Json value = field;
        if (value.dump() != plain[i++]) {
            text += (text.empty() ? "--" : " --") + std::string(name);
            if (value.is_string()) {
                text += " " + value.get<std::string>();
            } else if (!value.is_boolean()) {
                text += " " + value.dump();
            }
        }
    });
    return text;
}

std::string ranges_of(const std::vector<std::pair<int, int>>& pins) {
    std::string text;
    for (const auto& [first, last] : pins) {
        text +=
            (text.empty() ? "" : ", ") + std::to_string(first) + " to " + std::to_string(last - 1);
    }
    return text.empty() ? "nothing" : text;
}

std::string table(const SessionFileInfo& info, const std::string& path) {
    const auto seen = static_cast<double>(std::max<std::size_t>(1, info.tokens.size()));
    std::string text;
    const auto line = [&](const char* label, const std::string& value) {
        text += padded(label, 11) + value + "\n";
    };
    line("file", path + ", " + human_bytes(static_cast<double>(info.file_bytes)) + ", version " +
                     std::to_string(info.format_version) + " of winnow " + info.winnow +
                     ", all checksums are right");
    line("model",
         info.model_name + " (" + info.model_architecture + "), sha256 " + info.model_sha256);
    line("options", flags_of(info.cache));
    line("tokens", with_commas(info.tokens.size()) + " seen");
    line("pinned", ranges_of(info.pins));
    line("bytes", human_bytes(static_cast<double>(info.bytes)) + " of cache, " +
                      human_bytes(static_cast<double>(info.policy_bytes)) + " of the method");
    text += "\nbits K/V    tokens        bytes\n";
    for (const PrecisionStats& at : info.precisions) {
        text += padded(format("%d/%d", at.bits_k, at.bits_v), 12) +
                padded(with_commas(at.tokens), 14) + human_bytes(static_cast<double>(at.bytes)) +
                "\n";
    }
    text += "\nlayer  kept per head\n";
    for (std::size_t i = 0; i < info.kept.size(); ++i) {
        text += format("%5zu  %.1f (%.1f %%)\n", i, info.kept[i], 100.0 * info.kept[i] / seen);
    }
    return text;
}

Json info_json(const SessionFileInfo& info, const std::string& path) {
    Json options = Json::object(), precisions = Json::array(), pins = Json::array();
    visit_cache_options(info.cache, [&](const char* name, const auto& field, const char*) {
        std::string key = name;
        std::replace(key.begin(), key.end(), '-', '_');
        options[key] = field;
    });
    for (const PrecisionStats& at : info.precisions) {
        precisions.push_back({{"bits_k", at.bits_k},
                              {"bits_v", at.bits_v},
                              {"tokens", at.tokens},
                              {"bytes", at.bytes}});
    }
    for (const auto& [first, last] : info.pins) pins.push_back({first, last});
    return {{"file", path},
            {"file_bytes", info.file_bytes},
            {"format_version", info.format_version},
            {"winnow", info.winnow},
            {"checksums", "right"},
            {"model",
             {{"name", info.model_name},
              {"architecture", info.model_architecture},
              {"sha256", info.model_sha256}}},
            {"options", options},
            {"tokens_seen", info.tokens.size()},
            {"kept", info.kept},
            {"bytes", info.bytes},
            {"policy_bytes", info.policy_bytes},
            {"precisions", precisions},
            {"pins", pins},
            {"version", version()}};
}

}  // namespace

int session_command(const Arguments& args) {
    if (args.empty() || (args[0] != "inspect" && args[0] != "-h" && args[0] != "--help")) {
        throw usage_error(
            "`winnow session` takes `inspect FILE`, as in `winnow session inspect "
            "book.kv`" +
            (args.empty() ? "." : ", not '" + args[0] + "'."));
    }
    Options options;
    auto parser = make_parser("session inspect FILE",
                              "Shows what a file of --session holds; needs no model.", options, 0);
    add_switch(*parser, "--json", options.json, "one JSON object on stdout, and nothing else");
    Arguments flags = args;
    flags.erase(flags.begin());
    if (args[0] != "inspect") flags = {"-h"};
    const auto file = std::find_if(flags.begin(), flags.end(),
                                   [](const std::string& word) { return !word.starts_with("-"); });
    const std::string path = file == flags.end() ? "" : *file;
    if (file != flags.end()) flags.erase(file);
    if (!parse(*parser, flags)) return 0;
    if (path.empty()) throw usage_error("`winnow session inspect` needs a file.");
    const SessionFileInfo info = read_session_info(path);
    if (!info.damage.empty()) throw failure(info.damage);
    if (options.json) {
        write_json(info_json(info, path));
    } else {
        write_out(table(info, path));
        flush_out();
    }
    return 0;
}

}  // namespace winnow::cli
