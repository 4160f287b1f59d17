#include "signals.h"

#include <winnow/error.h>

namespace winnow::cli {
namespace {

volatile std::sig_atomic_t pressed = 0;

extern "C" void on_interrupt(int) {
    pressed = 1;
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

bool interrupted() {
    return pressed != 0;
}

void throw_if_interrupted() {
    if (interrupted()) throw Error(ErrorKind::stopped, "Stopped by Ctrl-C.");
}

}  // namespace winnow::cli
