// What the tests of `winnow report` share: results in the form that `winnow eval` writes, and a
// reader of what the report writes.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>
#include <winnow/error.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "report/files.h"
#include "report/report.h"

namespace winnow::report {

namespace fs = std::filesystem;

inline Json options_of(const std::string& method, int cap, const std::string& quant, int bits) {
    return {{"method", method},
            {"max_capacity_prompts", cap},
            {"quant_method", quant},
            {"nbits", bits},
            {"nbits_k", 0},
            {"nbits_v", 0},
            {"max_capacity_prompts_ratio", 0.0}};
}

struct TestConfig {
    std::string id;
    Json options;
};

inline const std::vector<TestConfig> kConfigs{
    {"full-16", options_of("full", 0, "none", 16)},
    {"snapkv-128-16", options_of("snapkv", 128, "none", 16)},
    {"snapkv-512-16", options_of("snapkv", 512, "none", 16)},
    {"snapkv-512-kivi4", options_of("snapkv", 512, "kivi", 4)},
    {"random-128-16", options_of("random", 128, "none", 16)},
    {"random-512-16", options_of("random", 512, "none", 16)},
};

inline double share_of(const TestConfig& config) {
    const double cap = config.options["max_capacity_prompts"].get<double>();
    const double tokens = cap == 0 ? 1024.0 : cap;
    return tokens / 1024.0 * config.options["nbits"].get<double>() / 16.0;
}

inline Json line_of(const std::string& suite, const std::string& task, const std::string& prompt,
                    const TestConfig& config, double score) {
    return {{"suite", suite},
            {"task", task},
            {"prompt", prompt},
            {"index", 0},
            {"length", 1024},
            {"config", config.id},
            {"options", config.options},
            {"kv",
             {{"bytes", 1e6 * share_of(config)},
              {"bytes_full_f16", 1e6},
              {"policy_bytes", 0},
              {"kept", 100},
              {"bits_k", config.options["nbits"]},
              {"bits_v", config.options["nbits"]}}},
            {"tokens", {{"prompt", 1024}, {"generated", 3}}},
            {"reply", "a reply"},
            {"expected", {"an answer"}},
            {"score", score},
            {"model_sha256", "abc"},
            {"version", "0.1.0"},
            {"seed", 42},
            {"wording", "ours"}};
}

inline Json run_of(const std::string& suite, const std::string& fingerprint) {
    return {{"schema", 1},
            {"suite", suite},
            {"version", "0.1.0"},
            {"model", {{"name", "Tiny-1M"}, {"architecture", "llama"}, {"sha256", "abc"}}},
            {"seed", 42},
            {"wording", "ours"},
            {"settings", {{"mode", "honest"}, {"s_len", 512}, {"title", "it's"}}},
            {"fingerprint", fingerprint}};
}

// Score of prompt i under configuration c: differs everywhere.
inline double score_of(std::size_t c, int i) {
    return static_cast<double>((static_cast<int>(c) * 17 + i * 29) % 101);
}

class Report : public ::testing::Test {
  protected:
    void SetUp() override {
        folder_ = fs::temp_directory_path() /
                  ("winnow-report-" + std::to_string(getpid()) + "-" +
                   ::testing::UnitTest::GetInstance()->current_test_info()->name());
        fs::remove_all(folder_);
        fs::create_directories(folder_);
    }
    void TearDown() override { fs::remove_all(folder_); }

    void write(const std::string& name, const std::string& text) const {
        fs::create_directories((folder_ / name).parent_path());
        std::ofstream(folder_ / name, std::ios::binary) << text;
    }
    std::string read(const std::string& name) const { return read_whole(folder_ / name); }

    // A needle run with `lengths` x `depths` prompts; shard `shard` of `shards`.
    static std::string needle_lines(int shard = 0, int shards = 1) {
        std::string text;
        int i = 0;
        for (const int length : {512, 1024}) {
            for (const int depth : {0, 50, 100}) {
                const int mine = i++;
                if (mine % shards != shard) continue;
                const std::string prompt =
                    "sf-" + std::to_string(length) + "-" + std::to_string(depth);
                for (std::size_t c = 0; c < kConfigs.size(); ++c) {
                    Json line =
                        line_of("needle", "needle_sf", prompt, kConfigs[c], score_of(c, mine));
                    line["length"] = length;
                    line["depth"] = depth;
                    text += line.dump() + "\n";
                }
            }
        }
        return text;
    }
    void write_needle(const std::string& folder = "") const {
        write(folder + "run.json", run_of("needle", "f1").dump());
        write(folder + "results.jsonl", needle_lines());
    }

    fs::path folder_;
};

// RFC 4180, strictly: rows of fields, or a failure.
inline std::vector<std::vector<std::string>> parse_csv(const std::string& text) {
    std::vector<std::vector<std::string>> rows(1, {""});
    bool inside = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        std::string& field = rows.back().back();
        if (inside) {
            if (c != '"')
                field += c;
            else if (i + 1 < text.size() && text[i + 1] == '"')
                field += text[++i];
            else
                inside = false;
        } else if (c == '"') {
            EXPECT_TRUE(field.empty()) << "a quote inside a bare field";
            inside = true;
        } else if (c == ',') {
            rows.back().emplace_back();
        } else if (c == '\r') {
            EXPECT_EQ(text.substr(i, 2), "\r\n");
            ++i;
            rows.push_back({""});
        } else {
            EXPECT_NE(c, '\n') << "a bare line break";
            field += c;
        }
    }
    EXPECT_FALSE(inside);
    EXPECT_EQ(rows.back(), std::vector<std::string>{""}) << "the last row must end";
    rows.pop_back();
    for (const auto& row : rows) EXPECT_EQ(row.size(), rows.front().size());
    return rows;
}

// The column `column` of the row that begins with `key`.
inline std::string cell(const std::string& csv, const std::string& key, const std::string& column) {
    const auto rows = parse_csv(csv);
    for (const auto& row : rows) {
        if (row.front() != key) continue;
        for (std::size_t i = 0; i < row.size(); ++i) {
            if (rows.front()[i] == column) return row[i];
        }
    }
    return "no row " + key + " or column " + column;
}

inline int shell(const std::string& command) {
    const int status = std::system(command.c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

class EmptyPath {
  public:
    EmptyPath() : old_(std::getenv("PATH")) { setenv("PATH", "", 1); }
    ~EmptyPath() { setenv("PATH", old_.c_str(), 1); }

  private:
    std::string old_;
};

}  // namespace winnow::report
