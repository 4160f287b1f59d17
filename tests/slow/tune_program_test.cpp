// `winnow tune` as a user runs it, cut off and taken up again.
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "engine/profile.h"
#include "support/program.h"
#include "support/tiny_gguf.h"

namespace winnow {
namespace {

namespace fs = std::filesystem;

class TuneProgram : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        folder_ = fs::path(::testing::TempDir()) /
                  ("winnow_tune_program_test" + std::to_string(getpid()));
        fs::create_directories(folder_ / "cache");
        setenv("XDG_CACHE_HOME", (folder_ / "cache").c_str(), 1);
        path_ = (folder_ / "model.gguf").string();
        testing::write_tiny_gguf(path_, {.layers = 3,
                                         .query_heads = 6,
                                         .kv_heads = 2,
                                         .head_dim = 32,
                                         .embed = 64,
                                         .ff = 64,
                                         .context = 4096,
                                         .tokenizer = testing::TinyTokenizer::byte_bpe});
    }
    static void TearDownTestSuite() { fs::remove_all(folder_); }

    static std::string file(const std::string& name, const std::string& content) {
        const fs::path path = folder_ / name;
        std::ofstream(path, std::ios::binary) << content;
        return path.string();
    }

    static fs::path folder_;
    static std::string path_;
};

fs::path TuneProgram::folder_;
std::string TuneProgram::path_;

// kill -9 in the middle: the next run says that it goes on, and the profile is whole.
TEST_F(TuneProgram, TheProgramGoesOnAfterAKill) {
    std::string words;
    for (int i = 0; i < 700; ++i) {
        words += "word " + std::to_string(i * i % 97) + " and ";
    }
    const std::string corpus = file("corpus.txt", words), out = (folder_ / "out.json").string();
    const std::vector<std::string> args{"tune", "-m", path_,      "-f",  corpus,
                                        "-o",   out,  "--tokens", "304", "--force-tokens",
                                        "16",   "-t", "1"};
    const testing::Program program;
    const auto lines = [&] {
        std::ifstream in(out + ".trials");
        int count = 0;
        for (std::string line; std::getline(in, line);) {
            ++count;
        }
        return count;
    };
    const pid_t first = program.start(args);
    ASSERT_GT(first, 0);  // kill(-1) would end every program there is
    for (int i = 0; i < 5000 && lines() < 6; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    kill(first, SIGKILL);
    ASSERT_EQ(program.finish(first).code, -SIGKILL) << "it ended before it was killed";
    EXPECT_FALSE(fs::exists(out));
    const testing::ProgramResult second = program.run(args);
    ASSERT_EQ(second.code, 0) << second.err;
    EXPECT_NE(second.err.find("going on after"), std::string::npos) << second.err;
    EXPECT_NE(second.out.find("held out"), std::string::npos) << second.out;
    EXPECT_EQ(read_profile(out).shares.size(), 3U);
    EXPECT_FALSE(fs::exists(out + ".trials"));
}

}  // namespace
}  // namespace winnow
