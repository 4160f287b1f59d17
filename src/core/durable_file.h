// Files that are replaced as a whole: after a crash the old one is there, or the new one.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace winnow {

/// The next content of `path`, written beside it. Throws a failure Error that names the file where
/// the system refuses, or another process writes the same file; the file at `path` is then as it
/// was.
class DurableFile {
  public:
    explicit DurableFile(std::string path);
    DurableFile(const DurableFile&) = delete;
    DurableFile& operator=(const DurableFile&) = delete;
    ~DurableFile();  ///< without commit() all that was written goes

    void write(std::span<const std::byte> bytes);
    /// Syncs what was written, puts it in place of `path`, and syncs the folder.
    void commit();

  private:
    [[noreturn]] void fail(int code) const;

    std::string path_, part_;
    int file_ = -1;
};

/// The bytes of a file. Throws a failure Error that names it.
std::vector<std::byte> read_whole_file(const std::string& path);

}  // namespace winnow
