// From an argument list to Options: flags of CLI11 made by the visits of options.h.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "options.h"

namespace CLI {
class App;  // its header takes most of a file's time to compile: flags.cpp and argv.cpp alone do
}

namespace winnow::cli {

struct DeleteParser {
    void operator()(CLI::App* parser) const;
};
using Parser = std::unique_ptr<CLI::App, DeleteParser>;

/// Groups of flags; `run`, `chat`, `inspect` and what measures them take kSession.
enum FlagGroups : unsigned {
    kModelFlags = 1U,
    kCacheFlags = 2U,
    kPromptFlags = 4U,
    kGenerationFlags = 8U,
    kOtherCacheFlags = 16U,  ///< kCacheFlags without kListedCacheFlags
    kSessionFileFlags = 32U,
    kSession = kModelFlags | kCacheFlags | kPromptFlags | kGenerationFlags,
};

/// Cache flags that a command measuring many caches takes as lists.
inline constexpr std::array<const char*, 4> kListedCacheFlags{"method", "quant-method", "nbits",
                                                              "max-capacity-prompts"};

/// The parser of `winnow <command>`. `options` must outlive it.
Parser make_parser(const std::string& command, const std::string& summary, Options& options,
                   unsigned groups);

/// A switch such as --json, outside the shared groups.
void add_switch(CLI::App& parser, const std::string& name, bool& field, const std::string& help,
                const std::string& group = "Output");

/// Flags with a value, outside the shared groups.
void add_value(CLI::App& parser, const std::string& group, const Flag& flag, std::string& field);
void add_value(CLI::App& parser, const std::string& group, const Flag& flag, int& field);
void add_value(CLI::App& parser, const std::string& group, const Flag& flag, double& field);
void add_value(CLI::App& parser, const std::string& group, const Flag& flag,
               std::vector<std::string>& field);

/// Reads `args`. False when help or the version was asked for, and shown. Throws a usage Error,
/// with the nearest name for an unknown flag.
bool parse(CLI::App& parser, const std::vector<std::string>& args);

/// Settles what only depends on the options: method names in any case, an unknown one with the
/// nearest, contradictions, the model being named. Throws a usage Error.
void settle(Options& options, const std::string& command, unsigned groups);

/// The cache options' part of settle().
void settle_cache(CacheOptions& cache);

/// "--n-predict" of "-n,--n-predict,--predict".
std::string long_name(const Flag& flag);
/// "n_predict" of the same.
std::string json_key(const Flag& flag);

}  // namespace winnow::cli
