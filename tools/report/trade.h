// Score or KL against bytes: the lines of the token-precision charts.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "report/stats.h"

namespace winnow::report {

struct Point {
    double share = kNone;  ///< bytes over the full cache's
    double value = kNone;
    std::size_t config = 0;
};

struct Series {
    std::string label;
    int style = 0;              ///< of a fixed list of colours and marks; -1: `random`, grey
    std::vector<Point> points;  ///< by share, ascending
};

struct LineChart {
    std::string key;       ///< part of the file's name
    std::string title;     ///< "snapkv"
    std::string subtitle;  ///< what stands on the y axis: "score, San Francisco needle"
    bool log_y = false;
    std::vector<Series> series;
    double full = kNone;           ///< the full cache's value, drawn across; none for KL
    double x_low = 1, x_high = 1;  ///< powers of two
    double y_low = 0, y_high = 100;
};

/// A logarithmic axis this short ends and has tics at 1, 2 and 5 times powers of ten, a longer one
/// at the powers alone.
constexpr double kFineAxis = 50;
/// The ends of the axis around values above 0.
std::pair<double, double> log_axis(double least, double most);

/// For each method a line per format; then for each format with several methods a line per method;
/// then, of configurations that keep every token, a line per quantiser. Points are budgets (bits in
/// the last). Charts without a line of two points are left out.
std::vector<LineChart> trade_charts(const Stats& stats, const Measure& measure);

}  // namespace winnow::report
