#include "model/arch.h"

namespace winnow {

const Arch& find_arch(const gguf::File& file) {
    const std::string wanted = file.require_string("general.architecture");
    std::string known;
    for (const Arch* arch : archs()) {
        if (wanted == arch->name) {
            return *arch;
        }
        known += (known.empty() ? "" : ", ") + std::string(arch->name);
    }
    throw file.error("the architecture '" + wanted + "' is not one winnow runs; it runs " + known +
                     ".");
}

}  // namespace winnow
