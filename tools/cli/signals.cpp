#include "signals.h"

#include <unistd.h>
#include <winnow/error.h>

namespace winnow::cli {
namespace {

volatile std::sig_atomic_t pressed = 0;

extern "C" void on_interrupt(int) {
    pressed = 1;
}

extern "C" void on_idle_interrupt(int) {
    [[maybe_unused]] const auto written = write(STDERR_FILENO, "\n", 1);
    _exit(130);
}

// Written before the handler can run, as a handler may not allocate.
char lost_file[1024];
std::size_t lost_file_size = 0;

extern "C" void on_lost_file(int) {
    // Nothing can be done about a failing write here.
    [[maybe_unused]] const auto written = write(STDERR_FILENO, lost_file, lost_file_size);
    _exit(1);
}

}  // namespace

InterruptScope::InterruptScope() {
    pressed = 0;
    struct sigaction action {};
    action.sa_handler = on_interrupt;
    sigemptyset(&action.sa_mask);
    // The second Ctrl-C meets the default action, so a long call can always be ended.
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    sigaction(SIGINT, &action, &previous_);
}

InterruptScope::~InterruptScope() {
    sigaction(SIGINT, &previous_, nullptr);
}

void exit_on_interrupt() {
    struct sigaction action {};
    sigaction(SIGINT, nullptr, &action);
    if (action.sa_handler == SIG_IGN) return;
    action = {};
    action.sa_handler = on_idle_interrupt;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, nullptr);
}

void explain_lost_file(const std::string& path) {
    const std::string message =
        "\nwinnow: '" + path.substr(0, 700) + "': the file was shortened while it was in use.\n";
    lost_file_size = message.copy(lost_file, sizeof lost_file);
    struct sigaction action {};
    action.sa_handler = on_lost_file;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, nullptr);
}

bool interrupted() {
    return pressed != 0;
}

void throw_if_interrupted() {
    if (interrupted()) throw Error(ErrorKind::stopped, "Stopped by Ctrl-C.");
}

}  // namespace winnow::cli
