#include "report/files.h"

#include <fcntl.h>
#include <unistd.h>
#include <winnow/error.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

namespace winnow::report {

namespace fs = std::filesystem;

namespace {

Error cannot(const char* what, const fs::path& path, int code) {
    return failure(std::string("Cannot ") + what + " " + path.string() + ": " +
                   std::strerror(code) + ".");
}

}  // namespace

void write_whole(const fs::path& path, const std::string& text) {
    std::error_code ignored;
    // A device or a pipe is written to; a rename would put a file in its place.
    const bool device = fs::exists(path, ignored) && !fs::is_regular_file(path, ignored);
    const fs::path part =
        device ? path : fs::path(path.string() + ".part-" + std::to_string(::getpid()));
    const int file = ::open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file < 0) throw cannot("write", path, errno);
    int code = 0;
    for (std::size_t done = 0; done < text.size() && code == 0;) {
        const ssize_t n = ::write(file, text.data() + done, text.size() - done);
        if (n >= 0)
            done += static_cast<std::size_t>(n);
        else if (errno != EINTR)
            code = errno;
    }
    if (::close(file) != 0 && code == 0) code = errno;
    if (code == 0 && !device && ::rename(part.c_str(), path.c_str()) != 0) code = errno;
    if (code == 0) return;
    if (!device) ::unlink(part.c_str());
    throw cannot("write", path, code);
}

void check_writable(const std::string& flag, const fs::path& path) {
    const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
    std::error_code ignored;
    const bool blocked = fs::is_directory(path, ignored);
    if (!blocked && ::access(folder.c_str(), W_OK | X_OK) == 0) return;
    throw failure(flag + " names " + path.string() +
                  ", which cannot be written: " + std::strerror(blocked ? EISDIR : errno) + ".");
}

std::string read_whole(const fs::path& path) {
    errno = 0;
    std::ifstream file(path, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    if (!file.is_open() || file.bad()) throw cannot("read", path, errno != 0 ? errno : EIO);
    return text;
}

TemporaryFolder::TemporaryFolder(const fs::path& parent) {
    std::string pattern = (parent / ".report-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw cannot("make a folder in", parent, errno);
    path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
}

}  // namespace winnow::report
