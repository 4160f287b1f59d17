// Prompts made of a row's fields, as Python's str.format makes them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace winnow::eval {

/// Puts fields of `row` where `format` says {name}; {{ and }} are braces. Strings go in as they
/// are, integers in decimal. Throws a failure Error that names `where` for a field that the row
/// lacks or that is neither, and for anything else str.format allows.
std::string format_prompt(std::string_view format, const nlohmann::json& row,
                          std::string_view where);

}  // namespace winnow::eval
