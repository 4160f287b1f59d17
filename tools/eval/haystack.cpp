#include "eval/haystack.h"

#include <winnow/error.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

namespace winnow::eval {

namespace fs = std::filesystem;

namespace {

std::string read_file(const fs::path& path, const std::string& flag) {
    std::ifstream in(path, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    if (!in.is_open() || in.bad()) {
        throw failure(flag + ": " + path.string() + " cannot be read.");
    }
    return text;
}

}  // namespace

std::string read_texts(const std::string& folder, const std::string& between,
                       const std::string& flag) {
    if (folder.empty()) {
        throw usage_error(flag + " is missing; it names a folder of .txt files, such as essays.");
    }
    std::error_code code;
    if (!fs::is_directory(folder, code)) {
        throw failure(flag + " names " + folder +
                      ", which is not a folder; it takes one that holds .txt files.");
    }
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder, code)) {
        if (entry.path().extension() == ".txt" && entry.is_regular_file(code)) {
            files.push_back(entry.path());
        }
    }
    std::sort(files.begin(), files.end());
    std::string text;
    for (const fs::path& file : files) {
        const std::string content = read_file(file, flag);
        text += (text.empty() || content.empty() ? "" : between) + content;
    }
    if (text.find_first_not_of(" \t\r\n") == std::string::npos) {
        throw failure(flag + " names " + folder +
                      ", which holds no text; it takes a folder of .txt files, such as essays.");
    }
    return text;
}

std::string read_text_or_folder(const std::string& path, const std::string& flag) {
    std::error_code code;
    if (fs::is_directory(path, code)) {
        return read_texts(path, "\n", flag);
    }
    if (path.empty()) {
        throw usage_error(flag + " is missing; it names a text file or a folder of .txt files.");
    }
    std::string text = read_file(path, flag);
    if (text.empty()) {
        throw failure(flag + " names " + path + ", which is empty.");
    }
    return text;
}

std::size_t sentence_end(std::string_view text, std::size_t at) {
    for (std::size_t end = std::min(at, text.size()); end > 0; --end) {
        const bool stop = std::string_view(".!?").find(text[end - 1]) != std::string_view::npos;
        if (stop && (end == text.size() || text[end] == ' ' || text[end] == '\n')) {
            return end;
        }
    }
    return 0;
}

}  // namespace winnow::eval
