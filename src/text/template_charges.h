// What the parts of a chat template pay to the RenderGuard of their thread; nothing without one.
#pragma once

#include <string>
#include <vector>

#include "text/template_guard.h"

namespace winnow {

bool is_container(const jinja::value& v);

/// One step, and a look at the stack.
void charge_entry();
/// What printing or comparing a list or object costs; shared parts count each time.
void charge_container(const jinja::value& v);
/// What a statement or an expression has made.
void charge_result(const jinja::value& v);
/// A search of one text in another, whose worst case is the product of the lengths.
void charge_search(const jinja::value& needle, const jinja::value& hay);
/// text * times.
void charge_repeat(const jinja::value& a, const jinja::value& b);
/// Bounds the functions that can make much out of little, before they run; self is what the
/// function is applied to, or null.
void charge_function(const std::string& name, const jinja::value& self,
                     const std::vector<jinja::value>& args);

}  // namespace winnow
