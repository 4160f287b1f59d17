// What `winnow bench` measures: one engine with one cache, ours and the rival's alike, so that
// both go through the same loop.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace winnow::bench {

/// Where the time of decode steps went, summed.
struct Split {
    double attention_ms = 0.0;
    double weights_ms = 0.0;
};

/// One cache of one engine at one context length. Throws winnow::Error, of kind stopped after
/// Ctrl-C.
class Engine {
  public:
    virtual ~Engine() = default;

    /// Forgets everything read.
    virtual void reset() = 0;
    /// Reads a prompt into the empty cache.
    virtual void prefill(std::span<const std::int32_t> prompt) = 0;
    /// Puts `sessions` sessions at the end of the prompt; 0 frees what decode needed.
    virtual void rewind(int sessions) = 0;
    /// Feeds tokens[i] to session i, all in one step.
    virtual void step(std::span<const std::int32_t> tokens) = 0;

    /// Bytes of one session's cache after the prefill.
    virtual std::uint64_t kv_bytes() const = 0;
    /// Whether split() and compress_share() say anything.
    virtual bool tells_split() const { return false; }
    /// Summed since the last rewind(), which left at least one session.
    virtual Split split() const { return {}; }
    /// The share of the last prefill that went into scoring, selecting and packing.
    virtual double compress_share() const { return 0.0; }
};

}  // namespace winnow::bench
