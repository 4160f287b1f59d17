// The engine that `winnow bench --against` puts beside ours: llama.cpp, of the same source that
// our ggml comes from, through libllama.
#pragma once

#include <winnow/winnow.h>

#include <memory>
#include <string>
#include <vector>

#include "bench/engine.h"

namespace winnow::bench {

/// How a rival was run; part of every output.
struct RivalInfo {
    std::string name;     ///< "llama.cpp"
    std::string version;  ///< of the source it was built from
    std::string flags;    ///< its options, spelled as llama.cpp's own flags
    std::string system;   ///< the instruction sets it reports
};

/// The cache types a rival takes; ratios are against the first.
const std::vector<std::string>& rival_cache_types();
/// Mean stored bits of a cache type without its scales: 16, 8 or 4.
int rival_bits(const std::string& cache_type);

class Rival {
  public:
    virtual ~Rival() = default;
    virtual const RivalInfo& info() const = 0;
    /// `positions` of each of `sessions` sessions. Throws a failure Error when llama.cpp refuses.
    virtual std::unique_ptr<Engine> engine(const std::string& cache_type, int positions,
                                           int sessions) const = 0;
};

/// Loads the file of `model` a second time, into llama.cpp, with the same number of threads.
std::unique_ptr<Rival> load_llama_rival(const Model& model);

}  // namespace winnow::bench
