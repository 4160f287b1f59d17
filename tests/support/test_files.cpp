#include "support/test_files.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

namespace winnow::testing {

namespace {

namespace fs = std::filesystem;

std::string variable(const char* name) {
    const char* value = std::getenv(name);
    return value != nullptr ? value : "";
}

std::string lower(std::string text) {
    for (char& c : text) {
        c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    return text;
}

// The folder's files with this ending, in name order.
std::vector<fs::path> files_of(const fs::path& folder, const std::string& ending) {
    std::vector<fs::path> files;
    std::error_code none;
    for (const auto& entry : fs::directory_iterator(folder, none)) {
        if (entry.path().extension() == ending) {
            files.push_back(entry.path());
        }
    }
    std::sort(files.begin(), files.end());
    return files;
}

std::vector<fs::path> model_folders() {
    const std::string home = variable("HOME");
    const std::string chosen = variable("WINNOW_TEST_MODELS");
    const std::string cache = variable("XDG_CACHE_HOME");
    return {chosen.empty() ? fs::path(home) / ".cache" / "winnow-models" : fs::path(chosen),
            (cache.empty() ? fs::path(home) / ".cache" : fs::path(cache)) / "winnow" / "models"};
}

std::string repeated(const std::string& text, std::size_t bytes) {
    std::string out = text;
    while (!text.empty() && out.size() < bytes) {
        out += "\n" + text;
    }
    return out.substr(0, std::min(bytes, out.size()));
}

std::string joined(const std::vector<fs::path>& files, std::size_t bytes) {
    std::string text;
    for (const fs::path& file : files) {
        std::ifstream in(file, std::ios::binary);
        text += text.empty() ? "" : "\n";
        text.append(std::istreambuf_iterator<char>(in), {});
        if (text.size() >= bytes) {
            break;
        }
    }
    return text;
}

}  // namespace

std::string find_model(const std::string& start) {
    for (const fs::path& folder : model_folders()) {
        for (const fs::path& file : files_of(folder, ".gguf")) {
            if (lower(file.filename()).starts_with(lower(start))) {
                return file;
            }
        }
    }
    return "";
}

std::string missing_model(const std::string& start) {
    return "needs " + start + "*.gguf in $WINNOW_TEST_MODELS (" + model_folders()[0].string() + ")";
}

std::string find_data(const std::string& name) {
    const std::string chosen = variable("WINNOW_TEST_DATA");
    const fs::path path =
        fs::path(chosen.empty() ? WINNOW_SOURCE_DIR "/../shared/data" : chosen) / name;
    return fs::exists(path) ? path.string() : "";
}

std::string missing_data(const std::string& name) {
    return "needs " + name + " in $WINNOW_TEST_DATA";
}

std::string english_text(std::size_t bytes) {
    const std::string folder = find_data("haystack");
    const std::string text = folder.empty() ? "" : joined(files_of(folder, ".txt"), bytes);
    return text.empty() ? example_text(bytes) : repeated(text, bytes);
}

std::string example_text(std::size_t bytes) {
    return repeated(joined(files_of(WINNOW_SOURCE_DIR "/examples", ".txt"), bytes), bytes);
}

}  // namespace winnow::testing
