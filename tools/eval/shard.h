// Which prompts of a run are this process's.
#pragma once

#include <cstddef>
#include <string>

namespace winnow::eval {

struct Shard {
    int index = 0;  ///< from 0
    int count = 1;
    std::string source;  ///< "--shard" or the launcher's variable; empty: the whole run

    bool mine(std::size_t prompt) const {
        return prompt % static_cast<std::size_t>(count) == static_cast<std::size_t>(index);
    }
    /// "results.jsonl", or "results-0-of-4.jsonl" of a share.
    std::string file_name(const std::string& stem, const std::string& extension) const;
};

/// Of "i/n", i from 0. Throws a usage Error that names --shard.
Shard parse_shard(const std::string& text);

/// What the launcher of this process says: Open MPI, PMI (MPICH, Hydra) or Slurm; else the whole.
/// Throws a usage Error that names the variable where a rank does not fit its size.
Shard shard_of_launcher();

}  // namespace winnow::eval
