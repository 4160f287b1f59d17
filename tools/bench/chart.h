// A line chart as SVG.
#pragma once

#include <string>
#include <vector>

namespace winnow::bench {

struct Point {
    double x = 0.0;
    double y = 0.0;
};
struct Series {
    std::string name;
    bool rival = false;  ///< drawn grey and dashed
    std::vector<Point> points;
};
struct Chart {
    std::string title, subtitle, x_label, y_label;
    std::vector<Series> series;
};

/// The chart; both axes begin at 0, the legend lists the lines from the highest end down.
std::string chart_svg(const Chart& chart);

}  // namespace winnow::bench
