// Cells of tables, each with what is shown and what CSV gets.
#pragma once

#include <string>

#include "report/tables.h"

namespace winnow::report {

Cell word_cell(const std::string& text);
Cell number_cell(double value, int digits);
Cell count_cell(double value);  ///< a whole number with commas
Cell kl_cell(double value);
Cell share_cell(double share);                          ///< shown in percent
Cell value_cell(const Measure& measure, double value);  ///< a score or a KL divergence

/// "full", "random" or "".
std::string kind_of(const Config& config);
/// Whether `a` is the better value of the measure; any number is better than none.
bool better(const Measure& measure, double a, double b);
/// Whether the run's packed caches are of more than one quantiser, so that bits do not name one.
bool several_quants(const Run& run);

}  // namespace winnow::report
