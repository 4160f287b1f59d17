#include "core/threads.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace winnow {

namespace {

// Keeps the first exception of a parallel region, where none may leave.
class FirstError {
  public:
    void run(const std::function<void()>& body) {
        try {
            body();
        } catch (...) {
            const std::lock_guard lock(mutex_);
            if (!error_) {
                error_ = std::current_exception();
            }
        }
    }
    void rethrow() const {
        if (error_) {
            std::rethrow_exception(error_);
        }
    }

  private:
    std::mutex mutex_;
    std::exception_ptr error_;
};

}  // namespace

int default_threads() {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) {
        return std::max(1U, std::thread::hardware_concurrency());
    }
    // Hyper-threads of one core list the same siblings.
    std::set<std::string> cores;
    int logical = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (CPU_ISSET(cpu, &allowed) == 0) {
            continue;
        }
        ++logical;
        std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
                           "/topology/thread_siblings_list");
        std::string siblings;
        if (std::getline(file, siblings)) {
            cores.insert(siblings);
        }
    }
    return std::max(1, cores.empty() ? logical : static_cast<int>(cores.size()));
}

void parallel_for(int threads, int tasks, const std::function<void(int, int)>& body) {
    const int team = std::clamp(threads, 1, std::max(1, tasks));
    if (team == 1) {
        for (int task = 0; task < tasks; ++task) {
            body(task, 0);
        }
        return;
    }
    FirstError first;
    std::atomic<int> next{0};
    const auto work = [&](int thread) {
        first.run([&] {
            for (int task = next++; task < tasks; task = next++) {
                body(task, thread);
            }
        });
    };
#ifdef WINNOW_OPENMP
#pragma omp parallel for num_threads(team) schedule(static, 1)
    for (int thread = 0; thread < team; ++thread) {
        work(thread);
    }
#else
    std::vector<std::thread> helpers;
    for (int thread = 1; thread < team; ++thread) {
        helpers.emplace_back(work, thread);
    }
    work(0);
    for (std::thread& helper : helpers) {
        helper.join();
    }
#endif
    first.rethrow();
}

}  // namespace winnow
