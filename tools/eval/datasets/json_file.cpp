#include "eval/datasets/json_file.h"

#include <winnow/error.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>

namespace winnow::eval {

namespace {

namespace fs = std::filesystem;

std::ifstream open(const std::string& path) {
    std::error_code none;
    if (fs::is_directory(path, none)) {
        throw failure("'" + path + "' is a folder; a file is needed.");
    }
    errno = 0;
    std::ifstream in(path, std::ios::binary);
    if (!in) {
        throw failure("The file '" + path + "' cannot be read: " + std::strerror(errno) + ".");
    }
    return in;
}

// One line without its newline; false at the end of the file. Stops at kMaxLineBytes.
bool next_line(std::ifstream& in, std::string& line, const std::string& where) {
    line.clear();
    std::streambuf& buffer = *in.rdbuf();
    for (int c = buffer.sbumpc(); c != std::ifstream::traits_type::eof(); c = buffer.sbumpc()) {
        if (c == '\n') {
            return true;
        }
        if (line.size() == kMaxLineBytes) {
            throw failure(where + " is longer than 64 MiB; a row of a benchmark is not.");
        }
        line += static_cast<char>(c);
    }
    return !line.empty();
}

const char* kind_of(const Json& value) {
    return value.is_null() ? "null" : value.type_name();
}

[[noreturn]] void wrong_field(const Json& row, const char* name, const std::string& where,
                              const char* wanted) {
    const auto field = row.find(name);
    throw failure(where + ": the field \"" + name + "\" " +
                  (field == row.end() ? std::string("is missing")
                                      : "is of type " + std::string(kind_of(*field))) +
                  "; it must be " + wanted + ".");
}

}  // namespace

void read_jsonl(const std::string& path,
                const std::function<bool(const Json&, const std::string&)>& take) {
    std::ifstream in = open(path);
    std::string line;
    for (int number = 1;; ++number) {
        const std::string where = path + ", line " + std::to_string(number);
        if (!next_line(in, line, where)) {
            return;
        }
        if (line.find_first_not_of(" \t\r") == std::string::npos) {
            continue;
        }
        const Json row = Json::parse(line, nullptr, false);
        if (!row.is_object()) {
            throw failure(where + (row.is_discarded()
                                       ? " is no JSON; every line must be one whole object."
                                       : std::string(" is of type ") + row.type_name() +
                                             "; it must be an object."));
        }
        if (!take(row, where)) {
            return;
        }
    }
}

Json read_json(const std::string& path) {
    std::ifstream in = open(path);
    std::error_code none;
    if (const std::uintmax_t bytes = fs::file_size(path, none); !none && bytes > kMaxFileBytes) {
        throw failure("The file '" + path + "' has " + std::to_string(bytes) +
                      " bytes; more than 1 GiB is not read.");
    }
    Json value = Json::parse(in, nullptr, false);
    if (value.is_discarded()) {
        throw failure("The file '" + path + "' is no JSON.");
    }
    return value;
}

std::string text_field(const Json& row, const char* name, const std::string& where) {
    const auto field = row.find(name);
    if (field == row.end() || !field->is_string()) {
        wrong_field(row, name, where, "a text");
    }
    return field->get<std::string>();
}

std::vector<std::string> texts_field(const Json& row, const char* name, const std::string& where) {
    const auto field = row.find(name);
    if (field == row.end() || !field->is_array()) {
        wrong_field(row, name, where, "a list of texts");
    }
    std::vector<std::string> texts;
    for (const Json& item : *field) {
        if (!item.is_string()) {
            throw failure(where + ": the field \"" + name + "\" holds a value of type " +
                          kind_of(item) + "; it must be a list of texts.");
        }
        texts.push_back(item.get<std::string>());
    }
    return texts;
}

int int_field(const Json& row, const char* name, int missing, const std::string& where) {
    const auto field = row.find(name);
    if (field == row.end() || field->is_null()) {
        return missing;
    }
    constexpr std::int64_t most = std::numeric_limits<int>::max();
    if (!field->is_number_integer() || field->get<std::int64_t>() < 0 ||
        field->get<std::int64_t>() > most) {
        // dump() recurses, so nothing nested is printed.
        const std::string found =
            field->is_structured() ? kind_of(*field) : field->dump().substr(0, 40);
        throw failure(where + ": the field \"" + name + "\" is " + found +
                      "; it must be a whole number from 0 to " + std::to_string(most) + ".");
    }
    return field->get<int>();
}

void write_jsonl(const std::string& path, const std::vector<nlohmann::ordered_json>& lines) {
    const std::string temporary = path + ".part";
    const auto complain = [&] {
        const std::string why = std::strerror(errno);
        std::remove(temporary.c_str());
        throw failure("The file '" + path + "' cannot be written: " + why + ".");
    };
    std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
    for (const nlohmann::ordered_json& line : lines) {
        out << line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << '\n';
    }
    out.close();
    if (!out || std::rename(temporary.c_str(), path.c_str()) != 0) {
        complain();
    }
}

}  // namespace winnow::eval
