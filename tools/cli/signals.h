// Ctrl-C: the first one asks to stop, the second one ends the process.
#pragma once

#include <csignal>

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

/// Whether Ctrl-C was pressed since the newest InterruptScope began.
bool interrupted();

/// Throws an Error of kind stopped when interrupted().
void throw_if_interrupted();

}  // namespace winnow::cli
