// A Session of ours as an engine of the bench.
#pragma once

#include <winnow/winnow.h>

#include <memory>

#include "bench/engine.h"

namespace winnow::bench {

/// Throws a usage Error when the options contradict each other or the model's shape.
std::unique_ptr<Engine> make_winnow_engine(std::shared_ptr<const Model> model,
                                           const CacheOptions& cache,
                                           const SessionOptions& options);

}  // namespace winnow::bench
