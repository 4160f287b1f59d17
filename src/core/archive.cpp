#include "core/archive.h"

#include "winnow/error.h"

namespace winnow {

void Archive::refuse(const std::string& why) const {
    throw failure(where_ + " is damaged: " + why + ".");
}

void Archive::bytes(void* x, std::size_t size) {
    if (size == 0) {
        return;
    }
    if (!reading_) {
        const auto* from = static_cast<const std::byte*>(x);
        out_.insert(out_.end(), from, from + size);
        return;
    }
    need(size <= in_.size(), "it ends early");
    std::memcpy(x, in_.data(), size);
    in_ = in_.subspan(size);
}

}  // namespace winnow
