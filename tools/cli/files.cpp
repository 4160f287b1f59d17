#include "files.h"

#include <unistd.h>
#include <winnow/error.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace winnow::cli {
namespace {

namespace fs = std::filesystem;

Error cannot_write(const std::string& flag, const std::string& path, int code) {
    return failure(flag + " names " + path +
                   ", which cannot be written: " + std::strerror(code != 0 ? code : EIO) + ".");
}

// Beside its goal, so that the rename stays on one file system.
std::string temporary(const std::string& path) {
    return path + ".part" + std::to_string(getpid());
}

}  // namespace

void check_writable(const std::string& flag, const std::string& path) {
    std::error_code ignored;
    if (fs::is_directory(path, ignored)) throw cannot_write(flag, path, EISDIR);
    if (fs::exists(path, ignored) && !fs::is_regular_file(path, ignored)) return;  // a device
    const std::string part = temporary(path);
    errno = 0;
    if (!std::ofstream(part)) throw cannot_write(flag, path, errno);
    fs::remove(part, ignored);
}

void replace_file(const std::string& flag, const std::string& path, const std::string& text) {
    std::error_code error;
    const bool device = fs::exists(path, error) && !fs::is_regular_file(path, error);
    const std::string part = device ? path : temporary(path);
    errno = 0;
    std::ofstream file(part, std::ios::binary);
    file << text;
    file.close();
    const int code = errno;
    if (!file) {
        if (!device) fs::remove(part, error);
        throw cannot_write(flag, path, code);
    }
    if (device) return;
    fs::rename(part, path, error);
    if (error) {
        const int reason = error.value();
        fs::remove(part, error);
        throw cannot_write(flag, path, reason);
    }
}

}  // namespace winnow::cli
