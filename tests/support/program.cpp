#include "support/program.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <utility>

namespace winnow::testing {

namespace {

namespace fs = std::filesystem;

std::string read_all(const fs::path& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

std::string binary() {
    const char* named = std::getenv("WINNOW_BINARY");
    return named != nullptr ? named : WINNOW_BINARY;
}

}  // namespace

Program::Program() {
    std::string pattern = (fs::temp_directory_path() / "winnow-test-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
}

Program::~Program() {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
}

std::string Program::file(const std::string& name, const std::string& text) const {
    std::ofstream(path(name), std::ios::binary) << text;
    return path(name);
}

pid_t Program::spawn(std::vector<std::string> words, const std::string& input) const {
    const std::string in = file("stdin", input);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, in.c_str(), O_RDONLY, 0);
    constexpr int kCreate = O_WRONLY | O_CREAT | O_TRUNC;
    posix_spawn_file_actions_addopen(&actions, 1, path("out").c_str(), kCreate, 0600);
    posix_spawn_file_actions_addopen(&actions, 2, path("err").c_str(), kCreate, 0600);
    std::vector<char*> pointers;
    for (std::string& word : words) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    pid_t child = -1;
    const int failed =
        posix_spawn(&child, words.front().c_str(), &actions, nullptr, pointers.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    return failed == 0 ? child : -1;
}

pid_t Program::start(const std::vector<std::string>& args, const std::string& input) const {
    std::vector<std::string> words{binary()};
    words.insert(words.end(), args.begin(), args.end());
    return spawn(std::move(words), input);
}

ProgramResult Program::run_within(int address_space_mib,
                                  const std::vector<std::string>& args) const {
    const std::string limit = std::to_string(address_space_mib) + " * 1024";
    std::vector<std::string> words{"/bin/sh", "-c",
                                   "ulimit -v $((" + limit + ")) && exec \"$0\" \"$@\"", binary()};
    words.insert(words.end(), args.begin(), args.end());
    return finish(spawn(std::move(words), ""));
}

ProgramResult Program::finish(pid_t child) const {
    ProgramResult result;
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) return result;
    result.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    result.out = read_all(path("out"));
    result.err = read_all(path("err"));
    return result;
}

ProgramResult Program::run(const std::vector<std::string>& args, const std::string& input) const {
    return finish(start(args, input));
}

std::string Program::out() const {
    return read_all(path("out"));
}

void expect_error(const ProgramResult& result, int code, const std::string& part) {
    EXPECT_EQ(result.code, code) << result.err;
    EXPECT_EQ(result.out, "");
    EXPECT_TRUE(result.err.starts_with("winnow: ")) << result.err;
    EXPECT_LE(std::count(result.err.begin(), result.err.end(), '\n'), 5) << result.err;
    EXPECT_NE(result.err.find(part), std::string::npos) << result.err << "lacks: " << part;
}

}  // namespace winnow::testing
