#include "core/durable_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "winnow/error.h"

namespace winnow {

namespace {

std::string folder_of(const std::string& path) {
    const std::filesystem::path folder = std::filesystem::path(path).parent_path();
    return folder.empty() ? "." : folder.string();
}

Error cannot_read(const std::string& path, int code) {
    return failure("'" + path + "' cannot be read: " + std::strerror(code) + ".");
}

// Closes on every way out.
struct Descriptor {
    int number;
    ~Descriptor() { ::close(number); }
};

}  // namespace

DurableFile::DurableFile(std::string path) : path_(std::move(path)), part_(path_ + ".part") {
    struct stat at {};
    if (::stat(path_.c_str(), &at) == 0 && !S_ISREG(at.st_mode)) {
        fail(S_ISDIR(at.st_mode) ? EISDIR : EINVAL);
    }
    // One name for all: what a killed process left behind is written over.
    file_ = ::open(part_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (file_ < 0) {
        fail(errno);
    }
    struct stat held {};
    const bool locked = ::flock(file_, LOCK_EX | LOCK_NB) == 0;
    if (!locked || ::fstat(file_, &held) != 0 || ::stat(part_.c_str(), &at) != 0 ||
        at.st_ino != held.st_ino || ::ftruncate(file_, 0) != 0) {
        ::close(std::exchange(file_, -1));
        fail(EBUSY);
    }
}

DurableFile::~DurableFile() {
    if (file_ >= 0) {
        ::unlink(part_.c_str());
        ::close(file_);
    }
}

void DurableFile::fail(int code) const {
    throw failure("'" + path_ + "' cannot be written: " + std::strerror(code) +
                  ". What was there is unchanged.");
}

void DurableFile::write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
        const ssize_t n = ::write(file_, bytes.data(), bytes.size());
        if (n < 0 && errno != EINTR) {
            fail(errno);
        }
        bytes = bytes.subspan(static_cast<std::size_t>(n < 0 ? 0 : n));
    }
}

void DurableFile::commit() {
    if (::fsync(file_) != 0 || ::rename(part_.c_str(), path_.c_str()) != 0) {
        fail(errno);
    }
    ::close(std::exchange(file_, -1));
    const int folder = ::open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0) {  // a folder that cannot be synced has the new name all the same
        ::fsync(folder);
        ::close(folder);
    }
}

std::vector<std::byte> read_whole_file(const std::string& path) {
    const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    struct stat at {};
    if (file.number < 0 || ::fstat(file.number, &at) != 0) {
        throw cannot_read(path, errno);
    }
    if (!S_ISREG(at.st_mode)) {
        throw cannot_read(path, S_ISDIR(at.st_mode) ? EISDIR : EINVAL);
    }
    std::vector<std::byte> bytes(static_cast<std::size_t>(at.st_size));
    for (std::size_t done = 0; done < bytes.size();) {
        const ssize_t n = ::read(file.number, bytes.data() + done, bytes.size() - done);
        if (n < 0 && errno != EINTR) {
            throw cannot_read(path, errno);
        }
        if (n == 0) {  // it became shorter; who reads it will see
            bytes.resize(done);
        }
        done += static_cast<std::size_t>(n < 0 ? 0 : n);
    }
    return bytes;
}

}  // namespace winnow
