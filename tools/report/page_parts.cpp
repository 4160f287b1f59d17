// Pieces of the page: tables, heat-maps, replies, origins.
#include <algorithm>
#include <cmath>

#include "report/page.h"
#include "report/text.h"

namespace winnow::report {

namespace {

constexpr std::size_t kMostColumns = 9;  // of a heat-map that prints its numbers

std::string cell_html(const Cell& cell, const Column& column) {
    const char* kind = column.text ? "<td class=\"t\">" : "<td>";
    return kind + (cell.best ? "<b>" + escaped(cell.shown) + "</b>" : escaped(cell.shown)) +
           "</td>";
}

std::string map_html(const Heat& heat, const HeatMap& map, const std::string& label) {
    const std::size_t columns = heat.lengths.size();
    std::string text = "<figure><figcaption>" + escaped(label) + " <b>" + fixed(map.mean, 1) +
                       "</b></figcaption><table>";
    for (std::size_t d = 0; d < heat.depths.size(); ++d) {
        text += "<tr><th>" + format("%g", heat.depths[d]) + "</th>";
        for (std::size_t l = 0; l < columns; ++l) {
            const double score = map.cells[d * columns + l];
            if (std::isnan(score)) {
                text += "<td></td>";
                continue;
            }
            text += "<td style=\"background:" + heat_colour(score) + "\"";
            text += columns > kMostColumns ? " title=\"" + fixed(score, 0) + "\"></td>"
                                           : ">" + fixed(score, 0) + "</td>";
        }
        text += "</tr>";
    }
    text += "<tr><th></th>";
    const std::size_t step = (columns + 5) / 6;
    for (std::size_t l = 0; l < columns; ++l) {
        text += "<th>" + (l % step == 0 ? std::to_string(heat.lengths[l]) : "") + "</th>";
    }
    return text + "</tr></table></figure>\n";
}

// Of the grids behind the first, which is the full cache's, the one with the highest mean.
std::size_t best_grid(const Heat& heat) {
    std::size_t best = 0;
    double highest = -1;
    for (std::size_t g = 1; g < heat.grids.size(); ++g) {
        double sum = 0, count = 0;
        for (const int place : heat.grids[g].places) {
            if (place < 0) continue;
            sum += heat.maps[static_cast<std::size_t>(place)].mean;
            ++count;
        }
        if (count > 0 && sum / count > highest) {
            highest = sum / count;
            best = g;
        }
    }
    return best;
}

std::string joined(const std::vector<std::string>& texts) {
    std::string all;
    for (const std::string& text : texts) all += (all.empty() ? "" : " | ") + text;
    return all;
}

// A value in a command line, quoted where a shell would take it apart.
std::string shell_word(const std::string& word) {
    const bool plain = !word.empty() && word.find_first_not_of(
                                            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                            "0123456789_-./:,+=@%") == word.npos;
    if (plain) return word;
    std::string result = "'";
    for (const char c : word) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return result + "'";
}

// The command of run.json, else one made of its settings.
std::string command_of(const Run& run) {
    if (!run.command.empty()) return run.command;
    std::string text = "winnow eval " + shell_word(run.suite) + " -m MODEL";
    if (!run.settings.is_object()) return text;
    for (const auto& [key, value] : run.settings.items()) {
        std::string name = key;
        std::replace(name.begin(), name.end(), '_', '-');
        if (value.is_boolean()) {
            if (value.get<bool>()) text += " --" + name;
        } else if (value.is_string() || value.is_number()) {
            const std::string word = value.is_string() ? value.get<std::string>() : value.dump();
            if (!word.empty()) text += " --" + name + " " + shell_word(word);
        }
    }
    return text;
}

std::string term(const std::string& name, const std::string& value) {
    if (value.empty()) return "";
    return "<dt>" + escaped(name) + "</dt><dd>" + escaped(value) + "</dd>\n";
}

}  // namespace

std::string table_html(const Table& table, bool sortable) {
    std::string text = "<div class=\"scroll\"><table class=\"data" +
                       std::string(sortable ? " sort" : "") + "\">\n<thead><tr>";
    for (const Column& column : table.columns) {
        text += column.text ? "<th class=\"t\"" : "<th";
        if (!column.hint.empty()) text += " title=\"" + escaped(column.hint) + "\"";
        text += ">" + escaped(column.title) + "</th>";
    }
    text += "</tr></thead>\n<tbody>\n";
    const bool blocks = std::count_if(table.rows.begin(), table.rows.end(),
                                      [](const Row& row) { return !row.block.empty(); }) > 1;
    for (const Row& row : table.rows) {
        if (blocks && !row.block.empty()) {
            text += "<tr class=\"block\"><th colspan=\"" + std::to_string(table.columns.size()) +
                    "\">" + escaped(row.block) + "</th></tr>\n";
        }
        text += row.kind.empty() ? "<tr>" : "<tr class=\"" + row.kind + "\">";
        for (std::size_t i = 0; i < row.cells.size(); ++i) {
            text += cell_html(row.cells[i], table.columns[i]);
        }
        text += "</tr>\n";
    }
    return text + "</tbody></table></div>\n";
}

std::string heat_html(const HeatSection& section, const Run& run) {
    const Heat& heat = section.heat;
    std::string text =
        "<p class=\"caption\">Mean score by length (tokens, across) and depth of the needle (%, "
        "down). <span class=\"scale\"><i>0</i><i>25</i><i>50</i><i>75</i><i>100</i></span></p>\n";
    const std::size_t best = best_grid(heat);
    for (std::size_t g = 0; g < heat.grids.size(); ++g) {
        const HeatGrid& grid = heat.grids[g];
        text += "<details class=\"heat\"" + std::string(g == 0 || g == best ? " open" : "") +
                "><summary>" + escaped(grid.method) +
                "</summary>\n<div class=\"maps\" style=\"--n:" +
                std::to_string(std::min<std::size_t>(grid.columns.size(), 4)) + "\">\n";
        for (const int place : grid.places) {
            if (place < 0) continue;
            const HeatMap& map = heat.maps[static_cast<std::size_t>(place)];
            const Config& c = run.configs[map.config];
            const std::string format = c.format_label(true);
            text += map_html(heat, map, c.prunes() ? c.budget_label() + ", " + format : format);
        }
        text += "</div></details>\n";
    }
    return text;
}

std::string replies_html(const Stats& stats) {
    const Run& run = stats.run();
    std::vector<const Line*> lowest(run.configs.size(), nullptr);
    for (const Line& line : run.lines) {
        if (line.reply.empty() || std::isnan(line.score)) continue;
        const Line*& kept = lowest[line.config];
        if (kept == nullptr || line.score < kept->score) kept = &line;
    }
    std::string rows;
    for (const Line* line : lowest) {
        if (line == nullptr) continue;
        rows += "<tr><td class=\"t\">" + escaped(run.configs[line->config].id) +
                "</td><td class=\"t\">" + escaped(line->prompt) + "</td><td>" +
                fixed(line->score, 1) + "</td><td class=\"reply\">" +
                escaped(shortened(joined(line->expected), 160)) + "</td><td class=\"reply\">" +
                escaped(shortened(line->reply, 240)) + "</td></tr>\n";
    }
    if (rows.empty()) return "";
    return "<details class=\"replies\"><summary>The lowest-scored reply of each "
           "configuration</summary>\n<div class=\"scroll\"><table class=\"data\"><thead><tr>"
           "<th class=\"t\">configuration</th><th class=\"t\">prompt</th><th>score</th>"
           "<th class=\"t\">expected</th><th class=\"t\">reply</th></tr></thead>\n<tbody>\n" +
           rows + "</tbody></table></div></details>\n";
}

std::string origin_html(const RunPage& page) {
    const Run& run = page.stats.run();
    std::string text =
        "<h3>" + escaped(page.title) + " <span>" + escaped(run.model) + "</span></h3>\n<dl>\n";
    text +=
        term("model", run.model + (run.architecture.empty() ? "" : " (" + run.architecture + ")"));
    text += term("sha256", run.sha256);
    text += term("winnow", run.version);
    text += term("seed", run.seed);
    text += term("wording", run.wording);
    text += term("fingerprint", run.fingerprint);
    text += term("read from", (run.folder == "." ? std::string("this folder") : run.folder) + ", " +
                                  std::to_string(run.files) +
                                  (run.files == 1 ? " result file" : " result files"));
    if (run.settings.is_object() && !run.settings.empty()) {
        text += term("settings", run.settings.dump(-1, ' ', false, Json::error_handler_t::replace));
    }
    return text + "</dl>\n<pre>" + escaped(command_of(run)) + "</pre>\n";
}

}  // namespace winnow::report
