// Bounds for chat templates, which come from files that others made. llama.cpp's Jinja engine has
// no limits of its own: a template could recurse until the stack ends or fill the memory.
#pragma once

// The engine asserts what a template's author may well get wrong, and throws right after; its own
// sources must be compiled with NDEBUG too.
#ifndef NDEBUG
#define NDEBUG
#endif
#include <jinja/caps.h>
#include <jinja/lexer.h>
#include <jinja/parser.h>
#include <jinja/runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace winnow {

/// What one rendering may spend. A step is a statement run, a loop turn or 16 values walked.
struct RenderLimits {
    int64_t steps = 250'000;
    int64_t bytes = 64 << 20;      // of all strings made on the way
    int64_t nestings = 5'000;      // containers put into containers
    size_t stack_bytes = 2 << 20;  // below the frame that starts the rendering
};

/// Makes the limits hold for all guarded templates this thread renders while it lives.
class RenderGuard {
  public:
    explicit RenderGuard(const RenderLimits& limits);
    ~RenderGuard();
    RenderGuard(const RenderGuard&) = delete;
    RenderGuard& operator=(const RenderGuard&) = delete;

    /// These throw std::runtime_error when a limit is passed; the engine adds the line.
    void charge_steps(int64_t count);
    void charge_bytes(size_t count);
    void charge_nesting();
    void check_stack() const;

    /// The guard of this thread, null outside a rendering.
    static RenderGuard* current() noexcept;

  private:
    RenderLimits left_;
    const char* base_;
    RenderGuard* outer_;
};

/// Refuses, before anything recurses over it, a template nested too deeply or with a block that is
/// never closed. Throws Error (failure) naming the line.
void check_template_nesting(const jinja::lexer_result& lexed);

/// Puts the checks of RenderGuard into the parsed template.
void guard_template(jinja::program& program);

/// Line of a byte position, from 1.
size_t line_of(const std::string& source, size_t position);

}  // namespace winnow
