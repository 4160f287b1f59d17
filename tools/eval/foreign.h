// Caches of another engine, measured over the same tokens as ours.
#pragma once

#include <winnow/winnow.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "eval/results.h"
#include "eval/suite.h"

namespace winnow::eval {

class ForeignCache {
  public:
    virtual ~ForeignCache() = default;
    virtual std::string id() const = 0;  ///< unique in a run: "llama.cpp-q8_0"
    /// What stands in place of cache options: method, quant_method and nbits at least.
    virtual OrderedJson options() const = 0;
    virtual double bits() const = 0;  ///< stored bits per number, scales included
    /// Reads `prompt`, then all of `forced` but its last token; `sink(i, logits [V])` after each.
    virtual void force(std::span<const std::int32_t> prompt, std::span<const std::int32_t> forced,
                       const std::function<void(int, std::span<const float>)>& sink) const = 0;
};

/// The first is that engine's own 16-bit cache, which the others are compared with, so that what
/// two engines differ in is left out.
using ForeignCaches = std::vector<std::shared_ptr<const ForeignCache>>;

/// A result line for each; its bytes are those of the prompt.
std::vector<OrderedJson> measure_foreign(const ForeignCaches& caches, const OrderedJson& run,
                                         const Prompt& prompt, const ModelInfo& model);

}  // namespace winnow::eval
