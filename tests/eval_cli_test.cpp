// `winnow eval` and `winnow check` as a user meets them: replies that equal those of `winnow run`,
// kill -9 and resume, a full disk, shards under mpirun, mistakes, and exit codes.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "eval/results.h"
#include "support/gguf_refusal.h"
#include "support/tiny_gguf.h"

namespace winnow {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Words = std::vector<std::string>;

struct Result {
    int code = -1;
    std::string out, err;
};

class EvalCli : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        folder_ = std::make_unique<testing::Folder>();
        testing::TinyModelOptions options;
        options.tokenizer = testing::TinyTokenizer::byte_bpe;
        testing::write_tiny_gguf(path("tiny.gguf"), options);
        fs::create_directories(path("hay"));
        std::string text;
        for (int i = 0; i < 120; ++i) {
            text += "Number " + std::to_string(i) + " of the ships came home. ";
        }
        testing::write_file(path("hay/a.txt"), text);
    }
    static void TearDownTestSuite() { folder_.reset(); }
    static std::string path(const std::string& name) { return folder_->file(name); }

    // `file_bytes` above 0 limits what may be written to one file, as a full disk does.
    static pid_t start(const Words& words, long file_bytes = 0) {
        const pid_t child = fork();
        if (child != 0) {
            return child;
        }
        const int out = open(path("out").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        const int err = open(path("err").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(out, 1);
        dup2(err, 2);
        if (file_bytes > 0) {
            signal(SIGXFSZ, SIG_IGN);
            const rlimit limit{static_cast<rlim_t>(file_bytes), static_cast<rlim_t>(file_bytes)};
            setrlimit(RLIMIT_FSIZE, &limit);
        }
        std::vector<char*> argv;
        for (const std::string& word : words) {
            argv.push_back(const_cast<char*>(word.c_str()));
        }
        argv.push_back(nullptr);
        execvp(argv[0], argv.data());
        _exit(127);
    }
    static Result finish(pid_t child) {
        int status = 0;
        waitpid(child, &status, 0);
        return {WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status),
                testing::read_file(path("out")), testing::read_file(path("err"))};
    }
    static Words winnow(Words words) {
        words.insert(words.begin(), WINNOW_BINARY);
        return words;
    }
    static Words needle(const std::string& save_dir, Words more = {}) {
        Words words =
            winnow({"eval", "needle", "-m", path("tiny.gguf"), "-t", "1", "--haystack", path("hay"),
                    "--s_len", "700", "--e_len", "700", "--depths", "4", "--sweep",
                    "method=SnapKV; cap=96; quant=kivi:16,4", "--save_dir", save_dir});
        words.insert(words.end(), more.begin(), more.end());
        return words;
    }
    static void expect_error(const Result& result, int code, const std::string& part) {
        EXPECT_EQ(result.code, code) << result.err;
        EXPECT_EQ(result.out, "");
        EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
        EXPECT_LE(std::count(result.err.begin(), result.err.end(), '\n'), 5);
    }
    static std::size_t lines(const std::string& save_dir) {
        return eval::read_result_lines(save_dir).size();
    }
    static void wait_for_lines(const std::string& save_dir, std::size_t count) {
        for (int i = 0; i < 2000 && (!fs::exists(save_dir) || lines(save_dir) < count); ++i) {
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
    }

    static std::unique_ptr<testing::Folder> folder_;
};

std::unique_ptr<testing::Folder> EvalCli::folder_;

TEST_F(EvalCli, AProfileBesideASweepIsForMixed) {
    const std::string dir = path("profile");
    const Result result = finish(start(winnow({"eval",
                                               "fidelity",
                                               "-m",
                                               path("tiny.gguf"),
                                               "-t",
                                               "1",
                                               "-f",
                                               path("hay/a.txt"),
                                               "--s-len",
                                               "400",
                                               "--force-tokens",
                                               "40",
                                               "--pack-decode",
                                               "--max-num-examples",
                                               "1",
                                               "--sweep",
                                               "method=mixed; budget=1/4",
                                               "--profile",
                                               "none",
                                               "--save-dir",
                                               dir})));
    ASSERT_EQ(result.code, 0) << result.err;
    const auto all = eval::read_result_lines(dir);
    ASSERT_EQ(all.size(), 3U);  // full, mixed, random
    EXPECT_EQ(all[1]["options"]["profile"], "none");
    EXPECT_EQ(all[2]["options"]["profile"], "");
    // The cache's peak and the method's bytes at the end are of different moments.
    const auto& kv = all[1]["kv"];
    const std::uint64_t budget = std::stoull(all[1]["options"]["kv_budget"].get<std::string>());
    EXPECT_GT(kv["bytes_peak"].get<std::uint64_t>(), 0U);
    EXPECT_LE(kv["bytes_peak"].get<std::uint64_t>(), budget);
    EXPECT_LE(kv["bytes"].get<std::uint64_t>() + kv["policy_bytes"].get<std::uint64_t>(), budget);
}

TEST_F(EvalCli, ARepliesEqualsThatOfARun) {
    const std::string dir = path("equal");
    const Result result = finish(start(needle(dir, {"--mode", "paper", "--json"})));
    ASSERT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(Json::parse(result.out)["done"], 4);
    const auto all = eval::read_result_lines(dir);
    ASSERT_EQ(all.size(), 16U);  // full, snapkv at 16 and 4 bits, random
    // The paper's prompt is raw text, so a run can be given the very same one.
    std::string haystack = testing::read_file(path("hay/a.txt"));
    for (const auto& line : all) {
        EXPECT_EQ(line["tokens"]["prompt"].get<int>(), all[0]["tokens"]["prompt"].get<int>());
    }
    const auto model = Model::load(path("tiny.gguf"), {.threads = 1});
    eval::Settings settings;
    settings.haystack = path("hay");
    settings.mode = "paper";
    settings.s_len = settings.e_len = 700;
    settings.depths = 4;
    const eval::Prompt prompt = eval::find_suite("needle").open(settings, model).make(1);
    std::string text;
    for (const std::int32_t token : prompt.tokens) {
        text += model->piece(token, true);
    }
    testing::write_file(path("prompt"), text);
    for (std::size_t i = 4; i < 8; ++i) {
        const auto& line = all[i];
        const auto& o = line["options"];
        Words words = winnow({"run", "-m", path("tiny.gguf"), "-t", "1", "-no-cnv", "-f",
                              path("prompt"), "-n", "30", "-r", "\n", "--json", "--method",
                              o["method"], "--window-size", "32"});
        if (o["method"] != "full") {
            words.insert(words.end(), {"--max-capacity-prompts", "96", "--quant-method",
                                       o["quant_method"], "--nbits", o["nbits"].dump()});
        }
        const Result run = finish(start(words));
        ASSERT_EQ(run.code, 0) << run.err;
        const Json object = Json::parse(run.out);
        EXPECT_EQ(object["text"], line["reply"].get<std::string>()) << line["config"];
        EXPECT_EQ(object["tokens"]["prompt"], line["tokens"]["prompt"].get<int>());
        EXPECT_EQ(object["kv"]["bytes"], line["kv"]["bytes"].get<std::size_t>());
    }
}

TEST_F(EvalCli, KillAndGoOnLosesAtMostOnePrompt) {
    const std::string dir = path("killed");
    const pid_t child = start(needle(dir));
    ASSERT_GT(child, 0);  // kill(-1) would end every program there is
    wait_for_lines(dir, 4);
    kill(child, SIGKILL);
    finish(child);
    const std::size_t before = lines(dir);
    EXPECT_GE(before, 4U);
    ASSERT_EQ(finish(start(needle(dir))).code, 0);
    const auto all = eval::read_result_lines(dir);
    EXPECT_EQ(all.size(), 16U);
    std::set<std::string> distinct;
    for (const auto& line : all) {
        distinct.insert(line["prompt"].get<std::string>() + line["config"].get<std::string>());
    }
    EXPECT_EQ(distinct.size(), 16U);
    // Other options begin a run of their own and say so.
    const Result other = finish(start(needle(dir, {"--seed", "7"})));
    EXPECT_EQ(other.code, 0);
    EXPECT_NE(other.err.find("run-2"), std::string::npos) << other.err;
    EXPECT_EQ(lines(dir), 16U);
    EXPECT_EQ(lines(dir + "/run-2"), 16U);
}

TEST_F(EvalCli, CtrlCSaysHowFarItCame) {
    const std::string dir = path("interrupted");
    const Words words = needle(dir, {"--depths", "60"});
    const pid_t child = start(words);
    ASSERT_GT(child, 0);
    wait_for_lines(dir, 4);
    kill(child, SIGINT);
    const Result result = finish(child);
    expect_error(result, 130, "Stopped by Ctrl-C after ");
    EXPECT_NE(result.err.find("of 60 prompts; the same command goes on"), std::string::npos);
    const std::size_t before = lines(dir);
    EXPECT_EQ(before % 4, 0U);
    EXPECT_LT(before, 240U);
    ASSERT_EQ(finish(start(words)).code, 0);
    EXPECT_EQ(lines(dir), 240U);
}

TEST_F(EvalCli, AFullDiskIsASentence) {
    const std::string dir = path("full");
    expect_error(finish(start(needle(dir), 10000)), 1, "File too large");
    const std::size_t kept = lines(dir);
    EXPECT_EQ(kept % 4, 0U);
    EXPECT_LT(kept, 16U);
    EXPECT_EQ(finish(start(needle(dir))).code, 0);
    EXPECT_EQ(lines(dir), 16U);
    const Words report = winnow({"report", dir, "--out", path("page")});
    expect_error(finish(start(report, 4000)), 1, "Cannot write ");
    EXPECT_FALSE(fs::exists(path("page/report.html")));
    EXPECT_EQ(finish(start(report)).code, 0);
}

// What srun gives its tasks, without srun.
TEST_F(EvalCli, SlurmTasksSplitARunAndAReportMergesThem) {
    const std::string dir = path("tasks");
    const auto task = [&](const std::string& rank) {
        Words words{"env", "SLURM_PROCID=" + rank, "SLURM_NTASKS=2"};
        const Words command = needle(dir);
        words.insert(words.end(), command.begin(), command.end());
        return finish(start(words));
    };
    for (const char* rank : {"1", "0"}) {
        const Result result = task(rank);
        EXPECT_EQ(result.code, 0) << result.err;
        EXPECT_NE(result.err.find(std::string("shard ") + rank + " of 2 (SLURM_PROCID)"),
                  std::string::npos)
            << result.err;
        EXPECT_EQ(lines(dir), *rank == '1' ? 8U : 16U);
    }
    expect_error(task("2"), 2, "SLURM_PROCID is '2' of SLURM_NTASKS '2'");
    ASSERT_EQ(finish(start(winnow({"report", dir}))).code, 0);
    const std::string page = testing::read_file(dir + "/report.html");
    EXPECT_NE(page.find("2 shards"), std::string::npos);
}

TEST_F(EvalCli, TwoRanksOneKilledAndResumed) {
    if (std::system("command -v mpirun >/dev/null 2>&1") != 0) {
        GTEST_SKIP() << "needs mpirun, of Debian's openmpi-bin";
    }
    const std::string dir = path("ranks");
    // Rank 1 is killed once it has written a prompt.
    const std::string kill_one =
        "if [ \"$OMPI_COMM_WORLD_RANK\" = 1 ]; then \"$@\" & p=$!; for i in $(seq 2000); do "
        "[ -s " +
        dir +
        "/results-1-of-2.jsonl ] && break; sleep 0.005; done; kill -9 $p; "
        "wait $p; exit 0; else exec \"$@\"; fi";
    Words words{"mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2", "sh", "-c", kill_one,
                "sh"};
    const Words command = needle(dir);
    words.insert(words.end(), command.begin(), command.end());
    finish(start(words));
    EXPECT_GE(lines(dir), 8U);  // rank 0 did its share
    Words again{"mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2"};
    again.insert(again.end(), command.begin(), command.end());
    const Result result = finish(start(again));
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(lines(dir), 16U);
    EXPECT_TRUE(fs::exists(dir + "/run-0-of-2.json"));
    EXPECT_TRUE(fs::exists(dir + "/results-1-of-2.jsonl"));
    ASSERT_EQ(finish(start(winnow({"report", dir}))).code, 0);
    EXPECT_NE(testing::read_file(dir + "/report.html").find("2 shards"), std::string::npos);
}

TEST_F(EvalCli, MistakesAreNamed) {
    const auto run = [&](Words words) { return finish(start(winnow(std::move(words)))); };
    const std::string model = path("tiny.gguf");
    expect_error(run({"eval"}), 2, "needle");
    expect_error(run({"eval", "needel", "-m", model}), 2, "'needle'");
    expect_error(run({"eval", "needle", "-m", model}), 2, "--save-dir");
    expect_error(run({"eval", "needle", "-m", model, "--save-dir", path("x")}), 2, "--haystack");
    expect_error(run({"eval", "needle", "-m", model, "--save-dir", path("x"), "--haystack", "/no"}),
                 1, "--haystack names /no");
    expect_error(
        run({"eval", "needle", "-m", model, "--save-dir", path("x"), "--sweep", "metod=a"}), 2,
        "'method'");
    expect_error(finish(start(needle("/proc/nowhere"))), 1, "/proc/nowhere");
    expect_error(finish(start(needle(path("x"), {"--mode", "papr"}))), 2, "--mode is 'papr'");
    expect_error(finish(start(needle(path("x"), {"--needle", "sff"}))), 2, "--needle is 'sff'");
    expect_error(finish(start(needle(path("x"), {"--e-len", "9000"}))), 2, "--e-len");
    expect_error(finish(start(needle(path("x"), {"--shard", "3/2"}))), 2, "--shard is '3/2'");
    expect_error(finish(start(needle(path("x"), {"--sample-method", "all"}))), 2, "topk");
    expect_error(run({"eval", "longbench", "-m", model, "--save-dir", path("x"), "--data",
                      path("hay"), "--datasets", "qasper"}),
                 1, "qasper.jsonl");
    expect_error(run({"eval", "ruler", "-m", model, "--save-dir", path("x"), "--datasets", "qa_1",
                      "--s-len", "1500"}),
                 1, "qa_1");
    expect_error(run({"eval", "ruler", "-m", model, "--save-dir", path("x"), "--datasets", "vtt",
                      "--s-len", "1500"}),
                 2, "vt");
    const auto bad = [&](const Words& more, int code, const std::string& part) {
        expect_error(finish(start(needle(path("x"), more))), code, part);
    };
    bad({"--sweep-file", "/no/sweeps"}, 2, "--sweep and --sweep-file are both given");
    bad({"--depths", "0"}, 2, "--depths");
    bad({"--depths", "102"}, 2, "--depths");
    bad({"--s-len", "701"}, 2, "--s-len is 701");
    bad({"--s-len", "40", "--e-len", "40"}, 2, "raise --s-len");
    bad({"--pin", "no such words"}, 2, "does not occur in the prompt");
    expect_error(run({"eval", "needle", "-m", model, "--save-dir", path("x"), "--haystack",
                      path("hay"), "--sweep-file", "/no/sweeps"}),
                 1, "--sweep-file names /no/sweeps");
    fs::create_directories(path("blank/a.txt"));  // a folder of that name is no text
    testing::write_file(path("blank/b.txt"), " \n\n");
    expect_error(
        run({"eval", "needle", "-m", model, "--save-dir", path("x"), "--haystack", path("blank")}),
        1, "blank, which holds no text");
    const auto fidelity = [&](const Words& more) {
        Words words{"eval", "fidelity", "-m", model, "--save-dir", path("x")};
        words.insert(words.end(), more.begin(), more.end());
        return run(words);
    };
    expect_error(fidelity({}), 2, "-f is missing");
    testing::write_file(path("empty.txt"), "");
    expect_error(fidelity({"-f", path("empty.txt")}), 1, "empty.txt, which is empty");
    expect_error(fidelity({"-f", path("hay"), "--against", "vllm"}), 2, "--against is 'vllm'");
    expect_error(run({"check", "-m", model, "-f", "/no/text", "--nbits", "4"}), 1, "/no/text");
    testing::write_file(path("short.txt"), "Three short words.");
    expect_error(run({"check", "-m", model, "-f", path("short.txt"), "--nbits", "4"}), 1,
                 "a check needs more than the 128");
    expect_error(run({"check", "-m", model, "-f", path("hay/a.txt")}), 2, "--method");
}

TEST_F(EvalCli, ACheckPassesOrExitsWith3) {
    const Words base = winnow({"check", "-m", path("tiny.gguf"), "-t", "1", "-f", path("hay"),
                               "--prompt-tokens", "600", "--force-tokens", "32", "--nbits", "8"});
    const auto run = [&](const Words& more) {
        Words words = base;
        words.insert(words.end(), more.begin(), more.end());
        return finish(start(words));
    };
    Result result = run({"--max-kl", "10", "--min-top1", "0.9"});
    EXPECT_EQ(result.code, 0) << result.out << result.err;
    EXPECT_NE(result.out.find("verdict   pass"), std::string::npos) << result.out;
    result = run({"--max-kl", "0", "--needle", "2"});
    EXPECT_EQ(result.code, 3) << result.err;
    EXPECT_NE(result.out.find("above --max-kl"), std::string::npos) << result.out;
    EXPECT_NE(result.out.find("needles"), std::string::npos);
    result = run({"--max-kl", "0", "--json"});
    EXPECT_EQ(result.code, 3);
    const Json object = Json::parse(result.out);
    EXPECT_EQ(object["passed"], false);
    EXPECT_EQ(object["config"], "full-kivi8");
    EXPECT_GT(object["fidelity"]["kl_mean"], 0.0);
    EXPECT_NE(run({}).out.find("no threshold"), std::string::npos);
}

}  // namespace
}  // namespace winnow
