#include "report/kept_page.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "report/kept_style.h"
#include "report/text.h"

namespace winnow::report {

namespace {

using Json = nlohmann::ordered_json;

constexpr char kDropped = '.';
constexpr char kFirstCode = 'A';
constexpr std::size_t kMostCodes = 26;

// The distinct precisions, most bits first. Beyond 26 the lowest share a letter.
std::vector<float> precisions(const KeptPage& page) {
    std::set<float, std::greater<>> distinct;
    for (const auto& layer : page.layers) {
        for (const auto& head : layer.heads) {
            distinct.insert(head.bits.begin(), head.bits.end());
            if (head.bits.size() < head.positions.size()) distinct.insert(16.0F);
        }
    }
    std::vector<float> list(distinct.begin(), distinct.end());
    list.resize(std::min(list.size(), kMostCodes));
    return list;
}

// One letter per token: its precision in this head, or a dot.
std::string codes(const KeptPage::Head& head, std::size_t tokens, const std::vector<float>& bits) {
    std::string text(tokens, kDropped);
    for (std::size_t i = 0; i < head.positions.size(); ++i) {
        const auto position = static_cast<std::size_t>(head.positions[i]);
        if (position >= tokens) continue;  // of the answer, not of the prompt
        const float at = i < head.bits.size() ? head.bits[i] : 16.0F;
        const auto place =
            std::lower_bound(bits.begin(), bits.end(), at, std::greater<>()) - bits.begin();
        text[position] =
            static_cast<char>(kFirstCode + std::min<std::ptrdiff_t>(place, std::ssize(bits) - 1));
    }
    return text;
}

// The colour class of a precision; the script has the same steps.
int step_of(double bits) {
    return bits > 12 ? 0 : bits > 6 ? 1 : bits > 3.5 ? 2 : bits > 2.25 ? 3 : 4;
}

// The text as it looks before the script runs, and where it may not: all layers and heads.
std::string text_html(const KeptPage& page) {
    const std::size_t tokens = page.pieces.size();
    std::vector<double> kept(tokens, 0.0), bits(tokens, 0.0);
    double pairs = 0;
    for (const auto& layer : page.layers) {
        for (const auto& head : layer.heads) {
            ++pairs;
            for (std::size_t i = 0; i < head.positions.size(); ++i) {
                const auto t = static_cast<std::size_t>(head.positions[i]);
                if (t >= tokens) continue;
                kept[t] += 1;
                bits[t] += i < head.bits.size() ? static_cast<double>(head.bits[i]) : 16.0;
            }
        }
    }
    std::string text;
    for (std::size_t t = 0; t < tokens; ++t) {
        const int share = pairs > 0 ? static_cast<int>(std::ceil(kept[t] / pairs * 10 - 1e-9)) : 0;
        text +=
            format("<i class=\"k%d p%d\">", share, kept[t] > 0 ? step_of(bits[t] / kept[t]) : 0) +
            escaped(page.pieces[t]) + "</i>";
    }
    return text;
}

std::string data_json(const KeptPage& page, const std::vector<float>& bits) {
    Json layers = Json::array();
    for (const auto& layer : page.layers) {
        Json heads = Json::array();
        for (const auto& head : layer.heads) {
            heads.push_back(codes(head, page.pieces.size(), bits));
        }
        layers.push_back({{"budget", layer.budget}, {"heads", std::move(heads)}});
    }
    // Numbers and letters of ours only: nothing in it can end the element it stands in.
    return Json{{"bits", bits}, {"layers", std::move(layers)}}.dump();
}

std::string legend(const std::vector<float>& bits) {
    std::string text = "<p class=\"legend\">Stronger: kept by more heads. ";
    for (const float b : bits) {
        text += format("<i class=\"k8 p%d\">%g bits</i> ", step_of(static_cast<double>(b)),
                       static_cast<double>(b));
    }
    return text + "<i class=\"k0\">kept by none</i></p>\n";
}

}  // namespace

std::string kept_html(const KeptPage& page) {
    const std::vector<float> bits = precisions(page);
    std::size_t heads = 0;
    for (const auto& layer : page.layers) heads = std::max(heads, layer.heads.size());
    std::string text =
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
        "<meta name=\"color-scheme\" content=\"light dark\">\n<title>" +
        escaped(page.title) + "</title>\n<style>\n" + kept_style() + "</style>\n</head>\n<body>\n";
    text += "<h1>What the cache kept</h1>\n<p class=\"sub\">" + escaped(page.title) + "</p>\n";
    text +=
        "<div class=\"bar\">\n<div class=\"controls\">\n<label>layer <input id=\"layer\" "
        "type=\"range\" min=\"0\" max=\"" +
        std::to_string(page.layers.size()) +
        "\" value=\"0\"> <output id=\"layer-name\">all layers</output></label>\n"
        "<label>kv head <select id=\"head\"><option value=\"-1\">all</option>";
    for (std::size_t h = 0; h < heads; ++h) {
        text += "<option value=\"" + std::to_string(h) + "\">" + std::to_string(h) + "</option>";
    }
    text += "</select></label>\n</div>\n" + legend(bits) +
            "<p id=\"status\">Point at a token to see who keeps it.</p>\n</div>\n";
    text +=
        "<h2>By layer</h2>\n<canvas id=\"map\"></canvas>\n<p class=\"sub\">A row per layer, "
        "the first at the top; the prompt from left to right. Click a row to see it "
        "below.</p>\n";
    text += "<h2>The prompt</h2>\n<div id=\"text\">" + text_html(page) + "</div>\n<dl>\n";
    for (std::size_t i = 0; i + 1 < page.facts.size(); i += 2) {
        text +=
            "<dt>" + escaped(page.facts[i]) + "</dt><dd>" + escaped(page.facts[i + 1]) + "</dd>\n";
    }
    text += "</dl>\n<script id=\"data\" type=\"application/json\">" + data_json(page, bits) +
            "</script>\n<script>\n" + kept_script() + "</script>\n</body>\n</html>\n";
    return text;
}

}  // namespace winnow::report
