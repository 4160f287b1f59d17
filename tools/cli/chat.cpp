// winnow chat: several turns over one compressed cache.
#include <winnow/winnow.h>

#include <optional>

#include "commands.h"
#include "conversation.h"
#include "flags.h"
#include "generate.h"
#include "line_reader.h"
#include "progress.h"
#include "prompt.h"
#include "receipt.h"
#include "signals.h"
#include "terminal.h"

namespace winnow::cli {
namespace {

constexpr int kStdOut = 1;

constexpr const char* kHelp =
    "/help   this list\n"
    "/stats  what the cache holds and cost so far\n"
    "/save   write the file of --session now, and not only at the end\n"
    "/exit   end (or Ctrl-D)\n"
    "A backslash at the end of a line goes on with the next; Ctrl-C ends an answer.\n";

class Chat {
  public:
    Chat(std::shared_ptr<const Model> model, Options options, const Texts& texts)
        : model_(std::move(model)),
          options_(std::move(options)),
          prefix_(texts.answer_prefix),
          texts_(texts),
          conversation_(*model_, texts.chat_template, texts.system),
          session_(open_session(model_, options_, false)) {
        if (session_.position() > 0) conversation_.resume();
    }

    void loop(std::string first);

  private:
    bool command(const std::string& line);
    void save() const;
    void turn(const std::string& line);
    Texts texts_of(const std::string& line) const;
    bool fits(std::size_t tokens) const;
    Answer answer(const std::vector<std::int32_t>& prompt);
    RunReport report() const;

    std::shared_ptr<const Model> model_;
    Options options_;
    std::string prefix_;
    Texts texts_;
    Conversation conversation_;
    Session session_;
    LineReader reader_;
    std::size_t read_ = 0;
    std::size_t written_ = 0;
    double prefill_ms_ = 0.0;
    double compress_ms_ = 0.0;
    double decode_ms_ = 0.0;
};

void Chat::loop(std::string first) {
    if (reader_.interactive()) {
        write_err(model_->info().name + ", " + describe(session_.options()) +
                  "; /help lists the commands\n");
    }
    std::optional<std::string> line;
    if (!first.empty()) line = std::move(first);
    if (!line) line = reader_.next();
    for (; line; line = reader_.next()) {
        if (line->empty()) continue;
        if (line->front() != '/') {
            turn(*line);
        } else if (!command(*line)) {
            break;
        }
    }
    if (read_ > 0) {
        save();
        write_err(receipt(report()));
    }
}

void Chat::save() const {
    if (!options_.session.empty() && !options_.session_ro) session_.save(options_.session);
}

// False ends the conversation. A line such as "/etc/hosts is empty" is a message.
bool Chat::command(const std::string& line) {
    if (line == "/exit" || line == "/quit") return false;
    if (line == "/help") {
        write_err(kHelp);
    } else if (line == "/stats") {
        write_err(session_.position() == 0 ? "Nothing was read yet.\n" : receipt(report()));
    } else if (line == "/save") {
        const bool named = !options_.session.empty() && !options_.session_ro;
        save();
        write_err(named ? "Saved to " + options_.session + ".\n"
                        : "There is no file to save to; --session FILE names one.\n");
    } else {
        turn(line);
    }
    return true;
}

bool Chat::fits(std::size_t tokens) const {
    const auto limit = static_cast<std::size_t>(context_limit(options_, model_->info()));
    return static_cast<std::size_t>(session_.position()) + tokens <= limit;
}

Texts Chat::texts_of(const std::string& line) const {
    Texts texts = texts_;
    texts.user = line;
    return texts;
}

void Chat::turn(const std::string& line) {
    const InterruptScope interrupts;
    const bool opening = conversation_.empty();
    const std::string text = conversation_.ask(line) + prefix_;
    FirstPrompt first;
    first.tokens = opening ? tokenize_rendered(*model_, text) : model_->tokenize(text, false, true);
    const std::vector<std::int32_t>& prompt = first.tokens;
    if (options_.verbose_prompt) write_err(show_tokens(*model_, prompt));
    if (!fits(prompt.size())) {
        conversation_.withdraw();
        const std::string full = "This message of " + std::to_string(prompt.size()) +
                                 " tokens does not fit: " + std::to_string(session_.position()) +
                                 " of " + std::to_string(context_limit(options_, model_->info())) +
                                 " positions are taken; -c and --allow-long give more.";
        if (!reader_.interactive()) throw usage_error(full);
        return write_err(full + "\n");
    }
    SessionTiming spent;
    try {
        if (opening)
            first = first_prompt(*model_, options_, texts_of(line), std::move(first.tokens));
        ProgressBar bar(true);
        if (opening) {
            spent = read_prompt(session_, first, bar.callback());
        } else {
            session_.prefill(prompt, bar.callback());
            spent = session_.timing();
        }
    } catch (const Error& error) {
        conversation_.withdraw();
        // A first prompt may have been read in part, and has pinned what the next may not hold.
        if (opening) session_ = Session(model_, options_.cache, session_options(options_));
        if (error.kind() != ErrorKind::stopped || !reader_.interactive()) throw;
        return write_err("The message was taken back.\n");
    }
    read_ += prompt.size();
    prefill_ms_ += spent.prefill_ms;
    compress_ms_ += spent.compress_ms;
    const Answer given = answer(prompt);
    conversation_.answered(prefix_ + given.text);
    written_ += given.tokens.size();
    decode_ms_ += given.decode_ms;
    if (given.stop == Stop::context) {
        write_err(context_note(context_limit(options_, model_->info())) + "\n");
    }
    if (given.stop == Stop::interrupted && !reader_.interactive()) throw_if_interrupted();
}

Answer Chat::answer(const std::vector<std::int32_t>& prompt) {
    // A grammar begins anew with each answer; a seed moves on, or equal turns would draw alike.
    Options options = options_;
    if (options.seed >= 0) {
        const auto moved = static_cast<std::uint64_t>(options.seed) + written_;
        options.sampling.seed = static_cast<std::uint32_t>(moved % SamplingOptions::kRandomSeed);
    }
    const auto sampler = make_sampler(model_, options, prompt);
    const bool color = options_.color && is_terminal(kStdOut);
    if (color) write_out("\033[32m");
    Answer given = generate(session_, *sampler, options, [](std::string_view text) {
        write_out(text);
        flush_out();
    });
    if (color) write_out("\033[0m");
    write_out(reader_.interactive() ? "\n\n" : "\n");
    flush_out();
    return given;
}

RunReport Chat::report() const {
    RunReport report = make_report(session_, read_, written_, decode_ms_);
    report.timing.prefill_ms = prefill_ms_;
    report.timing.compress_ms = compress_ms_;
    return report;
}

}  // namespace

int chat_command(const Arguments& args) {
    Options options;
    auto parser =
        make_parser("chat", "Talks over one compressed cache: each turn reads only what is new.",
                    options, kSession | kSessionFileFlags);
    add_switch(*parser, "--color", options.color, "colour the answers on a terminal (short: -co)");
    if (!parse(*parser, args)) return 0;
    settle(options, "chat", kSession);
    if (options.no_conversation) {
        throw usage_error(
            "-no-cnv has no place in `winnow chat`, whose turns come from a chat "
            "template; `winnow run` takes it.");
    }
    if (options.file == "-") {
        throw usage_error(
            "-f - has no place in `winnow chat`, which reads its turns from standard "
            "input; -f takes a file here.");
    }
    const Texts texts = load_texts(options);
    settle_seed(options);
    std::shared_ptr<const Model> model;
    {
        const InterruptScope interrupts;
        model = load_model(options, texts.user.size());
    }
    if (texts.chat_template.empty() && !model->has_chat_template()) {
        throw failure(options.model +
                      " brings no chat template; give one by --chat-template, for "
                      "example chatml.");
    }
    require_good_template(*model, texts);
    Chat(model, options, texts).loop(texts.user);
    return 0;
}

}  // namespace winnow::cli
