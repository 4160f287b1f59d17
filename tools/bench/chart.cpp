#include "bench/chart.h"

#include <algorithm>
#include <cmath>

#include "cli/terminal.h"

namespace winnow::bench {
namespace {

using cli::format;

// All in SVG units, which a browser shows as pixels.
constexpr double kLeft = 64, kTop = 90, kPlotWidth = 560, kPlotHeight = 340;
constexpr double kRight = kLeft + kPlotWidth, kBottom = kTop + kPlotHeight;
constexpr double kLegend = kRight + 24, kLegendRow = 22;
constexpr const char* kFont = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";

// Told apart by colour-blind readers too (Okabe and Ito).
constexpr const char* kColours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                    "#56b4e9", "#b8860b", "#7a6fd0", "currentColor"};
constexpr const char* kRivalColours[] = {"#767676", "#8f8f8f", "#a8a8a8"};
constexpr const char* kRivalDashes[] = {"7 4", "2 3", "9 3 2 3"};

struct Style {
    std::string colour;
    std::string dashes;  // "": a whole line
};

std::string escaped(const std::string& text) {
    std::string result;
    for (const char c : text) {
        if (c == '&')
            result += "&amp;";
        else if (c == '<')
            result += "&lt;";
        else if (c == '>')
            result += "&gt;";
        else
            result += c;
    }
    return result;
}

// A step of 1, 2 or 5 times a power of ten that cuts `top` into at most `most` parts.
double tick_step(double top, int most) {
    const double rough = top / most;
    const double power = std::pow(10.0, std::floor(std::log10(rough)));
    for (const double step : {1.0, 2.0, 5.0}) {
        if (step * power >= rough) return step * power;
    }
    return 10.0 * power;
}

std::string number(double value) {
    return value >= 1000.0 ? cli::with_commas(static_cast<std::uint64_t>(std::llround(value)))
                           : format("%.4g", value);
}

std::string text_at(double x, double y, const std::string& attributes, const std::string& text) {
    return format("<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, attributes.c_str()) + escaped(text) +
           "</text>\n";
}

class Axes {
  public:
    explicit Axes(const Chart& chart) {
        double x = 0.0, y = 0.0;
        for (const Series& series : chart.series) {
            for (const Point& point : series.points) {
                x = std::max(x, point.x);
                y = std::max(y, point.y);
            }
        }
        x_step_ = tick_step(std::max(x, 1.0), 8);
        y_step_ = tick_step(std::max(y, 1e-3), 6);
        x_top_ = std::max(x, 1.0) * 1.03;
        y_top_ = y_step_ * std::ceil(std::max(y, 1e-3) / y_step_);
    }

    double x(double value) const { return kLeft + kPlotWidth * value / x_top_; }
    double y(double value) const { return kBottom - kPlotHeight * value / y_top_; }

    std::string svg() const {
        std::string text;
        for (int i = 0; i * y_step_ <= y_top_ * 1.0001; ++i) {
            const double at = y(i * y_step_);
            text += format("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>\n",
                           kLeft, at, kRight, at, i == 0 ? "rule" : "grid");
            text += text_at(kLeft - 8, at + 4, "text-anchor=\"end\" class=\"tick\"",
                            number(i * y_step_));
        }
        for (int i = 0; i * x_step_ <= x_top_ * 1.0001; ++i) {
            const double at = x(i * x_step_);
            text +=
                format("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"rule\"/>\n",
                       at, kBottom, at, kBottom + 5);
            text += text_at(at, kBottom + 20, "text-anchor=\"middle\" class=\"tick\"",
                            number(i * x_step_));
        }
        return text;
    }

  private:
    double x_step_, y_step_, x_top_, y_top_;
};

// A line with a dot at each point measured.
std::string series_svg(const Series& series, const Style& style, const Axes& axes) {
    std::string path, dots;
    for (const Point& point : series.points) {
        const double x = axes.x(point.x), y = axes.y(point.y);
        path += format("%s%.1f %.1f", path.empty() ? "M" : " L", x, y);
        dots += format("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"%s\"><title>", x, y,
                       style.colour.c_str()) +
                escaped(series.name) +
                format(": %.1f at %.0f</title></circle>\n", point.y, point.x);
    }
    return "<path d=\"" + path + "\" fill=\"none\" stroke=\"" + style.colour +
           "\" stroke-width=\"2.2\" stroke-linejoin=\"round\" stroke-dasharray=\"" +
           (style.dashes.empty() ? "none" : style.dashes) + "\"/>\n" + dots;
}

std::string legend_svg(const Series& series, const Style& style, double y) {
    return format(
               "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" "
               "stroke-width=\"2.2\" stroke-dasharray=\"%s\"/>\n",
               kLegend, y, kLegend + 26, y, style.colour.c_str(),
               style.dashes.empty() ? "none" : style.dashes.c_str()) +
           format("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"%s\"/>\n", kLegend + 13, y,
                  style.colour.c_str()) +
           text_at(kLegend + 34, y + 4, "class=\"name\"", series.name);
}

std::vector<Style> styles_of(const Chart& chart) {
    std::vector<Style> styles;
    std::size_t ours = 0, rivals = 0;
    for (const Series& series : chart.series) {
        if (series.rival) {
            const std::size_t i = rivals++ % std::size(kRivalColours);
            styles.push_back({kRivalColours[i], kRivalDashes[i]});
        } else {
            // The second round of colours is told apart by its dots.
            const bool again = ours >= std::size(kColours);
            styles.push_back({kColours[ours++ % std::size(kColours)], again ? "1 4" : ""});
        }
    }
    return styles;
}

// From the line that ends highest down, as the eye meets them at the right edge.
std::vector<std::size_t> legend_order(const Chart& chart) {
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < chart.series.size(); ++i) {
        if (!chart.series[i].points.empty()) order.push_back(i);
    }
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return chart.series[a].points.back().y > chart.series[b].points.back().y;
    });
    return order;
}

}  // namespace

std::string chart_svg(const Chart& chart) {
    const Axes axes(chart);
    const std::vector<Style> styles = styles_of(chart);
    const std::vector<std::size_t> order = legend_order(chart);
    std::size_t longest = 0;
    for (const Series& series : chart.series) longest = std::max(longest, series.name.size());
    // 7.4 and 10.5 are generous mean widths of a letter at 13 and at 18 px.
    const double legend_width = 34 + 7.4 * static_cast<double>(longest) + 16;
    const double title_width = 32 + 10.5 * static_cast<double>(chart.title.size());
    const double width = std::max(kLegend + legend_width, title_width);
    const double height =
        std::max(kBottom + 56, kTop + kLegendRow * static_cast<double>(order.size()) + 16);

    std::string text = format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
        "viewBox=\"0 0 %.0f %.0f\" role=\"img\" font-family=\"%s\" fill=\"currentColor\">\n",
        width, height, width, height, kFont);
    text += "<title>" + escaped(chart.title) + "</title>\n";
    text +=
        "<style>svg{color:#1a1a1a;background:#fff}"
        "@media(prefers-color-scheme:dark){svg{color:#e8e6e3;background:#16181b}}"
        ".tick{font-size:12px;fill-opacity:.7}.name,.axis{font-size:13px}"
        ".head{font-size:18px;font-weight:600}.sub{font-size:13px;fill-opacity:.7}"
        ".rule{stroke:currentColor;stroke-opacity:.6}.grid{stroke:currentColor;"
        "stroke-opacity:.15}</style>\n";
    text += text_at(16, 30, "class=\"head\"", chart.title);
    text += text_at(16, 50, "class=\"sub\"", chart.subtitle);
    text += text_at(16, kTop - 14, "class=\"tick\"", chart.y_label);
    text += axes.svg();
    text += text_at(kLeft + kPlotWidth / 2, kBottom + 42, "text-anchor=\"middle\" class=\"axis\"",
                    chart.x_label);
    for (const std::size_t i : order) text += series_svg(chart.series[i], styles[i], axes);
    double y = kTop + 8;
    for (const std::size_t i : order) {
        text += legend_svg(chart.series[i], styles[i], y);
        y += kLegendRow;
    }
    return text + "</svg>\n";
}

}  // namespace winnow::bench
