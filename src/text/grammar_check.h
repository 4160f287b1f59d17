// A strict check of GBNF text before libllama sees it. Its own parser prints to stderr on a
// mistake, and some grammars make it loop, fill the memory or abort.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace winnow {

/// Throws Error (usage) that names the flag, the line and the problem: syntax, a rule that is not
/// defined, no rule `root`, left recursion (through empty parts too), or a grammar that is too deep
/// or too large. is_token says whether a text such as "<think>" is one token of the vocabulary.
void check_grammar(const std::string& text, const std::string& flag,
                   const std::function<bool(std::string_view)>& is_token);

}  // namespace winnow
