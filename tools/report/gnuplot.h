// Runs gnuplot over the scripts of figures.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "report/charts.h"

namespace winnow::report {

/// Where PATH has gnuplot, or "".
std::string find_gnuplot();

/// Draws all figures with `gnuplot`: their scripts, SVG and PNG appear in `folder`, each at once,
/// and `svg` and `png` of the figures are set. Returns "" or a sentence about what is missing.
std::string draw(const std::string& gnuplot, std::vector<Figure*>& figures,
                 const std::filesystem::path& folder);

}  // namespace winnow::report
