// Real retrieval: a seven-digit number in a real text, beside the figures of an independent float32
// reference. A prompt is read once; every configuration is cut from its full cache.
#include "support/needle.h"

#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>

namespace winnow {
namespace {

constexpr int kNewTokens = 12;
constexpr int kWindow = 32;

struct Row {
    const char* method;
    int cap;
    int bits;
    int reference;  // needles that the float32 reference finds
};

std::string folder_from(const char* variable, const std::string& fallback) {
    const char* value = std::getenv(variable);
    return value != nullptr && *value != '\0' ? value : fallback;
}

std::string model_file(const std::string& start) {
    const char* home = std::getenv("HOME");
    const std::string folder = folder_from(
        "WINNOW_TEST_MODELS", std::string(home != nullptr ? home : "") + "/.cache/winnow-models");
    if (std::filesystem::is_directory(folder)) {
        for (const auto& entry : std::filesystem::directory_iterator(folder)) {
            const std::string name = entry.path().filename();
            if (name.starts_with(start) && name.ends_with(".gguf")) {
                return entry.path();
            }
        }
    }
    return "";
}

CacheOptions options_of(const Row& row) {
    CacheOptions options;
    options.method = row.method;
    options.max_capacity_prompts = row.cap;
    options.quant_method = row.bits == 16 ? "none" : "kivi";
    options.nbits = row.bits;
    options.window_size = kWindow;
    return options;
}

std::string shown(std::string text) {
    for (char& c : text) {
        c = c == '\n' ? ' ' : c;
    }
    return text;
}

// As many as the reference where it finds most needles, within one elsewhere.
void expect_found(const std::string& model_start, int length, const std::vector<double>& depths,
                  int most, const std::vector<Row>& rows) {
    const std::string path = model_file(model_start);
    const std::string folder =
        folder_from("WINNOW_TEST_DATA", WINNOW_SOURCE_DIR "/../shared/data") + "/haystack";
    const std::string haystack = testing::read_haystack(folder, 1U << 16U);
    if (path.empty() || haystack.empty()) {
        GTEST_SKIP() << "needs " << model_start
                     << "*.gguf in $WINNOW_TEST_MODELS and text files in "
                     << "$WINNOW_TEST_DATA/haystack";
    }
    const auto model = Model::load(path);
    std::map<const Row*, int> found;
    for (const double depth : depths) {
        const testing::NeedlePrompt prompt =
            testing::needle_prompt(*model, haystack, length, depth, "harbor", "4839217");
        EXPECT_NEAR(static_cast<double>(prompt.tokens.size()), length, 60.0);
        testing::FullPrompt full(model, prompt.tokens, kWindow);
        for (const Row& row : rows) {
            Session session = full.apply(options_of(row));
            const std::string text = testing::greedy_answer(session, kNewTokens);
            const bool hit = text.find(prompt.answer) != std::string::npos;
            found[&row] += hit ? 1 : 0;
            std::printf("  depth %3.0f %%  %-12s cap %4d  %2d bits  %s %s:%s\n", 100.0 * depth,
                        row.method, row.cap, row.bits, hit ? "found " : "missed",
                        prompt.answer.c_str(), shown(text).c_str());
            std::fflush(stdout);
        }
    }
    std::printf("%s, %d tokens, %zu depths\n", model_start.c_str(), length, depths.size());
    std::printf("| method | cap | bits | found | reference |\n|---|---|---|---|---|\n");
    for (const Row& row : rows) {
        std::printf("| %s | %d | %d | %d | %d |\n", row.method, row.cap, row.bits, found[&row],
                    row.reference);
        if (row.reference >= most) {
            EXPECT_GE(found[&row], row.reference)
                << row.method << " cap " << row.cap << " at " << row.bits << " bits";
        } else {
            EXPECT_NEAR(found[&row], row.reference, 1)
                << row.method << " cap " << row.cap << " at " << row.bits << " bits";
        }
    }
}

TEST(Needle, SmolLM2) {
    expect_found("SmolLM2-135M", 1500, {0.0, 0.25, 0.5, 0.75, 1.0}, 4,
                 {{"full", 0, 16, 5},
                  {"full", 0, 4, 4},
                  {"full", 0, 2, 2},
                  {"snapkv", 1024, 16, 5},
                  {"snapkv", 1024, 4, 5},
                  {"pyramidkv", 1024, 16, 5},
                  {"pyramidkv", 1024, 4, 5},
                  {"snapkv", 256, 16, 2},
                  {"h2o", 1024, 16, 3},
                  {"streamingllm", 256, 16, 1},
                  {"random", 1024, 16, 0},
                  {"random", 256, 16, 0}});
}

TEST(Needle, Qwen) {
    expect_found("qwen2.5", 2000, {0.0, 0.5, 1.0}, 3,
                 {{"full", 0, 16, 3},
                  {"full", 0, 4, 3},
                  {"full", 0, 2, 3},
                  {"snapkv", 512, 16, 3},
                  {"snapkv", 512, 4, 3},
                  {"snapkv", 512, 2, 2},
                  {"snapkv", 256, 16, 3},
                  {"snapkv", 256, 4, 2},
                  {"snapkv", 256, 2, 1},
                  {"pyramidkv", 512, 16, 3},
                  {"pyramidkv", 512, 4, 3},
                  {"pyramidkv", 512, 2, 3},
                  {"pyramidkv", 256, 16, 2},
                  {"pyramidkv", 256, 4, 2},
                  {"pyramidkv", 256, 2, 1},
                  {"h2o", 512, 16, 0},
                  {"random", 512, 16, 0},
                  {"streamingllm", 512, 16, 1}});
}

}  // namespace
}  // namespace winnow
