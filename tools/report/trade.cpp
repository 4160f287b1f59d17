#include "report/trade.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>
#include <tuple>

#include "report/tables.h"
#include "report/text.h"

namespace winnow::report {

namespace {

constexpr int kRandomStyle = -1;
constexpr int kStyleCount = 8;

// One style per width of codes, so that 4 bits look alike in every chart.
int style_of_bits(const Config& c) {
    if (c.bits_k != c.bits_v || c.method == "mixed") return 5;
    switch (c.bits_k) {
        case 16:
            return 0;
        case 8:
            return 1;
        case 4:
            return 2;
        case 3:
            return 4;
        case 2:
            return 3;
        default:
            return 6;
    }
}

class Maker {
  public:
    Maker(const Stats& stats, const Measure& measure) : stats_(stats), measure_(measure) {
        std::set<std::string> quants;
        for (std::size_t i = 0; i < stats.run().configs.size(); ++i) {
            const Config& c = stats.run().configs[i];
            if (c.packs()) quants.insert(c.quant);
            if (c.prunes() && c.method != "random") methods_.insert(c.method);
            const Point point{
                .share = stats.share(i), .value = stats.measure(i, measure).value, .config = i};
            if (std::isnan(point.value) || !(point.share > 0)) continue;
            // The full cache is its own reference: a KL of nothing has no place on a log axis.
            if (measure.kl && point.value <= 0) continue;
            points_.push_back(point);
        }
        name_quant_ = quants.size() > 1;
    }

    std::vector<LineChart> charts() {
        by_method();
        by_format();
        const std::size_t pruned = charts_.size();
        set_ranges(0, pruned);
        unpruned();
        set_ranges(pruned, charts_.size());
        return std::move(charts_);
    }

  private:
    const Config& config(const Point& point) const { return stats_.run().configs[point.config]; }

    // One style per method of the run, so that it looks alike in every chart.
    int style_of_method(const std::string& method) const {
        if (method == "random") return kRandomStyle;
        return static_cast<int>(std::distance(methods_.begin(), methods_.find(method))) %
               kStyleCount;
    }

    // The style wished for, or the next that no line has yet.
    static int unused(const std::vector<Series>& lines, int wished) {
        const auto taken = [&](int style) {
            return std::any_of(lines.begin(), lines.end(),
                               [&](const Series& s) { return s.style == style; });
        };
        if (wished == kRandomStyle || !taken(wished)) return wished;
        for (int style = kStyleCount - 1; style >= 0; --style) {
            if (!taken(style)) return style;
        }
        return wished;
    }

    // Sorts the chosen points into lines named by `label`.
    std::vector<Series> lines(const std::function<bool(const Config&)>& chosen,
                              const std::function<std::string(const Config&)>& label,
                              const std::function<int(const Config&, std::size_t)>& style) const {
        std::vector<Series> result;
        for (const Point& point : points_) {
            const Config& c = config(point);
            if (!chosen(c)) continue;
            const std::string name = label(c);
            auto found = std::find_if(result.begin(), result.end(),
                                      [&](const Series& s) { return s.label == name; });
            if (found == result.end()) {
                result.push_back({.label = name,
                                  .style = unused(result, style(c, result.size())),
                                  .points = {}});
                found = result.end() - 1;
            }
            found->points.push_back(point);
        }
        for (Series& s : result) {
            std::stable_sort(s.points.begin(), s.points.end(),
                             [](const Point& a, const Point& b) { return a.share < b.share; });
        }
        return result;
    }

    void add(const std::string& key, const std::string& title, std::vector<Series> series) {
        const bool shows = std::any_of(series.begin(), series.end(),
                                       [](const Series& s) { return s.points.size() > 1; });
        if (!shows) return;
        LineChart chart;
        chart.key = measure_.key + "-" + key;
        chart.title = title;
        chart.subtitle = measure_.kl ? "mean KL divergence to the full cache (nats)"
                                     : "score, " + measure_.label;
        chart.log_y = measure_.kl;
        chart.series = std::move(series);
        if (!measure_.kl && stats_.full() >= 0) {
            chart.full = stats_.measure(static_cast<std::size_t>(stats_.full()), measure_).value;
        }
        charts_.push_back(std::move(chart));
    }

    void by_method() {
        std::vector<std::string> methods;
        for (const Point& point : points_) {
            const std::string& method = config(point).method;
            const bool control = method == "full" || method == "random";
            if (control || !config(point).prunes()) continue;
            if (methods.empty() || methods.back() != method) methods.push_back(method);
        }
        for (const std::string& method : methods) {
            auto series = lines([&](const Config& c) { return c.prunes() && c.method == method; },
                                [&](const Config& c) { return c.format_label(name_quant_); },
                                [](const Config& c, std::size_t) { return style_of_bits(c); });
            auto control = lines(
                [](const Config& c) { return c.prunes() && c.method == "random" && !c.packs(); },
                [](const Config&) { return std::string("random, 16 bits"); },
                [](const Config&, std::size_t) { return kRandomStyle; });
            series.insert(series.end(), control.begin(), control.end());
            add("bytes-" + slug(method), method, std::move(series));
        }
    }

    void by_format() {
        std::vector<std::pair<int, std::string>> formats;  // most bits first
        for (const Point& point : points_) {
            const Config& c = config(point);
            if (!c.prunes()) continue;
            const std::pair format{-c.bits_k - c.bits_v, c.format_label(name_quant_)};
            if (std::find(formats.begin(), formats.end(), format) == formats.end()) {
                formats.push_back(format);
            }
        }
        std::stable_sort(formats.begin(), formats.end(),
                         [](const auto& a, const auto& b) { return a.first < b.first; });
        for (const auto& format : formats) {
            const std::string& label = format.second;
            auto series = lines(
                [&](const Config& c) { return c.prunes() && c.format_label(name_quant_) == label; },
                [](const Config& c) { return c.method; },
                [&](const Config& c, std::size_t) { return style_of_method(c.method); });
            if (series.size() < 2) continue;
            add("methods-" + slug(label), label, std::move(series));
        }
    }

    void unpruned() {
        auto series = lines(
            [](const Config& c) { return !c.prunes() && c.packs(); },
            [](const Config& c) { return c.method == "full" ? c.quant : c.method + " " + c.quant; },
            [](const Config&, std::size_t place) { return static_cast<int>(place); });
        if (series.empty()) return;
        add("formats", "every token kept", std::move(series));
    }

    // The end of an axis of scores: 100, or less where all of them are low, as rouge's are.
    static double score_top(double most) {
        for (const double top : {10.0, 25.0, 50.0}) {
            if (most <= top) return top;
        }
        return 100.0;
    }

    // The charts from `begin` to `end` get the same axes, to be read side by side.
    void set_ranges(std::size_t begin, std::size_t end) {
        double low = 1, high = 0, least = 1e300, most = 0;
        for (std::size_t i = begin; i < end; ++i) {
            const LineChart& chart = charts_[i];
            if (!std::isnan(chart.full)) most = std::max(most, chart.full);
            for (const Series& s : chart.series) {
                for (const Point& p : s.points) {
                    low = std::min(low, p.share);
                    high = std::max(high, p.share);
                    least = std::min(least, p.value);
                    most = std::max(most, p.value);
                }
            }
        }
        for (std::size_t i = begin; i < end; ++i) {
            LineChart& chart = charts_[i];
            chart.x_low = std::exp2(std::floor(std::log2(low)));
            chart.x_high = std::exp2(std::ceil(std::log2(high)));
            if (!chart.log_y) {
                chart.y_high = score_top(most);
                continue;
            }
            std::tie(chart.y_low, chart.y_high) = log_axis(least, most);
        }
    }

    const Stats& stats_;
    const Measure& measure_;
    std::set<std::string> methods_;
    std::vector<Point> points_;
    bool name_quant_ = false;
    std::vector<LineChart> charts_;
};

}  // namespace

std::pair<double, double> log_axis(double least, double most) {
    const auto decade = [](double value) { return std::pow(10.0, std::floor(std::log10(value))); };
    double low = decade(least), high = decade(most);
    for (const double step : {2.0, 5.0}) {
        if (step * decade(least) <= least) low = step * decade(least);
    }
    for (const double step : {10.0, 5.0, 2.0}) {
        if (step * decade(most) >= most) high = step * decade(most);
    }
    if (most <= decade(most)) high = decade(most);
    if (high > kFineAxis * low) {
        low = decade(least);
        high = most <= decade(most) ? decade(most) : 10 * decade(most);
    }
    return {low, high > low ? high : 2 * low};
}

std::vector<LineChart> trade_charts(const Stats& stats, const Measure& measure) {
    return Maker(stats, measure).charts();
}

Table trade_table(const Stats& stats, const Measure& measure) {
    Table table{.key = measure.key + "-bytes",
                .title = measure.label + " against bytes",
                .caption = "",
                .columns = {{"configuration", "config", "", true},
                            {"method", "method", "", true},
                            {"format", "format", "", true},
                            {"bits", "bits_k", ""},
                            {"bits V", "bits_v", ""},
                            {"cap", "max_capacity_prompts", ""},
                            {"bytes", "kv_bytes", ""},
                            {"of full", "share_of_full", ""},
                            {"value", measure.kl ? "kl_mean" : "score", ""}},
                .rows = {}};
    for (std::size_t i = 0; i < stats.run().configs.size(); ++i) {
        const Config& c = stats.run().configs[i];
        const double value = stats.measure(i, measure).value;
        if (std::isnan(value)) continue;
        Row row;
        for (const std::string& text :
             {c.id, c.method, c.quant, std::to_string(c.bits_k), std::to_string(c.bits_v),
              std::to_string(c.cap), exact(stats.kv(i).bytes), exact(stats.share(i)),
              exact(value)}) {
            row.cells.push_back({.shown = text, .raw = text});
        }
        table.rows.push_back(std::move(row));
    }
    return table;
}

}  // namespace winnow::report
