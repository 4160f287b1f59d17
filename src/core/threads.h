// Parallel loops on the pool that ggml uses (OpenMP), or std::thread in a build without it.
#pragma once

#include <exception>
#include <functional>

namespace winnow {

/// One thread per physical core this process may use; at least 1.
int default_threads();

/// Calls body(task, thread) for every task in [0, tasks) on up to `threads` threads; which thread
/// runs which task is not fixed, so results must not depend on it. The first exception of a body is
/// thrown again here. Never call it, or ggml, from inside a body.
void parallel_for(int threads, int tasks, const std::function<void(int task, int thread)>& body);

}  // namespace winnow
