// Prefill in two passes, for a policy that asks the model to repeat the prompt (kvzip and its kin).
#pragma once

#include <span>
#include <vector>

#include "engine/session_impl.h"

namespace winnow {

/// What the model reads to repeat the prompt's tokens [first, first + count): a request in words,
/// where the file has a tokenizer, in a chat the end of the turn and the beginning of the answer,
/// and the tokens themselves.
std::vector<std::int32_t> repeat_prompt(const Model::Impl& model,
                                        std::span<const std::int32_t> tokens, int first, int count);

/// Whether a prompt of `count` tokens is read a second time: not where all tokens fit.
bool needs_second_pass(const Session::Impl& session, int count);

/// Reads `tokens`, keeping every layer's K and V at 16 bits, lets the model repeat them in pieces
/// of plan.repeat_tokens, shares one budget out over all heads and layers as the policy says, and
/// packs each layer within its part. Fresh sessions of equal repeat_tokens, sinks, per_input() and
/// needs_second_pass() share both passes. Writes logits [V] of the last token. The layers' stores
/// must be open; adds to each session's compress_ms what the second pass and the packing took.
void read_twice(std::span<Session::Impl* const> sessions, std::span<const std::int32_t> tokens,
                const ProgressCallback& progress, float* logits);

}  // namespace winnow
