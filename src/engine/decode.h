// One token for each of several sessions.
#pragma once

#include "engine/session_impl.h"

namespace winnow {

/// Decode as Session::decode describes it.
void decode(std::span<Session::Impl* const> sessions, std::span<const std::int32_t> tokens);

}  // namespace winnow
