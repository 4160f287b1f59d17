// Needle heat-maps: mean score by length and depth, arranged by tokens kept and format.
#pragma once

#include <string>
#include <vector>

#include "report/stats.h"

namespace winnow::report {

struct HeatMap {
    std::size_t config = 0;
    std::vector<double> cells;        ///< [depths][lengths], mean score; none where nothing ran
    std::vector<std::size_t> counts;  ///< prompts behind each cell
    double mean = kNone;              ///< over prompts
};

/// The maps of one method: rows are budgets, columns formats; or one behind another, with labels of
/// "", where that would leave most places empty.
struct HeatGrid {
    std::string method;
    std::vector<std::string> rows, columns;
    std::vector<int> places;  ///< [rows][columns], an index into Heat::maps, or -1
};

struct Heat {
    std::vector<int> lengths;    ///< tokens, ascending
    std::vector<double> depths;  ///< percent, ascending
    std::vector<HeatMap> maps;   ///< in the order of the run's configurations
    std::vector<HeatGrid> grids;
};

/// Empty where the measure's lines have no depth.
Heat heat_of(const Stats& stats, const Measure& measure);

/// "#0cd79f" for 100, the needle test's red, yellow and green between; "" for none.
std::string heat_colour(double score);

}  // namespace winnow::report
