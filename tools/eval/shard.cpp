#include "eval/shard.h"

#include <winnow/error.h>

#include <array>
#include <charconv>
#include <cstdlib>
#include <optional>

namespace winnow::eval {

namespace {

struct Launcher {
    const char *rank, *size;
};

// Open MPI first: under it a Slurm variable tells the node's daemon, not the process.
constexpr std::array<Launcher, 3> kLaunchers{{
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
    {"PMI_RANK", "PMI_SIZE"},
    {"SLURM_PROCID", "SLURM_NTASKS"},
}};

std::optional<int> whole(const std::string& text) {
    int value = 0;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
    return code == std::errc() && end == text.data() + text.size() ? std::optional(value)
                                                                   : std::nullopt;
}

}  // namespace

std::string Shard::file_name(const std::string& stem, const std::string& extension) const {
    const std::string part =
        count == 1 ? "" : "-" + std::to_string(index) + "-of-" + std::to_string(count);
    return stem + part + extension;
}

Shard parse_shard(const std::string& text) {
    const std::size_t slash = text.find('/');
    const auto index = whole(text.substr(0, slash));
    const auto count = slash == std::string::npos ? std::nullopt : whole(text.substr(slash + 1));
    if (!index || !count || *count < 1 || *index < 0 || *index >= *count) {
        throw usage_error("--shard is '" + text +
                          "'; it takes i/n with i from 0 to n - 1, as in 0/4 to 3/4.");
    }
    return {.index = *index, .count = *count, .source = "--shard"};
}

Shard shard_of_launcher() {
    for (const Launcher& launcher : kLaunchers) {
        const char* rank = std::getenv(launcher.rank);
        const char* size = std::getenv(launcher.size);
        if (rank == nullptr || size == nullptr) {
            continue;
        }
        const auto index = whole(rank), count = whole(size);
        if (!index || !count || *count < 1 || *index < 0 || *index >= *count) {
            throw usage_error(std::string(launcher.rank) + " is '" + rank + "' of " +
                              launcher.size + " '" + size +
                              "'; a rank is from 0 to the size - 1. --shard i/n overrides both.");
        }
        return {
            .index = *index, .count = *count, .source = *count > 1 ? launcher.rank : std::string()};
    }
    return {};
}

}  // namespace winnow::eval
