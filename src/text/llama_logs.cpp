#include "text/llama_logs.h"

#include <llama.h>

#include <memory>
#include <mutex>
#include <utility>

namespace winnow {
namespace {

std::mutex callback_mutex;
std::shared_ptr<const LogCallback> current_callback;  // null: drop everything
thread_local std::string last_error;

std::shared_ptr<const LogCallback> callback_now() {
    const std::lock_guard lock(callback_mutex);
    return current_callback;
}

// Called from C code, so nothing may be thrown out of it.
void forward_log(ggml_log_level level, const char* text, void* /*user_data*/) noexcept {
    try {
        if (text == nullptr) return;
        if (level == GGML_LOG_LEVEL_ERROR) last_error = text;
        const auto callback = callback_now();
        if (callback) (*callback)(static_cast<int>(level), text);
    } catch (...) {
    }
}

}  // namespace

void set_log_callback(LogCallback callback) {
    init_llama();
    auto next = callback ? std::make_shared<const LogCallback>(std::move(callback)) : nullptr;
    const std::lock_guard lock(callback_mutex);
    current_callback.swap(next);
}

void init_llama() {
    static std::once_flag once;
    std::call_once(once, [] {
        llama_log_set(forward_log, nullptr);  // sets ggml's callback too
        llama_backend_init();
    });
}

std::string take_llama_error() {
    std::string text = std::exchange(last_error, {});
    for (char& c : text) {
        if (c == '\n' || c == '\r') c = ' ';
    }
    while (!text.empty() && text.back() == ' ') text.pop_back();
    return text;
}

}  // namespace winnow
