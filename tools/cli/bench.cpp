// winnow bench: prefill and decode of many caches at many contexts, also beside llama.cpp.
#include <winnow/winnow.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <tuple>

#include "argv.h"
#include "bench/baseline.h"
#include "bench/measure.h"
#include "bench/report.h"
#include "bench/tokens.h"
#include "commands.h"
#include "files.h"
#include "flags.h"
#include "generate.h"
#include "prompt.h"
#include "signals.h"
#include "suggest.h"
#include "terminal.h"

namespace winnow::cli {
namespace {

constexpr const char* kRivalName = "llama.cpp";
constexpr int kStdErr = 2;
constexpr unsigned kGroups = kModelFlags | kOtherCacheFlags;
// Not part of what a baseline remembers: where the model lies, and what is written.
const std::set<std::string> kNotSettings = {"-m",         "--model",        "-t",    "--threads",
                                            "--log",      "--json",         "--csv", "--svg",
                                            "--baseline", "--save-baseline"};

struct BenchFlags {
    Options options;
    std::string methods = "full", quant_methods, nbits, caps;
    std::string contexts = "512,2048", sessions = "1";
    std::string against, csv, svg, baseline, save_baseline;
    int repeats = 3;
    int decode_tokens = 32;
};

Parser bench_parser(BenchFlags& f) {
    auto parser = make_parser("bench",
                              "Measures prefill and decode of every cache that the lists name, at "
                              "every context.",
                              f.options, kGroups);
    const auto add = [&](const std::string& group, const Flag& flag, auto& field) {
        add_value(*parser, group, flag, field);
    };
    const std::string what = "What is measured (lists: a,b,c)";
    add(what, {"--context", "LIST", "prompt tokens; 1 is an empty context"}, f.contexts);
    add(what, {"--method", "LIST", "which tokens to keep; `full` has no cap"}, f.methods);
    add(what, {"--quant-method", "LIST", "how to store them"}, f.quant_methods);
    add(what, {"--nbits", "LIST", "bits of a stored number: 2, 3, 4, 8 or 16"}, f.nbits);
    add(what, {"--max-capacity-prompts,--max-capacity-prompt", "LIST", "tokens kept per kv head"},
        f.caps);
    add(what, {"--sessions", "LIST", "sessions decoded in one step"}, f.sessions);
    const std::string how = "How";
    add(how,
        {"--against", "RIVAL",
         "llama.cpp, or llama.cpp:q8_0,q4_0 for more cache types than its f16"},
        f.against);
    add(how, {"--repeats", "N", "runs of each; from 8,000 tokens on, of decode alone", 1, 1000},
        f.repeats);
    add(how, {"--decode-tokens", "N", "tokens decoded behind the prompt", 1, 1 << 20},
        f.decode_tokens);
    add(how,
        {"-f,--file", "FILE", "a text to read, repeated as needed; without it synthetic tokens"},
        f.options.file);
    add_switch(*parser, "--json", f.options.json, "one JSON object on stdout, and nothing else");
    const std::string output = "Output";
    add(output, {"--csv", "FILE", "the results as CSV"}, f.csv);
    add(output, {"--svg", "FILE", "a chart of decode speed against context"}, f.svg);
    add(output, {"--save-baseline", "FILE", "note the ratios and these flags in FILE"},
        f.save_baseline);
    add(output, {"--baseline", "FILE", "run with the flags noted there; tell which ratios fell"},
        f.baseline);
    return parser;
}

std::vector<std::string> split_list(const std::string& flag, const std::string& text) {
    std::vector<std::string> items;
    for (std::size_t at = 0; at <= text.size();) {
        const std::size_t end = std::min(text.find(',', at), text.size());
        std::string item = text.substr(at, end - at);
        std::transform(item.begin(), item.end(), item.begin(), [](unsigned char c) {
            return static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
        });
        if (item.empty()) {
            throw usage_error(flag + " is '" + text +
                              "'; it takes values separated by single commas, as in a,b,c.");
        }
        if (std::find(items.begin(), items.end(), item) == items.end()) items.push_back(item);
        at = end + 1;
    }
    return items;
}

std::vector<int> split_numbers(const std::string& flag, const std::string& text, int high) {
    std::vector<int> numbers;
    for (const std::string& item : split_list(flag, text)) {
        int value = 0;
        const auto [end, code] = std::from_chars(item.data(), item.data() + item.size(), value);
        if (code != std::errc() || end != item.data() + item.size() || value < 1 || value > high) {
            throw usage_error(flag + " holds '" + item + "'; it takes whole numbers from 1 to " +
                              std::to_string(high) + ", separated by commas.");
        }
        if (std::find(numbers.begin(), numbers.end(), value) == numbers.end()) {
            numbers.push_back(value);
        }
    }
    return numbers;
}

// At 16 bits every format is plain rows, so there is one such cache and not one per format.
void unify_plain(CacheOptions& cache) {
    const bool packs = cache.quant_method != "layerquant" && cache.method != "layerquant";
    if (packs && cache.nbits == 16 && cache.nbits_k == 0 && cache.nbits_v == 0) {
        cache.quant_method = "none";
    }
    if (cache.method == "full") cache.max_capacity_prompts = 0;
}

// Every combination of the lists, each once.
std::vector<CacheOptions> expand_caches(const BenchFlags& f) {
    const auto quants = f.quant_methods.empty() ? std::vector<std::string>{""}
                                                : split_list("--quant-method", f.quant_methods);
    const auto bits = f.nbits.empty() ? std::vector<int>{0} : split_numbers("--nbits", f.nbits, 16);
    const auto caps = f.caps.empty() ? std::vector<int>{0}
                                     : split_numbers("--max-capacity-prompts", f.caps, 1 << 30);
    std::vector<CacheOptions> caches;
    std::set<std::tuple<std::string, std::string, int, int>> seen;
    for (const std::string& method : split_list("--method", f.methods)) {
        for (const std::string& quant : quants) {
            for (const int nbits : bits) {
                // `none` in a list of formats is the row of 16 bits.
                if (quant == "none" && quants.size() > 1 && nbits != 16 && nbits != 0) continue;
                for (const int cap : caps) {
                    CacheOptions cache = f.options.cache;
                    cache.method = method;
                    cache.quant_method = quant;
                    cache.nbits = nbits;
                    cache.max_capacity_prompts = cap;
                    settle_cache(cache);
                    unify_plain(cache);
                    if (seen.emplace(cache.method, cache.quant_method, cache.nbits,
                                     cache.max_capacity_prompts)
                            .second) {
                        caches.push_back(cache);
                    }
                }
            }
        }
    }
    return caches;
}

// The cache types of `--against`; f16 is always among them, as ratios are against it.
std::vector<std::string> expand_rival(const std::string& against) {
    if (against.empty()) return {};
    const std::size_t colon = against.find(':');
    if (against.substr(0, colon) != kRivalName) {
        throw usage_error("--against is '" + against +
                          "'; it takes llama.cpp, or llama.cpp:f16,q8_0,q4_0 with the types of its "
                          "cache.");
    }
    const std::vector<std::string>& known = bench::rival_cache_types();
    std::vector<std::string> types{known.front()};
    if (colon == std::string::npos) return types;
    for (const std::string& type : split_list("--against", against.substr(colon + 1))) {
        if (std::find(known.begin(), known.end(), type) == known.end()) {
            throw usage_error("--against holds the cache type '" + type + "'; the nearest is '" +
                              nearest(type, known) + "', of " + quoted_list(known) + ".");
        }
        if (std::find(types.begin(), types.end(), type) == types.end()) types.push_back(type);
    }
    return types;
}

bench::Settings expand(const BenchFlags& f) {
    bench::Settings settings;
    settings.caches = expand_caches(f);
    settings.contexts = split_numbers("--context", f.contexts, 1 << 26);
    settings.sessions = split_numbers("--sessions", f.sessions, 1024);
    settings.rival_caches = expand_rival(f.against);
    settings.repeats = f.repeats;
    settings.decode_tokens = f.decode_tokens;
    settings.session = session_options(f.options);
    return settings;
}

void check_length(const BenchFlags& f, const bench::Settings& settings, const ModelInfo& info) {
    const int limit = context_limit(f.options, info);
    if (settings.tokens_needed() <= limit) return;
    throw usage_error("--context needs " + std::to_string(settings.tokens_needed()) +
                      " positions with the decoded tokens, but there are " + std::to_string(limit) +
                      "; use a smaller one, or --allow-long to pass what the model was trained "
                      "for.");
}

// One line that stays in place on a terminal, a line each elsewhere.
class ProgressLines {
  public:
    ~ProgressLines() {
        if (shown_ && terminal_) write_err("\r\033[K");
    }
    void operator()(const std::string& text) {
        write_err(terminal_ ? "\r" + text + "\033[K" : "bench: " + text + "\n");
        shown_ = true;
    }

  private:
    bool terminal_ = is_terminal(kStdErr);
    bool shown_ = false;
};

// Measures what the flags say.
bench::Report run_bench(const std::shared_ptr<const Model>& model, const bench::Rival* rival,
                        const BenchFlags& f, const bench::Settings& settings) {
    check_length(f, settings, model->info());
    Options text_of = f.options;
    const auto count = static_cast<std::size_t>(settings.tokens_needed());
    const bench::BenchTokens prompt =
        f.options.file.empty()
            ? bench::synthetic_tokens(*model, count)
            : bench::text_tokens(*model, f.options.file, load_texts(text_of).user, count);
    bench::Report report;
    report.machine = bench::this_machine(*model);
    if (rival != nullptr) report.rival = rival->info();
    report.model = model->info();
    report.prompt = prompt.source;
    report.repeats = settings.repeats;
    report.decode_tokens = settings.decode_tokens;
    ProgressLines lines;
    report.results = bench::measure(model, rival, settings, prompt.tokens,
                                    [&](const std::string& line) { lines(line); });
    return report;
}

void write_report(const BenchFlags& f, const bench::Report& report,
                  const bench::Comparison* comparison) {
    if (!f.csv.empty()) replace_file("--csv", f.csv, bench::report_csv(report));
    if (!f.svg.empty()) {
        replace_file("--svg", f.svg, bench::chart_svg(bench::report_chart(report)));
    }
    if (f.options.json) {
        Json object = bench::report_json(report);
        if (comparison != nullptr) {
            object["comparison"] = {{"compared", comparison->compared},
                                    {"missing", comparison->missing},
                                    {"fell", comparison->falls}};
        }
        write_json(object);
        return;
    }
    write_out(bench::report_table(report));
    if (comparison != nullptr) write_out("\n" + bench::comparison_text(*comparison));
    flush_out();
}

// The words that say what is measured, in one spelling.
Arguments settings_of(const Arguments& args) {
    BenchFlags unused;
    const auto parser = bench_parser(unused);
    const Arguments words = normalise(*parser, args);
    Arguments kept;
    for (std::size_t i = 0; i < words.size(); ++i) {
        const std::size_t end = i + (is_switch(*parser, words[i]) ? 1 : 2);
        for (std::size_t at = i; kNotSettings.count(words[i]) == 0 && at < end; ++at) {
            kept.push_back(words[at]);
        }
        i = end - 1;
    }
    return kept;
}

// Runs with the flags of each entry that the file has for this model, the ones of `args` behind
// them. What fell is told and no more: how fast a machine is today is no test.
void run_baseline(const std::shared_ptr<const Model>& model, const BenchFlags& asked,
                  const Arguments& args) {
    bench::Report all;
    bench::Comparison total;
    std::unique_ptr<bench::Rival> rival;
    for (const auto& entry : bench::read_baseline(asked.baseline, model->info().name)) {
        BenchFlags f;
        Arguments words = entry.flags;
        words.insert(words.end(), args.begin(), args.end());
        if (!parse(*bench_parser(f), words)) return;
        settle(f.options, "bench", kGroups);
        const bench::Settings settings = expand(f);
        if (!settings.rival_caches.empty() && !rival) rival = bench::load_llama_rival(*model);
        bench::Report report =
            run_bench(model, settings.rival_caches.empty() ? nullptr : rival.get(), f, settings);
        const bench::Comparison found = bench::compare(entry, report.results);
        total.compared += found.compared;
        total.missing += found.missing;
        total.falls.insert(total.falls.end(), found.falls.begin(), found.falls.end());
        report.results.insert(report.results.begin(), all.results.begin(), all.results.end());
        all = std::move(report);
    }
    write_report(asked, all, &total);
}

}  // namespace

int bench_command(const Arguments& args) {
    BenchFlags f;
    if (!parse(*bench_parser(f), args)) return 0;
    settle(f.options, "bench", kGroups);
    const bench::Settings settings = expand(f);
    if (!f.baseline.empty() && !f.save_baseline.empty()) {
        throw usage_error(
            "--baseline and --save-baseline are both given; one reads the ratios, "
            "the other one writes them.");
    }
    if (!f.save_baseline.empty() && f.against.empty()) {
        throw usage_error("--save-baseline notes ratios, which need --against llama.cpp.");
    }
    if (!f.csv.empty()) check_writable("--csv", f.csv);
    if (!f.svg.empty()) check_writable("--svg", f.svg);

    const InterruptScope interrupts;
    const auto model = load_model(f.options);
    if (!f.baseline.empty()) {
        run_baseline(model, f, args);
        return 0;
    }
    std::unique_ptr<bench::Rival> rival;
    if (!settings.rival_caches.empty()) rival = bench::load_llama_rival(*model);
    const bench::Report report = run_bench(model, rival.get(), f, settings);
    write_report(f, report, nullptr);
    if (!f.save_baseline.empty()) bench::save_baseline(f.save_baseline, settings_of(args), report);
    return 0;
}

}  // namespace winnow::cli
