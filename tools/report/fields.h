// Fields of a JSON object by dotted path, with a sentence for what is missing or of a wrong type.
#pragma once

#include <stdexcept>
#include <string>

#include "report/results.h"

namespace winnow::report {

/// What is wrong with a line: becomes a note with its file and number.
struct BadField : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// The value at "kv.bytes", or nullptr where it is missing or null.
const Json* find(const Json& object, const std::string& path);

double number(const Json& object, const std::string& path);  ///< required
double number_or(const Json& object, const std::string& path, double other);
std::string text(const Json& object, const std::string& path);  ///< required
/// Texts as they are, numbers written out.
std::string text_or(const Json& object, const std::string& path, const std::string& other);

}  // namespace winnow::report
