// The result files of `winnow eval`, read back: runs, their configurations and lines.
#pragma once

#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace winnow::report {

using Json = nlohmann::ordered_json;

inline constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

/// Sizes are bytes, those of the policy among `bytes`; `kept` the mean number of tokens per kv
/// head, bits per packed element.
struct KvSize {
    double bytes = kNone, bytes_peak = kNone, bytes_full_f16 = kNone, policy_bytes = kNone;
    double kept = kNone, bits_k = kNone, bits_v = kNone;
};

struct Fidelity {
    double kl_mean = kNone, kl_p99 = kNone;  ///< nats
    double top1 = kNone;                     ///< share of tokens, 0 to 1
    double ppl = kNone, ppl_full = kNone;
    double tokens = kNone;
};

/// One prompt under one configuration.
struct Line {
    std::string task, prompt;
    std::size_t config = 0;  ///< index into Run::configs
    int length = 0;          ///< tokens
    double depth = kNone;    ///< percent; needle only
    double score = kNone;    ///< 0 to 100; none in the fidelity suite
    KvSize kv;
    std::optional<Fidelity> fidelity;
    double compress_ms = kNone, decode_ms = kNone, generated = kNone;
    std::string reply;
    std::vector<std::string> expected;
};

/// A row of every table: a method at a budget in a format.
struct Config {
    std::string id, method, quant;
    int cap = 0;         ///< tokens per kv head; 0: all
    double ratio = 0.0;  ///< the same as a share of the prompt
    int bits_k = 16, bits_v = 16;
    std::string kv_budget;  ///< bytes given for the whole cache, as written; "": none
    std::string variant;    ///< settings in which it differs from others of this run: "w32"

    bool prunes() const { return cap > 0 || ratio > 0.0 || !kv_budget.empty(); }
    bool packs() const { return bits_k < 16 || bits_v < 16; }
    bool is_full() const { return method == "full" && !prunes() && !packs(); }
    /// "4 bits", "kivi 4 bits" with `with_quant`, "K4 V2 bits", "4 bits, w32", "mixed bits".
    std::string format_label(bool with_quant) const;
    /// "512 tokens", "25 % of the prompt", "24MiB", "all tokens".
    std::string budget_label() const;
};

/// All shards of one run.
struct Run {
    std::string suite, version, model, architecture, sha256, seed, wording, command, fingerprint;
    std::string folder;  ///< of its first file, below the folder read
    Json settings = Json::object();
    std::size_t files = 0;
    std::vector<Config> configs;  ///< full first, `random` last, then by cap, bits
    std::vector<Line> lines;
};

struct Results {
    std::vector<Run> runs;
    std::vector<std::string> notes;  ///< sentences: what was damaged, missing or contradictory
};

/// Reads every results*.jsonl below `folder` with its run*.json. A line counts once per run, prompt
/// and configuration. Unfinished last lines are left out silently, damaged lines with a note.
/// Throws a failure Error where the folder or every result is missing.
Results read_results(const std::filesystem::path& folder);

}  // namespace winnow::report
