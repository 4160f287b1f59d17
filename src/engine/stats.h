// What layers hold, counted alike for a session and for a file.
#pragma once

#include <vector>

#include "cache/layer_store.h"
#include "winnow/winnow.h"

namespace winnow {

/// Adds a layer's tokens and bytes to a list that is ordered by bits, most first.
void add_precisions(const LayerStore& store, std::vector<PrecisionStats>& list);
/// Mean tokens per kv head.
double mean_tokens(const LayerStore& store);

}  // namespace winnow
