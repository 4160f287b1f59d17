// winnow run: one prompt, one answer, one receipt.
#include <winnow/winnow.h>

#include <algorithm>
#include <chrono>
#include <iterator>

#include "commands.h"
#include "flags.h"
#include "generate.h"
#include "json_output.h"
#include "progress.h"
#include "prompt.h"
#include "receipt.h"
#include "signals.h"
#include "terminal.h"

namespace winnow::cli {
namespace {

using Clock = std::chrono::steady_clock;
using Tokens = std::vector<std::int32_t>;

constexpr int kStdOut = 1;
constexpr const char* kAnswerColor = "\033[32m";
constexpr const char* kPlain = "\033[0m";

double ms_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// Streams the answer, in colour where that is wanted; silent for --json.
Answer stream_answer(Session& session, Sampler& sampler, const Options& options) {
    if (options.json) return generate(session, sampler, options, {});
    const bool color = options.color && is_terminal(kStdOut);
    if (color) write_out(kAnswerColor);
    bool ends_line = true;
    const Answer answer = generate(session, sampler, options, [&](std::string_view text) {
        write_out(text);
        flush_out();
        ends_line = text.back() == '\n';
    });
    if (color) write_out(kPlain);
    if (!ends_line) write_out("\n");
    flush_out();
    return answer;
}

std::int32_t likeliest(std::span<const float> logits) {
    return static_cast<std::int32_t>(
        std::distance(logits.begin(), std::max_element(logits.begin(), logits.end())));
}

// The same tokens through a full f16 cache: what they cost there, and how many of them it would
// have chosen as well.
RunReport run_full(const std::shared_ptr<const Model>& model, const Options& options,
                   const Tokens& prompt, const Tokens& answer) {
    Session session(model, CacheOptions{}, session_options(options));
    {
        ProgressBar bar(!options.json);
        session.prefill(prompt, bar.callback());
    }
    const auto start = Clock::now();
    std::size_t agreed = 0;
    for (const std::int32_t token : answer) {
        throw_if_interrupted();
        if (likeliest(session.logits()) == token) ++agreed;
        session.decode(token);
    }
    RunReport report = make_report(session, prompt.size(), answer.size(), ms_since(start));
    if (!answer.empty()) {
        report.agreement = static_cast<double>(agreed) / static_cast<double>(answer.size());
    }
    return report;
}

void print_json(const Model& model, const Options& options, const RunReport& run,
                const RunReport* full) {
    Json object = run_json(model, options, run);
    if (full != nullptr) {
        object["full"] = report_json(*full);
        object["full"]["agreement"] = full->agreement ? Json(*full->agreement) : Json(nullptr);
    }
    write_json(object);
}

}  // namespace

int run_command(const Arguments& args) {
    Options options;
    auto parser = make_parser("run", "Answers a prompt through a pruned and packed cache.", options,
                              kSession | kSessionFileFlags);
    add_switch(*parser, "--json", options.json, "one JSON object on stdout, and nothing else");
    add_switch(*parser, "--color", options.color, "colour the answer on a terminal (short: -co)");
    add_switch(*parser, "--compare-full", options.compare_full,
               "run the same tokens through a full cache too, for the receipt");
    if (!parse(*parser, args)) return 0;
    settle(options, "run", kSession);
    const Texts texts = load_texts(options);
    require_prompt(texts);
    settle_seed(options);

    const InterruptScope interrupts;
    const auto start = Clock::now();
    const auto model = load_model(options, texts.user.size());
    const double load_ms = ms_since(start);
    const FirstPrompt first =
        first_prompt(*model, options, texts, prompt_tokens(*model, options, texts));
    const Tokens& prompt = first.tokens;
    if (options.verbose_prompt) write_err(show_tokens(*model, prompt));
    const auto sampler = make_sampler(model, options, prompt);
    Session session = open_session(model, options, options.json, [&](const Session& found) {
        check_restored(found, first, options.session);
    });
    const auto restored = static_cast<std::size_t>(session.position());
    bool saved = false;
    SessionTiming read;
    {
        ProgressBar bar(!options.json);
        read = read_prompt(session, first, bar.callback(), [&] {
            saved = !options.session.empty() && !options.session_ro;
            if (saved) session.save(options.session);
        });
    }

    const Answer answer = stream_answer(session, *sampler, options);
    if (answer.stop == Stop::interrupted) throw_if_interrupted();
    RunReport run = make_report(session, prompt.size(), answer.tokens.size(), answer.decode_ms);
    run.timing.prefill_ms = read.prefill_ms;
    run.timing.compress_ms = read.compress_ms;
    run.restored_tokens = restored;
    run.session_saved = saved;
    run.load_ms = load_ms;
    run.text = answer.text;
    run.stop = stop_name(answer.stop);
    if (answer.stop == Stop::context && !options.json) {
        write_err(context_note(context_limit(options, model->info())) + "\n");
    }

    std::optional<RunReport> full;
    if (options.compare_full) full = run_full(model, options, prompt, answer.tokens);
    const RunReport* compared = full ? &*full : nullptr;
    if (options.json) {
        print_json(*model, options, run, compared);
    } else {
        write_err(receipt(run, compared));
    }
    return 0;
}

}  // namespace winnow::cli
