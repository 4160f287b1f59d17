#include "report/results.h"

#include <winnow/error.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <map>
#include <numeric>
#include <set>

#include "report/config.h"
#include "report/fields.h"
#include "report/files.h"

namespace winnow::report {

namespace fs = std::filesystem;

namespace {

std::vector<fs::path> result_files(const fs::path& folder) {
    std::vector<fs::path> files;
    const auto options = fs::directory_options::skip_permission_denied;
    for (const auto& entry : fs::recursive_directory_iterator(folder, options)) {
        const std::string name = entry.path().filename().string();
        if (entry.is_regular_file() && name.starts_with("results") && name.ends_with(".jsonl")) {
            files.push_back(entry.path());
        }
    }
    std::sort(files.begin(), files.end());
    return files;
}

// run-2-of-4.json for results-2-of-4.jsonl; else the folder's run.json.
fs::path run_file(const fs::path& results) {
    const std::string stem = results.stem().string();
    const fs::path own =
        results.parent_path() / ("run" + stem.substr(std::string("results").size()) + ".json");
    return fs::exists(own) ? own : results.parent_path() / "run.json";
}

// A number, or a list of one per layer.
double mean_or_number(const Json& line, const std::string& path) {
    const Json* value = find(line, path);
    if (value == nullptr || !value->is_array()) return number_or(line, path, kNone);
    double sum = 0;
    for (const Json& item : *value) sum += number_or({{"item", item}}, "item", kNone);
    return sum / static_cast<double>(value->size());
}

KvSize read_kv(const Json& line) {
    KvSize kv;
    kv.bytes = number(line, "kv.bytes");
    kv.bytes_full_f16 = number(line, "kv.bytes_full_f16");
    kv.bytes_peak = number_or(line, "kv.bytes_peak", kNone);
    kv.policy_bytes = number_or(line, "kv.policy_bytes", kNone);
    kv.bytes += number_or(line, "kv.policy_bytes", 0.0);  // a cache that needs a ring pays for it
    kv.kept = mean_or_number(line, "kv.kept");
    kv.bits_k = number_or(line, "kv.bits_k", kNone);
    kv.bits_v = number_or(line, "kv.bits_v", kNone);
    if (!(kv.bytes >= 0) || !(kv.bytes_full_f16 > 0)) {
        throw BadField("\"kv.bytes\" or \"kv.bytes_full_f16\" is out of range");
    }
    return kv;
}

Fidelity read_fidelity(const Json& line) {
    Fidelity f;
    f.kl_mean = number(line, "fidelity.kl_mean");
    f.kl_p99 = number_or(line, "fidelity.kl_p99", kNone);
    f.top1 = number_or(line, "fidelity.top1", kNone);
    if (f.top1 > 1.0) f.top1 /= 100.0;  // written in percent
    f.ppl = number_or(line, "fidelity.ppl", kNone);
    f.ppl_full = number_or(line, "fidelity.ppl_full", kNone);
    f.tokens = number_or(line, "fidelity.tokens", kNone);
    return f;
}

Line read_line(const Json& object) {
    Line line;
    line.task = text(object, "task");
    line.prompt = text(object, "prompt");
    line.length = static_cast<int>(number_or(object, "length", 0));
    line.depth = number_or(object, "depth", kNone);
    line.kv = read_kv(object);
    if (find(object, "fidelity") != nullptr) line.fidelity = read_fidelity(object);
    line.score = line.fidelity ? number_or(object, "score", kNone) : number(object, "score");
    if (line.score < 0 || line.score > 100) throw BadField("\"score\" is not from 0 to 100");
    line.compress_ms = number_or(object, "timing.compress_ms", kNone);
    line.decode_ms = number_or(object, "timing.decode_ms", kNone);
    line.generated = number_or(object, "tokens.generated", kNone);
    line.reply = text_or(object, "reply", "");
    if (const Json* expected = find(object, "expected"); expected && expected->is_array()) {
        for (const Json& item : *expected) {
            line.expected.push_back(item.is_string() ? item.get<std::string>() : item.dump());
        }
    }
    return line;
}

// Collects the runs. A run is known by its fingerprint, whatever folder its shards lie in.
class Reader {
  public:
    explicit Reader(const fs::path& folder) : folder_(folder) {}

    Results read() {
        const std::vector<fs::path> files = result_files(folder_);
        if (files.empty()) {
            throw failure("No results*.jsonl lies in or below " + folder_.string() +
                          "; `winnow eval ... --save-dir` writes them.");
        }
        for (const fs::path& file : files) read_file(file);
        note_alone();
        std::erase_if(results_.runs, [](const Run& run) { return run.lines.empty(); });
        if (results_.runs.empty()) {
            throw failure("No line of " + std::to_string(files.size()) + " result file" +
                          (files.size() == 1 ? "" : "s") + " below " + folder_.string() +
                          " can be used" +
                          (results_.notes.empty() ? "." : ": " + results_.notes.front()));
        }
        for (Run& run : results_.runs) sort_configs(run);
        std::stable_sort(results_.runs.begin(), results_.runs.end(),
                         [](const Run& a, const Run& b) { return suite_rank(a) < suite_rank(b); });
        return std::move(results_);
    }

  private:
    static std::size_t suite_rank(const Run& run) {
        constexpr std::array<const char*, 4> kOrder{"needle", "ruler", "longbench", "fidelity"};
        return static_cast<std::size_t>(std::find(kOrder.begin(), kOrder.end(), run.suite) -
                                        kOrder.begin());
    }

    // Every index into configs changes with their order.
    static void sort_configs(Run& run) {
        std::vector<std::size_t> order(run.configs.size()), place(run.configs.size());
        std::iota(order.begin(), order.end(), 0U);
        std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
            return shown_before(run.configs[a], run.configs[b]);
        });
        std::vector<Config> sorted;
        for (std::size_t i = 0; i < order.size(); ++i) {
            place[order[i]] = i;
            sorted.push_back(run.configs[order[i]]);
        }
        run.configs = std::move(sorted);
        for (Line& line : run.lines) line.config = place[line.config];
    }

    Json read_run_file(const fs::path& results) {
        const fs::path path = run_file(results);
        if (!fs::exists(path)) {
            alone_.push_back(relative(results));
            return Json::object();
        }
        Json run = Json::parse(read_whole(path), nullptr, false);
        if (run.is_object()) return run;
        results_.notes.push_back(relative(path) + " is damaged: it is not a JSON object.");
        return Json::object();
    }

    void read_file(const fs::path& file) {
        const Json run = read_run_file(file);
        std::ifstream in(file, std::ios::binary);
        if (!in) throw failure("Cannot read " + file.string() + ".");
        std::size_t count = 0;
        for (std::string row; std::getline(in, row);) {
            ++count;
            const bool finished = !in.eof();
            if (row.find_first_not_of(" \t\r") == std::string::npos) continue;
            try {
                const Json object = Json::parse(row);
                if (!object.is_object()) throw BadField("it is not a JSON object");
                add(file, run, object);
            } catch (const Json::exception&) {
                // A run that was ended in the middle of a line leaves half of it.
                if (finished) note_line(file, count, "it is not JSON");
            } catch (const BadField& problem) {
                note_line(file, count, problem.what());
            }
        }
    }

    void note_line(const fs::path& file, std::size_t line, const std::string& problem) {
        results_.notes.push_back(relative(file) + ", line " + std::to_string(line) +
                                 " is damaged and left out: " + problem + ".");
    }

    // One sentence, however many: a folder of shards may have lost them all.
    void note_alone() {
        if (alone_.empty()) return;
        const bool one = alone_.size() == 1;
        results_.notes.push_back(
            (one ? alone_[0] + " has"
                 : std::to_string(alone_.size()) + " result files, " + alone_[0] +
                       " the first, have") +
            " no run.json beside " + (one ? "it" : "them") +
            "; lines of the same folder, suite, model, version and seed make one run.");
    }

    std::string relative(const fs::path& file) const {
        return file.lexically_relative(folder_).string();
    }

    Run& run_of(const fs::path& file, const Json& described, const Json& line) {
        std::string key = text_or(described, "fingerprint", "");
        const std::string place = relative(file.parent_path());
        if (key.empty()) {
            key = place + "\n" + text_or(line, "suite", "") + text_or(line, "model_sha256", "") +
                  text_or(line, "version", "") + text_or(line, "seed", "") +
                  text_or(line, "wording", "");
        }
        const auto [found, fresh] = index_.emplace(key, results_.runs.size());
        if (fresh) {
            Run run;
            run.folder = place;
            run.fingerprint = text_or(described, "fingerprint", "");
            run.suite = text_or(described, "suite", text_or(line, "suite", "unknown"));
            run.version = text_or(described, "version", text_or(line, "version", ""));
            run.model = text_or(described, "model.name", "model");
            run.architecture = text_or(described, "model.architecture", "");
            run.sha256 = text_or(described, "model.sha256", text_or(line, "model_sha256", ""));
            run.seed = text_or(described, "seed", text_or(line, "seed", ""));
            run.wording = text_or(described, "wording", text_or(line, "wording", ""));
            run.command = text_or(described, "command", "");
            if (const Json* settings = find(described, "settings")) run.settings = *settings;
            results_.runs.push_back(std::move(run));
        }
        if (files_.emplace(key, file.string()).second) ++results_.runs[found->second].files;
        return results_.runs[found->second];
    }

    std::size_t config_of(Run& run, const std::string& id, const Json& object, const KvSize& kv) {
        for (std::size_t i = 0; i < run.configs.size(); ++i) {
            if (run.configs[i].id == id) return i;
        }
        run.configs.push_back(make_config(id, find(object, "options"), kv));
        return run.configs.size() - 1;
    }

    void add(const fs::path& file, const Json& described, const Json& object) {
        Line line = read_line(object);
        const std::string id = text(object, "config");
        Run& run = run_of(file, described, object);
        line.config = config_of(run, id, object, line.kv);
        const std::string key = line.task + "\n" + line.prompt + "\n" + id;
        const auto [found, fresh] =
            seen_[&run - results_.runs.data()].emplace(key, run.lines.size());
        if (fresh) {
            run.lines.push_back(std::move(line));
            return;
        }
        const Line& first = run.lines[found->second];
        if (first.reply != line.reply || first.kv.bytes != line.kv.bytes) {
            results_.notes.push_back(relative(file) + " has prompt " + line.prompt + " under " +
                                     id +
                                     " a second time with another result; the first one counts.");
        }
    }

    fs::path folder_;
    Results results_;
    std::vector<std::string> alone_;                       // files without a run.json
    std::map<std::string, std::size_t> index_;             // key of a run -> its place
    std::set<std::pair<std::string, std::string>> files_;  // run, file
    std::map<std::ptrdiff_t, std::map<std::string, std::size_t>> seen_;  // run -> line -> place
};

}  // namespace

Results read_results(const fs::path& folder) {
    std::error_code code;
    if (!fs::exists(folder, code)) {
        throw failure("There is no folder " + folder.string() +
                      "; `winnow report DIR` takes the --save-dir of `winnow eval`.");
    }
    if (!fs::is_directory(folder, code)) {
        throw failure(folder.string() +
                      " is not a folder; `winnow report DIR` takes the "
                      "--save-dir of `winnow eval`.");
    }
    try {
        return Reader(folder).read();
    } catch (const fs::filesystem_error& error) {
        throw failure("Cannot read " + folder.string() + ": " + error.code().message() + ".");
    }
}

}  // namespace winnow::report
