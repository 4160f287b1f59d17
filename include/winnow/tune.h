// Fitting the method mixed to a model: `winnow tune`.
#pragma once

#include <winnow/winnow.h>

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace winnow {

struct TuneOptions {
    int prompt_tokens = 1536;  ///< of a piece of text; less where the text is short
    int forced = 128;          ///< tokens of a piece whose predictions are compared
    std::vector<double> shares{1.0 / 64, 1.0 / 32, 1.0 / 16, 1.0 / 8};  ///< budgets to try
};

/// One measurement: `name` says all that it depends on besides model, text and options.
struct TuneTrial {
    std::string name;
    double kl = 0.0;  ///< mean KL to the full cache, in nats
};

/// Where a tuning stands. Before the first trial `trials` is 0 and `prefill` moves.
struct TuneProgress {
    const TuneTrial* trial = nullptr;  ///< just measured, or null; not told for known ones
    int done = 0;                      ///< trials, known ones included
    int trials = 0;                    ///< about how many there will be
    double prefill = 0.0;              ///< share of the reading that is done
};

/// Reads three pieces of `tokens` at full precision, packs them by `mixed` in many ways within
/// equal bytes, and returns the split over layers, K and V, tokens and bits of the least KL to the
/// full cache as a profile, JSON text for CacheOptions::profile. Two pieces choose, over all
/// budgets at once; the third, which nothing is chosen by, is reported, and where the split does
/// not help there the built-in one is returned. Trials in `known`, by name, are not measured again:
/// a search that was cut off goes on from there. The same trials for any number of threads. Throws
/// a usage Error when the text is too short, and one of kind stopped when `progress` returns false.
WINNOW_API std::string tune_profile(const std::shared_ptr<const Model>& model,
                                    std::span<const std::int32_t> tokens,
                                    const TuneOptions& options,
                                    const std::map<std::string, double>& known,
                                    const std::function<bool(const TuneProgress&)>& progress);

/// Where the profile of `model` is looked for: $XDG_CACHE_HOME/winnow/profiles/SHA256.json or the
/// same in ~/.cache; "" without a home.
WINNOW_API std::string profile_path(const Model& model);

}  // namespace winnow
