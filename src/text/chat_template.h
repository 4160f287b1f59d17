// Chat templates: the Jinja source in a GGUF file turns messages into the prompt's text.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace winnow {

/// One message; the views must live until apply() returns.
struct ChatTurn {
    std::string_view role;  // "system", "user", "assistant", "tool"
    std::string_view content;
};

/// A parsed template. Immutable, so it may be used from several threads.
/// Templates see what llama.cpp gives them: messages, bos_token, eos_token, add_generation_prompt
/// (unset when false), enable_thinking (true), tools (unset), strftime_now, raise_exception. A
/// template that takes no system message gets it in front of the next message's content; one that
/// wants typed content gets [{type: text, text: ...}].
class ChatTemplate {
  public:
    /// Throws Error (failure) that names the problem and its line. bos and eos are the texts of
    /// these tokens, empty if the model has none.
    ChatTemplate(const std::string& source, std::string bos, std::string eos);
    ~ChatTemplate();
    ChatTemplate(ChatTemplate&&) noexcept;
    ChatTemplate& operator=(ChatTemplate&&) noexcept;

    /// The prompt's text, BOS included where the template writes it. Throws Error (failure) when
    /// the template raises an exception or passes a bound on its steps, text or recursion.
    std::string apply(std::span<const ChatTurn> messages, bool add_generation_prompt) const;

    /// Whether prompts begin with the text of BOS. Tokenize with
    /// `add_special = !emits_bos(), parse_special = true`, or BOS comes twice.
    bool emits_bos() const noexcept;

  private:
    struct Impl;
    std::unique_ptr<const Impl> impl_;
};

/// The Jinja source for `--chat-template NAME`: chatml, llama2, llama3 or mistral; an argument with
/// "{{" or "{%" is itself the source. Throws Error (usage) listing the names otherwise.
std::string built_in_template(std::string_view name);

}  // namespace winnow
