// State to and from bytes. Each piece of state says its fields once, in a function that takes an
// Archive: the same calls write them and read them back.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "core/memory.h"

namespace winnow {

/// Little-endian, without padding; counts are 64 bits. Reading takes nothing on trust: what the
/// bytes cannot hold is refused before memory is asked for it, by a failure Error that begins with
/// `where`.
class Archive {
  public:
    static_assert(std::endian::native == std::endian::little);

    /// Writes.
    Archive() = default;
    /// Reads; `bytes` must outlive it.
    Archive(std::span<const std::byte> bytes, std::string where)
        : reading_(true), in_(bytes), where_(std::move(where)) {}

    bool reading() const { return reading_; }
    std::span<const std::byte> written() const { return out_; }
    std::size_t left() const { return in_.size(); }

    template <class T>
    requires std::is_arithmetic_v<T>
    void value(T& x) {
        if constexpr (std::is_same_v<T, bool>) {
            std::uint8_t byte = x ? 1 : 0;
            value(byte);
            need(byte <= 1, "a switch is neither on nor off");
            x = byte == 1;
        } else {
            bytes(&x, sizeof x);
        }
    }
    void text(std::string& x) {
        const std::size_t size = count(x.size(), 1);
        if (reading_) {
            x.resize(size);
        }
        bytes(x.data(), size);
    }
    /// Numbers, or structs of numbers without padding.
    template <class T>
    void list(std::vector<T>& x) {
        static_assert(std::has_unique_object_representations_v<T> || std::is_floating_point_v<T>);
        const std::size_t size = count(x.size(), sizeof(T));
        if (reading_) {
            x.resize(size);
        }
        bytes(x.data(), size * sizeof(T));
    }
    template <class T>
    void buffer(Buffer<T>& x) {
        const std::size_t size = count(x.size(), sizeof(T));
        if (reading_) {
            x.resize(0);
            x.resize(size);
        }
        bytes(x.data(), size * sizeof(T));
    }
    /// How many items of at least `least` bytes each follow.
    std::size_t count(std::size_t items, std::size_t least) {
        std::uint64_t number = items;
        bytes(&number, sizeof number);
        need(number <= (reading_ ? in_.size() / least : number), "a count is larger than the file");
        return static_cast<std::size_t>(number);
    }

    /// Reading: throws unless `holds`, and says why.
    void need(bool holds, const char* why) const {
        if (reading_ && !holds) {
            refuse(why);
        }
    }
    [[noreturn]] void refuse(const std::string& why) const;
    /// Reading: throws where bytes are left over.
    void end() const { need(in_.empty(), "bytes are left over"); }

  private:
    void bytes(void* x, std::size_t size);

    bool reading_ = false;
    std::vector<std::byte> out_;
    std::span<const std::byte> in_;
    std::string where_;
};

}  // namespace winnow
