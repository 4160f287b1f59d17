// JSON schema to GBNF, by llama.cpp's converter.
#pragma once

#include <string>

namespace winnow {

/// GBNF text that forces JSON of this schema. Throws Error (usage) naming --json-schema for text
/// that is no JSON, nested over 64 levels, or a schema that cannot be turned into a grammar.
std::string grammar_of_schema(const std::string& schema);

}  // namespace winnow
