// Tables that set methods and formats beside each other.
#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "report/cells.h"
#include "report/config.h"
#include "report/text.h"

namespace winnow::report {

namespace {

// Marks the best of a column among the rows from `begin`.
void mark_best(Table& table, std::size_t begin, std::size_t column) {
    double best = kNone;
    const auto value = [&](std::size_t row) {
        const std::string& raw = table.rows[row].cells[column].raw;
        return raw.empty() ? kNone : std::stod(raw);
    };
    const Measure score{};
    for (std::size_t r = begin; r < table.rows.size(); ++r) {
        if (better(score, value(r), best)) best = value(r);
    }
    for (std::size_t r = begin; r < table.rows.size(); ++r) {
        table.rows[r].cells[column].best = value(r) == best;
    }
}

using Budget = std::tuple<double, double, int>;  // bytes given, ratio, cap; zeros: all tokens

Budget budget_of(const Config& c) {
    return {bytes_of(c.kv_budget), c.ratio, c.cap};
}

void add_unique(std::vector<std::string>& list, const std::string& name) {
    if (std::find(list.begin(), list.end(), name) == list.end()) list.push_back(name);
}

}  // namespace

Table task_table(const Stats& stats) {
    const Run& run = stats.run();
    Table table{.key = "tasks",
                .title = "Scores by task",
                .caption =
                    "0 to 100, means over prompts; the average is the plain mean of the "
                    "tasks. The best of a block is bold.",
                .columns = {{"configuration", "config", "", true},
                            {"of full", "share_of_full", "bytes over those of the full f16 cache"}},
                .rows = {}};
    const Measure all{.key = "", .label = "", .tasks = stats.tasks()};
    for (const std::string& task : stats.tasks()) table.columns.push_back({task, task, ""});
    table.columns.push_back({"average", "average", ""});

    // Blocks of one budget and format: the methods side by side, `random` among them.
    const bool name_quant = several_quants(run);
    std::map<std::tuple<Budget, int, std::string>, std::vector<std::size_t>> blocks;
    for (std::size_t i = 0; i < run.configs.size(); ++i) {
        const Config& c = run.configs[i];
        blocks[{budget_of(c), -c.bits_k - c.bits_v, c.format_label(true)}].push_back(i);
    }
    for (const auto& [key, members] : blocks) {
        const std::size_t begin = table.rows.size();
        for (const std::size_t i : members) {
            const Config& c = run.configs[i];
            Row row{.cells = {word_cell(c.id), share_cell(stats.share(i))},
                    .kind = kind_of(c),
                    .block = ""};
            for (const std::string& task : stats.tasks()) {
                row.cells.push_back(number_cell(stats.score(i, task).value, 1));
            }
            row.cells.push_back(number_cell(stats.measure(i, all).value, 1));
            table.rows.push_back(std::move(row));
        }
        const Config& first = run.configs[members.front()];
        table.rows[begin].block = first.budget_label() + ", " + first.format_label(name_quant);
        for (std::size_t c = 2; members.size() > 1 && c < table.columns.size(); ++c) {
            mark_best(table, begin, c);
        }
    }
    return table;
}

namespace {

// Rows of a grid: by format, then full, the methods, `random`.
// Bits, format, group, method.
using GridKey = std::tuple<int, std::string, int, std::string>;
using Grid = std::map<GridKey, std::map<Budget, std::size_t>>;

Grid grid_of(const Run& run) {
    Grid grid;
    for (std::size_t i = 0; i < run.configs.size(); ++i) {
        const Config& c = run.configs[i];
        const int group = c.method == "full" ? 0 : c.method == "random" ? 2 : 1;
        const GridKey key{-c.bits_k - c.bits_v, c.format_label(true), group, c.method};
        grid[key].emplace(budget_of(c), i);
    }
    return grid;
}

}  // namespace

Table grid_table(const Stats& stats, const Measure& measure) {
    const Run& run = stats.run();
    Table table{.key = measure.key + "-grid",
                .title = measure.label + " by tokens kept",
                .caption = std::string(measure.kl ? "Mean KL divergence to the full cache, in "
                                                    "nats: lower is better."
                                                  : "Mean score, 0 to 100.") +
                           " The best of a format and budget is bold.",
                .columns = {{"method", "method", "", true}, {"format", "format", "", true}},
                .rows = {}};
    std::map<Budget, std::string> budgets;
    for (const Config& c : run.configs) budgets.emplace(budget_of(c), c.budget_label());
    for (const auto& [budget, label] : budgets) table.columns.push_back({label, label, ""});
    const Grid grid = grid_of(run);
    std::map<std::tuple<int, std::string, Budget>, double> best;  // full apart
    for (const auto& [key, cells] : grid) {
        const auto& [bits, quant, group, method] = key;
        for (const auto& [budget, i] : cells) {
            double& top = best.try_emplace({bits, quant, budget}, kNone).first->second;
            const double value = stats.measure(i, measure).value;
            if (group != 0 && better(measure, value, top)) top = value;
        }
    }
    const bool name_quant = several_quants(run);
    std::string last;
    for (const auto& [key, cells] : grid) {
        const auto& [bits, quant, group, method] = key;
        const Config& c = run.configs[cells.begin()->second];
        const std::string format = c.format_label(name_quant);
        Row row{.cells = {word_cell(method), word_cell(format)},
                .kind = kind_of(c),
                .block = format == last ? "" : format};
        last = format;
        for (const auto& [budget, label] : budgets) {
            const auto found = cells.find(budget);
            Cell cell;
            if (found != cells.end()) {
                const double value = stats.measure(found->second, measure).value;
                cell = value_cell(measure, value);
                cell.best = group != 0 && value == best.at({bits, quant, budget});
            }
            row.cells.push_back(std::move(cell));
        }
        table.rows.push_back(std::move(row));
    }
    return table;
}

namespace {

// A configuration stands for a budget when its bytes are within a third of it: caps come in steps
// of two, and scales, positions and tails add to the codes.
constexpr double kNear = 0.42;  // log2(4/3)

// The configuration of a method and format nearest to a share of the full cache, or -1.
int nearest(const Stats& stats, const std::string& method, const std::string& format,
            double share) {
    double off = kNear;
    int found = -1;
    for (std::size_t i = 0; i < stats.run().configs.size(); ++i) {
        const Config& c = stats.run().configs[i];
        if (c.method != method || !c.prunes() || c.format_label(true) != format) continue;
        const double distance = std::abs(std::log2(stats.share(i) / share));
        if (!(distance < off)) continue;
        off = distance;
        found = static_cast<int>(i);
    }
    return found;
}

}  // namespace

Table equal_bytes_table(const Stats& stats, const Measure& measure) {
    Table table{.key = measure.key + "-equal-bytes",
                .title = measure.label + " at equal bytes",
                .caption =
                    "The configuration of each format whose bytes are nearest to the "
                    "budget, at most a third off; its share of the full cache is in "
                    "brackets. The best of a row is bold.",
                .columns = {{"method", "method", "", true}, {"budget", "budget", "", true}},
                .rows = {}};
    std::vector<std::string> formats, methods;
    for (const Config& c : stats.run().configs) {
        if (!c.prunes()) continue;
        add_unique(formats, c.format_label(true));
        add_unique(methods, c.method);
    }
    for (const std::string& f : formats) {
        table.columns.push_back({f, slug(f) + (measure.kl ? "_kl" : "_score"), ""});
        table.columns.push_back({"", slug(f) + "_share_of_full", ""});
    }
    for (const std::string& method : methods) {
        bool first = true;
        for (int parts = 256; parts >= 2; parts /= 2) {
            const std::string budget = "1/" + std::to_string(parts);
            Row row{.cells = {word_cell(method), word_cell(budget)},
                    .kind = method == "random" ? "random" : "",
                    .block = first ? method : ""};
            std::size_t filled = 0;
            double best = kNone;
            for (const std::string& format : formats) {
                const int i = nearest(stats, method, format, 1.0 / parts);
                if (i < 0) {
                    row.cells.resize(row.cells.size() + 2);
                    continue;
                }
                const auto place = static_cast<std::size_t>(i);
                const double value = stats.measure(place, measure).value;
                const double share = stats.share(place);
                if (better(measure, value, best)) best = value;
                ++filled;
                row.cells.push_back(value_cell(measure, value));
                row.cells.push_back(
                    {.shown = "(1/" + significant(1 / share) + ")", .raw = exact(share)});
            }
            if (filled < 2) continue;  // nothing to compare
            for (std::size_t c = 2; c < row.cells.size(); c += 2) {
                row.cells[c].best = !row.cells[c].raw.empty() && row.cells[c].raw == exact(best);
            }
            first = false;
            table.rows.push_back(std::move(row));
        }
    }
    return table;
}

}  // namespace winnow::report
