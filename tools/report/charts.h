// Charts as gnuplot scripts that carry their data: each writes NAME.svg and NAME.png.
#pragma once

#include <string>

#include "report/heat.h"
#include "report/trade.h"

namespace winnow::report {

struct Figure {
    std::string name;    ///< of its files, without extension
    std::string title;   ///< for readers who cannot see it
    std::string script;  ///< gnuplot
    std::string svg;     ///< what was drawn, ready for a page; "" where it was not
    bool png = false;    ///< whether NAME.png was drawn as well
};

/// A line per series, log2 axis of bytes. `name` is a file name without extension.
Figure line_figure(const std::string& name, const LineChart& chart);

/// The heat-maps of one method side by side. `title` says the measure and the method.
Figure heat_figure(const std::string& name, const std::string& title, const Run& run,
                   const Heat& heat, const HeatGrid& grid);

}  // namespace winnow::report
