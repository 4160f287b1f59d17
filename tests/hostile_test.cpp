// Hostile input through the binary: whatever the file or the flags are, one message, the right exit
// code and nothing on stdout; never a signal. What the GGUF reader refuses in detail is in
// gguf_precheck_test and gguf_damage_test.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "support/gguf_bytes.h"
#include "support/gguf_refusal.h"
#include "support/program.h"
#include "support/tiny_gguf.h"

namespace winnow {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::GgufBytes;
using testing::Program;
using testing::ProgramResult;
using testing::sound_gguf;

class Hostile : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        program_ = std::make_unique<Program>();
        testing::TinyModelOptions options;
        options.layers = 1;
        options.embed = 64;
        options.head_dim = 16;
        options.ff = 64;
        options.context = 256;
        options.tokenizer = testing::TinyTokenizer::byte_bpe;
        testing::write_tiny_gguf(model(), options);
        bytes_ = testing::read_file(model());
    }
    static void TearDownTestSuite() { program_.reset(); }

    static std::string model() { return program_->path("tiny.gguf"); }
    static ProgramResult answer(const std::string& path, std::vector<std::string> more = {}) {
        more.insert(more.begin(), {"run", "-m", path, "-p", "hi", "-n", "2", "-t", "1"});
        return program_->run(more);
    }
    static std::string file(const std::string& name, const std::string& text) {
        return program_->file(name, text);
    }
    static std::string written(const testing::TinyModelOptions& options) {
        testing::write_tiny_gguf(program_->path("written.gguf"), options);
        return testing::read_file(program_->path("written.gguf"));
    }

    static std::unique_ptr<Program> program_;
    static std::string bytes_;
};

std::unique_ptr<Program> Hostile::program_;
std::string Hostile::bytes_;

TEST_F(Hostile, FilesCutEvery4KiBAreRefused) {
    for (std::size_t length = 0; length < bytes_.size(); length += 4096) {
        SCOPED_TRACE(length);
        expect_error(answer(file("cut.gguf", bytes_.substr(0, length))), 1, "cut.gguf");
    }
}

TEST_F(Hostile, FlippedBitsNeverEndInASignal) {
    std::mt19937 random(5);
    const std::size_t header = bytes_.find("output_norm.weight") + 64;
    int refused = 0;
    for (int round = 0; round < 60; ++round) {
        SCOPED_TRACE(round);
        std::string bytes = bytes_;
        // Two rounds of three hurt what the header says, the others the weights.
        const std::size_t from = round % 3 == 2 ? header : 0;
        const std::size_t size = round % 3 == 2 ? bytes.size() - header : header;
        for (int i = 0; i < 3; ++i) {
            bytes[from + random() % size] ^= static_cast<char>(1U << random() % 8);
        }
        const ProgramResult result = answer(file("flipped.gguf", bytes));
        if (result.code == 0) continue;
        ++refused;
        expect_error(result, result.code == 2 ? 2 : 1, "");
    }
    EXPECT_GT(refused, 10);
}

TEST_F(Hostile, FilesThatAreNoModelsAreNamed) {
    const auto with = [](const char* key, const char* value) {
        return sound_gguf().text(key, value).bytes();
    };
    const auto split = [] {
        GgufBytes bytes = sound_gguf();
        bytes.u32("split.count", 3).u32("split.no", 0);
        return bytes.bytes();
    };
    const auto architecture = [](const std::string& name) {
        std::string bytes = sound_gguf().bytes();
        const std::size_t at = bytes.find("llama");
        return bytes.replace(at, 5, name);
    };
    const std::vector<std::pair<std::string, std::string>> cases{
        {"", "empty"},
        {"GGUF", "cut.gguf"},
        {std::string(100, '\0'), "cut.gguf"},
        {"a text, not a model\n", "cut.gguf"},
        {split(), "split"},
        {with("general.type", "adapter"), "LoRA"},
        {with("general.type", "mmproj"), "mmproj"},
        {with("general.type", "imatrix"), "imatrix"},
        {architecture("gemma"), "gemma"},
        {written({.experts = 4}), "mixture of experts"},
        {written({.sliding_window = 512}), "sliding window"},
    };
    for (const auto& [bytes, part] : cases) {
        SCOPED_TRACE(part);
        const std::string path = file("cut.gguf", bytes);
        expect_error(answer(path), 1, "cut.gguf");
        expect_error(answer(path), 1, bytes.empty() ? "" : part);
        expect_error(program_->run({"info", "-m", path}), 1, "cut.gguf");
    }
    expect_error(answer(program_->path("")), 1, program_->path(""));
    expect_error(answer("/dev/null"), 1, "/dev/null");
    expect_error(answer(std::string(5000, 'm')), 1, "");
    expect_error(program_->run({"chat", "-m", "/no/such.gguf"}), 1, "/no/such.gguf");
    expect_error(program_->run({"inspect", "-m", "/no/such.gguf", "-p", "x"}), 1, "/no/such.gguf");
}

TEST_F(Hostile, AModelLargerThanMemoryIsRefusedBeforeItLoads) {
    const std::string path = file("vast.gguf", bytes_);
    std::error_code error;
    fs::resize_file(path, std::uintmax_t{1} << 42, error);  // 4 TiB, no disk behind it
    if (error) GTEST_SKIP() << "the file system has no sparse file of 4 TiB: " << error.message();
    expect_error(answer(path), 1, "memory");
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

TEST_F(Hostile, AddressSpaceTooSmallToStartIsSaid) {
    if (kSanitized) GTEST_SKIP() << "a sanitizer's build maps terabytes";
    // From what the dynamic linker needs to what a few threads of a BLAS do.
    for (int mib = 150; mib < 1000; mib += 50) {
        const ProgramResult result = program_->run_within(mib, {"--version"});
        if (result.code != 0) expect_error(result, 1, "not enough memory");
    }
}

TEST_F(Hostile, AddressSpaceTooSmallForTheCacheIsSaidBeforeLoading) {
    if (kSanitized) GTEST_SKIP() << "a sanitizer's build maps terabytes";
    testing::TinyModelOptions options;
    options.context = 4'000'000;
    options.tokenizer = testing::TinyTokenizer::byte_bpe;
    file("long.gguf", written(options));
    const auto run = [&](int mib, const std::string& prompt, const char* most) {
        return program_->run_within(mib, {"run", "-m", program_->path("long.gguf"), "-f", prompt,
                                          "-n", most, "-t", "1", "--ignore-eos"});
    };
    const std::string brief = file("brief.txt", "hi");
    const std::string text = file("text.txt", std::string(24'000'000, 'a'));
    int within = 300;  // enough to answer, whatever this machine's BLAS takes at its start
    while (run(within, brief, "2").code != 0 && within < 20'000) within += 50;
    EXPECT_EQ(run(within, brief, "2").code, 0);
    for (const ProgramResult& result :
         {run(within + 200, text, "2"), run(within, brief, "3000000")}) {
        expect_error(result, 1, "its weights take");
        EXPECT_NE(result.err.find("for a cache"), std::string::npos) << result.err;
    }
}

TEST_F(Hostile, UnreadablePromptsAreFailures) {
    // /proc/self/mem opens, and cannot be read from its start.
    for (const char* path : {"/proc/self/mem", "/no/such/prompt", "/tmp"}) {
        expect_error(answer(model(), {"-f", path}), 1, path);
        expect_error(answer(model(), {"-sysf", path}), 1, path);
        expect_error(answer(model(), {"--grammar-file", path}), 1, path);
        expect_error(answer(model(), {"--chat-template-file", path}), 1, path);
        expect_error(answer(model(), {"--json-schema-file", path}), 1, path);
    }
    // Any bytes make a prompt.
    const std::string bytes("\0\xff\xfe\x80 a\0b", 8);
    const ProgramResult odd =
        program_->run({"run", "-m", model(), "-f", file("odd.txt", bytes), "-n", "1", "--json"});
    EXPECT_EQ(odd.code, 0) << odd.err;
}

TEST_F(Hostile, ContradictionsAndRangesExitWith2) {
    const std::vector<std::pair<std::vector<std::string>, std::string>> cases{
        {{"--method", "streamingllm", "--max-capacity-prompts", "3"}, "--max-capacity-prompts"},
        {{"--method", "snapkv", "--max-capacity-prompts", "7"}, "--max-capacity-prompts"},
        {{"--nbits", "5"}, "--nbits"},
        {{"--nbits", "1"}, "--nbits"},
        {{"--nbits-v", "7"}, "--nbits-v"},
        {{"--nbits", "4", "--group-size", "24"}, "--group-size"},
        {{"--nbits", "4", "--group-size", "32"}, "--group-size"},  // head_dim is 16
        {{"--nbits", "4", "--key-axis", "2"}, "--key-axis"},
        {{"--quant-method", "none", "--nbits", "4"}, "--nbits"},
        {{"--quant-method", "hqq", "--group-size", "16", "--outlier-threshold", "-1"},
         "--outlier-threshold"},
        {{"--quant-method", "kivi", "--group-size", "16", "--outlier-threshold", "6"},
         "--outlier-threshold"},
        {{"--max-capacity-prompts", "99999999999"}, "--max-capacity-prompts"},
        {{"--max-capacity-prompts", "64", "--max-capacity-prompts-ratio", "0.5"}, "ratio"},
        {{"--residual-length", "-1"}, "--residual-length"},
        {{"--kernel-size", "4"}, "--kernel-size"},
        {{"--beta", "0"}, "--beta"},
        {{"--n-sink", "x"}, "--n-sink"},
        {{"--quant-method", "layerquant", "--quant-end-layers", "9"}, "--quant-end-layers"},
        {{"--sinks-full-precision", "-3"}, "--sinks-full-precision"},
        {{"--gqa-score-agg", "median"}, "mean"},
        {{"-n", "-2"}, "-n"},
        {{"-n", "99999999999"}, "-n"},
        {{"-c", "4"}, "-c"},
        {{"--temp", "inf"}, "--temp"},
        {{"--no-such-flag"}, "nearest"},
        {{"--max_capcity_prompts", "64"}, "--max-capacity-prompts"},
    };
    for (const auto& [more, part] : cases) {
        SCOPED_TRACE(more.front() + (more.size() > 1 ? " " + more[1] : ""));
        expect_error(answer(model(), more), 2, part);
    }
    expect_error(program_->run({"run", "-m"}), 2, "-m");
    expect_error(program_->run({"chat"}), 2, "-m FILE");
    expect_error(program_->run({"inspect", "-p", "x"}), 2, "-m FILE");
    expect_error(program_->run({"info"}), 2, "-m FILE");
}

TEST_F(Hostile, PositionsPastTheTrainedContextStopWithASentence) {
    const std::string prompt(600, '.');
    expect_error(answer(model(), {"-p", prompt, "-no-cnv"}), 2, "--allow-long");
    expect_error(answer(model(), {"-p", prompt, "-no-cnv", "-c", "4096"}), 2, "--allow-long");
    EXPECT_EQ(answer(model(), {"-p", prompt, "-no-cnv", "--allow-long"}).code, 0);
    const std::vector<std::string> endless{"-no-cnv", "-n", "-1", "--ignore-eos"};
    const ProgramResult full = answer(model(), endless);
    EXPECT_EQ(full.code, 0) << full.err;
    EXPECT_NE(full.err.find("--allow-long"), std::string::npos) << full.err;
    // A chat whose positions run out says so, and the program ends in order.
    const ProgramResult chat =
        program_->run({"chat", "-m", model(), "-n", "-1", "--ignore-eos", "-t", "1"}, "hello\n");
    EXPECT_EQ(chat.code, 0) << chat.err;
    EXPECT_NE(chat.err.find("--allow-long"), std::string::npos) << chat.err;
    const ProgramResult late = program_->run(
        {"chat", "-m", model(), "-n", "-1", "--ignore-eos", "-t", "1"}, "hello\nand more\n");
    EXPECT_EQ(late.code, 2) << late.err;
    EXPECT_NE(late.err.find("does not fit"), std::string::npos) << late.err;
}

TEST_F(Hostile, AModelShortenedWhileInUseEndsInASentence) {
    const std::string path = file("shrinks.gguf", bytes_);
    const pid_t child = program_->start({"run", "-m", path, "-p", "hello", "-n", "-1",
                                         "--ignore-eos", "-t", "1", "--allow-long", "--method",
                                         "streamingllm", "--max-capacity-prompts", "32"});
    ASSERT_GT(child, 0);
    for (int i = 0; i < 500 && program_->out().empty(); ++i) usleep(10'000);
    fs::resize_file(path, 0);
    // The pages it has go as well; a sanitizer's build is slow to notice, but not forever.
    const ProgramResult result = program_->finish(child);
    EXPECT_EQ(result.code, 1) << result.err;
    EXPECT_NE(result.err.find("was shortened"), std::string::npos) << result.err;
}

}  // namespace
}  // namespace winnow
