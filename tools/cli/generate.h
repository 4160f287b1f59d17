// The loop that writes an answer.
#pragma once

#include <winnow/winnow.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "options.h"

namespace winnow::cli {

enum class Stop { end, length, reverse_prompt, context, interrupted };
/// "end", "length", "reverse_prompt", "context", "interrupted".
const char* stop_name(Stop stop);

struct Answer {
    std::vector<std::int32_t> tokens;  ///< all of them read into the session, no end token
    std::string text;                  ///< valid UTF-8, without a reverse prompt
    double decode_ms = 0.0;
    Stop stop = Stop::end;
};

/// The positions a session may reach: -c, the trained context, or no end with --allow-long.
int context_limit(const Options& options, const ModelInfo& info);
/// What to say when an answer stopped there.
std::string context_note(int limit);

/// What Session takes of the options.
SessionOptions session_options(const Options& options);

/// The session of --session, restored from its file where there is one and held against `check`,
/// which is then said on stderr unless `quiet`; else a fresh one.
Session open_session(const std::shared_ptr<const Model>& model, const Options& options, bool quiet,
                     const std::function<void(const Session&)>& check = {});

/// Chooses the seed when it is left to chance and notes it in the options. Call once, before the
/// first sampler.
void settle_seed(Options& options);
/// A sampler that has seen the prompt, as far as its penalties look back.
std::unique_ptr<Sampler> make_sampler(std::shared_ptr<const Model> model, const Options& options,
                                      const std::vector<std::int32_t>& prompt);

/// Decodes until the answer ends. Each token that is written is also read back, so the session
/// ends having seen prompt and answer. `on_text` gets whole characters as they come.
Answer generate(Session& session, Sampler& sampler, const Options& options,
                const std::function<void(std::string_view)>& on_text);

}  // namespace winnow::cli
