// The page: every run with its tables, heat-maps and charts, as one HTML file without the network.
#pragma once

#include <string>
#include <vector>

#include "report/charts.h"
#include "report/heat.h"
#include "report/stats.h"
#include "report/tables.h"

namespace winnow::report {

/// The heat-maps of one needle, and the figures of them that were drawn.
struct HeatSection {
    std::string title;
    Heat heat;
    std::vector<Figure> figures;  ///< by grid
    std::string csv;              ///< file name
};

/// Charts of one measure.
struct ChartSection {
    std::string title;
    std::vector<Figure> figures;
    std::string csv;
};

struct RunPage {
    std::string name;   ///< how its files begin, and its anchor
    std::string title;  ///< "Needle in a haystack"
    Stats stats;
    Table summary;
    std::vector<Table> tables;
    std::vector<HeatSection> heats;
    std::vector<ChartSection> charts;
};

std::string page_html(const std::vector<RunPage>& pages, const std::vector<std::string>& notes);

/// A table of the page, its rows in the order given; `sortable` by a click on a column.
std::string table_html(const Table& table, bool sortable);
/// The heat-maps of a needle as small tables, readable without gnuplot and on a telephone.
std::string heat_html(const HeatSection& section, const Run& run);
/// Replies to read: the lowest score of each configuration.
std::string replies_html(const Stats& stats);
/// What it takes to run it again.
std::string origin_html(const RunPage& page);

/// The page's style sheet and its script.
const char* page_style();
const char* page_script();

}  // namespace winnow::report
