// LongBench's files: prompts, truncation, what is missing, and damaged lines.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "eval/datasets/json_file.h"
#include "eval/datasets/longbench.h"
#include "scoring/suites.h"
#include "support/dataset_files.h"
#include "support/test_files.h"

namespace winnow::eval {
namespace {

using testing::byte_tokenizer;
using testing::error_text;
using testing::fresh_folder;
using testing::read_file;
using testing::write_file;

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

std::string row(const std::string& input, const std::string& context,
                const std::string& more = "") {
    return R"({"input": ")" + input + R"(", "context": ")" + context +
           R"(", "answers": ["one", "two"], "all_classes": null, "length": 7)" + more + "}\n";
}

Dataset load(const std::string& folder, LongBenchOptions options = {}) {
    options.data_dir = folder;
    return load_longbench(options, byte_tokenizer());
}

TEST(LongBench, OfficialPromptsAndLengths) {
    const std::string folder = fresh_folder("longbench_official");
    write_file(folder + "/hotpotqa.jsonl", row("who?", "a text") + "\n" + row("when?", "{input}"));
    write_file(folder + "/samsum.jsonl", row("Dialogue", "Examples"));
    write_file(folder + "/config/dataset2prompt.json",
               R"({"hotpotqa": "C {context} {{x}} I {input}.", "samsum": "{context}|{input}"})");
    write_file(folder + "/config/dataset2maxlen.json", R"({"hotpotqa": 5, "samsum": 128})");
    const Dataset found = load(folder);
    ASSERT_EQ(found.samples.size(), 3U);
    EXPECT_EQ(found.wording, "official");
    const Sample& second = found.samples[1];
    EXPECT_EQ(second.task, "hotpotqa");
    EXPECT_EQ(second.index, 1);
    EXPECT_EQ(second.input, "C {input} {x} I when?.");  // the context's own braces are text
    EXPECT_EQ(second.outputs, (std::vector<std::string>{"one", "two"}));
    EXPECT_EQ(second.max_new_tokens, 5);
    EXPECT_EQ(second.length, 7);
    EXPECT_TRUE(second.chat_template && !second.stop_at_newline);
    EXPECT_TRUE(!found.samples[2].chat_template && found.samples[2].stop_at_newline);

    LongBenchOptions paper;
    paper.paper_mode = true;
    EXPECT_FALSE(load(folder, paper).samples[0].chat_template);
    paper.prompt_dir = folder + "/config";
    paper.tasks = {"samsum"};
    EXPECT_EQ(load(folder, paper).samples[0].input, "Examples|Dialogue");
}

TEST(LongBench, OurWordingForEveryTask) {
    for (const scoring::LongBenchTask& task : scoring::longbench_tasks()) {
        const std::string wording = longbench_wording(task.name);
        EXPECT_TRUE(has(wording, "{context}")) << task.name;
        const bool asks = task.name != "gov_report" && task.name != "multi_news" &&
                          task.name != "passage_count" && task.name != "lcc";
        EXPECT_EQ(has(wording, "{input}"), asks) << task.name;
    }
    const std::string folder = fresh_folder("longbench_ours");
    write_file(folder + "/qasper.jsonl", row("why?", "An article."));
    const Dataset found = load(folder);
    EXPECT_EQ(found.wording, "ours");
    EXPECT_TRUE(has(found.samples.at(0).input, "An article.\n\nQuestion: why?"));
    EXPECT_EQ(found.samples[0].max_new_tokens, 128);
}

TEST(LongBench, ClassesOfClassificationTasks) {
    const std::string folder = fresh_folder("longbench_classes");
    write_file(folder + "/trec.jsonl",
               R"({"input":"q","context":"c","answers":["A"],"all_classes":["A","B"],"length":1})");
    EXPECT_EQ(load(folder).samples.at(0).all_classes, (std::vector<std::string>{"A", "B"}));
    write_file(folder + "/trec.jsonl", row("q", "c"));
    EXPECT_TRUE(has(error_text([&] { load(folder); }),
                    "trec.jsonl, line 1: the field \"all_classes\" is of type null; it must be a "
                    "list of texts."));
}

TEST(LongBench, ChoosesSamplesAndCutsTheMiddle) {
    const std::string folder = fresh_folder("longbench_choice");
    std::string rows;
    for (int i = 0; i < 50; ++i) {
        rows += row("q", std::string(300, 'x'));
    }
    write_file(folder + "/multi_news.jsonl", rows);
    LongBenchOptions options;
    options.max_samples = 5;
    options.context_tokens = 612;  // 512 of them for the reply
    const Dataset first = load(folder, options);
    ASSERT_EQ(first.samples.size(), 5U);
    EXPECT_EQ(first.samples[4].index, 4);
    const std::string whole = load(folder).samples.at(0).input;
    EXPECT_EQ(first.samples[0].input, whole.substr(0, 50) + whole.substr(whole.size() - 50));

    options.context_tokens = 512;
    EXPECT_TRUE(has(error_text([&] { load(folder, options); }),
                    "usage: A context of 512 tokens has no room for a prompt of LongBench's "
                    "multi_news, whose reply may take 512"));
    options.context_tokens = 0;

    options.random_samples = true;
    const auto indices = [&](std::uint64_t seed) {
        options.seed = seed;
        std::vector<int> chosen;
        for (const Sample& sample : load(folder, options).samples) {
            chosen.push_back(sample.index);
        }
        return chosen;
    };
    EXPECT_EQ(indices(42), indices(42));
    EXPECT_NE(indices(42), indices(43));
    const std::vector<int> chosen = indices(42);
    EXPECT_EQ(chosen.size(), 5U);
    EXPECT_TRUE(std::is_sorted(chosen.begin(), chosen.end()));
}

TEST(LongBench, SaysWhichFileBelongsWhere) {
    const std::string folder = fresh_folder("longbench_missing");
    LongBenchOptions options;
    EXPECT_TRUE(has(error_text([&] { load(folder); }),
                    "failure: There is no LongBench task in '" + folder + "'"));
    options.tasks = {"qmsum"};
    EXPECT_TRUE(has(error_text([&] { load(folder, options); }),
                    "qmsum.jsonl of the official data belongs in '" + folder + "'"));
    options.tasks = {"dureader"};
    EXPECT_TRUE(has(error_text([&] { load(folder, options); }), "usage: The LongBench task 'dure"));
    options.tasks = {"nonsense"};
    EXPECT_TRUE(has(error_text([&] { load(folder, options); }), "usage: 'nonsense' is no "));
    write_file(folder + "/qmsum.jsonl", "\n \r\n");
    options.tasks = {};
    EXPECT_TRUE(has(error_text([&] { load(folder, options); }), "qmsum.jsonl' has no rows"));
    options.prompt_dir = folder;
    EXPECT_TRUE(has(error_text([&] { load(folder, options); }), "has no dataset2prompt.json"));
    write_file(folder + "/dataset2prompt.json", R"({"other": "x"})");
    write_file(folder + "/qmsum.jsonl", row("q", "c"));
    EXPECT_TRUE(has(error_text([&] { load(folder, options); }),
                    "dataset2prompt.json: the field \"qmsum\" is missing"));
    for (const char* damaged : {"[]", "{", "", "{\"qmsum\": 3}"}) {
        write_file(folder + "/dataset2prompt.json", damaged);
        EXPECT_TRUE(has(error_text([&] { load(folder, options); }), "dataset2prompt.json"));
    }
    const std::pair<const char*, const char*> formats[] = {
        {"{", "'{'; only plain"},     {"}", "closes nothing"}, {"{context!r}", "'{context!r'"},
        {"{0.x}", "only plain"},      {"{}", "only plain"},    {"{nothing}", "does not have"},
        {"{answers}", "not as text"},
    };
    for (const auto& [format, complaint] : formats) {
        write_file(folder + "/dataset2prompt.json", Json{{"qmsum", format}}.dump());
        EXPECT_TRUE(has(error_text([&] { load(folder, options); }), complaint)) << format;
    }
    write_file(folder + "/dataset2prompt.json", Json{{"qmsum", "{length} {input}"}}.dump());
    EXPECT_EQ(load(folder, options).samples.at(0).input, "7 q");
    for (const char* damaged : {R"({"qmsum": 0})", R"({"qmsum": -1})", R"({"qmsum": "9"})", "{}"}) {
        write_file(folder + "/dataset2maxlen.json", damaged);
        EXPECT_TRUE(has(error_text([&] { load(folder, options); }), "dataset2maxlen.json"));
    }
}

TEST(LongBench, DamagedLinesAreNamed) {
    const std::string folder = fresh_folder("longbench_damaged");
    const std::string path = folder + "/qasper.jsonl";
    const std::string deep = std::string(300000, '[') + std::string(300000, ']');
    const std::pair<std::string, std::string> cases[] = {
        {"{\"input\": ", "line 3 is no JSON"},
        {"[1, 2]", "line 3 is of type array"},
        {R"({"context": "c", "answers": ["x"]})", "line 3: the field \"input\" is missing"},
        {R"({"input": 3, "context": "c"})", "\"input\" is of type number; it must be a text"},
        {R"({"input": "i", "context": "c", "answers": "x"})", "must be a list of texts"},
        {R"({"input": "i", "context": "c", "answers": [1]})", "holds a value of type number"},
        {R"({"input": "i", "context": "c", "answers": []})", "\"answers\" is empty"},
        {R"({"input": "i", "context": "c", "answers": ["x"], "length": -1})", "\"length\" is -1"},
        {R"({"input": "i", "context": "c", "answers": ["x"], "length": 1e99})", "\"length\" is 1e"},
        {"{\"input\": \"\xFF\", \"context\": \"c\", \"answers\": [\"x\"]}", "line 3 is no JSON"},
        {R"({"input": "\ud800", "context": "c", "answers": ["x"]})", "line 3 is no JSON"},
        {std::string("\0\0", 2), "line 3 is no JSON"},
        {std::string(100000, '['), "line 3 is no JSON"},
        {R"({"input": "i", "context": "c", "answers": ["x"], "length": )" + deep + "}",
         "\"length\" is array; it must be a whole number"},
        {R"({"context": "c", "input": )" + deep + "}", "\"input\" is of type array"},
    };
    for (const auto& [line, complaint] : cases) {
        write_file(path, row("q", "c") + "\n" + line);
        const std::string message = error_text([&] { load(folder); });
        EXPECT_TRUE(has(message, "failure: ") && has(message, "qasper.jsonl, line 3") &&
                    has(message, complaint))
            << message;
        EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 0);
    }
    std::filesystem::remove(path);
    std::filesystem::create_directory(path);
    EXPECT_TRUE(has(error_text([&] { read_jsonl(path, [](auto&...) { return true; }); }),
                    "is a folder; a file is needed"));
    EXPECT_TRUE(has(error_text([&] { read_json(folder + "/none.json"); }), "No such file"));
    // Files of holes: too long a line, and too much to hold.
    const std::string huge = folder + "/huge";
    write_file(huge, "");
    std::filesystem::resize_file(huge, (64U << 20U) + 1);
    EXPECT_TRUE(has(error_text([&] { read_jsonl(huge, [](auto&...) { return true; }); }),
                    "line 1 is longer than 64 MiB"));
    std::filesystem::resize_file(huge, (1U << 30U) + 1);
    EXPECT_TRUE(has(error_text([&] { read_json(huge); }), "more than 1 GiB is not read"));
    std::filesystem::remove(huge);
}

TEST(LongBench, RandomDamageIsAnErrorOrARow) {
    const std::string folder = fresh_folder("longbench_fuzz");
    const std::string path = folder + "/trec.jsonl";
    std::string good;
    for (int i = 0; i < 3; ++i) {
        good += R"({"input":"q\u00e9","context":"c {x}","answers":["A"],"all_classes":["A"],)"
                R"("length":12,"extra":{"a":[1,2.5,null,true]}})"
                "\n";
    }
    std::mt19937 random(7);
    int refused = 0;
    for (int round = 0; round < 400; ++round) {
        std::string text = good;
        for (auto edits = 1 + random() % 3; edits > 0 && !text.empty(); --edits) {
            const std::size_t at = random() % text.size();
            switch (random() % 4) {
                case 0:
                    text[at] = static_cast<char>(random());
                    break;
                case 1:
                    text.erase(at, 1 + random() % 20);
                    break;
                case 2:
                    text.insert(at, text.substr(random() % text.size(), random() % 30));
                    break;
                default:
                    text[at] = "{}[]\",:\\\n0"[random() % 10];
            }
        }
        write_file(path, text);
        const std::string message = error_text([&] { load(folder); });
        refused += message.empty() ? 0 : 1;
        EXPECT_TRUE(message.empty() || has(message, "trec.jsonl")) << message;
    }
    EXPECT_GT(refused, 120);
    EXPECT_LT(refused, 400);
}

TEST(LongBench, ReadsTheOfficialFile) {
    const std::string folder = testing::find_data("longbench");
    if (folder.empty()) {
        GTEST_SKIP() << testing::missing_data("longbench");
    }
    LongBenchOptions options;
    options.tasks = {"multi_news"};
    const Dataset found = load(folder, options);
    EXPECT_EQ(found.wording, "official");
    ASSERT_EQ(found.samples.size(), 200U);
    const Json prompts = read_json(folder + "/config/dataset2prompt.json");
    const std::string format = prompts["multi_news"];
    const std::size_t gap = format.find("{context}");
    int i = 0;
    read_jsonl(folder + "/multi_news.jsonl", [&](const Json& line, const std::string&) {
        const Sample& sample = found.samples[static_cast<std::size_t>(i++)];
        EXPECT_EQ(sample.input, format.substr(0, gap) + line["context"].get<std::string>() +
                                    format.substr(gap + 9));
        EXPECT_EQ(sample.outputs, line["answers"].get<std::vector<std::string>>());
        return true;
    });
    EXPECT_EQ(i, 200);
}

}  // namespace
}  // namespace winnow::eval
