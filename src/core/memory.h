// Memory that is counted: every byte of a cache and of a prefill passes through a meter.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

namespace winnow {

/// Counts bytes handed out and their peak. Thread-safe. A meter may forward to a parent, which
/// then sees the sum of its children.
class MemoryMeter {
  public:
    explicit MemoryMeter(MemoryMeter* parent = nullptr) : parent_(parent) {}

    void add(std::size_t bytes);
    void remove(std::size_t bytes);
    std::size_t now() const { return now_.load(); }
    std::size_t peak() const { return peak_.load(); }
    void reset_peak() { peak_.store(now_.load()); }

  private:
    MemoryMeter* parent_;
    std::atomic<std::size_t> now_{0};
    std::atomic<std::size_t> peak_{0};
};

/// Raw pages: 64-byte aligned, zeroed, returned to the system at once when large. Throws a
/// failure Error that names `what` when the system has no more.
void* allocate_bytes(std::size_t bytes, const char* what);
void release_bytes(void* data, std::size_t bytes);
/// Whether resize_bytes moves pages instead of copying bytes, so that old and new never stand side
/// by side.
bool resizes_pages(std::size_t bytes, std::size_t size);
/// What allocate_bytes gave, in another size; what is new is zero. Throws as allocate_bytes does,
/// and then `data` is as it was.
void* resize_bytes(void* data, std::size_t bytes, std::size_t size, const char* what);

/// A counted array of trivial elements. Move-only; its meter must outlive it. resize() keeps the
/// content, allocates exactly, and zeroes what is new.
template <class T>
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(MemoryMeter* meter, std::size_t size = 0, const char* what = "working memory")
        : meter_(meter), what_(what) {
        resize(size);
    }
    Buffer(Buffer&& other) noexcept { swap(other); }
    Buffer& operator=(Buffer&& other) noexcept {
        if (this != &other) {
            Buffer dead;
            dead.swap(*this);
            swap(other);
        }
        return *this;
    }
    ~Buffer() { release(); }

    T* data() { return data_; }
    const T* data() const { return data_; }
    std::size_t size() const { return size_; }
    std::size_t bytes() const { return size_ * sizeof(T); }
    bool empty() const { return size_ == 0; }
    T& operator[](std::size_t i) { return data_[i]; }
    const T& operator[](std::size_t i) const { return data_[i]; }

    void resize(std::size_t size) {
        if (size == size_) {
            return;
        }
        if (resizes_in_place(size)) {
            const std::size_t before = bytes();
            data_ = static_cast<T*>(resize_bytes(data_, before, size * sizeof(T), what_));
            size_ = size;
            if (meter_ != nullptr) {
                meter_->remove(before);
                meter_->add(bytes());
            }
            return;
        }
        Buffer fresh;
        fresh.meter_ = meter_;
        fresh.what_ = what_;
        if (size > 0) {
            fresh.data_ = static_cast<T*>(allocate_bytes(size * sizeof(T), what_));
            fresh.size_ = size;
            if (meter_ != nullptr) {
                meter_->add(size * sizeof(T));
            }
            if (size_ > 0) {
                std::memcpy(fresh.data_, data_, (size < size_ ? size : size_) * sizeof(T));
            }
        }
        swap(fresh);
    }
    /// Whether resize(size) needs no second copy for a while.
    bool resizes_in_place(std::size_t size) const {
        return resizes_pages(bytes(), size * sizeof(T));
    }
    /// A copy counted by `meter`.
    Buffer clone(MemoryMeter* meter) const {
        Buffer copy(meter, size_, what_);
        if (size_ > 0) {
            std::memcpy(copy.data_, data_, bytes());
        }
        return copy;
    }

  private:
    void release() {
        if (data_ != nullptr) {
            release_bytes(data_, bytes());
            if (meter_ != nullptr) {
                meter_->remove(bytes());
            }
        }
    }
    void swap(Buffer& other) noexcept {
        std::swap(meter_, other.meter_);
        std::swap(what_, other.what_);
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
    }

    MemoryMeter* meter_ = nullptr;
    const char* what_ = "working memory";
    T* data_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace winnow
