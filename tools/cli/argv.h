// The command line's spelling, before CLI11 reads it.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace winnow::cli {

/// `args` as CLI11 takes them: -sys and its like become --system-prompt, --snake_case becomes
/// --kebab-case, --name=value becomes two words. Throws a usage Error for an unknown flag (with
/// the nearest known one), a missing value, a stray word, and flags of llama.cpp that Winnow
/// answers with its own.
std::vector<std::string> normalise(const CLI::App& parser, const std::vector<std::string>& args);

/// Whether a flag that the parser knows, such as "--json", takes no value.
bool is_switch(const CLI::App& parser, const std::string& name);

}  // namespace winnow::cli
