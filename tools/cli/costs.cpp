#include "costs.h"

#include "terminal.h"

namespace winnow::cli {
namespace {

constexpr std::size_t kNameWidth = 14;

std::optional<double> bytes_of(const std::string& name, int bits, int head_dim) {
    CacheOptions cache;
    cache.quant_method = name;
    cache.nbits = bits;
    try {
        return packed_bytes_per_token(cache, head_dim);
    } catch (const Error&) {
        return std::nullopt;  // the format has no such width, or not for this shape
    }
}

}  // namespace

std::vector<FormatCost> format_costs(int head_dim) {
    std::vector<FormatCost> costs;
    for (const MethodInfo& format : format_list()) {
        FormatCost cost{format.name, {}};
        for (std::size_t i = 0; i < kBitWidths.size(); ++i) {
            cost.bytes[i] = bytes_of(format.name, kBitWidths[i], head_dim);
        }
        costs.push_back(std::move(cost));
    }
    return costs;
}

std::string cost_table(const std::vector<FormatCost>& costs, double scale, int digits) {
    std::string text = "  " + padded("format", kNameWidth);
    for (const int bits : kBitWidths) text += format("%11d bits", bits);
    text += "\n";
    for (const FormatCost& cost : costs) {
        text += "  " + padded(cost.format, kNameWidth);
        for (const auto& bytes : cost.bytes) {
            text += bytes ? format("%16.*f", digits, *bytes * scale) : format("%16s", "-");
        }
        text += "\n";
    }
    return text +
           "\n  Besides: the newest tokens stay at 16 bits (residual-length), and once tokens are\n"
           "  dropped, each that is left has a position of 4 bytes per kv head and layer.\n";
}

Json costs_json(const std::vector<FormatCost>& costs, double scale) {
    Json object = Json::object();
    for (const FormatCost& cost : costs) {
        Json widths = Json::object();
        for (std::size_t i = 0; i < kBitWidths.size(); ++i) {
            widths[std::to_string(kBitWidths[i])] =
                cost.bytes[i] ? Json(*cost.bytes[i] * scale) : Json(nullptr);
        }
        object[cost.format] = std::move(widths);
    }
    return object;
}

}  // namespace winnow::cli
