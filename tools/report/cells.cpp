#include "report/cells.h"

#include <cmath>
#include <set>

#include "report/text.h"

namespace winnow::report {

Cell word_cell(const std::string& text) {
    return {.shown = text, .raw = text};
}

Cell number_cell(double value, int digits) {
    return {.shown = fixed(value, digits), .raw = exact(value)};
}

Cell count_cell(double value) {
    return {.shown = std::isnan(value) ? "-" : with_commas(value), .raw = exact(value)};
}

Cell kl_cell(double value) {
    return {.shown = significant(value), .raw = exact(value)};
}

Cell share_cell(double share) {
    return {.shown = significant(share * 100) + " %", .raw = exact(share)};
}

Cell value_cell(const Measure& measure, double value) {
    return measure.kl ? kl_cell(value) : number_cell(value, 1);
}

std::string kind_of(const Config& config) {
    return config.is_full() ? "full" : config.method == "random" ? "random" : "";
}

bool better(const Measure& measure, double a, double b) {
    if (std::isnan(a)) return false;
    return std::isnan(b) || (measure.kl ? a < b : a > b);
}

bool several_quants(const Run& run) {
    std::set<std::string> quants;
    for (const Config& config : run.configs) {
        if (config.packs()) quants.insert(config.quant);
    }
    return quants.size() > 1;
}

}  // namespace winnow::report
