// A question about a text that is packed already: it is read over what was kept of the text, and
// nothing of the text is chosen by it.
#pragma once

#include "engine/session_impl.h"

namespace winnow {

/// Throws a usage Error where a session with a budget of bytes cannot hold `count` tokens more,
/// whole and pinned.
void check_question(const Session::Impl& session, int count);

/// Adds the new tokens of `kv` to a layer: beside its budget, or within its budget of bytes, for
/// which room is made by what the text left alone. sums [H][stride]: the attention that all tokens
/// received from the new ones; the policy's running sums take those of the new tokens. May be null
/// where the store keeps none.
void append_question(Session::Impl& session, int layer, const LayerKv& kv, const float* sums,
                     std::size_t stride);

}  // namespace winnow
