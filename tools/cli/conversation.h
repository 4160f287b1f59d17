// The texts of a conversation, turn by turn, so that a session reads each of them once.
#pragma once

#include <winnow/winnow.h>

#include <string>
#include <vector>

namespace winnow::cli {

class Conversation {
  public:
    /// `chat_template`: "" for the model's own. Keeps a reference to the model.
    Conversation(const Model& model, std::string chat_template, const std::string& system);

    bool empty() const { return turns_ == 0; }
    /// Adds a user's message and returns the text the session has not read yet: from the very
    /// beginning in the first turn, else from the end of the last answer on.
    std::string ask(const std::string& user);
    /// Notes the answer to the last message.
    void answered(const std::string& text);
    /// Goes on from a session whose messages are not known, behind its last answer.
    void resume();
    /// Takes the last message back, after a prefill that did not happen.
    void withdraw() { messages_.pop_back(); }

  private:
    std::string after_last_answer() const;

    const Model& model_;
    std::string chat_template_;
    std::vector<ChatMessage> messages_;
    int turns_ = 0;
};

}  // namespace winnow::cli
