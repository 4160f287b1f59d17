// OpenBLAS's constructor asks for a buffer per thread, and asks again for ever where there is no
// room for it (ulimit -v). So this runs before any constructor, says so and ends the process. No
// constructor has run yet, libc's neither: only what a signal handler could call is called here.
#ifdef __linux__  // elsewhere there is no .preinit_array
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <string_view>

// OpenBLAS's own; null where another BLAS is linked.
extern "C" __attribute__((weak)) int openblas_get_num_procs(void);

namespace winnow::cli {
namespace {

constexpr std::size_t kBufferBytes = std::size_t{128} << 20;  // of one thread of OpenBLAS
constexpr std::size_t kOtherBytes = std::size_t{32} << 20;    // what comes before and after

// 0 where it is not set. getenv() does not work yet.
int omp_num_threads(char** environment) {
    constexpr std::string_view kName = "OMP_NUM_THREADS=";
    for (; *environment != nullptr; ++environment) {
        if (std::string_view(*environment).starts_with(kName)) {
            return std::atoi(*environment + kName.size());
        }
    }
    return 0;
}

std::size_t blas_threads(char** environment) {
    cpu_set_t set;
    int most = 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0) most = std::max(1, CPU_COUNT(&set));
    const int wanted = omp_num_threads(environment);
    return static_cast<std::size_t>(wanted > 0 ? std::min(wanted, most) : most);
}

void require_room(int /*argc*/, char** /*argv*/, char** environment) {
    if (openblas_get_num_procs == nullptr) return;
    const std::size_t bytes = blas_threads(environment) * kBufferBytes + kOtherBytes;
    void* room = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room != MAP_FAILED) {
        munmap(room, bytes);
        return;
    }
    constexpr std::string_view kMessage =
        "winnow: there is not enough memory to start: OpenBLAS takes 128 MiB of address space for "
        "each thread; raise the limit (ulimit -v) or set OMP_NUM_THREADS=1.\n";
    (void)!write(STDERR_FILENO, kMessage.data(), kMessage.size());
    _exit(1);
}

[[gnu::section(".preinit_array"),
  gnu::used]] void (*const kBeforeConstructors)(int, char**, char**) = require_room;

}  // namespace
}  // namespace winnow::cli

#endif  // __linux__
