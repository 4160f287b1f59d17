#include "report/charts.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "report/script.h"
#include "report/text.h"

namespace winnow::report {

namespace {

struct Style {
    const char* colour;
    int mark;
};

// Told apart by colour-blind readers (Okabe and Ito), on white and on black, and by their marks.
constexpr std::array<Style, 8> kStyles{{{"#0072b2", 7},
                                        {"#009e73", 5},
                                        {"#d55e00", 9},
                                        {"#cc79a7", 13},
                                        {"#e69f00", 11},
                                        {"#56b4e9", 15},
                                        {"#8c6d31", 6},
                                        {"#7a6fd0", 4}}};

std::string colour_of(const Series& series) {
    if (series.style < 0) return "soft";
    return quoted(kStyles[static_cast<std::size_t>(series.style) % kStyles.size()].colour);
}
int mark_of(const Series& series) {
    return series.style < 0 ? 6
                            : kStyles[static_cast<std::size_t>(series.style) % kStyles.size()].mark;
}

// What stands at the right of a line, in graph units of height.
struct EndLabel {
    double at;
    std::string text, colour;
    int mark;  // 0: none
};

// Moves labels apart: each at least `gap` above the one below, all inside the plot if they fit.
void spread(std::vector<EndLabel>& labels, double gap) {
    std::stable_sort(labels.begin(), labels.end(),
                     [](const EndLabel& a, const EndLabel& b) { return a.at < b.at; });
    for (std::size_t i = 1; i < labels.size(); ++i) {
        labels[i].at = std::max(labels[i].at, labels[i - 1].at + gap);
    }
    double top = 1.0;
    for (std::size_t i = labels.size(); i-- > 0; top -= gap) {
        labels[i].at = std::min(labels[i].at, top);
    }
}

double graph_height(const LineChart& chart, double value) {
    if (!chart.log_y) return (value - chart.y_low) / (chart.y_high - chart.y_low);
    return std::log(value / chart.y_low) / std::log(chart.y_high / chart.y_low);
}

std::vector<EndLabel> end_labels(const LineChart& chart) {
    std::vector<EndLabel> labels;
    for (const Series& s : chart.series) {
        labels.push_back(
            {graph_height(chart, s.points.back().value), s.label, colour_of(s), mark_of(s)});
    }
    if (!std::isnan(chart.full)) {
        labels.push_back({graph_height(chart, chart.full), "full cache", "ink", 0});
    }
    spread(labels, 0.09);
    return labels;
}

// Powers of two between the ends of the axis, as parts of the full cache.
std::string share_tics(const LineChart& chart) {
    const int low = static_cast<int>(std::lround(std::log2(chart.x_low)));
    const int high = static_cast<int>(std::lround(std::log2(chart.x_high)));
    const int step = high - low > 7 ? 2 : 1;
    std::string tics;
    for (int e = high; e >= low; e -= step) {
        const double share = std::exp2(e);
        const std::string label = e < 0 ? "1/" + format("%.0f", 1 / share) : format("%.0f", share);
        tics += (tics.empty() ? "" : ", ") + quoted(label) + format(" %.10g", share);
    }
    return tics;
}

std::string log_tics(const LineChart& chart) {
    const double slack = 1e-6;
    std::string tics;
    const int first = static_cast<int>(std::floor(std::log10(chart.y_low) + slack));
    for (int power = first; std::pow(10.0, power) <= chart.y_high * (1 + slack); ++power) {
        for (const int step : {1, 2, 5}) {
            const double at = step * std::pow(10.0, power);
            if (at < chart.y_low * (1 - slack) || at > chart.y_high * (1 + slack) ||
                (step > 1 && chart.y_high > kFineAxis * chart.y_low * (1 + slack))) {
                continue;
            }
            const std::string label =
                power < -3 ? std::to_string(step) + "e" + std::to_string(power) : format("%g", at);
            tics += (tics.empty() ? "" : ", ") + quoted(label) + format(" %.10g", at);
        }
    }
    return tics;
}

std::string axes(const LineChart& chart) {
    std::string text = "set border 3 lc rgb soft lw 0.8\n";
    text += "set tics nomirror out scale 0.6 tc rgb soft\nset grid y lt 1 lw 0.8 lc rgb faint\n";
    text += "set logscale x 2\nset xtics (" + share_tics(chart) + ")\n";
    text += format("set xrange [%.10g:%.10g]\n", chart.x_low / 1.12, chart.x_high * 1.12);
    if (chart.log_y) {
        text += "set logscale y 10\nset mytics 1\nset ytics (" + log_tics(chart) + ")\n";
        text += format("set yrange [%.10g:%.10g]\n", chart.y_low, chart.y_high);
    } else {
        text += format("set ytics 0,%g,%g\nset yrange [0:%g]\n", chart.y_high / 5, chart.y_high,
                       chart.y_high);
    }
    return text;
}

}  // namespace

Figure line_figure(const std::string& name, const LineChart& chart) {
    constexpr int kWidth = 410, kHeight = 310;
    std::string data, plot;
    for (std::size_t i = 0; i < chart.series.size(); ++i) {
        const Series& s = chart.series[i];
        data += format("$line%zu << EOD\n", i);
        for (const Point& p : s.points) data += format("%.10g %.10g\n", p.share, p.value);
        data += "EOD\n";
        plot +=
            (plot.empty() ? "plot " : ", \\\n  ") +
            format("$line%zu using 1:2 with linespoints lw %s lc rgb %s pt %d ps %s dt %s title ",
                   i, s.style < 0 ? "1.4" : "2", colour_of(s).c_str(), mark_of(s),
                   s.style < 0 ? "0.6" : "0.75", s.style < 0 ? "3" : "1") +
            quoted(s.label);
    }
    const std::vector<EndLabel> labels = end_labels(chart);
    std::size_t longest = 0;
    for (const EndLabel& label : labels) longest = std::max(longest, label.text.size());
    const double right = 44 + 6.4 * static_cast<double>(longest);

    std::string body = "set key off\n";
    body += format("set lmargin at screen %.4f\nset rmargin at screen %.4f\n", 52.0 / kWidth,
                   1 - right / kWidth);
    body += format("set tmargin at screen %.4f\nset bmargin at screen %.4f\n", 1 - 58.0 / kHeight,
                   52.0 / kHeight);
    body += axes(chart);
    body += "set label 1 " + quoted(chart.title) +
            format(" at screen %.4f,%.4f left font 'Helvetica:Bold,14' tc rgb ink\n", 12.0 / kWidth,
                   1 - 18.0 / kHeight);
    body += "set label 2 " + quoted(chart.subtitle) +
            format(" at screen %.4f,%.4f left tc rgb soft\n", 12.0 / kWidth, 1 - 38.0 / kHeight);
    body += format(
        "set label 3 'KV cache bytes as a share of the full 16-bit cache' at screen "
        "%.4f,%.4f left tc rgb soft\n",
        52.0 / kWidth, 14.0 / kHeight);
    for (std::size_t i = 0; i < labels.size(); ++i) {
        const EndLabel& label = labels[i];
        body += format("set label %zu ", 10 + i) + quoted(label.text) +
                format(" at graph %s,%.4f left tc rgb %s", label.mark == 0 ? "1.03" : "1.05",
                       label.at, label.colour == "soft" ? "soft" : "ink");
        body += label.mark == 0 ? std::string(" offset 0.9,0.05\n")
                                : format(" point pt %d ps 0.75 lc rgb %s offset 0.9,-0.15\n",
                                         label.mark, label.colour.c_str());
    }
    if (!std::isnan(chart.full)) {
        body += format(
            "set arrow 1 from graph 0,first %.10g to graph 1,first %.10g nohead lc rgb ink lw 1 "
            "dt 2\n",
            chart.full, chart.full);
    }
    body += plot + "\n";
    const std::string title = chart.title + ": " + chart.subtitle + " against cache bytes";
    return {.name = name,
            .title = title,
            .script = script_of(name, title, data, body, kWidth, kHeight),
            .svg = "",
            .png = false};
}

namespace {

// Sizes of a figure of heat-maps, in SVG units.
struct HeatLayout {
    static constexpr double kLeft = 58, kTop = 40, kBottom = 48, kRight = 64, kGapX = 18,
                            kGapY = 30;
    double panel_width, panel_height, width, height;

    HeatLayout(const Heat& heat, const HeatGrid& grid) {
        const auto columns = static_cast<double>(grid.columns.size());
        const auto rows = static_cast<double>(grid.rows.size());
        panel_width = std::clamp(26.0 * static_cast<double>(heat.lengths.size()), 184.0, 420.0);
        panel_height = std::clamp(14.0 * static_cast<double>(heat.depths.size()), 70.0, 240.0);
        width = kLeft + columns * panel_width + (columns - 1) * kGapX + kRight;
        height = kTop + rows * (panel_height + kGapY) + kBottom;
    }
    double left(std::size_t column) const {
        return kLeft + static_cast<double>(column) * (panel_width + kGapX);
    }
    double top(std::size_t row) const {
        return kTop + kGapY + static_cast<double>(row) * (panel_height + kGapY);
    }
    std::string margins(std::size_t row, std::size_t column) const {
        return format(
            "set lmargin at screen %.5f\nset rmargin at screen %.5f\n"
            "set tmargin at screen %.5f\nset bmargin at screen %.5f\n",
            left(column) / width, (left(column) + panel_width) / width, 1 - top(row) / height,
            1 - (top(row) + panel_height) / height);
    }
};

// Every k-th label, so that at most `most` are shown.
template <class T>
std::string axis_tics(const std::vector<T>& values, std::size_t most) {
    const std::size_t step = (values.size() + most - 1) / most;
    std::string tics;
    for (std::size_t i = 0; i < values.size(); i += step) {
        tics += (tics.empty() ? "" : ", ") + quoted(format("%g", static_cast<double>(values[i]))) +
                format(" %zu", i);
    }
    return "(" + tics + ")";
}

std::string map_data(const Heat& heat, const HeatMap& map, std::size_t place) {
    std::string data = format("$map%zu << EOD\n", place);
    for (std::size_t c = 0; c < map.cells.size(); ++c) {
        if (std::isnan(map.cells[c])) continue;
        data += format("%zu %zu %.6g\n", c % heat.lengths.size(), c / heat.lengths.size(),
                       map.cells[c]);
    }
    return data + "EOD\n";
}

std::string heat_head(const std::string& title, const Heat& heat, const HeatLayout& at) {
    std::string text = "set key off\nset multiplot\nset border 0\nset style fill solid noborder\n";
    text += "set palette defined (0 '#f0496e', 50 '#ebb839', 100 '#0cd79f')\nset cbrange [0:100]\n";
    text += format("set xrange [-0.5:%zu.5]\nset yrange [%zu.5:-0.5]\n", heat.lengths.size() - 1,
                   heat.depths.size() - 1);
    text += "set tics scale 0 tc rgb soft\nset cbtics 0,50,100 tc rgb soft\n";
    text += format("set colorbox user origin screen %.5f,%.5f size screen %.5f,%.5f noborder\n",
                   1 - 44 / at.width, 1 - (at.top(0) + at.panel_height) / at.height, 9 / at.width,
                   at.panel_height / at.height);
    text += "set label 1 " + quoted(title) +
            format(" at screen %.5f,%.5f left font 'Helvetica:Bold,14' tc rgb ink\n", 12 / at.width,
                   1 - 20 / at.height);
    text += format("set label 2 'length (tokens)' at screen %.5f,%.5f left tc rgb soft\n",
                   HeatLayout::kLeft / at.width, 12 / at.height);
    text += format("set label 3 'depth (%%)' at screen %.5f,%.5f right rotate by 90 tc rgb soft\n",
                   14 / at.width, 1 - at.top(0) / at.height);
    return text + format("set label 4 'score' at screen %.5f,%.5f left tc rgb soft\n",
                         1 - 44 / at.width, 1 - (at.top(0) - 12) / at.height);
}

}  // namespace

Figure heat_figure(const std::string& name, const std::string& title, const Run& run,
                   const Heat& heat, const HeatGrid& grid) {
    const HeatLayout at(heat, grid);
    const std::size_t columns = grid.columns.size();
    std::string data, body = heat_head(title, heat, at);
    for (std::size_t p = 0; p < grid.places.size(); ++p) {
        if (grid.places[p] < 0) continue;
        const HeatMap& map = heat.maps[static_cast<std::size_t>(grid.places[p])];
        const Config& config = run.configs[map.config];
        data += map_data(heat, map, p);
        body += at.margins(p / columns, p % columns);
        const std::string x = axis_tics(heat.lengths, 4), y = axis_tics(heat.depths, 6);
        // Axes are labelled where nothing stands below, and in the first column.
        const bool last = p + columns >= grid.places.size() || grid.places[p + columns] < 0;
        body += last ? "set xtics scale 0 " + x + " tc rgb soft\n" : "unset xtics\n";
        body += p % columns == 0 ? "set ytics scale 0 " + y + " tc rgb soft\n" : "unset ytics\n";
        body += "set label 10 " +
                quoted(config.prunes() ? config.budget_label() + ", " + config.format_label(true)
                                       : config.format_label(true)) +
                format(" at graph 0,1 left offset 0,0.6 font 'Helvetica,11' tc rgb ink\n");
        body += "set label 11 " + quoted(fixed(map.mean, 1)) +
                " at graph 1,1 right offset 0,0.6 font 'Helvetica:Bold,11' tc rgb ink\n";
        body += format("plot $map%zu using 1:2:(0.48):(0.48):3 with boxxyerror fc palette", p);
        if (at.panel_width / static_cast<double>(heat.lengths.size()) >= 24) {
            body += format(
                ", $map%zu using 1:2:(sprintf('%%.0f',$3)) with labels font "
                "'Helvetica,9' tc rgb '#1a1a1a'",
                p);
        }
        body += "\nunset colorbox\nunset label 1; unset label 2; unset label 3; unset label 4\n";
    }
    body += "unset multiplot\n";
    return {.name = name,
            .title = title,
            .script = script_of(name, title, data, body, static_cast<int>(at.width),
                                static_cast<int>(at.height)),
            .svg = "",
            .png = false};
}

}  // namespace winnow::report
