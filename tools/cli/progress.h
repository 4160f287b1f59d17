// The progress bar of a prefill, or of anything else that takes long.
#pragma once

#include <winnow/winnow.h>

#include <chrono>
#include <string>

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
    /// "label [###...]" and `tail` behind it, at most every 50 ms.
    void show(const std::string& label, double share, const std::string& tail);
    void clear();

  private:
    void draw(const Progress& progress);

    bool enabled_;
    bool drawn_ = false;
    std::chrono::steady_clock::time_point next_;
};

}  // namespace winnow::cli
