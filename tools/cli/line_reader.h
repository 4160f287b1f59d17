// Lines of a conversation: edited on a terminal, plain from a pipe.
#pragma once

#include <optional>
#include <string>

namespace winnow::cli {

class LineReader {
  public:
    LineReader();

    /// Whether a person types: standard input and error are terminals.
    bool interactive() const { return interactive_; }
    /// The next message, without its line end; a backslash at the end of a line goes on with the
    /// next one. Nothing at the end of the input (Ctrl-D).
    std::optional<std::string> next();

  private:
    std::optional<std::string> line(const char* prompt);

    bool interactive_;
};

}  // namespace winnow::cli
