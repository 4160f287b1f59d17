#include "text/template_charges.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <utility>

namespace winnow {
namespace {

using jinja::cast_val;
using jinja::is_val;
using jinja::value;

constexpr int kMaxValueDepth = 200;
constexpr int64_t kMaxInteger = 1'000'000;  // of a function's argument
constexpr int64_t kMaxIndent = 100;

thread_local RenderGuard* current_guard = nullptr;

const value& unwrap(const value& v) {
    const auto* named = cast_val<std::shared_ptr<jinja::value_kwarg_t>>(v);
    return named != nullptr ? named->val : v;
}

/// Memory of a text; the engine keeps it as a list of parts.
size_t string_bytes(const value& v) {
    const auto* text = cast_val<jinja::value_string>(v);
    return text != nullptr ? text->val_str.length() + 64 * text->val_str.parts.size() : 0;
}

/// Walks a container as the engine would to print or compare it; shared parts count each time.
void charge_walk(const value& v, RenderGuard& guard, int64_t& seen, int depth = 0) {
    if (depth > kMaxValueDepth) throw std::runtime_error("a list is nested over 200 levels deep");
    if (++seen % 16 == 0) guard.charge_steps(1);
    guard.charge_bytes(string_bytes(v));
    if (is_val<jinja::value_array>(v)) {
        for (const value& item : v->as_array()) charge_walk(item, guard, seen, depth + 1);
    } else if (is_val<jinja::value_object>(v)) {
        for (const auto& [key, item] : v->as_ordered_object()) {
            charge_walk(key, guard, seen, depth + 1);
            charge_walk(item, guard, seen, depth + 1);
        }
    }
}

void check_integers(const std::string& name, const std::vector<value>& args) {
    const int64_t limit = name == "indent" || name == "tojson" ? kMaxIndent : kMaxInteger;
    for (const value& arg : args) {
        const value& plain = unwrap(arg);
        if (!is_val<jinja::value_int>(plain)) continue;
        const int64_t number = plain->as_int();
        if (number <= limit && number >= -limit) continue;
        throw std::runtime_error("the number " + std::to_string(number) + " is too large for " +
                                 name + "()");
    }
}

/// replace and split move the rest of the text at every hit, so their cost is hits x length.
void charge_hits(const std::string& name, const value& self, const std::vector<value>& args) {
    if (args.empty() || !is_val<jinja::value_string>(self)) return;
    if (!is_val<jinja::value_string>(args[0])) return;
    charge_search(args[0], self);
    const std::string text = self->val_str.str();
    const std::string old_text = args[0]->val_str.str();
    uint64_t hits = old_text.empty() ? text.size() + 1 : 0;
    for (size_t at = 0; !old_text.empty(); at += old_text.size(), ++hits) {
        if ((at = text.find(old_text, at)) == std::string::npos) break;
    }
    size_t made = text.size();
    if (name == "replace" && args.size() > 1) made += hits * string_bytes(args[1]);
    if (name == "split") made += hits * sizeof(jinja::value_string_t);
    current_guard->charge_bytes(made);
    if (!old_text.empty()) current_guard->charge_steps(static_cast<int64_t>(hits * made >> 16));
}

void charge_indent(const value& self, size_t indent_bytes) {
    const std::string text = is_val<jinja::value_string>(self) ? self->val_str.str() : "";
    const auto lines = static_cast<size_t>(std::count(text.begin(), text.end(), '\n')) + 1;
    current_guard->charge_bytes(text.size() + lines * (indent_bytes + kMaxIndent));
}

}  // namespace

bool is_container(const value& v) {
    return is_val<jinja::value_array>(v) || is_val<jinja::value_object>(v);
}

void charge_entry() {
    if (current_guard == nullptr) return;
    current_guard->charge_steps(1);
    current_guard->check_stack();
}

void charge_container(const value& v) {
    int64_t seen = 0;
    if (current_guard != nullptr && is_container(v)) charge_walk(v, *current_guard, seen);
}

void charge_result(const value& v) {
    if (current_guard == nullptr) return;
    current_guard->charge_bytes(string_bytes(v));
    if (is_val<jinja::value_array>(v)) {
        current_guard->charge_steps(static_cast<int64_t>(v->as_array().size() / 16));
    }
}

void charge_search(const value& needle, const value& hay) {
    if (current_guard == nullptr) return;
    if (!is_val<jinja::value_string>(needle) || !is_val<jinja::value_string>(hay)) return;
    const uint64_t work = uint64_t{needle->val_str.length()} * hay->val_str.length();
    current_guard->charge_steps(static_cast<int64_t>(work >> 18));
}

void charge_repeat(const value& a, const value& b) {
    const value& text = is_val<jinja::value_string>(a) ? a : b;
    const value& times = is_val<jinja::value_string>(a) ? b : a;
    if (!is_val<jinja::value_string>(text) || !is_val<jinja::value_int>(times)) return;
    if (times->as_int() > kMaxInteger) throw std::runtime_error("a text is repeated too often");
    if (current_guard == nullptr || times->as_int() <= 0) return;
    const auto count = static_cast<size_t>(times->as_int());
    current_guard->charge_steps(times->as_int() / 16);
    current_guard->charge_bytes(count * string_bytes(text));
}

void charge_function(const std::string& name, const value& self, const std::vector<value>& args) {
    if (current_guard == nullptr) return;
    charge_entry();
    check_integers(name, args);
    const bool is_cheap = name == "length" || name == "count" || name == "first" ||
                          name == "last" || name == "get" || name == "items" || name == "keys" ||
                          name == "values" || name == "pop";
    size_t arg_bytes = 0;
    for (const value& arg : args) {
        arg_bytes += string_bytes(unwrap(arg));
        if (!is_container(unwrap(arg))) continue;
        if (arg == self) throw std::runtime_error("a list cannot hold itself");
        if (!is_cheap) charge_container(unwrap(arg));
        if (name == "append" || name == "dict" || name == "namespace") {
            current_guard->charge_nesting();
        }
    }
    if (name == "range" && !args.empty()) {
        int64_t turns = 0;
        for (const value& arg : args) {
            if (is_val<jinja::value_int>(unwrap(arg))) turns += std::abs(unwrap(arg)->as_int());
        }
        current_guard->charge_steps(turns);
    }
    if (self == nullptr) return;
    if (!is_cheap && name != "append") charge_container(self);
    if (name == "replace" || name == "split" || name == "rsplit") charge_hits(name, self, args);
    if (name == "indent") charge_indent(self, arg_bytes);
    if (name == "join" && is_val<jinja::value_array>(self)) {
        current_guard->charge_bytes(self->as_array().size() * (arg_bytes + 1));
    }
}

RenderGuard::RenderGuard(const RenderLimits& limits)
    : left_(limits),
      base_(static_cast<const char*>(__builtin_frame_address(0))),
      outer_(std::exchange(current_guard, this)) {}

RenderGuard::~RenderGuard() {
    current_guard = outer_;
}

RenderGuard* RenderGuard::current() noexcept {
    return current_guard;
}

void RenderGuard::charge_steps(int64_t count) {
    left_.steps -= count;
    if (left_.steps < 0) throw std::runtime_error("the template runs too long");
}

void RenderGuard::charge_bytes(size_t count) {
    if (count > static_cast<size_t>(left_.bytes)) {
        throw std::runtime_error("the template makes too much text");
    }
    left_.bytes -= static_cast<int64_t>(count);
}

void RenderGuard::charge_nesting() {
    if (--left_.nestings < 0) throw std::runtime_error("the template nests too many lists");
}

void RenderGuard::check_stack() const {
    const char* here = static_cast<const char*>(__builtin_frame_address(0));
    const auto used = static_cast<size_t>(here < base_ ? base_ - here : here - base_);
    if (used > left_.stack_bytes) throw std::runtime_error("the template recurses too deeply");
}

}  // namespace winnow
