#include "text/utf8.h"

#include <algorithm>
#include <utility>

namespace winnow {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

struct Step {
    size_t length;  // bytes taken
    enum { whole, invalid, partial } kind;
};

/// Number of bytes a lead byte announces, 0 if it cannot lead; `low` and `high` bound the next
/// byte.
size_t lead_length(unsigned char lead, unsigned char& low, unsigned char& high) {
    low = 0x80;
    high = 0xBF;
    if (lead < 0x80) return 1;
    if (lead < 0xC2 || lead > 0xF4) return 0;
    if (lead < 0xE0) return 2;
    if (lead == 0xE0) low = 0xA0;   // overlong
    if (lead == 0xED) high = 0x9F;  // surrogates
    if (lead == 0xF0) low = 0x90;   // overlong
    if (lead == 0xF4) high = 0x8F;  // past U+10FFFF
    return lead < 0xF0 ? 3 : 4;
}

Step next_step(std::string_view bytes) {
    unsigned char low = 0;
    unsigned char high = 0;
    const size_t length = lead_length(static_cast<unsigned char>(bytes[0]), low, high);
    if (length == 0) return {1, Step::invalid};
    for (size_t i = 1; i < length; ++i) {
        if (i == bytes.size()) return {i, Step::partial};
        const auto byte = static_cast<unsigned char>(bytes[i]);
        if (byte < low || byte > high) return {i, Step::invalid};
        low = 0x80;
        high = 0xBF;
    }
    return {length, Step::whole};
}

/// Appends all characters of bytes to out; returns how many bytes at the end are a part of one.
size_t append_characters(std::string_view bytes, std::string& out) {
    while (!bytes.empty()) {
        const Step step = next_step(bytes);
        if (step.kind == Step::partial) return step.length;
        out += step.kind == Step::whole ? bytes.substr(0, step.length) : kReplacement;
        bytes.remove_prefix(step.length);
    }
    return 0;
}

}  // namespace

std::string sanitize_utf8(std::string_view bytes) {
    Utf8Stream stream;
    std::string out = stream.push(bytes);
    return out + stream.finish();
}

std::string Utf8Stream::push(std::string_view bytes) {
    held_ += bytes;
    std::string out;
    const size_t partial = append_characters(held_, out);
    held_.erase(0, held_.size() - partial);
    return out;
}

std::string Utf8Stream::finish() {
    const bool partial = !held_.empty();
    held_.clear();
    return std::string(partial ? kReplacement : std::string_view());
}

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
    std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

std::string StopMatcher::push(std::string_view text) {
    if (stopped_) return {};
    held_ += text;
    // The match that ends first wins; of those that end together, the longest.
    size_t best_end = std::string::npos;
    for (const std::string& stop : stops_) {
        const size_t at = held_.find(stop);
        if (at == std::string::npos) continue;
        const size_t end = at + stop.size();
        if (end > best_end || (end == best_end && stop.size() <= matched_.size())) continue;
        best_end = end;
        matched_ = stop;
        stopped_ = true;
    }
    const size_t safe = stopped_ ? best_end - matched_.size() : held_.size() - held_prefix();
    std::string out = held_.substr(0, safe);
    held_.erase(0, stopped_ ? held_.size() : safe);
    return out;
}

size_t StopMatcher::held_prefix() const {
    size_t longest = 0;
    for (const std::string& stop : stops_) {
        for (size_t n = std::min(stop.size() - 1, held_.size()); n > longest; --n) {
            if (held_.compare(held_.size() - n, n, stop, 0, n) == 0) longest = n;
        }
    }
    return longest;
}

std::string StopMatcher::finish() {
    return std::exchange(held_, {});
}

void StopMatcher::reset() {
    held_.clear();
    matched_.clear();
    stopped_ = false;
}

}  // namespace winnow
