#include "core/memory.h"

#include <sys/mman.h>

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
        throw failure("the system has no memory for " + std::to_string(bytes) + " bytes of " +
                      what + "; use a smaller prompt, cap or batch");
    }
    return data;
}

void release_bytes(void* data, std::size_t bytes) {
    if (bytes >= kMapBytes) {
        munmap(data, bytes);
    } else {
        std::free(data);
    }
}

}  // namespace winnow
