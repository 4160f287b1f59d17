#include "engine/json_file.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

namespace winnow {

JsonFile::JsonFile(std::string path, std::string name, std::string remedy, std::uintmax_t most_mib)
    : path_(std::move(path)),
      name_(std::move(name)),
      remedy_(std::move(remedy)),
      most_mib_(most_mib) {}

Error JsonFile::wrong(const std::string& field, const std::string& wanted) const {
    return failure(name_ + ": '" + field + "' must be " + wanted + "; " + remedy_);
}

Error JsonFile::unusable(const std::string& why) const {
    return failure(name_ + " " + why + "; " + remedy_);
}

JsonFile::Json JsonFile::parse() const {
    std::error_code error;
    const std::uintmax_t size = std::filesystem::file_size(path_, error);
    std::ifstream in(path_, std::ios::binary);
    if (error || !in) {
        throw unusable("cannot be read: it is not a file, or not readable");
    }
    if (size > most_mib_ << 20U) {
        throw unusable("is larger than " + std::to_string(most_mib_) +
                       " MiB, but such files are far smaller");
    }
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    Json json = Json::parse(text, nullptr, false);
    if (!json.is_object()) {
        throw unusable("is not a JSON object");
    }
    return json;
}

const JsonFile::Json& JsonFile::member(const Json& object, const std::string& field) const {
    const auto found = object.find(field);
    if (found == object.end()) {
        throw wrong(field, "given");
    }
    return *found;
}

std::string JsonFile::text(const Json& object, const std::string& field) const {
    const Json& value = member(object, field);
    if (!value.is_string()) {
        throw wrong(field, "a text");
    }
    return value.get<std::string>();
}

}  // namespace winnow
