#include "core/free_memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>

namespace winnow {

namespace {

constexpr std::uint64_t kNoLimit = std::numeric_limits<std::uint64_t>::max();

std::uint64_t read_number(const char* path) {
    std::ifstream file(path);
    std::uint64_t value = kNoLimit;
    file >> value;
    return file ? value : kNoLimit;
}

}  // namespace

std::uint64_t available_memory() {
    std::uint64_t available = kNoLimit;
    std::ifstream meminfo("/proc/meminfo");
    for (std::string line; std::getline(meminfo, line);) {
        std::istringstream words(line);
        std::string key;
        std::uint64_t kib = 0;
        if (words >> key >> kib && key == "MemAvailable:") {
            available = kib * 1024;
        }
    }
    const std::uint64_t limit = read_number("/sys/fs/cgroup/memory.max");
    const std::uint64_t used = read_number("/sys/fs/cgroup/memory.current");
    if (limit != kNoLimit && used <= limit) {
        available = std::min(available, limit - used);
    }
    return available;
}

namespace {

// The largest number without a limit.
std::uint64_t address_space_left() {
    rlimit limit{};
    const std::uint64_t pages = read_number("/proc/self/statm");
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || pages == kNoLimit) {
        return kNoLimit;
    }
    const std::uint64_t used = pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
    return limit.rlim_cur - std::min<std::uint64_t>(used, limit.rlim_cur);
}

}  // namespace

std::uint64_t memory_beside(std::uint64_t mapped) {
    const std::uint64_t free = available_memory();
    return std::min(free - std::min(mapped, free), address_space_left());
}

}  // namespace winnow
