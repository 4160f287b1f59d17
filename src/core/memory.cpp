#include "core/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "winnow/error.h"

namespace winnow {

namespace {

// From here on memory is mapped, so that freeing it lowers the process's resident memory at once.
constexpr std::size_t kMapBytes = std::size_t{256} << 10;
constexpr std::size_t kAlignment = 64;

std::size_t rounded(std::size_t bytes) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

Error no_memory(std::size_t bytes, const char* what) {
    return failure("the system has no memory for " + std::to_string(bytes) + " bytes of " + what +
                   "; use a smaller prompt, cap or batch");
}

}  // namespace

void MemoryMeter::add(std::size_t bytes) {
    const std::size_t now = now_.fetch_add(bytes) + bytes;
    std::size_t peak = peak_.load();
    while (now > peak && !peak_.compare_exchange_weak(peak, now)) {
    }
    if (parent_ != nullptr) {
        parent_->add(bytes);
    }
}

void MemoryMeter::remove(std::size_t bytes) {
    now_.fetch_sub(bytes);
    if (parent_ != nullptr) {
        parent_->remove(bytes);
    }
}

void* allocate_bytes(std::size_t bytes, const char* what) {
    void* data = nullptr;
    if (bytes >= kMapBytes) {
        data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        data = data == MAP_FAILED ? nullptr : data;
    } else {
        data = std::aligned_alloc(kAlignment, rounded(bytes));
        if (data != nullptr) {
            std::memset(data, 0, rounded(bytes));
        }
    }
    if (data == nullptr) {
        throw no_memory(bytes, what);
    }
    return data;
}

bool resizes_pages(std::size_t bytes, std::size_t size) {
#ifdef __linux__
    return bytes >= kMapBytes && size >= kMapBytes;
#else
    (void)bytes, (void)size;
    return false;
#endif
}

void* resize_bytes(void* data, std::size_t bytes, std::size_t size, const char* what) {
#ifdef __linux__
    if (resizes_pages(bytes, size)) {
        void* moved = mremap(data, bytes, size, MREMAP_MAYMOVE);
        if (moved == MAP_FAILED) {
            throw no_memory(size, what);
        }
        if (size > bytes) {  // the last page may hold what an earlier shrinking left
            const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
            const std::size_t end = (bytes + page - 1) / page * page;
            std::memset(static_cast<char*>(moved) + bytes, 0, std::min(end, size) - bytes);
        }
        return moved;
    }
#endif
    void* fresh = allocate_bytes(size, what);
    std::memcpy(fresh, data, std::min(bytes, size));
    release_bytes(data, bytes);
    return fresh;
}

void release_bytes(void* data, std::size_t bytes) {
    if (bytes >= kMapBytes) {
        munmap(data, bytes);
    } else {
        std::free(data);
    }
}

}  // namespace winnow
