// Shards, and result files: they resume, are cut where torn, and keep runs of other options apart.
#include <gtest/gtest.h>

#include <cstdlib>

#include "eval/results.h"
#include "eval/shard.h"
#include "support/eval_fixture.h"

namespace winnow::eval {
namespace {

namespace fs = std::filesystem;

TEST(EvalShard, OfTheFlagAndOfLaunchers) {
    EXPECT_EQ(parse_shard("2/4").index, 2);
    for (const char* bad : {"4/4", "-1/4", "1", "1/", "a/b", "1/0"}) {
        EXPECT_NE(message_of([&] { parse_shard(bad); }).find("--shard is"), std::string::npos)
            << bad;
    }
    const Shard shard = parse_shard("1/3");
    EXPECT_FALSE(shard.mine(0));
    EXPECT_TRUE(shard.mine(1) && shard.mine(4));
    EXPECT_EQ(shard.file_name("results", ".jsonl"), "results-1-of-3.jsonl");
    for (const auto& [rank, size] : std::vector<std::pair<const char*, const char*>>{
             {"SLURM_PROCID", "SLURM_NTASKS"},
             {"PMI_RANK", "PMI_SIZE"},
             {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"}}) {
        setenv(rank, "1", 1);
        setenv(size, "2", 1);
        EXPECT_EQ(shard_of_launcher().index, 1) << rank;
        EXPECT_EQ(shard_of_launcher().count, 2) << rank;
        EXPECT_EQ(shard_of_launcher().source, rank);
        setenv(rank, "2", 1);
        EXPECT_NE(message_of([] { shard_of_launcher(); }).find(rank), std::string::npos);
        unsetenv(rank);
        unsetenv(size);
    }
    EXPECT_EQ(shard_of_launcher().count, 1);
}

OrderedJson run_of(const std::string& fingerprint) {
    return {{"fingerprint", fingerprint}};
}

OrderedJson line(const std::string& prompt, const std::string& config) {
    return {{"prompt", prompt}, {"config", config}, {"score", 1.0}};
}

TEST_F(Eval, ResultFilesResumeAndCutWhatWasTorn) {
    const fs::path folder = folder_->file("results");
    {
        ResultFile file(folder, {}, run_of("a"), 2);
        file.append("p1", {line("p1", "x"), line("p1", "y")});
        file.append("p2", {line("p2", "x"), line("p2", "y")});
        // Another process must not write into it at the same time.
        EXPECT_NE(
            message_of([&] { ResultFile(folder, {}, run_of("a"), 2); }).find("another process"),
            std::string::npos);
    }
    // Killed in the middle of the second line of a prompt.
    std::ofstream(folder / "results.jsonl", std::ios::app)
        << line("p3", "x").dump() << "\n{\"prompt\":\"p3\",\"conf";
    EXPECT_EQ(read_result_lines(folder).size(), 5U);
    ResultFile again(folder, {}, run_of("a"), 2);
    EXPECT_EQ(again.folder(), folder);
    EXPECT_TRUE(again.done("p1") && again.done("p2"));
    EXPECT_FALSE(again.done("p3"));
    again.append("p3", {line("p3", "x"), line("p3", "y")});
    EXPECT_EQ(read_result_lines(folder).size(), 6U);
}

TEST_F(Eval, OtherOptionsStartARunOfTheirOwn) {
    const fs::path folder = folder_->file("many");
    ResultFile first(folder, {}, run_of("a"), 1);
    first.append("p", {line("p", "x")});
    ResultFile second(folder, {}, run_of("b"), 1);
    EXPECT_EQ(second.folder(), folder / "run-2");
    EXPECT_FALSE(second.done("p"));
    ResultFile third(folder, {}, run_of("c"), 1);
    EXPECT_EQ(third.folder(), folder / "run-3");
}

TEST_F(Eval, ShardsShareAFolderAndSeeEachOther) {
    const fs::path folder = folder_->file("shards");
    ResultFile a(folder, parse_shard("0/2"), run_of("a"), 1);
    a.append("p0", {line("p0", "x")});
    ResultFile b(folder, parse_shard("1/2"), run_of("a"), 1);
    EXPECT_EQ(b.folder(), folder);
    EXPECT_TRUE(b.done("p0"));  // also when the number of shards changes
    b.append("p1", {line("p1", "x")});
    EXPECT_EQ(read_result_lines(folder).size(), 2U);
    EXPECT_TRUE(fs::exists(folder / "run-1-of-2.json"));
}

// Ranks start at once: the other has made its file, and its run is not described yet.
TEST_F(Eval, AShardJoinsOneThatHasJustOpenedItsResults) {
    const fs::path folder = folder_->file("starting");
    fs::create_directories(folder);
    std::ofstream(folder / "results-0-of-2.jsonl").close();
    EXPECT_EQ(ResultFile(folder, parse_shard("1/2"), run_of("a"), 2).folder(), folder);
    // Results that nothing describes are somebody else's.
    const fs::path other = folder_->file("undescribed");
    fs::create_directories(other);
    std::ofstream(other / "results-0-of-2.jsonl") << "{}\n";
    EXPECT_EQ(ResultFile(other, parse_shard("1/2"), run_of("a"), 2).folder(), other / "run-2");
}

TEST_F(Eval, AFolderThatCannotBeMadeIsNamed) {
    std::ofstream(folder_->file("a file")) << "x";
    const std::string message =
        message_of([&] { ResultFile(folder_->file("a file") + "/deep", {}, run_of("a"), 1); });
    EXPECT_NE(message.find("--save-dir"), std::string::npos);
    EXPECT_NE(message.find("a file"), std::string::npos);
}

}  // namespace
}  // namespace winnow::eval
