// Which configurations a run measures: `--sweep` texts expanded, named and made distinct.
#pragma once

#include <winnow/winnow.h>

#include <string>
#include <vector>

#include "eval/suite.h"

namespace winnow::eval {

/// One way to keep a prompt.
struct Config {
    std::string id;        ///< e.g. snapkv-512-kivi4, full-16; unique in a run
    CacheOptions options;  ///< every default filled in
    std::string budget;    ///< "1/64" or bytes: the cap that fits is found for every prompt
};

/// The combinations of one sweep over `base`: "method=snapkv,h2o; cap=128,1/16; quant=kivi:4,2".
/// Keys are method, cap (tokens, or a share of the prompt), quant (`format:bits,...`, bits also
/// as k4v2; 16 is no packing), budget (equal bytes for all methods, as a share of the full cache of
/// the prompt or in bytes), and every cache option. A budget stands in kv_budget, marked, until
/// make_configs takes it out. `profile` and `kvquant_codebook` go to those alone that read them.
/// Throws a usage Error that names the part.
std::vector<CacheOptions> expand_sweep(const std::string& text, const CacheOptions& base);

/// A file of sweeps, one a line; empty lines and those that begin with # are left out.
std::vector<CacheOptions> read_sweep_file(const std::string& path, const CacheOptions& base);

/// Fills in the defaults for `model`, adds the full cache, and `random` at every budget where it is
/// absent, drops doubles, and names each. Throws a usage Error for what the model cannot hold.
std::vector<Config> make_configs(std::vector<CacheOptions> options, const Suite& suite,
                                 const Settings& settings,
                                 const std::shared_ptr<const Model>& model);

/// The configurations for a prompt of `tokens` tokens: where one has a budget, the largest cap that
/// fits, or kv_budget for `mixed`.
std::vector<Config> fit_budgets(const std::vector<Config>& configs, const Model& model, int tokens);

/// What marks a sweep's budget in kv_budget.
inline constexpr const char* kEqualBytes = "equal ";

/// All options under their names in snake case.
OrderedJson options_json(const CacheOptions& options);

}  // namespace winnow::eval
