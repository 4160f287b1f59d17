#include "kernels/isa.h"

#include <hwy/highway.h>

#include <cstdlib>
#include <string>

#include "winnow/error.h"

namespace winnow {

void apply_forced_isa() {
    const char* wanted = std::getenv("WINNOW_ISA");
    if (wanted == nullptr || *wanted == '\0') {
        return;
    }
    std::string known;
    for (int64_t target : hwy::SupportedAndGeneratedTargets()) {
        const std::string name = hwy::TargetName(target);
        if (name == wanted) {
            hwy::SetSupportedTargetsForTest(target);
            hwy::GetChosenTarget().Update(hwy::SupportedTargets());
            return;
        }
        known += (known.empty() ? "" : ", ") + name;
    }
    throw usage_error(std::string("WINNOW_ISA is ") + wanted + ", but this machine and build have " +
                      known + ".");
}

}  // namespace winnow
