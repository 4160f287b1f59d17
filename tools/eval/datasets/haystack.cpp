#include "eval/datasets/haystack.h"

#include <winnow/error.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace winnow::eval {

namespace fs = std::filesystem;

std::string read_haystack(const std::string& folder, const std::string& needed_by) {
    std::error_code bad;
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder, bad)) {
        if (entry.path().extension() == ".txt" && entry.is_regular_file(bad)) {
            files.push_back(entry.path());
        }
    }
    std::sort(files.begin(), files.end());
    std::string text;
    for (const fs::path& file : files) {
        std::ifstream in(file, std::ios::binary);
        const std::string content{std::istreambuf_iterator<char>(in), {}};
        text += (text.empty() || content.empty() ? "" : "\n") + content;
    }
    if (text.find_first_not_of(" \t\r\n") == std::string::npos) {
        throw failure("The haystack folder '" + folder + "' has no text: " + needed_by +
                      " needs a folder of .txt files, such as essays.");
    }
    return text;
}

}  // namespace winnow::eval
