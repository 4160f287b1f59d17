// Positions that are never evicted, whatever the policy.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "winnow/winnow.h"

namespace winnow {

struct SessionLayer;

/// Ranges [first, last) of positions: ascending, apart from each other.
class Pins {
  public:
    void add(int first, int last);
    bool empty() const { return ranges_.empty(); }
    bool hold(int position) const;
    /// Pinned positions in [first, last).
    int count(int first, int last) const;
    /// Indices of the pinned among ascending `positions`.
    std::vector<std::int32_t> among(std::span<const std::int32_t> positions) const;
    const std::vector<std::pair<int, int>>& ranges() const { return ranges_; }

  private:
    std::vector<std::pair<int, int>> ranges_;
};

/// Tokens per kv head that a layer's budget has, mean over its heads.
int mean_budget(const SessionLayer& layer);

/// Throws a usage Error with the numbers where what is pinned, with the sinks and the window, does
/// not fit into what a layer may keep of a span of `tokens` tokens; 0: into its budget as it is.
void check_pins(const Session::Impl& session, int tokens);

}  // namespace winnow
