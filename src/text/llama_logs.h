// The log callback of ggml and libllama.
#pragma once

#include <winnow/error.h>

#include <functional>
#include <string>

namespace winnow {

/// Gets one log message (often without its end of line). Levels are ggml's: 1 debug, 2 info, 3
/// warn, 4 error, 5 continues the message before. It may be called from any thread.
using LogCallback = std::function<void(int level, const std::string& text)>;

/// Sets who gets ggml's and libllama's messages; an empty callback drops them, which is the
/// default. ggml keeps one callback per process, so this is the library's only global state: the
/// last caller wins, for all models of the process. An exception thrown by the callback is dropped.
WINNOW_API void set_log_callback(LogCallback callback);

/// Takes over the log of ggml and libllama and starts libllama's backend, once per process. Every
/// function of text/ that enters libllama calls it first.
void init_llama();

/// The last error message that this thread's calls into libllama logged, on one line; then forgets
/// it.
std::string take_llama_error();

}  // namespace winnow
