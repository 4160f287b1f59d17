#include "core/nearest.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace winnow {

namespace {

// Levenshtein's distance, one row at a time.
std::size_t edits(const std::string& a, const std::string& b) {
    std::vector<std::size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), std::size_t{0});
    for (std::size_t i = 1; i <= a.size(); ++i) {
        std::size_t diagonal = row[0];
        row[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t changed = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({row[j] + 1, row[j - 1] + 1, changed});
        }
    }
    return row[b.size()];
}

}  // namespace

std::string nearest_name(const std::string& name, std::span<const std::string> known) {
    std::string best;
    std::size_t fewest = name.size() / 2 + 1;
    for (const std::string& candidate : known) {
        const std::size_t distance = edits(name, candidate);
        if (distance <= fewest && (best.empty() || distance < fewest)) {
            best = candidate;
            fewest = distance;
        }
    }
    return best;
}

std::string did_you_mean(const std::string& name, std::span<const std::string> known) {
    std::string list;
    for (const std::string& candidate : known) {
        list += (list.empty() ? "" : ", ") + candidate;
    }
    const std::string best = nearest_name(name, known);
    return (best.empty() ? "" : "; did you mean '" + best + "'?") +
           std::string(best.empty() ? "; " : " ") + "known are " + list + ".";
}

}  // namespace winnow
