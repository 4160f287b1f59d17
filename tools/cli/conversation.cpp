#include "conversation.h"

#include <utility>

namespace winnow::cli {
namespace {

// Stands for the last answer while a template is rendered. Templates may trim an answer or drop
// its reasoning; what they write behind it does not depend on that.
constexpr const char* kAnswerMark = "winnow-last-answer-7d3f19c2";

}  // namespace

Conversation::Conversation(const Model& model, std::string chat_template, const std::string& system)
    : model_(model), chat_template_(std::move(chat_template)) {
    if (!system.empty()) messages_.push_back({"system", system});
}

std::string Conversation::ask(const std::string& user) {
    messages_.push_back({"user", user});
    if (turns_ == 0) return model_.apply_chat_template(messages_, true, chat_template_);
    return after_last_answer();
}

void Conversation::answered(const std::string& text) {
    messages_.push_back({"assistant", text});
    ++turns_;
}

void Conversation::resume() {
    messages_.push_back({"user", "..."});
    answered("...");
}

std::string Conversation::after_last_answer() const {
    std::vector<ChatMessage> marked = messages_;
    marked[marked.size() - 2].content = kAnswerMark;
    const std::string text = model_.apply_chat_template(marked, true, chat_template_);
    const std::size_t at = text.rfind(kAnswerMark);
    if (at == std::string::npos) {
        throw failure(
            "The chat template drops earlier answers, so a conversation cannot go on "
            "over one cache; give another by --chat-template.");
    }
    return text.substr(at + std::string_view(kAnswerMark).size());
}

}  // namespace winnow::cli
