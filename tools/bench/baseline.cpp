#include "bench/baseline.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "cli/files.h"
#include "cli/terminal.h"

namespace winnow::bench {
namespace {

using cli::Json;

struct Ratio {
    const char* key;
    const char* name;
    std::optional<double> Result::*field;
};
constexpr Ratio kRatios[] = {
    {"ratio_decode", "decode", &Result::ratio_decode},
    {"ratio_prefill", "prefill", &Result::ratio_prefill},
    {"ratio_sessions", "sessions", &Result::ratio_sessions},
};

// Entries of a file that is not there yet: none.
Json read_file(const std::string& path, bool must_exist) {
    errno = 0;
    std::ifstream file(path);
    if (!file && must_exist) {
        throw failure("--baseline names " + path +
                      ", which cannot be read: " + std::strerror(errno != 0 ? errno : EIO) + ".");
    }
    if (!file) return {{"entries", Json::array()}};
    Json json = Json::parse(file, nullptr, false);
    if (!json.is_object() || !json.contains("entries") || !json["entries"].is_array()) {
        throw failure(path +
                      " is no baseline: it takes an object with the list `entries`, as "
                      "`winnow bench --save-baseline` writes it.");
    }
    return json;
}

Json entry_results(const std::vector<Result>& results) {
    Json rows = Json::array();
    for (const Result& result : results) {
        Json row{{"configuration", result.label()},
                 {"context", result.context},
                 {"sessions", result.sessions}};
        for (const Ratio& ratio : kRatios) {
            if (result.*ratio.field) row[ratio.key] = *(result.*ratio.field);
        }
        rows.push_back(std::move(row));
    }
    return rows;
}

std::optional<double> number_at(const Json& row, const char* key) {
    if (!row.contains(key) || !row[key].is_number()) return std::nullopt;
    return row[key].get<double>();
}

const Result* find_result(const Json& row, const std::vector<Result>& results) {
    for (const Result& result : results) {
        if (row.value("configuration", "") == result.label() &&
            row.value("context", 0) == result.context &&
            row.value("sessions", 1) == result.sessions) {
            return &result;
        }
    }
    return nullptr;
}

}  // namespace

std::vector<BaselineEntry> read_baseline(const std::string& path, const std::string& model) {
    const Json json = read_file(path, true);
    std::vector<BaselineEntry> entries;
    try {
        for (const Json& entry : json["entries"]) {
            if (entry.value("model", "") != model) continue;
            entries.push_back(
                {model, entry.at("flags").get<std::vector<std::string>>(), entry.at("results")});
        }
    } catch (const Json::exception&) {
        throw failure(path +
                      " is no baseline: every entry has `model`, the list of words `flags` "
                      "and the list `results`.");
    }
    if (entries.empty()) {
        throw failure(path + " has no entry for the model '" + model +
                      "'; `winnow bench --save-baseline` adds one.");
    }
    return entries;
}

void save_baseline(const std::string& path, const std::vector<std::string>& flags,
                   const Report& report) {
    Json json = read_file(path, false);
    Json entry{{"model", report.model.name},
               {"flags", flags},
               {"machine", machine_json(report.machine)},
               {"rival", rival_json(report.rival)},
               {"results", entry_results(report.results)}};
    auto& entries = json["entries"];
    const auto same = std::find_if(entries.begin(), entries.end(), [&](const Json& old) {
        return old.is_object() && old.value("model", "") == report.model.name &&
               old.contains("flags") && old["flags"] == entry["flags"];
    });
    if (same != entries.end()) {
        *same = std::move(entry);
    } else {
        entries.push_back(std::move(entry));
    }
    cli::replace_file("--save-baseline", path,
                      json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
}

Comparison compare(const BaselineEntry& entry, const std::vector<Result>& results) {
    Comparison comparison;
    for (const Json& row : entry.results) {
        if (!row.is_object()) continue;
        const Result* now = find_result(row, results);
        for (const Ratio& ratio : kRatios) {
            const std::optional<double> before = number_at(row, ratio.key);
            if (!before) continue;
            if (now == nullptr || !(now->*ratio.field)) {
                ++comparison.missing;
                continue;
            }
            ++comparison.compared;
            const double value = *(now->*ratio.field);
            if (value >= *before * (1.0 - kFall)) continue;
            comparison.falls.push_back(
                now->label() + ", context " + std::to_string(now->context) +
                (now->sessions > 1 ? ", " + std::to_string(now->sessions) + " sessions" : "") +
                cli::format(": %s ratio %.2f, was %.2f (%.0f %%)", ratio.name, value, *before,
                            100.0 * (value / *before - 1.0)));
        }
    }
    return comparison;
}

std::string comparison_text(const Comparison& comparison) {
    std::string text;
    for (const std::string& fall : comparison.falls) text += "fell: " + fall + "\n";
    text += std::to_string(comparison.compared) + " ratios compared, " +
            std::to_string(comparison.falls.size()) + " fell by more than " +
            cli::format("%.0f %%", 100.0 * kFall);
    if (comparison.missing > 0) {
        text += ", " + std::to_string(comparison.missing) + " of the baseline not measured";
    }
    return text + ".\n";
}

}  // namespace winnow::bench
