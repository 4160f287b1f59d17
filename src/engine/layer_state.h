// What a session remembers of a layer beside its store.
#pragma once

#include <cstdint>
#include <vector>

namespace winnow {

class Archive;

struct LayerState {
    std::vector<int> budget;                 // [G] tokens a head may keep; set by the last prefill
    std::vector<std::vector<float>> scores;  // [G][kept] of the last selection, when asked for
    int kept_at_selection = 0;
    double dropped_mass = 0.0;  // of the last queries' attention, on what the last prefill dropped

    /// To or from a file, of a layer of `kv_heads` heads that has seen `position` tokens.
    void transfer(Archive& archive, int kv_heads, std::int32_t position);
};

}  // namespace winnow
