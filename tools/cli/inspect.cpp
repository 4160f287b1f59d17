// winnow inspect: which tokens of a prompt each kv head keeps.
#include <winnow/winnow.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "commands.h"
#include "flags.h"
#include "generate.h"
#include "json_output.h"
#include "progress.h"
#include "prompt.h"
#include "receipt.h"
#include "report/files.h"
#include "report/kept_page.h"
#include "signals.h"
#include "terminal.h"
#include "text/utf8.h"

namespace winnow::cli {
namespace {

constexpr std::size_t kMapWidth = 64;
// From nothing kept to all kept.
constexpr std::string_view kRamp = " .:-=+*#%@";

char shade(double share) {
    if (share <= 0.0) return kRamp.front();
    if (share >= 1.0) return kRamp.back();
    const auto steps = static_cast<double>(kRamp.size() - 2);
    return kRamp[1 + static_cast<std::size_t>(share * steps * 0.999)];
}

// One character per stretch of the prompt: the share of (head, token) pairs that are kept.
std::string map_row(const KeptLayer& layer, std::size_t tokens, std::size_t width) {
    std::vector<double> kept(width, 0.0);
    for (const KeptHead& head : layer.heads) {
        for (const std::int32_t position : head.positions) {
            kept[static_cast<std::size_t>(position) * width / tokens] += 1.0;
        }
    }
    std::string row;
    for (std::size_t i = 0; i < width; ++i) {
        // The first position p of stretch i is the least one with p * width / tokens == i.
        const std::size_t begin = (i * tokens + width - 1) / width;
        const std::size_t end = ((i + 1) * tokens + width - 1) / width;
        const double pairs = static_cast<double>((end - begin) * layer.heads.size());
        row += shade(pairs > 0.0 ? kept[i] / pairs : 0.0);
    }
    return row;
}

double mean_kept(const KeptLayer& layer) {
    std::size_t sum = 0;
    for (const KeptHead& head : layer.heads) sum += head.positions.size();
    return layer.heads.empty() ? 0.0
                               : static_cast<double>(sum) / static_cast<double>(layer.heads.size());
}

std::string map(const Session& session, const std::vector<std::int32_t>& tokens) {
    const std::vector<KeptLayer> layers = session.kept();
    const std::size_t width = std::min(kMapWidth, tokens.size());
    std::string text = describe(session.options()) + ": " + with_commas(tokens.size()) +
                       " tokens, " + std::to_string(layers.size()) + " layers\n\n" +
                       "layer  budget    kept  |" + padded("first token", width) + "| last\n";
    for (std::size_t l = 0; l < layers.size(); ++l) {
        text += format("%5zu  %6d  %6.1f  |", l, layers[l].budget, mean_kept(layers[l])) +
                map_row(layers[l], tokens.size(), width) + "|\n";
    }
    return text + "\nA column is about " +
           format("%.1f", static_cast<double>(tokens.size()) / static_cast<double>(width)) +
           " tokens of all kv heads: blank nothing kept, " + kRamp[1] + " little, " + kRamp[8] +
           " most, " + kRamp.back() + " all.\n";
}

// What the page of --html shows. Bytes of a character that more than one token holds go to the
// last.
report::KeptPage kept_page(const Model& model, const Session& session,
                           const std::vector<std::int32_t>& tokens) {
    report::KeptPage page;
    page.title = describe(session.options()) + ": " + with_commas(tokens.size()) + " tokens of " +
                 model.info().name;
    const CacheStats stats = session.stats();
    double kept = 0;
    for (const double layer : stats.kept) kept += layer / static_cast<double>(stats.kept.size());
    page.facts = {"model",
                  model.info().name + " (" + model.info().architecture + ")",
                  "sha256",
                  model.sha256(),
                  "winnow",
                  version(),
                  "kept",
                  format("%.1f tokens per kv head", kept),
                  "bytes",
                  human_bytes(static_cast<double>(stats.bytes)) + " of " +
                      human_bytes(static_cast<double>(stats.bytes_full_f16)),
                  "seed",
                  std::to_string(session.options().method_seed)};
    Utf8Stream stream;
    for (const std::int32_t token : tokens)
        page.pieces.push_back(stream.push(model.piece(token, true)));
    if (!page.pieces.empty()) page.pieces.back() += stream.finish();
    for (const KeptLayer& layer : session.kept()) {
        report::KeptPage::Layer& out = page.layers.emplace_back();
        out.budget = layer.budget;
        for (const KeptHead& head : layer.heads) {
            out.heads.push_back(
                {.positions = {head.positions.begin(), head.positions.end()}, .bits = head.bits});
        }
    }
    return page;
}

}  // namespace

int inspect_command(const Arguments& args) {
    Options options;
    auto parser = make_parser("inspect", "Shows which tokens of a prompt each kv head keeps.",
                              options, kSession);
    add_switch(*parser, "--json", options.json, "one JSON object on stdout, and nothing else");
    std::string html;
    add_value(*parser, "Output",
              {"--html", "FILE", "a page with the text coloured by what each layer and head keeps"},
              html);
    if (!parse(*parser, args)) return 0;
    settle(options, "inspect", kSession);
    const Texts texts = load_texts(options);
    require_prompt(texts);
    // A model is read for nothing where the page cannot be written.
    if (!html.empty()) report::check_writable("--html", html);

    const InterruptScope interrupts;
    const auto model = load_model(options, texts.user.size());
    const FirstPrompt first =
        first_prompt(*model, options, texts, prompt_tokens(*model, options, texts));
    const auto& tokens = first.tokens;
    if (options.verbose_prompt) write_err(show_tokens(*model, tokens));
    SessionOptions settings = session_options(options);
    settings.keep_scores = true;
    Session session(model, options.cache, settings);
    {
        ProgressBar bar(!options.json);
        read_prompt(session, first, bar.callback());
    }
    if (!html.empty())
        report::write_whole(html, report::kept_html(kept_page(*model, session, tokens)));
    if (options.json) {
        write_json(kept_json(tokens, session.kept()));
    } else {
        write_out(map(session, tokens));
        flush_out();
    }
    return 0;
}

}  // namespace winnow::cli
