// From a number of bytes to tokens and bits: what `--kv-budget` means for a model.
#pragma once

#include <cstdint>
#include <string>

#include "engine/plan.h"

namespace winnow {

/// "24MiB", "1.5 GB", "65536": KiB, MiB, GiB are powers of 1024, KB, MB, GB of 1000. Throws a usage
/// Error that names `flag`.
std::uint64_t parse_bytes(const std::string& flag, const std::string& text);
/// "24.0 MiB", or the bytes themselves below 10 KiB.
std::string show_bytes(std::uint64_t bytes);

/// The most bytes that one layer may take at any moment of decode where each kv head keeps at most
/// `tokens` tokens between evictions: spans, positions, fitted data, rings and running sums.
std::uint64_t worst_layer_bytes(const Plan& plan, const Hparams& hparams, int layer, int tokens);
/// The same over all layers, for prompts of any length.
std::uint64_t worst_bytes(const Plan& plan, const Hparams& hparams);

/// What a cache of a prompt of `tokens` tokens takes right after its prefill; room that is reserved
/// for an answer is not counted.
std::uint64_t bytes_after_prefill(const Plan& plan, const Hparams& hparams, int tokens);

/// `mixed`: bytes that one more token of all kv heads needs in a layer, with room for its running
/// sum.
std::size_t mixed_token_bytes(const Hparams& hparams);

/// `mixed`: what a layer cannot give up: fitted data, notes, sinks, a new token, and the window and
/// `pinned` tokens of every kv head at the fewest bits.
double least_mixed_bytes(const Plan& plan, const Hparams& hparams, int layer, int pinned);

/// `mixed` without a profile: relative bytes per layer (upper ones get more, measured to be better
/// on SmolLM2 at every budget), and bits of K and V below 16.
std::vector<double> builtin_shares(int layers);
std::vector<std::pair<int, int>> builtin_tiers();
/// `mixed`: kv_budget, or as many bytes as the cap's tokens would take at 16 bits.
std::uint64_t mixed_bytes(const CacheOptions& options, const Hparams& hparams);

/// Fills in plan.mixed: the session's bytes split over the layers. Throws a usage Error that names
/// the smallest budget when `bytes` is too small.
void plan_mixed(Plan& plan, const Hparams& hparams, std::uint64_t bytes);

/// The plan of a single method within `bytes`: the cap and, where none are given, the bits.
Plan plan_method(const CacheOptions& options, const Hparams& hparams,
                 const std::shared_ptr<RopeTable>& rope, std::uint64_t bytes);

}  // namespace winnow
