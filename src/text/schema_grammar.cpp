#include "text/schema_grammar.h"

#include <json-schema-to-grammar.h>
#include <winnow/error.h>

#include <exception>
#include <stdexcept>
#include <vector>

// The converter needs these three helpers of llama.cpp's common.cpp and nothing else of it, so we
// define them here instead of building that library.
std::string string_join(const std::vector<std::string>& values, const std::string& separator);
std::vector<std::string> string_split(const std::string& text, const std::string& delimiter);
std::string string_repeat(const std::string& text, size_t times);

std::string string_join(const std::vector<std::string>& values, const std::string& separator) {
    std::string joined;
    for (const std::string& value : values) {
        if (&value != &values.front()) joined += separator;
        joined += value;
    }
    // The converter joins with "; " only to print a warning that a part of the schema is ignored.
    // The library does not print, and a schema must hold as a whole.
    if (separator == "; ") throw std::invalid_argument(joined);
    return joined;
}

std::vector<std::string> string_split(const std::string& text, const std::string& delimiter) {
    std::vector<std::string> parts;
    size_t begin = 0;
    for (size_t end; (end = text.find(delimiter, begin)) != std::string::npos;) {
        parts.push_back(text.substr(begin, end - begin));
        begin = end + delimiter.size();
    }
    parts.push_back(text.substr(begin));
    return parts;
}

std::string string_repeat(const std::string& text, size_t times) {
    std::string repeated;
    while (times-- > 0) repeated += text;
    return repeated;
}

namespace winnow {
namespace {

constexpr size_t kMaxBytes = 1 << 20;
constexpr int kMaxDepth = 64;

/// Deepest nesting of brackets outside strings; the converter recurses that deep.
int nesting_of(const std::string& json) {
    int depth = 0;
    int deepest = 0;
    bool in_string = false;
    for (size_t i = 0; i < json.size(); ++i) {
        const char c = json[i];
        if (in_string) {
            if (c == '\\') ++i;
            if (c == '"') in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            deepest = std::max(deepest, ++depth);
        } else if (c == '}' || c == ']') {
            --depth;
        }
    }
    return deepest;
}

std::string one_line(std::string text) {
    for (char& c : text) {
        if (c == '\n') c = ' ';
    }
    while (!text.empty() && (text.back() == ' ' || text.back() == '.')) text.pop_back();
    return text;
}

}  // namespace

std::string grammar_of_schema(const std::string& schema) {
    if (schema.size() > kMaxBytes) {
        throw usage_error("--json-schema has " + std::to_string(schema.size()) +
                          " bytes; at most 1048576 are taken.");
    }
    if (nesting_of(schema) > kMaxDepth) {
        throw usage_error("--json-schema is nested over 64 levels deep; make it flatter.");
    }
    common_json json;
    try {
        json = common_json::parse(schema);
    } catch (const std::exception& error) {
        throw usage_error("--json-schema is not JSON: " + one_line(error.what()) + ".");
    }
    try {
        return json_schema_to_grammar(json, /*force_gbnf=*/true);
    } catch (const std::exception& error) {
        throw usage_error(
            "--json-schema cannot be turned into a grammar: " + one_line(error.what()) + ".");
    }
}

}  // namespace winnow
