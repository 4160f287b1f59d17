// The `winnow` binary as a user runs it, with a scratch folder beside it.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

namespace winnow::testing {

struct ProgramResult {
    int code = -1;  ///< the exit code; minus the signal where one ended it
    std::string out;
    std::string err;
};

/// A folder of its own for the life of the object, and runs of the binary: $WINNOW_BINARY, or the
/// one of this build.
class Program {
  public:
    Program();
    ~Program();
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;

    std::string path(const std::string& name) const { return (folder_ / name).string(); }
    /// Writes a file in the folder and returns its path.
    std::string file(const std::string& name, const std::string& text) const;

    /// `winnow <args>` with `input` on its standard input.
    ProgramResult run(const std::vector<std::string>& args, const std::string& input = "") const;
    /// The same with `ulimit -v`; not for sanitizers' builds, which map terabytes.
    ProgramResult run_within(int address_space_mib, const std::vector<std::string>& args) const;
    /// run() in two steps; one at a time.
    pid_t start(const std::vector<std::string>& args, const std::string& input = "") const;
    ProgramResult finish(pid_t child) const;
    /// What a started program has written to standard output so far.
    std::string out() const;

  private:
    pid_t spawn(std::vector<std::string> words, const std::string& input) const;

    std::filesystem::path folder_;
};

/// The promise on every error: this exit code, one message of at most 5 lines that names `part` on
/// stderr, and nothing on stdout.
void expect_error(const ProgramResult& result, int code, const std::string& part);

}  // namespace winnow::testing
