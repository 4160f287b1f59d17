// sha256 of a model file, remembered by size and time because a large file costs seconds.
#include "engine/model_hash.h"

#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "engine/model_impl.h"
#include "text/sha256.h"

namespace winnow {

namespace {

namespace fs = std::filesystem;

// One line per file: its absolute path, size, time and sum.
std::string signature(const std::string& path) {
    struct stat info {};
    if (stat(path.c_str(), &info) != 0) {
        return {};
    }
    std::error_code error;
    std::ostringstream text;
    text << fs::absolute(path, error).string() << '\t' << info.st_size << '\t'
         << info.st_mtim.tv_sec << '.' << info.st_mtim.tv_nsec << '\t';
    return text.str();
}

std::string recall(const fs::path& list, const std::string& key) {
    std::ifstream file(list);
    std::string found;
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with(key) && line.size() == key.size() + 64) {
            found = line.substr(key.size());
        }
    }
    return found;
}

}  // namespace

std::filesystem::path cache_folder() {
    if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg != nullptr && *xdg != '\0') {
        return fs::path(xdg) / "winnow";
    }
    const char* home = std::getenv("HOME");
    return home == nullptr ? fs::path() : fs::path(home) / ".cache" / "winnow";
}

std::string file_sha256(const std::string& path, const gguf::File& file) {
    const std::string key = signature(path);
    const fs::path list = cache_folder() / "sha256.tsv";
    std::string sum = key.empty() ? std::string() : recall(list, key);
    if (sum.empty()) {
        sum = sha256_hex(file.bytes());
        std::error_code error;  // a cache that cannot be written is no reason to fail
        fs::create_directories(list.parent_path(), error);
        std::ofstream(list, std::ios::app) << key << sum << '\n';
    }
    return sum;
}

const std::string& Model::sha256() const {
    std::call_once(impl_->hashed,
                   [this] { impl_->sha256 = file_sha256(impl_->info.path, *impl_->file); });
    return impl_->sha256;
}

}  // namespace winnow
