// What a cache of each format and bit width costs.
#pragma once

#include <winnow/winnow.h>

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "json_output.h"

namespace winnow::cli {

constexpr std::array<int, 5> kBitWidths{16, 8, 4, 3, 2};

struct FormatCost {
    std::string format;
    /// Bytes per kept token of one layer and kv head, K and V, for each of kBitWidths; nothing
    /// where the format does not have that width.
    std::array<std::optional<double>, kBitWidths.size()> bytes;
};

/// Every format for a head dimension of `head_dim`, group size and axes as the format's paper.
std::vector<FormatCost> format_costs(int head_dim);

/// A table of `costs` times `scale`; `digits` behind the point.
std::string cost_table(const std::vector<FormatCost>& costs, double scale, int digits);
/// {"kivi": {"16": bytes, "8": ...}} times `scale`; null where there is no such width.
Json costs_json(const std::vector<FormatCost>& costs, double scale);

}  // namespace winnow::cli
