#include "eval/lengths.h"

#include <winnow/error.h>

namespace winnow::eval {

std::vector<int> lengths_of(const Settings& settings, const Model& model,
                            const std::vector<int>& otherwise, int more) {
    std::vector<int> lengths;
    if (settings.s_len == 0 && settings.e_len == 0) {
        lengths = otherwise;
    } else {
        const int first = settings.s_len > 0 ? settings.s_len : settings.e_len;
        const int last = settings.e_len > 0 ? settings.e_len : settings.s_len;
        if (first > last) {
            throw usage_error("--s-len is " + std::to_string(first) + " and --e-len " +
                              std::to_string(last) + "; the first must not be the larger.");
        }
        const int step = settings.step > 0 ? settings.step : 1000;
        for (int length = first; length <= last; length += step) {
            lengths.push_back(length);
        }
    }
    const int context = context_of(settings, model);
    for (const int length : lengths) {
        if (length + more > context) {
            throw usage_error("a length of " + std::to_string(length) + " and " +
                              std::to_string(more) + " more tokens pass the " +
                              std::to_string(context) +
                              " positions of the context; lower --e-len, or raise -c with "
                              "--allow-long.");
        }
    }
    return lengths;
}

}  // namespace winnow::eval
