#include "generate.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <limits>
#include <random>
#include <utility>

#include "signals.h"
#include "terminal.h"
#include "text/utf8.h"

namespace winnow::cli {
namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// Bytes of tokens on their way out: whole characters only, and nothing of a reverse prompt.
class AnswerText {
  public:
    AnswerText(const std::vector<std::string>& stops,
               const std::function<void(std::string_view)>& sink)
        : stops_(stops), sink_(sink) {}

    /// False once a reverse prompt has ended the answer.
    bool push(std::string_view bytes) {
        emit(stops_.push(characters_.push(bytes)));
        return !stops_.stopped();
    }
    std::string finish() {
        emit(stops_.push(characters_.finish()));
        emit(stops_.finish());
        return std::move(text_);
    }

  private:
    void emit(const std::string& text) {
        if (text.empty()) return;
        text_ += text;
        if (sink_) sink_(text);
    }

    Utf8Stream characters_;
    StopMatcher stops_;
    const std::function<void(std::string_view)>& sink_;
    std::string text_;
};

}  // namespace

const char* stop_name(Stop stop) {
    switch (stop) {
        case Stop::end:
            return "end";
        case Stop::length:
            return "length";
        case Stop::reverse_prompt:
            return "reverse_prompt";
        case Stop::context:
            return "context";
        case Stop::interrupted:
            return "interrupted";
    }
    return "";
}

int context_limit(const Options& options, const ModelInfo& info) {
    const bool known = info.trained_context > 0 && !options.allow_long;
    const int trained = known ? info.trained_context : std::numeric_limits<int>::max();
    return options.ctx_size > 0 ? std::min(options.ctx_size, trained) : trained;
}

std::string context_note(int limit) {
    return "The context of " + std::to_string(limit) +
           " positions is full, so the answer ends here; -c sets its size, and --allow-long goes "
           "on past what the model was trained for.";
}

SessionOptions session_options(const Options& options) {
    SessionOptions session;
    session.context = options.ctx_size;
    session.allow_long = options.allow_long;
    session.batch = options.batch_size;
    return session;
}

Session open_session(const std::shared_ptr<const Model>& model, const Options& options, bool quiet,
                     const std::function<void(const Session&)>& check) {
    std::error_code ignored;
    if (options.session.empty() || !std::filesystem::exists(options.session, ignored)) {
        return {model, options.cache, session_options(options)};
    }
    const auto start = Clock::now();
    Session session =
        Session::load(model, options.session, options.cache, session_options(options));
    if (check) check(session);
    if (!quiet) {
        const auto bytes = static_cast<double>(session.stats().bytes);
        write_err("session " + options.session + ": " +
                  with_commas(static_cast<std::size_t>(session.position())) + " tokens restored, " +
                  human_bytes(bytes) + format(" in %.1f ms\n", ms_since(start)));
    }
    return session;
}

void settle_seed(Options& options) {
    if (options.seed < 0 && options.sampling.temp > 0.0F) {
        options.seed = std::random_device{}() % SamplingOptions::kRandomSeed;
    }
    options.sampling.seed = static_cast<std::uint32_t>(std::max<std::int64_t>(options.seed, 0));
}

std::unique_ptr<Sampler> make_sampler(std::shared_ptr<const Model> model, const Options& options,
                                      const std::vector<std::int32_t>& prompt) {
    const SamplingOptions& sampling = options.sampling;
    auto sampler = std::make_unique<Sampler>(std::move(model), sampling);
    // A grammar describes the answer, not the prompt, so it must not see these.
    if (!sampling.grammar.empty() || !sampling.json_schema.empty()) return sampler;
    const auto back =
        sampling.repeat_last_n < 0
            ? prompt.size()
            : std::min(prompt.size(), static_cast<std::size_t>(sampling.repeat_last_n));
    for (std::size_t i = prompt.size() - back; i < prompt.size(); ++i) sampler->accept(prompt[i]);
    return sampler;
}

Answer generate(Session& session, Sampler& sampler, const Options& options,
                const std::function<void(std::string_view)>& on_text) {
    const Model& model = session.model();
    const int limit = context_limit(options, model.info());
    const auto most = options.n_predict < 0 ? std::numeric_limits<std::size_t>::max()
                                            : static_cast<std::size_t>(options.n_predict);
    Answer answer;
    AnswerText text(options.reverse_prompt, on_text);
    const auto start = Clock::now();
    while (true) {
        if (answer.tokens.size() >= most) {
            answer.stop = Stop::length;
            break;
        }
        if (session.position() >= limit) {
            answer.stop = Stop::context;
            break;
        }
        if (interrupted()) {
            answer.stop = Stop::interrupted;
            break;
        }
        const std::int32_t token = sampler.sample(session.logits());
        if (model.is_end_of_generation(token)) break;
        sampler.accept(token);
        answer.tokens.push_back(token);
        const bool goes_on = text.push(model.piece(token));
        // Also after the last one: the cache then holds all that was read and written.
        session.decode(token);
        if (!goes_on) {
            answer.stop = Stop::reverse_prompt;
            break;
        }
    }
    answer.decode_ms = ms_since(start);
    answer.text = text.finish();
    return answer;
}

}  // namespace winnow::cli
