#include "progress.h"

#include <algorithm>
#include <string>

#include "signals.h"
#include "terminal.h"

namespace winnow::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kStdErr = 2;
constexpr auto kRedraw = std::chrono::milliseconds(50);
// A short prompt should not flash a bar.
constexpr auto kFirstDraw = std::chrono::milliseconds(300);

}  // namespace

ProgressBar::ProgressBar(bool enabled)
    : enabled_(enabled && is_terminal(kStdErr)), next_(Clock::now() + kFirstDraw) {}

ProgressCallback ProgressBar::callback() {
    return [this](const Progress& progress) {
        draw(progress);
        return !interrupted();
    };
}

void ProgressBar::draw(const Progress& progress) {
    const double in_layer = static_cast<double>(progress.tokens) /
                            static_cast<double>(std::max(progress.tokens_total, 1));
    const double share =
        std::clamp((progress.layer + in_layer) / std::max(progress.layers, 1), 0.0, 1.0);
    show("prefill", share,
         cli::format("layer %d/%d  token %d/%d", std::min(progress.layer + 1, progress.layers),
                     progress.layers, progress.tokens, progress.tokens_total));
}

void ProgressBar::show(const std::string& label, double share, const std::string& tail) {
    if (!enabled_ || Clock::now() < next_) return;
    const std::string end = cli::format("  %3.0f %%  %s", 100.0 * share, tail.c_str());
    const int room = terminal_width(kStdErr) - static_cast<int>(end.size() + label.size()) - 5;
    const int width = std::clamp(room, 0, 40);
    const auto full = static_cast<std::size_t>(share * width);
    const std::string bar =
        std::string(full, '#') + std::string(static_cast<std::size_t>(width) - full, '.');
    write_err("\r" + label + " [" + bar + "]" + end + "\033[K");
    drawn_ = true;
    next_ = Clock::now() + kRedraw;
}

void ProgressBar::clear() {
    if (drawn_) write_err("\r\033[K");
    drawn_ = false;
}

}  // namespace winnow::cli
