// From -p, -f, -sys and the template flags to the tokens of a prompt.
#pragma once

#include <winnow/winnow.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "options.h"

namespace winnow::cli {

/// The texts that the flags name, files read and escapes resolved.
struct Texts {
    std::string user;
    std::string system;
    std::string chat_template;  ///< "": the model's own
    std::string answer_prefix;
    std::string question;         ///< what -p says behind -f; else empty
    bool typed_template = false;  ///< the template stood on the command line
};

/// A first prompt, ready to be read.
struct FirstPrompt {
    std::vector<std::int32_t> tokens;
    std::size_t question_at = 0;  ///< the hidden question's first token; 0: none is hidden
    std::vector<std::pair<int, int>> pins;
};

/// Reads every file the options name, and checks what can be checked without the model. Grammar
/// and schema files go into options.sampling. Throws a failure Error for a file.
Texts load_texts(Options& options);

/// Throws a failure Error when there is nothing to read to the model.
void require_prompt(const Texts& texts);

/// Throws a usage Error where a template from the command line is wrong.
void require_good_template(const Model& model, const Texts& texts);

/// The tokens of a first prompt: through the chat template, or as it is where -no-cnv asks for
/// that or the model has no template.
std::vector<std::int32_t> prompt_tokens(const Model& model, const Options& options,
                                        const Texts& texts);

/// What --pin and --question-hidden say about these tokens of a first prompt. Throws a usage Error
/// where the prompt does not hold what they name.
FirstPrompt first_prompt(const Model& model, const Options& options, const Texts& texts,
                         std::vector<std::int32_t> tokens);

/// Throws a failure Error unless a session out of a file, which `--session` names, has seen the
/// beginning of this prompt and, where the question is hidden, all of the text before it; a usage
/// Error where it was made without what is pinned of that.
void check_restored(const Session& session, const FirstPrompt& prompt, const std::string& file);

/// Pins and reads a first prompt: the text before a hidden question by itself. Of a session that
/// has seen its beginning only the rest is read. `keep` is called once for what is worth keeping,
/// if anything was read: the session has seen the prompt, or the text before a hidden question.
/// Returns the time of all reading.
SessionTiming read_prompt(Session& session, const FirstPrompt& prompt,
                          const ProgressCallback& progress, const std::function<void()>& keep = {});

/// Tokens of a text that came out of a chat template: BOS is added as the GGUF says, but not
/// twice.
std::vector<std::int32_t> tokenize_rendered(const Model& model, std::string_view text);

/// For --verbose-prompt: the tokens, one per line, with their texts.
std::string show_tokens(const Model& model, const std::vector<std::int32_t>& tokens);

/// "\\n" and its like replaced by what they mean; an unknown escape stays as it is.
std::string unescaped(std::string_view text);

}  // namespace winnow::cli
