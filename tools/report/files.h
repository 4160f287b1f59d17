// Files replaced as a whole, and a folder that lives as long as its object.
#pragma once

#include <filesystem>
#include <string>

namespace winnow::report {

/// Writes beside `path` and renames over it: a reader sees the old text or all of the new one.
/// Throws a failure Error that names the file and the reason.
void write_whole(const std::filesystem::path& path, const std::string& text);

/// Throws a failure Error that names the flag where write_whole() to `path` would fail now.
void check_writable(const std::string& flag, const std::filesystem::path& path);

/// All bytes of a file. Throws a failure Error.
std::string read_whole(const std::filesystem::path& path);

/// A new folder below `parent`, removed with all in it at the end.
class TemporaryFolder {
  public:
    explicit TemporaryFolder(const std::filesystem::path& parent);
    ~TemporaryFolder();
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    const std::filesystem::path& path() const { return path_; }

  private:
    std::filesystem::path path_;
};

}  // namespace winnow::report
