#include "bench/report.h"

#include <algorithm>
#include <fstream>

#include "cli/terminal.h"
#include "kernels/isa.h"

namespace winnow::bench {
namespace {

using cli::format;
using cli::Json;
using cli::padded;

Json number_or_null(const std::optional<double>& value) {
    return value ? Json(*value) : Json(nullptr);
}

Json result_json(const Result& r) {
    return {
        {"engine", r.engine},
        {"method", r.method},
        {"quant_method", r.quant_method},
        {"nbits", r.nbits},
        {"nbits_k", r.nbits_k},
        {"nbits_v", r.nbits_v},
        {"max_capacity_prompts",
         r.max_capacity_prompts > 0 ? Json(r.max_capacity_prompts) : Json(nullptr)},
        {"context", r.context},
        {"sessions", r.sessions},
        {"decode_tps", r.decode_tps.median()},
        {"prefill_tps", r.prefill_tps.median()},
        {"kv_bytes", r.kv_bytes},
        {"ratio_decode", number_or_null(r.ratio_decode)},
        {"ratio_prefill", number_or_null(r.ratio_prefill)},
        {"ratio_sessions", number_or_null(r.ratio_sessions)},
        {"repeats", r.decode_tps.values.size()},
        {"spread", r.decode_tps.spread()},
        {"prefill_repeats", r.prefill_tps.values.size()},
        {"prefill_spread", r.prefill_tps.spread()},
        {"token_ms", r.token_ms()},
        {"attention_ms", number_or_null(r.attention_ms)},
        {"weights_ms", number_or_null(r.weights_ms)},
        {"kv_gb_per_s", number_or_null(r.kv_gb_per_s())},
        {"compress_share", number_or_null(r.compress_share)},
    };
}

std::string csv_cell(const Json& value) {
    if (value.is_null()) return "";
    if (!value.is_string()) return value.dump();
    const auto text = value.get<std::string>();
    return text.find_first_of(",\"\n") == std::string::npos ? text : value.dump();
}

std::string cell(const char* pattern, const std::optional<double>& value, int width) {
    const std::string text = value ? format(pattern, *value) : "-";
    return format("%*s", width, text.c_str());
}

std::string threads_text(const Machine& machine) {
    return std::to_string(machine.threads) + (machine.threads == 1 ? " thread" : " threads");
}

bool many_sessions(const Report& report) {
    return std::any_of(report.results.begin(), report.results.end(),
                       [](const Result& r) { return r.sessions != 1; });
}

std::string table_head(const Report& report, std::size_t label_width) {
    std::string text = padded("configuration", label_width) + "context";
    if (many_sessions(report)) text += "  sessions";
    text +=
        " decode tok/s spread  ms/token  weights attention  KV GB/s prefill tok/s compress      "
        "cache";
    if (many_sessions(report)) text += "  x one";
    if (!report.rival.name.empty()) text += "  decode x prefill x";
    return text + "\n";
}

std::string table_row(const Report& report, const Result& r, std::size_t label_width) {
    std::string text = padded(r.label(), label_width) + format("%7d", r.context);
    if (many_sessions(report)) text += format("%10d", r.sessions);
    text += format("%13.2f%6.0f%%%10.2f", r.decode_tps.median(), 100.0 * r.decode_tps.spread(),
                   r.token_ms());
    text += cell("%.2f", r.weights_ms, 9) + cell("%.2f", r.attention_ms, 10) +
            cell("%.2f", r.kv_gb_per_s(), 9);
    text += format("%14.1f", r.prefill_tps.median());
    text += r.compress_share ? format("%8.1f%%", 100.0 * *r.compress_share) : format("%9s", "-");
    text += format("%11s", cli::human_bytes(static_cast<double>(r.kv_bytes)).c_str());
    if (many_sessions(report)) text += cell("%.2f", r.ratio_sessions, 7);
    if (!report.rival.name.empty()) {
        text += cell("%.2f", r.ratio_decode, 10) + cell("%.2f", r.ratio_prefill, 10);
    }
    return text + "\n";
}

}  // namespace

Machine this_machine(const Model& model) {
    Machine machine{"unknown", model.threads(), available_isas().front()};
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with("model name") && line.find(": ") != std::string::npos) {
            machine.cpu = line.substr(line.find(": ") + 2);
            break;
        }
    }
    return machine;
}

Json machine_json(const Machine& machine) {
    return {{"cpu", machine.cpu}, {"threads", machine.threads}, {"isa", machine.isa}};
}

Json rival_json(const RivalInfo& rival) {
    if (rival.name.empty()) return nullptr;
    return {{"name", rival.name},
            {"version", rival.version},
            {"flags", rival.flags},
            {"system", rival.system}};
}

Json report_json(const Report& report) {
    Json results = Json::array();
    for (const Result& result : report.results) results.push_back(result_json(result));
    return {{"machine", machine_json(report.machine)},
            {"rival", rival_json(report.rival)},
            {"model", cli::model_json(report.model)},
            {"prompt", report.prompt},
            {"decode_tokens", report.decode_tokens},
            {"results", std::move(results)},
            {"version", version()}};
}

std::string report_csv(const Report& report) {
    std::string text;
    for (const Result& result : report.results) {
        const Json row = result_json(result);
        std::string head, line;
        for (const auto& [key, value] : row.items()) {
            head += (head.empty() ? "" : ",") + key;
            line += (line.empty() ? "" : ",") + csv_cell(value);
        }
        if (text.empty()) text = head + "\n";
        text += line + "\n";
    }
    return text;
}

std::string report_table(const Report& report) {
    std::string text = "winnow " + std::string(version()) + ", " + report.model.name + ", " +
                       report.machine.cpu + ", " + report.machine.isa + ", " +
                       threads_text(report.machine) + "\n";
    if (!report.rival.name.empty()) {
        text += "against " + report.rival.name + " (" + report.rival.version + "; " +
                report.rival.flags + "), x: times its f16 cache\n";
    }
    text += "prompt: " + report.prompt + "; " + std::to_string(report.decode_tokens) +
            " tokens decoded from its end; medians of " + std::to_string(report.repeats) +
            ", spread: (largest - smallest) / median\n";
    std::size_t width = 0;
    for (const Result& result : report.results) width = std::max(width, result.label().size());
    width += 2;
    int context = -1;
    for (const Result& result : report.results) {
        if (result.context != context) text += "\n" + table_head(report, width);
        context = result.context;
        text += table_row(report, result, width);
    }
    return text;
}

Chart report_chart(const Report& report) {
    Chart chart;
    const int sessions = report.results.empty() ? 1 : report.results.front().sessions;
    chart.title = "Decode speed against context, " + report.model.name;
    chart.subtitle = report.machine.cpu + ", " + report.machine.isa + ", " +
                     threads_text(report.machine) +
                     (sessions > 1 ? ", " + std::to_string(sessions) + " sessions" : "");
    chart.x_label = "prompt tokens";
    chart.y_label = "tokens per second";
    for (const Result& result : report.results) {
        if (result.sessions != sessions) continue;
        const std::string name = result.label();
        auto series = std::find_if(chart.series.begin(), chart.series.end(),
                                   [&](const Series& each) { return each.name == name; });
        if (series == chart.series.end()) {
            chart.series.push_back({name, result.engine != "winnow", {}});
            series = std::prev(chart.series.end());
        }
        series->points.push_back({static_cast<double>(result.context), result.decode_tps.median()});
    }
    return chart;
}

}  // namespace winnow::bench
