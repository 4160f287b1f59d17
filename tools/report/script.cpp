#include "report/script.h"

#include <array>
#include <string_view>
#include <utility>

#include "report/text.h"

namespace winnow::report {

namespace {

constexpr std::string_view kStyleBegin = "<style>";
constexpr std::string_view kStyleEnd = "</style>\n";

void replace_all(std::string& text, std::string_view from, std::string_view to) {
    std::string result;
    std::size_t begin = 0;
    for (std::size_t at; (at = text.find(from, begin)) != text.npos; begin = at + from.size()) {
        result.append(text, begin, at - begin).append(to);
    }
    if (begin == 0) return;
    text = result.append(text, begin);
}

// The inks are colours that nothing else uses, so that they can be told in gnuplot's output.
struct Ink {
    int level;
    const char* opacity;  // of the page's text colour
};
constexpr std::array<Ink, 3> kInks{{{1, ""}, {2, "0.68"}, {3, "0.16"}}};

void recolour(std::string& svg) {
    for (const Ink& ink : kInks) {
        const std::string wide = format("rgb(%3d, %3d, %3d)", ink.level, ink.level, ink.level);
        const std::string tight = format("rgb(%d,%d,%d)", ink.level, ink.level, ink.level);
        for (const std::string& colour : {wide, tight}) {
            for (const char* attribute : {"stroke", "fill", "color"}) {
                for (const char quote : {'\'', '"'}) {
                    const std::string opacity =
                        *ink.opacity == '\0'
                            ? ""
                            : (std::string_view(attribute) == "color"
                                   ? std::string(" opacity=\"")
                                   : " " + std::string(attribute) + "-opacity=\"") +
                                  ink.opacity + "\"";
                    replace_all(svg, std::string(attribute) + "=" + quote + colour + quote,
                                std::string(attribute) + "=\"currentColor\"" + opacity);
                }
            }
        }
    }
    // These would stop the page's colour from reaching currentColor.
    replace_all(svg, " color=\"black\"", "");
    replace_all(svg, " color=\"white\"", "");
}

// From `begin` to the end of `end`, wherever it stands.
void cut(std::string& text, std::string_view begin, std::string_view end) {
    for (std::size_t at; (at = text.find(begin)) != text.npos;) {
        const std::size_t last = text.find(end, at);
        if (last == text.npos) return;
        text.erase(at, last + end.size() - at);
    }
}

void drop_empty_groups(std::string& svg) {
    std::string result;
    std::size_t begin = 0;
    while (begin < svg.size()) {
        const std::size_t at = svg.find("<g ", begin);
        if (at == svg.npos) break;
        const std::size_t end = svg.find('>', at);
        result.append(svg, begin, at - begin);
        begin = at;
        if (svg.compare(end + 1, 6, "\n</g>\n") == 0) {
            begin = end + 7;
        } else {
            result.append(svg, at, end + 1 - at);
            begin = end + 1;
        }
    }
    svg = result.append(svg, begin);
}

}  // namespace

std::string quoted(const std::string& text) {
    std::string result = "'";
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '\'') result += '\'';
        result += byte < 0x20 || byte == 0x7f || c == '`' ? ' ' : c;
    }
    return result + "'";
}

std::string script_of(const std::string& name, const std::string& title, const std::string& data,
                      const std::string& body, int width, int height) {
    std::string text = "# " + slug(title) + ": gnuplot " + name + ".gp draws it again.\n";
    text += "reset session\nset encoding utf8\n" + data;
    text += "kinds = strstrt(GPVAL_TERMINALS, 'pngcairo') ? 'svg png' : 'svg'\n";
    text += "do for [kind in kinds] {\n";
    text += "if (kind eq 'svg') {\n";
    text += format("set terminal svg size %d,%d font 'Helvetica,12' noenhanced\n", width, height);
    text += "ink = '#010101'; soft = '#020202'; faint = '#030303'\n} else {\n";
    text += format(
        "set terminal pngcairo size %d,%d font 'Helvetica,12' fontscale 1.5 linewidth 2 "
        "pointscale 2 noenhanced\n",
        2 * width, 2 * height);
    text += "ink = '#1a1a1a'; soft = '#5c5c5c'; faint = '#dddddd'\n}\n";
    text += "set output '" + name + ".' . kind\n";
    text += body;
    return text + "unset output\n}\n";
}

std::string polished_svg(const std::string& svg, const std::string& name,
                         const std::string& title) {
    std::string text = svg;
    cut(text, "<desc>", "</desc>\n");
    cut(text, "<filter", "</filter>\n");
    recolour(text);
    drop_empty_groups(text);
    replace_all(text, "<text> ", "<text>");
    replace_all(text, "font-family=\"Helvetica\"",
                "font-family=\"Helvetica, Arial, 'Liberation Sans', sans-serif\"");
    replace_all(text, "font-family=\"Helvetica:Bold\"",
                "font-weight=\"bold\" font-family=\"Helvetica, Arial, 'Liberation Sans', "
                "sans-serif\"");
    replace_all(text, "gnuplot_", name + "-");
    replace_all(text, "gpPt", name + "-mark");
    replace_all(text, "gpDot", name + "-dot");
    replace_all(text, "<title>Gnuplot</title>", "<title>" + escaped(title) + "</title>");
    const std::string style =
        std::string(kStyleBegin) +
        "svg{color:#1a1a1a;background:#fff}"
        "@media(prefers-color-scheme:dark){svg{color:#e8e6e3;background:#16181b}}" +
        std::string(kStyleEnd);
    const std::size_t after = text.find("</title>\n");
    if (after != text.npos) text.insert(after + 9, style);
    return text;
}

std::string inline_svg(const std::string& polished) {
    std::string text = polished;
    cut(text, "<?xml", "?>\n");
    cut(text, kStyleBegin, kStyleEnd);
    replace_all(text, "<svg ", "<svg role=\"img\" ");
    return text;
}

}  // namespace winnow::report
