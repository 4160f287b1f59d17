#include "report/heat.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>

#include "report/tables.h"
#include "report/text.h"

namespace winnow::report {

namespace {

template <class T>
std::size_t place_of(const std::vector<T>& sorted, T value) {
    return static_cast<std::size_t>(std::lower_bound(sorted.begin(), sorted.end(), value) -
                                    sorted.begin());
}

void add_axes(const Run& run, const std::string& task, Heat& heat) {
    std::set<int> lengths;
    std::set<double> depths;
    for (const Line& line : run.lines) {
        if (line.task != task || std::isnan(line.depth) || std::isnan(line.score)) continue;
        lengths.insert(line.length);
        depths.insert(line.depth);
    }
    heat.lengths.assign(lengths.begin(), lengths.end());
    heat.depths.assign(depths.begin(), depths.end());
}

void add_maps(const Stats& stats, const std::string& task, Heat& heat) {
    const Run& run = stats.run();
    const std::size_t cells = heat.lengths.size() * heat.depths.size();
    std::vector<HeatMap> all(run.configs.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
        all[i] = {.config = i,
                  .cells = std::vector<double>(cells, 0.0),
                  .counts = std::vector<std::size_t>(cells, 0),
                  .mean = stats.score(i, task).value};
    }
    for (const Line& line : run.lines) {
        if (line.task != task || std::isnan(line.depth) || std::isnan(line.score)) continue;
        const std::size_t cell = place_of(heat.depths, line.depth) * heat.lengths.size() +
                                 place_of(heat.lengths, line.length);
        all[line.config].cells[cell] += line.score;
        ++all[line.config].counts[cell];
    }
    for (HeatMap& map : all) {
        if (std::isnan(map.mean)) continue;
        for (std::size_t c = 0; c < cells; ++c) {
            map.cells[c] =
                map.counts[c] > 0 ? map.cells[c] / static_cast<double>(map.counts[c]) : kNone;
        }
        heat.maps.push_back(std::move(map));
    }
}

constexpr std::size_t kMostAbreast = 4;

// Where fewer than half of the places are taken, as by caches of equal bytes, the maps stand side
// by side in their order.
void close_gaps(HeatGrid& grid) {
    std::vector<int> maps = grid.places;
    std::erase(maps, -1);
    if (2 * maps.size() >= grid.places.size()) return;
    grid.columns.assign(std::min(maps.size(), kMostAbreast), "");
    grid.rows.assign((maps.size() + kMostAbreast - 1) / kMostAbreast, "");
    maps.resize(grid.rows.size() * grid.columns.size(), -1);
    grid.places = std::move(maps);
}

// Rows and columns in the order in which the sorted configurations bring them.
void add_grids(const Run& run, Heat& heat) {
    std::map<std::string, std::size_t> places;
    std::vector<std::vector<int>> members;
    for (std::size_t m = 0; m < heat.maps.size(); ++m) {
        const std::string& method = run.configs[heat.maps[m].config].method;
        const auto [at, fresh] = places.emplace(method, heat.grids.size());
        if (fresh) {
            heat.grids.push_back({.method = method, .rows = {}, .columns = {}, .places = {}});
            members.emplace_back();
        }
        members[at->second].push_back(static_cast<int>(m));
    }
    const auto label_place = [](std::vector<std::string>& labels, const std::string& label) {
        const auto found = std::find(labels.begin(), labels.end(), label);
        if (found != labels.end()) return static_cast<std::size_t>(found - labels.begin());
        labels.push_back(label);
        return labels.size() - 1;
    };
    for (std::size_t g = 0; g < heat.grids.size(); ++g) {
        HeatGrid& grid = heat.grids[g];
        std::vector<std::array<std::size_t, 2>> at;
        for (const int m : members[g]) {
            const Config& c = run.configs[heat.maps[static_cast<std::size_t>(m)].config];
            at.push_back({label_place(grid.rows, c.budget_label()),
                          label_place(grid.columns, c.format_label(true))});
        }
        grid.places.assign(grid.rows.size() * grid.columns.size(), -1);
        for (std::size_t i = 0; i < at.size(); ++i) {
            int& place = grid.places[at[i][0] * grid.columns.size() + at[i][1]];
            if (place < 0) place = members[g][i];  // others differ in settings the id names
        }
        close_gaps(grid);
    }
}

}  // namespace

Heat heat_of(const Stats& stats, const Measure& measure) {
    Heat heat;
    if (measure.tasks.size() != 1) return heat;
    add_axes(stats.run(), measure.tasks.front(), heat);
    if (heat.lengths.empty()) return heat;
    add_maps(stats, measure.tasks.front(), heat);
    add_grids(stats.run(), heat);
    return heat;
}

std::string heat_colour(double score) {
    if (std::isnan(score)) return "";
    constexpr std::array<std::array<double, 3>, 3> kStops{
        {{240, 73, 110}, {235, 184, 57}, {12, 215, 159}}};
    const double at = std::clamp(score, 0.0, 100.0) / 50.0;
    const std::size_t low = at < 1.0 ? 0 : 1;
    const double part = at - static_cast<double>(low);
    std::array<int, 3> rgb{};
    for (std::size_t i = 0; i < 3; ++i) {
        rgb[i] = static_cast<int>(
            std::lround(kStops[low][i] + part * (kStops[low + 1][i] - kStops[low][i])));
    }
    return format("#%02x%02x%02x", static_cast<unsigned>(rgb[0]), static_cast<unsigned>(rgb[1]),
                  static_cast<unsigned>(rgb[2]));
}

Table heat_table(const Stats& stats, const Measure& measure) {
    const Heat heat = heat_of(stats, measure);
    Table table{.key = measure.key + "-heat",
                .title = measure.label + " by length and depth",
                .caption = "",
                .columns = {{"configuration", "config", "", true},
                            {"length", "length_tokens", ""},
                            {"depth", "depth_percent", ""},
                            {"score", "score", ""},
                            {"prompts", "prompts", ""}},
                .rows = {}};
    for (const HeatMap& map : heat.maps) {
        const std::string& id = stats.run().configs[map.config].id;
        for (std::size_t c = 0; c < map.cells.size(); ++c) {
            if (map.counts[c] == 0) continue;
            const std::string length = std::to_string(heat.lengths[c % heat.lengths.size()]);
            const double depth = heat.depths[c / heat.lengths.size()];
            const auto count = static_cast<double>(map.counts[c]);
            table.rows.push_back({.cells = {{id, id},
                                            {length, length},
                                            {exact(depth), exact(depth)},
                                            {fixed(map.cells[c], 1), exact(map.cells[c])},
                                            {exact(count), exact(count)}},
                                  .kind = "",
                                  .block = ""});
        }
    }
    return table;
}

}  // namespace winnow::report
