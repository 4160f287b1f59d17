// JSON files of other people: every complaint names the file and the line or the field.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace winnow::eval {

using Json = nlohmann::json;

/// Longest line and largest file that are read; what is longer is refused.
inline constexpr std::size_t kMaxLineBytes = std::size_t{64} << 20U;
inline constexpr std::size_t kMaxFileBytes = std::size_t{1} << 30U;

/// Calls `take(row, where)` for every line that is not blank; each must be an object. `where` is
/// "<path>, line <n>", from 1. `take` returns false to stop early. Throws a failure Error for a
/// file that cannot be read and for a line that is no JSON object.
void read_jsonl(const std::string& path,
                const std::function<bool(const Json& row, const std::string& where)>& take);

/// The whole of a JSON file. Throws as read_jsonl does.
Json read_json(const std::string& path);

/// Fields of a row; they throw a failure Error that names `where`, the field and what it must be.
std::string text_field(const Json& row, const char* name, const std::string& where);
std::vector<std::string> texts_field(const Json& row, const char* name, const std::string& where);
int int_field(const Json& row, const char* name, int missing, const std::string& where);

/// Writes `lines`, each an object, as JSONL: to a temporary file beside `path`, then renamed.
void write_jsonl(const std::string& path, const std::vector<nlohmann::ordered_json>& lines);

}  // namespace winnow::eval
