// Our metrics beside the official Python implementations, on hundreds of seeded pairs each:
// tests/metrics_reference.sh installs those by hash and scores the pairs.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "eval/datasets/longbench.h"
#include "eval/datasets/prompt_format.h"
#include "eval/datasets/ruler.h"
#include "scoring/metrics.h"
#include "scoring/unicode.h"
#include "support/dataset_files.h"
#include "support/test_files.h"

namespace winnow::scoring {
namespace {

using Json = nlohmann::json;
using Strings = std::vector<std::string>;

double score_of(const Json& row) {
    const std::string metric = row["metric"];
    const std::string reply = row["reply"];
    const std::string answer = row["answer"];
    const Strings references = row.value("references", Strings());
    const Strings classes = row.value("classes", Strings());
    const std::map<std::string, std::function<double()>> metrics = {
        {"qa_f1", [&] { return qa_f1(reply, answer); }},
        {"rouge_l", [&] { return rouge_l(reply, answer); }},
        {"classification", [&] { return classification(reply, answer, classes); }},
        {"count", [&] { return count_share(reply, answer); }},
        {"retrieval", [&] { return retrieval(reply, answer); }},
        {"retrieval_zh", [&] { return retrieval(reply, answer, "\u6BB5\u843D"); }},
        {"fuzz_ratio", [&] { return fuzz_ratio(reply, answer); }},
        {"code_similarity", [&] { return code_similarity(reply, answer); }},
        {"string_match_all", [&] { return string_match_all(reply, references); }},
        {"string_match_any", [&] { return string_match_any(reply, references); }},
        {"word_overlap", [&] { return word_overlap(reply, answer); }},
    };
    return metrics.at(metric)();
}

void check_characters(const Json& row) {
    const std::u32string points = decode_utf8(row["reply"].get<std::string>());
    for (std::size_t i = 0; i < points.size(); ++i) {
        const char32_t c = points[i];
        const auto point = static_cast<unsigned>(c);
        EXPECT_EQ(lower(encode_utf8({&c, 1})), row["lower"][i].get<std::string>()) << point;
        EXPECT_EQ(is_space(c), row["space"][i].get<bool>()) << point;
        EXPECT_EQ(is_decimal(c), row["decimal"][i].get<bool>()) << point;
        EXPECT_EQ(is_word(c), row["word"][i].get<bool>()) << point;
    }
}

void check_prompt(const Json& row, const Json& templates) {
    const std::string text = row.contains("task")
                                 ? templates[row["task"].get<std::string>()].get<std::string>()
                                 : row["template"].get<std::string>();
    EXPECT_EQ(eval::format_prompt(text, row["row"], "the test"), row["answer"].get<std::string>());
}

std::string without_end(std::string text) {
    while (!text.empty() && (text.back() == ' ' || text.back() == '\n')) text.pop_back();
    return text;
}

// A task of LongBench as lm-eval words it, through our reader of the benchmark's files.
void check_longbench(const Json& row, const Json& official) {
    const std::string task = row["task"];
    const std::string folder = testing::fresh_folder("official_longbench");
    testing::write_file(folder + "/dataset2prompt.json", Json{{task, row["template"]}}.dump());
    testing::write_file(folder + "/dataset2maxlen.json", Json{{task, row["longest"]}}.dump());
    Json line = row["row"];
    line.update({{"answers", {"a"}}, {"all_classes", {"a", "b"}}, {"length", 9}});
    testing::write_file(folder + "/" + task + ".jsonl", line.dump() + "\n");
    eval::LongBenchOptions options;
    options.data_dir = folder;
    const eval::Dataset found = eval::load_longbench(options, testing::byte_tokenizer());
    ASSERT_EQ(found.samples.size(), 1U) << task;
    EXPECT_EQ(found.wording, "official");
    EXPECT_EQ(found.samples[0].input, row["answer"].get<std::string>()) << task;
    EXPECT_EQ(found.samples[0].max_new_tokens, row["longest"].get<int>()) << task;
    // lm-eval leaves out white space at the end, and in two tasks an empty line.
    if (!official.is_null() && task != "triviaqa" && task != "samsum") {
        EXPECT_EQ(without_end(official[task]), row["template"].get<std::string>()) << task;
    }
}

// A sample of RULER as lm-eval words it, raw and for a chat template.
void check_ruler(const Json& row) {
    const std::string path =
        testing::fresh_folder("official_ruler") + "/" + row["task"].get<std::string>() + ".jsonl";
    const auto load = [&](const Json& line, bool chat) {
        testing::write_file(path, line.dump() + "\n");
        return eval::load_ruler(path, {}, 0, chat).samples.at(0);
    };
    const Json apart{{"index", row["index"]},
                     {"input", row["input"]},
                     {"gen_prefix", row["gen_prefix"]},
                     {"outputs", {"a"}},
                     {"length", 9}};
    EXPECT_EQ(load(apart, false).input, row["answer"].get<std::string>());
    // NVIDIA's own files hold the whole prompt in one field.
    Json whole = apart;
    whole.erase("gen_prefix");
    whole["input"] = row["answer"];
    EXPECT_EQ(load(whole, false).input, row["answer"].get<std::string>());
    for (const Json& line : {apart, whole}) {
        const eval::Sample sample = load(line, true);
        EXPECT_EQ(sample.input, row["input"].get<std::string>());
        EXPECT_EQ(sample.answer_prefix, row["gen_prefix"].get<std::string>());
    }
}

TEST(Metrics, EqualTheOfficialImplementations) {
    const std::string data = testing::find_data("");
    const std::string pairs = ::testing::TempDir() + "metrics_reference.jsonl";
    const std::string command = std::string(WINNOW_SOURCE_DIR) + "/tests/metrics_reference.sh '" +
                                WINNOW_BUILD_DIR + "' '" + pairs + "' '" + data + "' 2>&1";
    FILE* pipe = popen(command.c_str(), "r");
    ASSERT_NE(pipe, nullptr);
    std::string said;
    char buffer[512];
    while (fgets(buffer, sizeof buffer, pipe) != nullptr) {
        said += buffer;
    }
    const int status = pclose(pipe);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        GTEST_SKIP() << said;
    }
    ASSERT_EQ(status, 0) << said;

    Json templates;
    if (const std::string prompts = testing::find_data("longbench/config/dataset2prompt.json");
        !prompts.empty()) {
        templates = Json::parse(std::ifstream(prompts));
    }
    std::map<std::string, int> seen;
    std::map<std::string, int> between;  // scores that are neither 0 nor full
    std::ifstream in(pairs);
    for (std::string line; std::getline(in, line);) {
        const Json row = Json::parse(line);
        const std::string metric = row["metric"];
        ++seen[metric];
        if (metric == "characters") {
            check_characters(row);
        } else if (metric == "prompt") {
            check_prompt(row, templates);
        } else if (metric == "longbench_prompt") {
            check_longbench(row, templates);
        } else if (metric == "ruler_prompt") {
            check_ruler(row);
        } else {
            const double wanted = row["score"];
            between[metric] += wanted > 0.0 && wanted < 1.0 ? 1 : 0;
            EXPECT_NEAR(score_of(row), wanted, 1e-9) << line;
        }
    }
    for (const char* metric :
         {"qa_f1", "rouge_l", "classification", "count", "retrieval", "retrieval_zh",
          "code_similarity", "string_match_all", "word_overlap"}) {
        EXPECT_GE(seen[metric], 300) << metric;
        EXPECT_GE(between[metric], 50) << metric;  // the pairs tell implementations apart
    }
    EXPECT_GE(seen["string_match_any"], 300);
    EXPECT_GE(seen["fuzz_ratio"], 300);
    EXPECT_GE(seen["characters"], 2000);
    EXPECT_EQ(seen["longbench_prompt"], 18 * 3);
    EXPECT_GE(seen["ruler_prompt"], 200);
    std::printf("%zu kinds of pairs compared\n", seen.size());
}

}  // namespace
}  // namespace winnow::scoring
