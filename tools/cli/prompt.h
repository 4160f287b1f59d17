// From -p, -f, -sys and the template flags to the tokens of a prompt.
#pragma once

#include <winnow/winnow.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "options.h"

namespace winnow::cli {

/// The texts that the flags name, files read and escapes resolved.
struct Texts {
    std::string user;
    std::string system;
    std::string chat_template;  ///< "": the model's own
    std::string answer_prefix;
};

/// Reads every file the options name, and checks what can be checked without the model. Grammar
/// and schema files go into options.sampling. Throws a failure Error for a file.
Texts load_texts(Options& options);

/// Throws a failure Error when there is nothing to read to the model.
void require_prompt(const Texts& texts);

/// The tokens of a first prompt: through the chat template, or as it is where -no-cnv asks for
/// that or the model has no template.
std::vector<std::int32_t> prompt_tokens(const Model& model, const Options& options,
                                        const Texts& texts);

/// Tokens of a text that came out of a chat template: BOS is added as the GGUF says, but not
/// twice.
std::vector<std::int32_t> tokenize_rendered(const Model& model, std::string_view text);

/// For --verbose-prompt: the tokens, one per line, with their texts.
std::string show_tokens(const Model& model, const std::vector<std::int32_t>& tokens);

/// "\\n" and its like replaced by what they mean; an unknown escape stays as it is.
std::string unescaped(std::string_view text);

}  // namespace winnow::cli
