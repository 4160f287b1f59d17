// winnow eval: the suites of tools/eval over many caches, into result files.
#include <winnow/winnow.h>

#include <algorithm>
#include <chrono>
#include <map>

#include "bench/llama_caches.h"
#include "commands.h"
#include "eval/results.h"
#include "eval/runner.h"
#include "eval_flags.h"
#include "generate.h"
#include "json_output.h"
#include "progress.h"
#include "signals.h"
#include "terminal.h"

namespace winnow::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kStdErr = 2;
constexpr auto kLogEvery = std::chrono::seconds(10);

std::string overview() {
    std::string text = "usage: winnow eval SUITE -m MODEL --save-dir DIR [flags]\n\n";
    for (const eval::Suite* suite : eval::suites()) {
        text += "  " + padded(suite->name, 12) + suite->summary + "\n";
    }
    return text + "\n`winnow eval SUITE -h` lists its flags.\n";
}

// The words of the command as a shell would read them.
std::string command_line(const Arguments& args) {
    std::string text = "winnow eval";
    for (const std::string& word : args) {
        const bool plain =
            !word.empty() &&
            word.find_first_not_of(
                "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:,=") ==
                std::string::npos;
        std::string quoted;
        for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
        text += plain ? " " + word : " '" + quoted + "'";
    }
    return text;
}

// Beside a sweep, files that one method alone reads are not for the flags' own cache.
void settle_cache_of_sweep(EvalFlags& f, const std::string& suite) {
    const bool sweep = !f.sweep.empty() || !f.sweep_file.empty();
    CacheOptions& cache = f.options.cache;
    std::string profile, codebook;
    if (sweep) {
        profile.swap(cache.profile);
        codebook.swap(cache.kvquant_codebook);
    }
    settle(f.options, "eval " + suite, kModelFlags | kCacheFlags);
    if (sweep) {
        profile.swap(cache.profile);
        codebook.swap(cache.kvquant_codebook);
    }
}

void settle_eval(EvalFlags& f, const std::string& suite) {
    settle_cache_of_sweep(f, suite);
    if (f.save_dir.empty()) {
        throw usage_error("`winnow eval " + suite + "` needs --save-dir DIR, where results go.");
    }
    if (!f.sweep.empty() && !f.sweep_file.empty()) {
        throw usage_error("--sweep and --sweep-file are both given; only one of them counts.");
    }
    eval::Settings& s = f.settings;
    if (s.sample_method != "topk" && s.sample_method != "random") {
        throw usage_error("--sample-method is '" + s.sample_method + "'; it takes topk or random.");
    }
    if (!f.against.empty() && f.against != "llama.cpp") {
        throw usage_error("--against is '" + f.against + "'; it takes llama.cpp.");
    }
    s.seed = static_cast<std::uint64_t>(f.seed);
    s.context = f.options.ctx_size;
    if (f.options.allow_long && s.context == 0) s.context = 1 << 30;
}

std::vector<CacheOptions> caches_of(const EvalFlags& f) {
    if (!f.sweep.empty()) return eval::expand_sweep(f.sweep, f.options.cache);
    if (!f.sweep_file.empty()) return eval::read_sweep_file(f.sweep_file, f.options.cache);
    return {f.options.cache};
}

// A bar on a terminal, elsewhere a line every ten seconds.
class EvalProgress {
  public:
    EvalProgress(bool enabled, std::string name)
        : enabled_(enabled), name_(std::move(name)), bar_(enabled) {}

    bool operator()(const eval::Status& at) {
        const std::string left =
            at.seconds_left < 0 ? "" : ", " + human_seconds(at.seconds_left) + " left";
        if (is_terminal(kStdErr)) {
            bar_.show(name_, at.share,
                      format("%zu/%zu prompts%s", at.done, at.total, left.c_str()));
        } else if (enabled_ && at.finished_prompt && Clock::now() >= next_) {
            write_err(format("%s: %zu of %zu prompts%s\n", name_.c_str(), at.done, at.total,
                             left.c_str()));
            next_ = Clock::now() + kLogEvery;
        }
        last_ = at;
        return !interrupted();
    }
    const eval::Status& last() const { return last_; }

  private:
    bool enabled_;
    std::string name_;
    ProgressBar bar_;
    eval::Status last_;
    Clock::time_point next_ = Clock::now() + kLogEvery;
};

// Means of one configuration over all lines of a folder.
struct Row {
    std::size_t prompts = 0;
    double score = 0, bytes = 0, share = 0, kept = 0;
    double kl = 0, kl_p99 = 0, top1 = 0;

    void add(const eval::OrderedJson& line) {
        ++prompts;
        score += line.value("score", 0.0);
        const auto& kv = line.at("kv");
        const double held = kv.value("bytes", 0.0) + kv.value("policy_bytes", 0.0);
        bytes += held;
        share += held / std::max(1.0, kv.value("bytes_full_f16", 1.0));
        kept += kv.value("kept", 0.0);
        if (const auto f = line.find("fidelity"); f != line.end()) {
            kl += f->value("kl_mean", 0.0);
            kl_p99 += f->value("kl_p99", 0.0);
            top1 += f->value("top1", 0.0);
        }
    }
};

std::map<std::string, Row> rows_of(const std::filesystem::path& folder) {
    std::map<std::string, Row> rows;
    for (const eval::OrderedJson& line : eval::read_result_lines(folder)) {
        rows[line.value("config", "")].add(line);
    }
    return rows;
}

std::vector<std::string> ids_of(const eval::OrderedJson& run) {
    std::vector<std::string> ids;
    for (const auto& config : run.at("configs")) ids.push_back(config.at("id"));
    return ids;
}

std::string table(const std::vector<std::string>& ids, const std::map<std::string, Row>& rows,
                  bool fidelity) {
    std::size_t width = 6;
    for (const std::string& id : ids) width = std::max(width, id.size());
    std::string text = padded("cache", width + 2) +
                       (fidelity ? "mean KL    p99 KL     top-1    " : "score    ") +
                       "kept      KV bytes    of full\n";
    for (const std::string& id : ids) {
        const auto found = rows.find(id);
        if (found == rows.end()) continue;
        const Row& r = found->second;
        const auto n = static_cast<double>(r.prompts);
        text += padded(id, width + 2) +
                (fidelity ? format("%-9.5f  %-9.5f  %5.1f %%  ", r.kl / n, r.kl_p99 / n,
                                   100.0 * r.top1 / n)
                          : format("%-7.2f  ", r.score / n)) +
                padded(format("%.1f", r.kept / n), 10) + padded(human_bytes(r.bytes / n), 12) +
                format("%.1f %%\n", 100.0 * r.share / n);
    }
    return text;
}

Json summary_json(const eval::OrderedJson& run, const std::filesystem::path& folder,
                  const eval::Status& at, const std::map<std::string, Row>& rows, bool fidelity) {
    Json list = Json::array();
    for (const std::string& id : ids_of(run)) {
        const auto found = rows.find(id);
        if (found == rows.end()) continue;
        const Row& r = found->second;
        const auto n = static_cast<double>(r.prompts);
        Json row{{"config", id}, {"prompts", r.prompts}};
        if (fidelity) {
            row.update({{"kl_mean", r.kl / n}, {"kl_p99", r.kl_p99 / n}, {"top1", r.top1 / n}});
        } else {
            row["score"] = r.score / n;
        }
        row.update({{"kept", r.kept / n}, {"bytes", r.bytes / n}, {"share", r.share / n}});
        list.push_back(std::move(row));
    }
    return {{"suite", run.at("suite")}, {"folder", folder.string()},  {"done", at.done},
            {"total", at.total},        {"configs", std::move(list)}, {"version", version()}};
}

}  // namespace

int eval_command(const Arguments& args) {
    if (args.empty() || args[0] == "-h" || args[0] == "--help") {
        if (args.empty()) {
            throw usage_error("`winnow eval` needs a suite: needle, ruler, longbench or fidelity.");
        }
        write_out(overview());
        return flush_out(), 0;
    }
    const eval::Suite& suite = eval::find_suite(args[0]);
    EvalFlags f;
    auto parser = eval_parser(suite.name, suite.summary, f);
    if (!parse(*parser, {args.begin() + 1, args.end()})) return 0;
    settle_eval(f, suite.name);
    eval::RunnerOptions options;
    options.session = session_options(f.options);
    options.pack_decode = f.settings.pack_decode;
    options.decode_batch = f.decode_batch;
    options.pin = f.settings.pin;
    options.command = command_line(args);
    options.shard = f.shard.empty() ? eval::shard_of_launcher() : eval::parse_shard(f.shard);
    const std::vector<CacheOptions> caches = caches_of(f);

    const InterruptScope interrupts;
    const auto model = load_model(f.options);
    const auto configs = eval::make_configs(caches, suite, f.settings, model);
    const eval::PromptSet prompts = suite.open(f.settings, model);
    if (!f.against.empty()) options.foreign = bench::load_llama_caches(*model);
    const auto run = eval::describe_run(suite, f.settings, prompts, configs, *model, options);
    eval::ResultFile file(f.save_dir, options.shard, run, run.at("configs").size());
    const bool quiet = f.options.json;
    if (file.folder() != std::filesystem::path(f.save_dir) && !quiet) {
        write_err("eval: " + f.save_dir + " holds a run of other options, so this one goes to " +
                  file.folder().string() + ".\n");
    }
    if (!options.shard.source.empty() && !quiet) {
        write_err(format("eval: shard %d of %d (%s)\n", options.shard.index, options.shard.count,
                         options.shard.source.c_str()));
    }
    EvalProgress progress(!quiet, "eval");
    try {
        eval::run_suite(model, run, prompts, configs, options, file, std::ref(progress));
    } catch (const Error& error) {
        if (error.kind() != ErrorKind::stopped) throw;
        throw Error(ErrorKind::stopped,
                    format("Stopped by Ctrl-C after %zu of %zu prompts; the same command goes on "
                           "from there.",
                           progress.last().done, progress.last().total));
    }
    const bool fidelity = prompts.score == nullptr;
    const auto rows = rows_of(file.folder());
    if (f.options.json) {
        write_json(summary_json(run, file.folder(), progress.last(), rows, fidelity));
    } else if (options.shard.count == 1) {
        write_out(table(ids_of(run), rows, fidelity));
        flush_out();
    }
    return 0;
}

}  // namespace winnow::cli
