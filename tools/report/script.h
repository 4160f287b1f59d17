// What all gnuplot scripts share: quoting, both terminals, inks that a page can recolour.
#pragma once

#include <string>
#include <vector>

namespace winnow::report {

/// A text in gnuplot's single quotes, where nothing is substituted; control characters are blanks.
std::string quoted(const std::string& text);

/// `body` drawn into NAME.svg and, where gnuplot can, NAME.png. It may use the variables `ink`,
/// `soft` (labels) and `faint` (grid lines). Sizes are SVG units; the PNG has twice as many pixels.
std::string script_of(const std::string& name, const std::string& title, const std::string& data,
                      const std::string& body, int width, int height);

/// gnuplot's SVG with the inks as currentColor, its ids made unique by `name`, empty groups gone,
/// and a title. Its colours follow the page's or, standing alone, the reader's light or dark.
std::string polished_svg(const std::string& svg, const std::string& name, const std::string& title);

/// The same for use inside a page: without the XML declaration and its own style.
std::string inline_svg(const std::string& polished);

}  // namespace winnow::report
