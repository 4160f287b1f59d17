// Seeded random numbers that are the same on every machine and in every standard library.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace winnow::eval {

/// SplitMix64 (Steele, Lea and Flood 2014). A stream of its own for every seed, name and index, so
/// that a sample does not depend on how many come before it.
class Random {
  public:
    Random(std::uint64_t seed, std::string_view name, std::uint64_t index) : state_(seed) {
        for (const char c : name) {
            state_ = next() ^ static_cast<unsigned char>(c);
        }
        state_ = next() ^ index;
        next();
    }

    std::uint64_t next() {
        std::uint64_t z = (state_ += 0x9E3779B97F4A7C15U);
        z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
        z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
        return z ^ (z >> 31U);
    }

    /// A stream of its own, which does not depend on what is drawn from this one later.
    Random fork() {
        Random other = *this;
        other.state_ = next() ^ 0xD1B54A32D192ED03U;
        return other;
    }

    /// Uniform in [0, count); count is at least 1.
    std::uint64_t below(std::uint64_t count) {
        const std::uint64_t unfair = (0 - count) % count;  // 2^64 modulo count
        std::uint64_t value = next();
        while (value < unfair) {
            value = next();
        }
        return value % count;
    }

    template <class T>
    const T& choose(const std::vector<T>& from) {
        return from[below(from.size())];
    }

    template <class T>
    void shuffle(std::vector<T>& items) {
        for (std::size_t i = items.size(); i > 1; --i) {
            std::swap(items[i - 1], items[below(i)]);
        }
    }

  private:
    std::uint64_t state_;
};

}  // namespace winnow::eval
