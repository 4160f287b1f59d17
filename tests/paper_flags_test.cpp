// Every flag of the paper's scripts, in its own spelling and with hyphens, by the very suite that
// takes it: what it says must be in the run that the binary describes.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "support/dataset_files.h"
#include "support/program.h"
#include "support/tiny_gguf.h"

namespace winnow {
namespace {

using Json = nlohmann::json;
using Words = std::vector<std::string>;

class PaperFlags : public ::testing::Test {
  protected:
    PaperFlags() {
        testing::write_tiny_gguf(program_.path("tiny.gguf"),
                                 {.tokenizer = testing::TinyTokenizer::byte_bpe});
        std::filesystem::create_directories(program_.path("long"));
        std::filesystem::create_directories(program_.path("hay"));
        std::string text, rows;
        for (int i = 0; i < 60; ++i) {
            text += "Number " + std::to_string(i) + " of the ships came home. ";
        }
        for (int i = 0; i < 5; ++i) {
            rows += Json{{"input", "Which?"},
                         {"context", text},
                         {"answers", {"one"}},
                         {"all_classes", nullptr},
                         {"length", 9}}
                        .dump() +
                    "\n";
        }
        program_.file("hay/a.txt", text);
        program_.file("long/multi_news.jsonl", rows);
        program_.file("long/qasper.jsonl", rows);
    }

    // run.json of the paper's command line, with '_' or '-' in every flag.
    Json run_of(Words words, bool hyphens) const {
        for (std::string& word : words) {
            if (hyphens && word.starts_with("--")) {
                std::replace(word.begin() + 2, word.end(), '_', '-');
            }
        }
        const std::string folder = program_.path(hyphens ? "hyphens" : "underscores");
        std::filesystem::remove_all(folder);
        words.insert(words.begin(), "eval");
        words.insert(words.end(), {"-m", program_.path("tiny.gguf"), "-t", "1",
                                   hyphens ? "--save-dir" : "--save_dir", folder});
        const testing::ProgramResult result = program_.run(words);
        EXPECT_EQ(result.code, 0) << result.err;
        const std::string text = testing::read_file(folder + "/run.json");
        return text.empty() ? Json::object() : Json::parse(text);
    }

    testing::Program program_;
};

const Json& config(const Json& run, const std::string& id) {
    for (const Json& one : run.at("configs")) {
        if (one.at("id") == id) return one;
    }
    throw std::runtime_error("no configuration " + id + " in " + run.at("configs").dump());
}

TEST_F(PaperFlags, OfTheNeedleScript) {
    for (const bool hyphens : {false, true}) {
        for (const char* cap : {"--max_capacity_prompts", "--max_capacity_prompt"}) {
            const Json run = run_of({"needle",   "--haystack", program_.path("hay"),
                                     "--s_len",  "600",        "--e_len",
                                     "700",      "--step",     "100",
                                     "--depths", "1",          "--model_version",
                                     "tiny-3",   "--method",   "SnapKV",
                                     cap,        "96",         "--quant_method",
                                     "kivi",     "--nbits",    "4"},
                                    hyphens);
            const Json& settings = run.at("settings");
            EXPECT_EQ(settings.at("s_len"), 600);
            EXPECT_EQ(settings.at("e_len"), 700);
            EXPECT_EQ(settings.at("step"), 100);
            EXPECT_EQ(settings.at("model_version"), "tiny-3");
            const Json& options = config(run, "snapkv-96-kivi4").at("options");
            EXPECT_EQ(options.at("max_capacity_prompts"), 96);
            EXPECT_EQ(options.at("quant_method"), "kivi");
            EXPECT_EQ(options.at("nbits"), 4);
        }
    }
}

TEST_F(PaperFlags, OfTheLongBenchScript) {
    for (const bool hyphens : {false, true}) {
        const Json run =
            run_of({"longbench", "--data", program_.path("long"), "--datasets", "multi_news",
                    "--max_num_examples", "2", "--sample_method", "random", "--method", "FullKV",
                    "--quant_method", "HQQ", "--nbits", "2", "--ctx_size", "1024"},
                   hyphens);
        const Json& settings = run.at("settings");
        EXPECT_EQ(settings.at("datasets"), "multi_news");
        EXPECT_EQ(settings.at("max_num_examples"), 2);
        EXPECT_EQ(settings.at("sample_method"), "random");
        const Json& options = config(run, "full-hqq2").at("options");
        EXPECT_EQ(options.at("quant_method"), "hqq");
        EXPECT_EQ(options.at("nbits"), 2);
    }
}

TEST_F(PaperFlags, MistakesAreNamedInBothSpellings) {
    for (const char* flag : {"--max_num_examplez", "--max-num-examplez"}) {
        testing::expect_error(
            program_.run({"eval", "longbench", flag, "2", "-m", program_.path("tiny.gguf")}), 2,
            "--max-num-examples");
    }
}

}  // namespace
}  // namespace winnow
