// What a user of llama.cpp types: flags that have another name here, templates, Ctrl-C at a prompt,
// and a text too long for the memory there is.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>
#include <winnow/winnow.h>

#include <csignal>
#include <memory>
#include <string>
#include <vector>

#include "support/program.h"
#include "support/tiny_gguf.h"

namespace winnow {
namespace {

using testing::expect_error;
using testing::Program;
using testing::ProgramResult;

class LlamaFlags : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        program_ = std::make_unique<Program>();
        testing::TinyModelOptions options;
        options.tokenizer = testing::TinyTokenizer::byte_bpe;
        testing::write_tiny_gguf(model(), options);
    }
    static void TearDownTestSuite() { program_.reset(); }
    static std::string model() { return program_->path("tiny.gguf"); }
    static ProgramResult with_model(const std::string& command, std::vector<std::string> more) {
        more.insert(more.begin(), {command, "-m", model()});
        return program_->run(more);
    }

    static std::unique_ptr<Program> program_;
};

std::unique_ptr<Program> LlamaFlags::program_;

TEST_F(LlamaFlags, AreAnsweredWithTheFlagToUse) {
    const std::vector<std::pair<std::string, std::string>> cases{
        {"-ctk", "--nbits-k"},
        {"--cache-type-v", "--nbits-v"},
        {"-fa", "--quant-method"},
        {"-ngl", "-t"},
        {"--n_gpu_layers", "-t"},
        {"-ub", "-b"},
        {"-tb", "-t"},
        {"-cnv", "winnow chat"},
        {"--keep", "--n-sink"},
        {"--context-shift", "--method"},
        {"-hf", "-m"},
        {"--lora", "llama-export-lora"},
        {"-v", "--log"},
        {"--mlock", "always mapped"},
        {"--no-display-prompt", "printed"},
    };
    for (const auto& [flag, answer] : cases) {
        SCOPED_TRACE(flag);
        expect_error(with_model("run", {"-p", "x", flag, "1"}), 2, "There is no ");
        expect_error(with_model("run", {"-p", "x", flag, "1"}), 2, answer);
    }
}

// A template on the command line is a mistake in the flags, one in a file is a bad file.
TEST_F(LlamaFlags, BadTemplateIsAMistakeOfItsPlace) {
    const std::string bad = "{% for";
    const std::string path = program_->file("bad.jinja", bad);
    expect_error(with_model("run", {"-p", "x", "--chat-template", bad}), 2, "--chat-template");
    expect_error(with_model("chat", {"--chat-template", bad}), 2, "--chat-template");
    expect_error(with_model("run", {"-p", "x", "--chat-template-file", path}), 1, "for");
}

TEST_F(LlamaFlags, InterruptWhileWaitingForInputExitsWith130) {
    const std::string fifo = program_->path("fifo");
    ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
    const pid_t child = program_->start({"run", "-m", model(), "-f", fifo});
    ASSERT_GT(child, 0);
    // Opens once the program reads, and never writes.
    int writer = -1;
    for (int i = 0; i < 2000 && writer < 0; ++i, usleep(10'000)) {
        writer = open(fifo.c_str(), O_WRONLY | O_NONBLOCK);
    }
    kill(child, SIGINT);
    const ProgramResult result = program_->finish(child);
    EXPECT_GE(writer, 0);
    close(writer);
    EXPECT_EQ(result.code, 130) << result.err;
    EXPECT_EQ(result.out, "");
}

TEST_F(LlamaFlags, MemoryForWeightsAndCacheIsAskedForBeforeLoading) {
    LoadOptions options;
    options.threads = 1;
    options.least_tokens = 2'000'000'000;  // a terabyte, at 16 bits and two small layers
    try {
        Model::load(model(), options);
        FAIL() << "no error";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::failure);
        EXPECT_NE(std::string(error.what()).find("weights"), std::string::npos) << error.what();
        EXPECT_NE(std::string(error.what()).find("tiny.gguf"), std::string::npos) << error.what();
    }
    options.least_tokens = 2000;
    EXPECT_NE(Model::load(model(), options), nullptr);
}

}  // namespace
}  // namespace winnow
