// Prefill in two passes, for a policy that asks the model to repeat the prompt (kvzip).
#pragma once

#include <span>
#include <vector>

#include "engine/session_impl.h"

namespace winnow {

/// What the model reads to repeat the prompt's tokens [first, first + count): a request in words,
/// where the file has a tokenizer, and the tokens themselves.
std::vector<std::int32_t> repeat_prompt(const Model::Impl& model,
                                        std::span<const std::int32_t> tokens, int first, int count);

/// Reads `tokens`, keeping every layer's K and V at 16 bits, lets the model repeat them in pieces
/// of plan.repeat_tokens, and packs each layer within the budget that one threshold over all heads
/// and layers leaves it. Where all tokens fit there is no second pass. Writes logits [V] of the
/// last token. The layers' stores must be open; adds to compress_ms what the second pass and the
/// packing took.
void read_twice(Session::Impl& session, std::span<const std::int32_t> tokens,
                const ProgressCallback& progress, float* logits, double& compress_ms);

}  // namespace winnow
