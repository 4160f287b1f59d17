// winnow bench on a tiny model: its JSON, CSV and chart, how lists expand, its baseline, and its
// mistakes. Nothing here judges a time.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "support/program.h"
#include "support/tiny_gguf.h"

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Words = std::vector<std::string>;

constexpr int kLayers = 2, kKvHeads = 2, kHeadDim = 32;

using Result = winnow::testing::ProgramResult;
using winnow::testing::expect_error;
using winnow::testing::Program;

std::string read_all(const std::string& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

class Bench : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        program_ = std::make_unique<Program>();
        winnow::testing::TinyModelOptions options;
        options.layers = kLayers;
        options.kv_heads = kKvHeads;
        options.head_dim = kHeadDim;
        options.context = 512;
        options.tokenizer = winnow::testing::TinyTokenizer::byte_bpe;
        winnow::testing::write_tiny_gguf(path("tiny.gguf"), options);
    }
    static void TearDownTestSuite() { program_.reset(); }

    static std::string path(const std::string& name) { return program_->path(name); }

    static Result run(const Words& args) { return program_->run(args); }
    static Result bench(const Words& more) {
        Words args{"bench", "-m", path("tiny.gguf"), "-t", "1", "--decode-tokens", "3"};
        args.insert(args.end(), more.begin(), more.end());
        return run(args);
    }
    static Json bench_json(Words more) {
        more.emplace_back("--json");
        const Result result = bench(more);
        EXPECT_EQ(result.code, 0) << result.err;
        return Json::parse(result.out, nullptr, false);
    }
    static std::unique_ptr<Program> program_;
};

std::unique_ptr<Program> Bench::program_;

std::vector<Json> rows_of(const Json& object, const std::string& engine) {
    std::vector<Json> rows;
    for (const Json& row : object.at("results")) {
        if (row.at("engine") == engine) rows.push_back(row);
    }
    return rows;
}

std::string name_of(const Json& row) {
    return row.at("method").get<std::string>() + " " + row.at("quant_method").get<std::string>() +
           " " + row.at("nbits").dump() + " " + row.at("max_capacity_prompts").dump();
}

TEST_F(Bench, JsonHasItsSchemaAndRatiosAgreeWithItsFigures) {
    const Json object = bench_json({"--context", "40,96", "--method", "full,snapkv", "--nbits",
                                    "16,4", "--max-capacity-prompts", "64", "--repeats", "2",
                                    "--sessions", "1,3", "--against", "llama.cpp:q8_0,q4_0"});
    ASSERT_TRUE(object.is_object());
    EXPECT_EQ(object.at("machine").at("threads"), 1);
    EXPECT_FALSE(object.at("machine").at("isa").get<std::string>().empty());
    EXPECT_TRUE(object.at("machine").at("cpu").is_string());
    EXPECT_EQ(object.at("rival").at("name"), "llama.cpp");
    EXPECT_NE(object.at("rival").at("version").get<std::string>().find("ggml"), std::string::npos);
    EXPECT_NE(object.at("rival").at("flags").get<std::string>().find("-fa on"), std::string::npos);
    EXPECT_EQ(object.at("model").at("layers"), kLayers);
    EXPECT_EQ(object.at("prompt"), "synthetic tokens");

    const Json& results = object.at("results");
    ASSERT_EQ(results.size(), (4U + 3U) * 2U * 2U);
    // The rival's f16 row of each context and number of sessions.
    std::map<std::pair<int, int>, Json> rivals;
    for (const Json& row : results) {
        if (row.at("quant_method") == "f16") {
            rivals[{row.at("context"), row.at("sessions")}] = row;
        }
    }
    ASSERT_EQ(rivals.size(), 4U);
    for (const Json& row : results) {
        SCOPED_TRACE(row.dump());
        const double decode = row.at("decode_tps"), prefill = row.at("prefill_tps");
        const Json& rival = rivals.at({row.at("context"), row.at("sessions")});
        EXPECT_GT(decode, 0.0);
        EXPECT_GT(prefill, 0.0);
        EXPECT_NEAR(row.at("ratio_decode").get<double>(),
                    decode / rival.at("decode_tps").get<double>(), 1e-9);
        EXPECT_NEAR(row.at("ratio_prefill").get<double>(),
                    prefill / rival.at("prefill_tps").get<double>(), 1e-9);
        EXPECT_NEAR(row.at("token_ms").get<double>(), 1000.0 / decode, 1e-9);
        EXPECT_EQ(row.at("ratio_sessions").is_null(), row.at("sessions") == 1);
        EXPECT_EQ(row.at("repeats"), 2);
        EXPECT_GE(row.at("spread").get<double>(), 0.0);
        const bool ours = row.at("engine") == "winnow";
        for (const char* key : {"attention_ms", "weights_ms", "kv_gb_per_s", "compress_share"}) {
            EXPECT_EQ(row.at(key).is_number(), ours) << key;
        }
        if (ours) {
            EXPECT_GT(row.at("attention_ms").get<double>(), 0.0);
            EXPECT_GT(row.at("weights_ms").get<double>(), 0.0);
            EXPECT_LE(row.at("compress_share").get<double>(), 1.0);
        }
    }
}

TEST_F(Bench, ListsExpandAndFullIsThereOnce) {
    const auto names = [](const Words& flags) {
        std::multiset<std::string> found;
        const Json object = bench_json(flags);
        for (const Json& row : object.at("results")) found.insert(name_of(row));
        return found;
    };
    const Words short_run{"--context", "24", "--repeats", "1"};
    const auto with = [&](Words more) {
        more.insert(more.end(), short_run.begin(), short_run.end());
        return names(more);
    };
    using Names = std::multiset<std::string>;
    EXPECT_EQ(with({}), (Names{"full none 16 null"}));
    // Twice 16, twice full, and full at both caps, are one cache each.
    EXPECT_EQ(with({"--method", "full,FullKV,snapkv", "--nbits", "16,4,16",
                    "--max-capacity-prompts", "64,128"}),
              (Names{"full none 16 null", "full kivi 4 null", "snapkv none 16 64",
                     "snapkv none 16 128", "snapkv kivi 4 64", "snapkv kivi 4 128"}));
    EXPECT_EQ(with({"--quant-method", "none,kivi,hqq", "--nbits", "16,2"}),
              (Names{"full none 16 null", "full kivi 2 null", "full hqq 2 null"}));
}

TEST_F(Bench, CacheBytesAreThoseOfARun) {
    const Json object = bench_json({"--context", "96", "--method", "full,snapkv", "--nbits", "16,4",
                                    "--max-capacity-prompts", "64", "--repeats", "1", "--against",
                                    "llama.cpp:q8_0,q4_0", "--sessions", "2"});
    const std::size_t numbers = 96U * 2U * kLayers * kKvHeads * kHeadDim;
    const std::map<std::string, std::size_t> rival{
        {"f16", numbers * 2}, {"q8_0", numbers * 34 / 32}, {"q4_0", numbers * 18 / 32}};
    ASSERT_EQ(rows_of(object, "llama.cpp").size(), 3U);
    for (const Json& row : rows_of(object, "llama.cpp")) {
        EXPECT_EQ(row.at("kv_bytes"), 2 * rival.at(row.at("quant_method"))) << row.dump();
    }
    ASSERT_EQ(rows_of(object, "winnow").size(), 4U);
    for (const Json& row : rows_of(object, "winnow")) {
        Words words{"run", "-m", path("tiny.gguf"), "-t", "1", "--json", "-no-cnv", "-n", "0"};
        // One token per byte: the tiny vocabulary merges none of these.
        words.insert(words.end(), {"-p", std::string(96, '~')});
        words.insert(words.end(), {"--method", row.at("method"), "--nbits", row.at("nbits").dump(),
                                   "--max-capacity-prompts", "64"});
        const Json run_object = Json::parse(run(words).out, nullptr, false);
        ASSERT_TRUE(run_object.is_object());
        ASSERT_EQ(run_object.at("tokens").at("prompt"), 96);
        EXPECT_EQ(row.at("kv_bytes").get<std::size_t>(),
                  2 * run_object.at("kv").at("bytes").get<std::size_t>())
            << row.dump();
    }
}

TEST_F(Bench, WithoutARivalRatiosAreNull) {
    const Json object = bench_json({"--context", "1", "--repeats", "1"});
    EXPECT_TRUE(object.at("rival").is_null());
    ASSERT_EQ(object.at("results").size(), 1U);
    EXPECT_TRUE(object.at("results")[0].at("ratio_decode").is_null());
    EXPECT_TRUE(object.at("results")[0].at("ratio_prefill").is_null());
}

TEST_F(Bench, TextCsvAndChart) {
    std::ofstream(path("text.txt")) << "A short text, read again and again.\n";
    const Result result =
        bench({"--context", "32,80", "--nbits", "16,4", "--repeats", "1", "-f", path("text.txt"),
               "--csv", path("o.csv"), "--svg", path("o.svg"), "--against", "llama.cpp"});
    ASSERT_EQ(result.code, 0) << result.err;
    for (const char* part : {"text.txt, repeated", "decode tok/s", "winnow full, kivi 4 bits",
                             "llama.cpp f16", "attention", "KV GB/s", "-fa on"}) {
        EXPECT_NE(result.out.find(part), std::string::npos) << part << " in\n" << result.out;
    }
    EXPECT_NE(result.err.find("bench: context 80, repeat 1 of 1"), std::string::npos);

    const std::string csv = read_all(path("o.csv"));
    EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 1 + 3 * 2);
    EXPECT_TRUE(csv.starts_with("engine,method,quant_method,nbits,")) << csv;
    std::size_t begin = 0;
    std::set<std::ptrdiff_t> commas;
    for (std::size_t end = 0; (end = csv.find('\n', begin)) != std::string::npos; begin = end + 1) {
        commas.insert(std::count(csv.begin() + begin, csv.begin() + end, ','));
    }
    EXPECT_EQ(commas.size(), 1U) << csv;

    const std::string svg = read_all(path("o.svg"));
    EXPECT_TRUE(svg.starts_with("<svg ")) << svg.substr(0, 80);
    EXPECT_TRUE(svg.ends_with("</svg>\n"));
    for (const char* part : {">winnow full, 16 bits<", ">winnow full, kivi 4 bits<",
                             ">llama.cpp f16<", "prompt tokens", "tokens per second"}) {
        EXPECT_NE(svg.find(part), std::string::npos) << part;
    }
    EXPECT_EQ(svg.find("nan"), std::string::npos);
}

TEST_F(Bench, BaselineIsSavedAndFallsAreTold) {
    const std::string file = path("baseline.json");
    const Words flags{"--context", "32", "--nbits",   "16,4",
                      "--repeats", "1",  "--against", "llama.cpp"};
    Words save = flags;
    save.insert(save.end(), {"--save-baseline", file});
    ASSERT_EQ(bench(save).code, 0);
    ASSERT_EQ(bench(save).code, 0);  // in place of the first one
    Json json = Json::parse(read_all(file), nullptr, false);
    ASSERT_EQ(json.at("entries").size(), 1U);
    Json& entry = json["entries"][0];
    EXPECT_EQ(entry.at("flags").get<Words>(),
              (Words{"--decode-tokens", "3", "--context", "32", "--nbits", "16,4", "--repeats", "1",
                     "--against", "llama.cpp"}));
    ASSERT_EQ(entry.at("results").size(), 3U);

    // Nothing is a thousand times slower, and everything is slower than a million times as fast.
    for (Json& row : entry["results"]) {
        const bool four = row.at("configuration") == "winnow full, kivi 4 bits";
        row["ratio_decode"] = four ? 1e6 : 1e-3;
        row["ratio_prefill"] = 1e-3;
    }
    entry["results"].push_back({{"configuration", "winnow full, hqq 4 bits"},
                                {"context", 32},
                                {"sessions", 1},
                                {"ratio_decode", 1.0}});
    std::ofstream(file) << json;
    const Result result = bench({"--baseline", file});
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_NE(result.out.find("fell: winnow full, kivi 4 bits, context 32: decode ratio"),
              std::string::npos)
        << result.out;
    EXPECT_NE(result.out.find("6 ratios compared, 1 fell by more than 10 %, 1 of the baseline not"),
              std::string::npos)
        << result.out;
    const Json compared = bench_json({"--baseline", file});
    EXPECT_EQ(compared.at("comparison").at("fell").size(), 1U);

    json["entries"][0]["model"] = "another";
    std::ofstream(file) << json;
    expect_error(bench({"--baseline", file}), 1, "no entry for the model");
    expect_error(bench({"--baseline", path("none.json")}), 1, "cannot be read");
    std::ofstream(file) << "[]";
    expect_error(bench({"--baseline", file}), 1, "entries");
}

TEST_F(Bench, MistakesExitWith2) {
    expect_error(bench({"--against", "vllm"}), 2, "llama.cpp");
    expect_error(bench({"--against", "llama.cpp:q9"}), 2, "'f16', 'q8_0' or 'q4_0'");
    expect_error(bench({"--context", "512,,7"}), 2, "single commas");
    expect_error(bench({"--context", "512,many"}), 2, "'many'");
    expect_error(bench({"--context", "0"}), 2, "from 1");
    expect_error(bench({"--context", "32,600"}), 2, "--allow-long");
    expect_error(bench({"--nbits", "5"}), 2, "2, 3, 4, 8 or 16");
    expect_error(bench({"--method", "full,snapvk"}), 2, "'snapkv'");
    expect_error(bench({"--quant-method", "none", "--nbits", "4"}), 2, "none");
    expect_error(bench({"--max-capacity-prompts", "64,"}), 2, "single commas");
    expect_error(bench({"--sessions", "x"}), 2, "--sessions");
    expect_error(bench({"--repeats", "0"}), 2, "--repeats");
    expect_error(bench({"--save-baseline", path("b.json")}), 2, "--against");
    expect_error(run({"bench"}), 2, "-m FILE");
    expect_error(bench({"-f", path("missing.txt"), "--context", "8"}), 1, "missing.txt");
    expect_error(bench({"--csv", path("no/such/folder.csv")}), 1, "--csv");
}

}  // namespace
