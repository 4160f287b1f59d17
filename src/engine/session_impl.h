// What a Session holds.
#pragma once

#include <memory>
#include <vector>

#include "core/memory.h"
#include "engine/layer_state.h"
#include "engine/model_impl.h"
#include "engine/pins.h"
#include "engine/plan.h"

namespace winnow {

/// A layer's share of a session.
struct SessionLayer : LayerState {
    std::unique_ptr<LayerStore> store;
};

struct Session::Impl {
    std::shared_ptr<const Model> model;
    SessionOptions options;
    Plan plan;

    MemoryMeter memory;           // all of it; the peak of prefill is read here
    MemoryMeter cache{&memory};   // packed spans, tails, positions, codebooks
    MemoryMeter policy{&memory};  // query rings and running sums
    MemoryMeter work{&memory};    // what prefill and eviction need for a while
    std::vector<SessionLayer> layers;

    int position = 0;  // tokens seen, and which
    std::vector<std::int32_t> tokens;
    int budget_tokens = 0;  // the longest span any prefill has pruned
    std::vector<float> logits;
    std::uint64_t hash = 0xCBF29CE484222325ULL;
    std::size_t bytes_peak = 0;
    std::size_t prefill_peak = 0;
    std::uint64_t evictions = 0;
    std::uint64_t repackings = 0;
    std::uint64_t demotions = 0;
    SessionTiming timing;

    Pins pins;  // positions that are never evicted
    bool pinned(int at) const { return pins.hold(at); }

    const Model::Impl& m() const { return model->impl(); }
    const Hparams& hparams() const { return m().hparams; }
    int context() const;
    int longest() const;  // the most tokens that a kv head holds
    /// Throws a usage Error unless these tokens, at least one unless `none`, are in the vocabulary
    /// and fit behind those seen.
    void check_tokens(std::span<const std::int32_t> more, bool none = false) const;
    std::unique_ptr<LayerStore> new_store(int layer);
    std::size_t cache_bytes() const;
    void note_bytes();
    void note_logits();
};

}  // namespace winnow
