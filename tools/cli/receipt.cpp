#include "receipt.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "terminal.h"

namespace winnow::cli {
namespace {

constexpr std::size_t kLabelWidth = 11;
constexpr std::size_t kColumnWidth = 34;

double percent(double part, double whole) {
    return whole > 0.0 ? 100.0 * part / whole : 0.0;
}

struct Line {
    std::string label;
    std::string value;
};

// "4" or "3/2".
std::string bits_of(const PrecisionStats& at) {
    return at.bits_k == at.bits_v ? std::to_string(at.bits_k)
                                  : std::to_string(at.bits_k) + "/" + std::to_string(at.bits_v);
}

// "16 bits 4 %, 4/3 bits 60 %": shares of the kept tokens.
std::string precisions(const CacheStats& stats) {
    double whole = 0.0;
    for (const PrecisionStats& at : stats.precisions) whole += static_cast<double>(at.tokens);
    std::string text;
    for (const PrecisionStats& at : stats.precisions) {
        text += (text.empty() ? "" : ", ") + bits_of(at) + " bits " +
                format("%.0f %%", percent(static_cast<double>(at.tokens), whole));
    }
    return text;
}

// What a lossy cache gave up, in one line with the rest: attention, steps of decode, and tokens
// (over layers and kv heads) with their bytes at each precision.
std::string given_up(const RunReport& run) {
    const CacheStats& stats = run.stats;
    std::string text =
        format(" | dropped %.1f %%, worst layer %.1f %% | %llu evictions, %llu demotions | ",
               100.0 * stats.dropped_mass, 100.0 * stats.dropped_mass_worst,
               static_cast<unsigned long long>(stats.evictions),
               static_cast<unsigned long long>(stats.demotions));
    for (const PrecisionStats& at : stats.precisions) {
        text += (&at == &stats.precisions.front() ? "" : ", ") + bits_of(at) + " bits " +
                with_commas(at.tokens) + " (" + human_bytes(static_cast<double>(at.bytes)) + ")";
    }
    return text;
}

// What happened to the budget, and inside it while decoding.
std::string budget_note(const RunReport& run) {
    const CacheStats& stats = run.stats;
    std::string text = stats.guard_raised ? ", raised by the guard" : "";
    return text + format(", %llu demotions, %llu evictions",
                         static_cast<unsigned long long>(stats.demotions),
                         static_cast<unsigned long long>(stats.evictions));
}

std::vector<Line> lines(const RunReport& run) {
    const CacheStats& stats = run.stats;
    const auto seen = static_cast<double>(stats.tokens_seen);
    const auto bytes = static_cast<double>(stats.bytes);
    const auto full = static_cast<double>(stats.bytes_full_f16);
    std::vector<Line> result{
        {"cache", describe(run.cache)},
        {"tokens", with_commas(run.prompt_tokens) + " read, " + with_commas(run.generated_tokens) +
                       " written" +
                       (run.restored_tokens > 0
                            ? ", " + with_commas(run.restored_tokens) + " of them restored"
                            : "")},
        {"kept",
         format("%.1f per head (%.1f %%)", run.kept_mean(), percent(run.kept_mean(), seen))},
        {"bytes", human_bytes(bytes) + " of " + human_bytes(full) +
                      format(" (%.1f %%)", percent(bytes, full))},
        {"bits", format("K %.2f, V %.2f", stats.bits_k, stats.bits_v)},
        {"dropped", format("%.2f %% of attention, worst layer %.2f %%", 100.0 * stats.dropped_mass,
                           100.0 * stats.dropped_mass_worst)},
        {"prefill", format("%.1f tok/s (%.2f s)", run.prefill_tps(), run.timing.prefill_ms / 1e3)},
        {"decode", format("%.1f tok/s (%.2f s)", run.decode_tps(), run.decode_ms / 1e3)},
        {"peak", human_bytes(static_cast<double>(stats.prefill_peak_bytes)) + " in prefill"},
    };
    if (stats.budget_bytes > 0) {
        result.insert(
            result.begin() + 4,
            {"budget", human_bytes(static_cast<double>(stats.budget_bytes)) + budget_note(run)});
    }
    if (!run.cache.profile.empty()) {
        result.push_back({"profile", run.cache.profile == "none" ? "built in" : run.cache.profile});
    }
    if (stats.precisions.size() > 1) result.push_back({"tokens at", precisions(stats)});
    return result;
}

std::string note(const RunReport& run) {
    const std::string kept =
        format("%.1f of ", run.kept_mean()) + with_commas(run.stats.tokens_seen);
    return "note: this answer comes from a lossy cache, " + describe(run.cache) + ": " + kept +
           " tokens per head.\n";
}

}  // namespace

double RunReport::prefill_tps() const {
    const auto read = static_cast<double>(prompt_tokens - std::min(prompt_tokens, restored_tokens));
    return timing.prefill_ms > 0.0 ? 1e3 * read / timing.prefill_ms : 0.0;
}

double RunReport::decode_tps() const {
    return decode_ms > 0.0 ? 1e3 * static_cast<double>(generated_tokens) / decode_ms : 0.0;
}

double RunReport::kept_mean() const {
    if (stats.kept.empty()) return 0.0;
    return std::accumulate(stats.kept.begin(), stats.kept.end(), 0.0) /
           static_cast<double>(stats.kept.size());
}

bool RunReport::lossy() const {
    const auto seen = static_cast<double>(stats.tokens_seen);
    const bool whole = std::all_of(stats.kept.begin(), stats.kept.end(),
                                   [seen](double kept) { return kept >= seen; });
    return !whole || stats.bits_k < 16.0 || stats.bits_v < 16.0;
}

RunReport make_report(const Session& session, std::size_t prompt_tokens,
                      std::size_t generated_tokens, double decode_ms) {
    RunReport report;
    report.cache = session.options();
    report.stats = session.stats();
    report.timing = session.timing();
    report.prompt_tokens = prompt_tokens;
    report.generated_tokens = generated_tokens;
    report.decode_ms = decode_ms;
    report.logits_hash = session.logits_hash();
    return report;
}

std::string describe(const CacheOptions& cache) {
    if (cache.method == "mixed" && cache.nbits == 0 && cache.nbits_k == 0) {
        return cache.kv_budget.empty() ? "mixed " + std::to_string(cache.max_capacity_prompts)
                                       : "mixed in " + cache.kv_budget;
    }
    std::string text = cache.method;
    if (!cache.kv_budget.empty()) text += " in " + cache.kv_budget + ":";
    if (cache.max_capacity_prompts_ratio > 0.0) {
        text += format(" %.4g of the prompt", cache.max_capacity_prompts_ratio);
    } else if (cache.max_capacity_prompts > 0 && cache.method != "full") {
        text += " " + std::to_string(cache.max_capacity_prompts);
    }
    const int bits_k = cache.nbits_k > 0 ? cache.nbits_k : cache.nbits;
    const int bits_v = cache.nbits_v > 0 ? cache.nbits_v : cache.nbits;
    if (cache.quant_method.empty() || cache.quant_method == "none") return text + ", 16 bits";
    if (bits_k == bits_v) return text + ", " + cache.quant_method + format(" at %d bits", bits_k);
    return text + ", " + cache.quant_method + format(" at %d (K) and %d (V) bits", bits_k, bits_v);
}

std::string comparable_line(const RunReport& run) {
    const double read_bytes = static_cast<double>(run.stats.bytes) * run.decode_tps();
    return format("%.1f tok/s | %.2f GB/s over KV | kept %.1f/%llu | KV %s of %s | logits %s%s\n",
                  run.decode_tps(), read_bytes / 1e9, run.kept_mean(),
                  static_cast<unsigned long long>(run.stats.tokens_seen),
                  human_bytes(static_cast<double>(run.stats.bytes)).c_str(),
                  human_bytes(static_cast<double>(run.stats.bytes_full_f16)).c_str(),
                  run.logits_hash.c_str(), run.lossy() ? given_up(run).c_str() : "");
}

std::string receipt(const RunReport& run, const RunReport* full) {
    const std::vector<Line> ours = lines(run);
    const std::vector<Line> theirs = full != nullptr ? lines(*full) : std::vector<Line>{};
    std::string text = "\n";
    for (const Line& line : ours) {
        text += "  " + padded(line.label, kLabelWidth);
        // Lines such as the budget's stand in one column only.
        const auto other = std::find_if(theirs.begin(), theirs.end(),
                                        [&](const Line& each) { return each.label == line.label; });
        text += other == theirs.end() ? line.value
                                      : padded(line.value, kColumnWidth) + "  " + other->value;
        text += "\n";
    }
    if (full != nullptr && full->agreement) {
        text += "  " + padded("agreement", kLabelWidth) +
                format("%.1f %% of these tokens are the full cache's choice too\n",
                       100.0 * *full->agreement);
    }
    text += "  " + padded("line", kLabelWidth) + comparable_line(run);
    if (run.lossy()) text += note(run);
    return text;
}

}  // namespace winnow::cli
