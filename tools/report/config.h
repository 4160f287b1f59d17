// A configuration from what a line says about it.
#pragma once

#include "report/results.h"

namespace winnow::report {

/// `options` are a line's or run.json's CacheOptions; nullptr: the id says it.
Config make_config(const std::string& id, const Json* options, const KvSize& kv);

/// The bytes of "24MiB", "1GB", "65536"; to order budgets by. 0 for "".
double bytes_of(const std::string& budget);

/// The order of tables: full, the methods by name, `random`; inside by cap, then bits, most first.
bool shown_before(const Config& a, const Config& b);

}  // namespace winnow::report
