// Ctrl-C: the first one asks to stop, the second one ends the process.
#pragma once

#include <csignal>
#include <string>

namespace winnow::cli {

/// While one of these lives, Ctrl-C only sets a flag. One at a time.
class InterruptScope {
  public:
    InterruptScope();
    ~InterruptScope();
    InterruptScope(const InterruptScope&) = delete;
    InterruptScope& operator=(const InterruptScope&) = delete;

  private:
    struct sigaction previous_ {};
};

/// Outside of these scopes, as at the prompt of a chat, Ctrl-C ends the process with 130. Does
/// nothing where the process was started to ignore it.
void exit_on_interrupt();

/// Whether Ctrl-C was pressed since the newest InterruptScope began.
bool interrupted();

/// A model file is mapped, and one that someone else shortens meanwhile would end the process by a
/// signal at the next read. From here on it ends with a message about `path` and exit code 1.
void explain_lost_file(const std::string& path);

/// Throws an Error of kind stopped when interrupted().
void throw_if_interrupted();

}  // namespace winnow::cli
