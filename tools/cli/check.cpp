// winnow check: what a compressed cache loses on the user's own text, with thresholds for CI.
#include <winnow/winnow.h>

#include <algorithm>
#include <cmath>

#include "commands.h"
#include "eval/haystack.h"
#include "eval/needle_prompt.h"
#include "eval/runner.h"
#include "flags.h"
#include "generate.h"
#include "json_output.h"
#include "progress.h"
#include "scoring/suites.h"
#include "signals.h"
#include "terminal.h"

namespace winnow::cli {
namespace {

constexpr int kFailed = 3;  // exit code where a threshold is missed
constexpr int kLength = 2000;

struct CheckFlags {
    Options options;
    eval::Settings settings;
    double max_kl = -1.0, min_top1 = -1.0;  // below 0: not asked for
    int needles = 0;
};

/// Means over the pieces of the text, and the needles.
struct Measured {
    eval::Fidelity fidelity;
    int pieces = 0;
    CacheStats stats;
    int found = 0, found_full = 0, lost = 0;  // lost: the full cache alone found it
};

Parser check_parser(CheckFlags& f) {
    auto parser = make_parser("check",
                              "Holds a compressed cache against the full one on a text; exit code "
                              "3 where a threshold is missed.",
                              f.options, kModelFlags | kCacheFlags);
    const auto add = [&](const Flag& flag, auto& field) {
        add_value(*parser, "Check", flag, field);
    };
    add({"-f,--file", "PATH", "the text, or a folder of .txt files"}, f.settings.file);
    add({"--prompt-tokens", "N", "tokens of a prompt (2000, or what the text has)", 1, kIntMax},
        f.settings.s_len);
    add({"--force-tokens", "N", "tokens of the text forced behind a prompt (128)", 1, 1 << 20},
        f.settings.force_tokens);
    add({"--max-num-examples", "N", "pieces of the text (4, or 1 of a short one)", 1, kIntMax},
        f.settings.max_num_examples);
    add_switch(*parser, "--pack-decode", f.settings.pack_decode, "forced tokens are packed too",
               "Check");
    add({"--max-kl", "X", "fail where the mean KL divergence is larger", 0, 1e9}, f.max_kl);
    add({"--min-top1", "X", "fail where fewer likeliest tokens agree: 0.95, or 95", 0, 100},
        f.min_top1);
    add({"--needle", "N", "hide a number at N depths; fail where only the full cache finds it", 1,
         1000},
        f.needles);
    add_switch(*parser, "--json", f.options.json, "one JSON object on stdout, and nothing else");
    return parser;
}

// A prompt length and a number of pieces that the text has tokens for.
void fit_to_text(CheckFlags& f, const Model& model, const std::string& text) {
    eval::Settings& s = f.settings;
    s.force_tokens = s.force_tokens > 0 ? s.force_tokens : 128;
    const int tokens = static_cast<int>(model.tokenize(text, false, false).size());
    const int room = std::min(tokens, eval::context_of(s, model)) - s.force_tokens - 1;
    if (room < 1) {
        throw failure(format("-f has %d tokens; a check needs more than the %d that are forced.",
                             tokens, s.force_tokens));
    }
    s.s_len = s.s_len > 0 ? s.s_len : std::min(kLength, room);
    const int piece = s.s_len + s.force_tokens + 1;
    s.max_num_examples = s.max_num_examples > 0 ? s.max_num_examples : tokens >= 4 * piece ? 4 : 1;
}

class Checker {
  public:
    Checker(std::shared_ptr<const Model> model, CheckFlags& flags,
            std::vector<eval::Config> configs)
        : model_(std::move(model)),
          flags_(flags),
          configs_(std::move(configs)),
          bar_(!flags.options.json) {
        options_.session = session_options(flags.options);
        options_.pack_decode = flags.settings.pack_decode;
    }

    Measured measure(const std::string& text) {
        Measured m;
        measure_fidelity(m);
        if (flags_.needles > 0) measure_needles(m, text);
        return m;
    }

  private:
    std::vector<eval::Outcome> run(const eval::Prompt& prompt, int step) {
        const double steps = flags_.settings.max_num_examples + flags_.needles;
        return eval::run_prompt(model_, configs_, prompt, options_, [&](double share) {
            bar_.show("check", (step + share) / steps, "");
            return !interrupted();
        });
    }

    void measure_fidelity(Measured& m) {
        const eval::PromptSet set = eval::find_suite("fidelity").open(flags_.settings, model_);
        double surprise = 0, surprise_full = 0;
        eval::Fidelity& mean = m.fidelity;
        for (std::size_t i = 0; i < set.ids.size(); ++i) {
            const auto outcomes = run(set.make(i), static_cast<int>(i));
            const eval::Fidelity& f = *outcomes[1].fidelity;
            const double n = static_cast<double>(set.ids.size());
            mean.kl_mean += f.kl_mean / n;
            mean.kl_p99 += f.kl_p99 / n;
            mean.top1 += f.top1 / n;
            mean.tokens += f.tokens;
            surprise += std::log(f.ppl) / n;
            surprise_full += std::log(f.ppl_full) / n;
            m.stats = outcomes[1].stats;
        }
        mean.ppl = std::exp(surprise);
        mean.ppl_full = std::exp(surprise_full);
        m.pieces = static_cast<int>(set.ids.size());
    }

    void measure_needles(Measured& m, const std::string& text) {
        eval::Haystack haystack(model_, text);
        for (int i = 0; i < flags_.needles; ++i) {
            const int depth = flags_.needles == 1 ? 50 : 100 * i / (flags_.needles - 1);
            const eval::Needle needle = eval::number_needle(1000U + static_cast<unsigned>(i));
            eval::Prompt prompt;
            prompt.tokens =
                eval::honest_prompt(*model_, haystack, needle, flags_.settings.s_len, depth, 0)
                    .tokens;
            prompt.max_new_tokens = needle.max_new_tokens;
            const auto outcomes = run(prompt, flags_.settings.max_num_examples + i);
            const auto found = [&](std::size_t c) {
                return scoring::needle_number_score(outcomes[c].reply, needle.expected) > 0;
            };
            m.found += found(1) ? 1 : 0;
            m.found_full += found(0) ? 1 : 0;
            m.lost += found(0) && !found(1) ? 1 : 0;
        }
    }

    std::shared_ptr<const Model> model_;
    CheckFlags& flags_;
    std::vector<eval::Config> configs_;
    eval::RunnerOptions options_;
    ProgressBar bar_;
};

std::vector<std::string> missed(const CheckFlags& f, const Measured& m) {
    std::vector<std::string> all;
    if (f.max_kl >= 0 && m.fidelity.kl_mean > f.max_kl) {
        all.push_back(format("mean KL is %.4g, above --max-kl %.4g", m.fidelity.kl_mean, f.max_kl));
    }
    const double least = f.min_top1 > 1 ? f.min_top1 / 100 : f.min_top1;
    if (f.min_top1 >= 0 && m.fidelity.top1 < least) {
        all.push_back(format("top-1 agreement is %.2f %%, below --min-top1 %.2f %%",
                             100 * m.fidelity.top1, 100 * least));
    }
    if (m.lost > 0) {
        all.push_back(
            format("%d of %d needles are found by the full cache alone", m.lost, f.needles));
    }
    return all;
}

double mean_kept(const CacheStats& stats) {
    double sum = 0;
    for (const double kept : stats.kept) sum += kept;
    return sum / static_cast<double>(std::max<std::size_t>(stats.kept.size(), 1));
}

std::string verdict(const CheckFlags& f, const std::string& id, const Measured& m,
                    const std::vector<std::string>& failures) {
    const eval::Fidelity& x = m.fidelity;
    std::string text = format(
        "cache     %s: %.1f of %llu tokens per head, %s of %s (%.1f %%)\n", id.c_str(),
        mean_kept(m.stats), static_cast<unsigned long long>(m.stats.tokens_seen),
        human_bytes(static_cast<double>(m.stats.bytes)).c_str(),
        human_bytes(static_cast<double>(m.stats.bytes_full_f16)).c_str(),
        100.0 * static_cast<double>(m.stats.bytes) / static_cast<double>(m.stats.bytes_full_f16));
    text += format(
        "fidelity  mean KL %.4g, p99 %.4g, top-1 %.2f %%, perplexity %.4g (full cache "
        "%.4g); %d tokens behind %d prompt%s of %d\n",
        x.kl_mean, x.kl_p99, 100 * x.top1, x.ppl, x.ppl_full, x.tokens, m.pieces,
        m.pieces == 1 ? "" : "s", f.settings.s_len);
    if (f.needles > 0) {
        text += format("needles   %d of %d found, %d by the full cache\n", m.found, f.needles,
                       m.found_full);
    }
    const bool asked = f.max_kl >= 0 || f.min_top1 >= 0 || f.needles > 0;
    text += "verdict   ";
    for (std::size_t i = 0; i < failures.size(); ++i)
        text += (i > 0 ? "; " : "fail: ") + failures[i];
    if (failures.empty()) text += asked ? "pass" : "none: no threshold was given";
    return text + "\n";
}

Json check_json(const CheckFlags& f, const eval::Config& config, const Model& model,
                const Measured& m, const std::vector<std::string>& failures) {
    const eval::Fidelity& x = m.fidelity;
    Json object{{"passed", failures.empty()},
                {"failures", failures},
                {"config", config.id},
                {"fidelity",
                 {{"kl_mean", x.kl_mean},
                  {"kl_p99", x.kl_p99},
                  {"top1", x.top1},
                  {"ppl", x.ppl},
                  {"ppl_full", x.ppl_full},
                  {"tokens", x.tokens}}},
                {"prompt_tokens", f.settings.s_len},
                {"prompts", m.pieces}};
    object["needles"] = f.needles == 0 ? Json(nullptr)
                                       : Json{{"asked", f.needles},
                                              {"found", m.found},
                                              {"found_full", m.found_full},
                                              {"lost", m.lost}};
    object["kv"] = {{"bytes", m.stats.bytes},
                    {"bytes_full_f16", m.stats.bytes_full_f16},
                    {"kept", mean_kept(m.stats)}};
    object["options"] = eval::options_json(config.options);
    object["model"] = {{"name", model.info().name}, {"sha256", model.sha256()}};
    object["version"] = version();
    return object;
}

}  // namespace

int check_command(const Arguments& args) {
    CheckFlags f;
    auto parser = check_parser(f);
    if (!parse(*parser, args)) return 0;
    settle(f.options, "check", kModelFlags | kCacheFlags);
    f.settings.context = f.options.ctx_size;
    const std::string text = eval::read_text_or_folder(f.settings.file, "-f");

    const InterruptScope interrupts;
    const auto model = load_model(f.options);
    fit_to_text(f, *model, text);
    auto configs =
        eval::make_configs({f.options.cache}, eval::find_suite("fidelity"), f.settings, model);
    // The controls are for tables: here the full cache alone is compared with.
    std::erase_if(configs, [&](const eval::Config& config) {
        return config.options.method == "random" && f.options.cache.method != "random";
    });
    if (configs.size() < 2) {
        throw usage_error(
            "`winnow check` compares a compressed cache with the full one; say which by --method, "
            "--nbits or both.");
    }
    const Measured m = Checker(model, f, configs).measure(text);
    const std::vector<std::string> failures = missed(f, m);
    if (f.options.json) {
        write_json(check_json(f, configs[1], *model, m, failures));
    } else {
        write_out(verdict(f, configs[1].id, m, failures));
        flush_out();
    }
    return failures.empty() ? 0 : kFailed;
}

}  // namespace winnow::cli
