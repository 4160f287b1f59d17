// The files of a run: run.json and results.jsonl, or a shard's own pair of them.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "eval/shard.h"
#include "eval/suite.h"

namespace winnow::eval {

/// Writes a run's lines, a whole prompt at a time. Prompts that the folder holds already, in any
/// shard's file, are known as done. One process at a time per file.
class ResultFile {
  public:
    /// Opens `folder`, or the first of folder/run-2, run-3, ... that is empty or of this run, which
    /// is known by `run`'s "fingerprint". A prompt with fewer than `lines_per_prompt` lines at the
    /// file's end (a run was killed) is cut. Throws a failure Error that names the path.
    ResultFile(const std::filesystem::path& folder, const Shard& shard, const OrderedJson& run,
               std::size_t lines_per_prompt);
    ~ResultFile();
    ResultFile(const ResultFile&) = delete;
    ResultFile& operator=(const ResultFile&) = delete;

    const std::filesystem::path& folder() const { return folder_; }
    bool done(const std::string& prompt) const { return done_.count(prompt) == 1; }
    std::size_t done_count() const { return done_.size(); }
    /// All lines of one prompt; they are on the disk when this returns. Throws a failure Error
    /// when they are not, and leaves the file as it was.
    void append(const std::string& prompt, const std::vector<OrderedJson>& lines);

  private:
    void choose_folder(const std::filesystem::path& folder, const std::string& fingerprint);
    void open_file();
    void read_done(std::size_t lines_per_prompt);
    void cut_to(std::size_t bytes);

    Shard shard_;
    std::filesystem::path folder_, path_;
    int file_ = -1;
    std::size_t size_ = 0;
    std::set<std::string> done_;
};

/// The lines of every results*.jsonl in `folder` itself; half lines at the end are left out.
std::vector<OrderedJson> read_result_lines(const std::filesystem::path& folder);

}  // namespace winnow::eval
