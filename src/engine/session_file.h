// Sessions on disk.
//
//   magic "WINNOWKV" | version u32 | sections u32 | bytes of the file u64 | checksum of these u64
//   then each section:  bytes u64 | checksum u64 | content
//
// The first section is the head: model, options, tokens seen. The second is the state of the
// session that no layer has. A section per layer follows. docs/session.md describes them for users.
#pragma once

#include <string>

#include "engine/session_impl.h"

namespace winnow {

/// Replaces `path` as a whole. Throws a failure Error that names it.
void save_session(Session::Impl& session, const std::string& path);

/// Fills a fresh session from a file of the same model and options. Throws a failure Error that
/// says which of them differ, or what is damaged.
void load_session(Session::Impl& session, const std::string& path);

}  // namespace winnow
