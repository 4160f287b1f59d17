#include "kernels/isa.h"

#include <hwy/highway.h>

#include <cstdlib>

#include "winnow/error.h"

namespace winnow {

std::vector<std::string> available_isas() {
    std::vector<std::string> names;
    for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
        names.emplace_back(hwy::TargetName(target));
    }
    return names;
}

void force_isa(const std::string& name) {
    hwy::SetSupportedTargetsForTest(0);
    std::string known;
    for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
        const std::string each = hwy::TargetName(target);
        if (each == name) {
            hwy::SetSupportedTargetsForTest(target);
        }
        known += (known.empty() ? "" : ", ") + each;
        if (each == name || name.empty()) {
            hwy::GetChosenTarget().Update(hwy::SupportedTargets());
            return;
        }
    }
    throw usage_error("WINNOW_ISA is " + name + ", but this machine and build have " + known + ".");
}

void apply_forced_isa() {
    const char* wanted = std::getenv("WINNOW_ISA");
    if (wanted != nullptr && *wanted != '\0') {
        force_isa(wanted);
    }
}

}  // namespace winnow
