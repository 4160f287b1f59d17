// The progress bar of a prefill.
#pragma once

#include <winnow/winnow.h>

#include <chrono>

namespace winnow::cli {

/// Draws layer x chunk on stderr while a prefill runs, when stderr is a terminal; else it is
/// silent, so that an error stays the only message there. Clears its line when destroyed.
class ProgressBar {
  public:
    explicit ProgressBar(bool enabled);
    ~ProgressBar() { clear(); }
    ProgressBar(const ProgressBar&) = delete;
    ProgressBar& operator=(const ProgressBar&) = delete;

    /// For Session::prefill: draws, and returns false once Ctrl-C was pressed.
    ProgressCallback callback();
    void clear();

  private:
    void draw(const Progress& progress);

    bool enabled_;
    bool drawn_ = false;
    std::chrono::steady_clock::time_point next_;
};

}  // namespace winnow::cli
