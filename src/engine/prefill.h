// Reading a prompt, layer by layer.
#pragma once

#include "engine/session_impl.h"

namespace winnow {

/// Receives the logits [V] of one token of the prompt.
using LogitsSink = std::function<void(int token, std::span<const float> logits)>;

/// Prefill as Session::prefill describes it; more than one session must all be fresh.
void prefill(std::span<Session::Impl* const> sessions, std::span<const std::int32_t> tokens,
             const ProgressCallback& progress);

/// Logits at every token, read through the cache as it is; the cache does not change.
void score(Session::Impl& session, std::span<const std::int32_t> tokens, const LogitsSink& sink);

}  // namespace winnow
