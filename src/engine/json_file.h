// Files of ours that are JSON: read whole, and checked field by field.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "winnow/error.h"

namespace winnow {

/// Says what is wrong with which field of a file. `name` begins every sentence, as in "the profile
/// 'a.json'"; `remedy` ends it.
class JsonFile {
  public:
    using Json = nlohmann::ordered_json;

    JsonFile(std::string path, std::string name, std::string remedy, std::uintmax_t most_mib);

    Error wrong(const std::string& field, const std::string& wanted) const;
    Error unusable(const std::string& why) const;

    /// The object that the file holds. Throws a failure Error where it is none, or too large.
    Json parse() const;
    const Json& member(const Json& object, const std::string& field) const;
    std::string text(const Json& object, const std::string& field) const;

  private:
    std::string path_, name_, remedy_;
    std::uintmax_t most_mib_;
};

}  // namespace winnow
