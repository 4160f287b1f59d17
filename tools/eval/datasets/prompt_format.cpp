#include "eval/datasets/prompt_format.h"

#include <winnow/error.h>

namespace winnow::eval {

namespace {

bool is_name(std::string_view text) {
    return !text.empty() && text.find_first_not_of(
                                "abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == std::string_view::npos;
}

std::string field_text(const nlohmann::json& row, const std::string& name, std::string_view where) {
    const auto field = row.find(name);
    if (field != row.end() && field->is_string()) {
        return field->get<std::string>();
    }
    if (field != row.end() && field->is_number_integer()) {
        return field->dump();
    }
    throw failure("The prompt of " + std::string(where) + " asks for {" + name +
                  "}, which the row " +
                  (field == row.end() ? "does not have." : "has, but not as text or an integer."));
}

}  // namespace

std::string format_prompt(std::string_view format, const nlohmann::json& row,
                          std::string_view where) {
    std::string text;
    for (std::size_t i = 0; i < format.size(); ++i) {
        const char c = format[i];
        const bool doubled = i + 1 < format.size() && format[i + 1] == c;
        if ((c == '{' || c == '}') && doubled) {
            text += c;
            ++i;
        } else if (c == '{') {
            const std::size_t end = format.find('}', i);
            const std::string name(format.substr(i + 1, end == format.npos ? end : end - i - 1));
            if (end == format.npos || !is_name(name)) {
                throw failure("The prompt of " + std::string(where) + " has '{" +
                              name.substr(0, 40) + "'; only plain fields such as {context} may " +
                              "stand in braces, and a brace itself is doubled.");
            }
            text += field_text(row, name, where);
            i = end;
        } else if (c == '}') {
            throw failure("The prompt of " + std::string(where) +
                          " has a '}' that closes nothing; a brace itself is doubled.");
        } else {
            text += c;
        }
    }
    return text;
}

}  // namespace winnow::eval
