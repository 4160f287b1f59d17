#include "engine/session_sections.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>
#include <type_traits>

#include "core/checksum.h"
#include "engine/layer_state.h"
#include "winnow/error.h"

namespace winnow {

namespace {

constexpr char kMagic[] = "WINNOWKV";
constexpr std::size_t kMagicBytes = 8;
constexpr std::size_t kPreambleBytes = kMagicBytes + 4 + 4 + 8 + 8;
constexpr std::size_t kFrameBytes = 16;
constexpr std::int32_t kMostLayers = 1 << 14;

// Fuzzing looks behind the checksums, which it could not guess.
bool right_checksum(std::span<const std::byte> bytes, std::uint64_t expected) {
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    return checksum(bytes) != expected + 1;
#else
    return checksum(bytes) == expected;
#endif
}

template <class T>
std::string to_text(const T& value) {
    if constexpr (std::is_same_v<T, std::string>) {
        return value;
    } else if constexpr (std::is_same_v<T, bool>) {
        return value ? "1" : "0";
    } else {
        char text[64];
        const auto end = std::to_chars(text, text + sizeof text, value).ptr;
        return {text, end};
    }
}

template <class T>
bool from_text(const std::string& text, T& value) {
    if constexpr (std::is_same_v<T, std::string>) {
        value = text;
        return true;
    } else if constexpr (std::is_same_v<T, bool>) {
        value = text == "1";
        return text == "0" || text == "1";
    } else {
        const char* last = text.data() + text.size();
        const auto [end, code] = std::from_chars(text.data(), last, value);
        return code == std::errc() && end == last;
    }
}

// By name, so that a later version may add options.
void transfer_options(Archive& archive, CacheOptions& options) {
    std::vector<std::pair<std::string, std::string>> texts = option_texts(options);
    texts.resize(archive.count(texts.size(), 16));
    for (auto& [name, value] : texts) {
        archive.text(name);
        archive.text(value);
    }
    if (!archive.reading()) {
        return;
    }
    std::map<std::string, std::string> values(texts.begin(), texts.end());
    visit_cache_options(options, [&](const char* name, auto& field, const char*) {
        if (const auto found = values.find(name); found != values.end()) {
            archive.need(from_text(found->second, field), "an option has an impossible value");
            values.erase(found);
        }
    });
    archive.need(values.empty(), "it has an option that this version of Winnow does not know");
}

}  // namespace

std::vector<std::pair<std::string, std::string>> option_texts(const CacheOptions& options) {
    std::vector<std::pair<std::string, std::string>> texts;
    visit_cache_options(options, [&](const char* name, const auto& field, const char*) {
        texts.emplace_back(name, to_text(field));
    });
    return texts;
}

void SessionHead::transfer(Archive& archive) {
    for (std::string* text : {&winnow, &name, &architecture, &sha256}) {
        archive.text(*text);
    }
    transfer_options(archive, options);
    archive.value(layers);
    archive.value(position);
    archive.list(tokens);
    std::vector<std::int32_t> flat;
    for (const auto& [first, last] : pins) {
        flat.insert(flat.end(), {first, last});
    }
    archive.list(flat);
    archive.need(layers >= 1 && layers <= kMostLayers && position >= 0 &&
                     tokens.size() == static_cast<std::size_t>(position) && flat.size() % 2 == 0,
                 "its head contradicts itself");
    pins.clear();
    for (std::size_t i = 0; i + 1 < flat.size(); i += 2) {
        archive.need(flat[i] >= 0 && flat[i] < flat[i + 1], "a pinned range is impossible");
        pins.emplace_back(flat[i], flat[i + 1]);
    }
}

void LayerState::transfer(Archive& archive, int kv_heads, std::int32_t position) {
    archive.list(budget);
    archive.need(budget.size() == static_cast<std::size_t>(position > 0 ? kv_heads : 0) &&
                     std::ranges::all_of(budget, [](int tokens) { return tokens >= 0; }),
                 "its budgets are impossible");
    scores.resize(archive.count(scores.size(), 8));
    for (std::vector<float>& of_head : scores) {
        archive.list(of_head);
    }
    archive.value(kept_at_selection);
    archive.value(dropped_mass);
}

std::vector<std::byte> session_preamble(std::uint32_t sections, std::uint64_t content_bytes) {
    Archive archive;
    for (std::size_t i = 0; i < kMagicBytes; ++i) {
        char c = kMagic[i];
        archive.value(c);
    }
    std::uint32_t version = kSessionVersion;
    std::uint64_t bytes = kPreambleBytes + kFrameBytes * sections + content_bytes;
    archive.value(version);
    archive.value(sections);
    archive.value(bytes);
    std::uint64_t sum = checksum(archive.written());
    archive.value(sum);
    return {archive.written().begin(), archive.written().end()};
}

std::vector<std::byte> section_frame(std::span<const std::byte> content) {
    Archive archive;
    std::uint64_t bytes = content.size(), sum = checksum(content);
    archive.value(bytes);
    archive.value(sum);
    return {archive.written().begin(), archive.written().end()};
}

SessionSections::SessionSections(std::span<const std::byte> bytes, const std::string& path)
    : path_(path) {
    const std::string where = "'" + path + "'";
    if (bytes.size() < kMagicBytes || std::memcmp(bytes.data(), kMagic, kMagicBytes) != 0) {
        throw failure(where + " is not a session of Winnow; `winnow run --session` writes them.");
    }
    Archive archive(bytes.subspan(kMagicBytes), where);
    std::uint32_t version = 0, sections = 0;
    std::uint64_t size = 0, sum = 0;
    archive.value(version);
    if (version != kSessionVersion) {
        throw failure(where + " is a session of version " + std::to_string(version) +
                      "; this Winnow reads version " + std::to_string(kSessionVersion) + ".");
    }
    archive.value(sections);
    archive.value(size);
    archive.value(sum);
    archive.need(right_checksum(bytes.first(kPreambleBytes - 8), sum),
                 "the checksum of its beginning is wrong");
    if (size != bytes.size()) {
        throw failure(where + " has " + std::to_string(bytes.size()) +
                      " bytes, but was written with " + std::to_string(size) +
                      "; it is cut off, or something was added.");
    }
    std::span<const std::byte> rest = bytes.subspan(kPreambleBytes);
    archive.need(sections <= rest.size() / kFrameBytes, "it has fewer sections than it says");
    for (std::uint32_t i = 0; i < sections; ++i) {
        Archive frame(rest, where);
        std::uint64_t content = 0;
        frame.value(content);
        frame.value(sections_.emplace_back().checksum);
        rest = rest.subspan(kFrameBytes);
        frame.need(content <= rest.size(), "a section is larger than the file");
        sections_.back().content = rest.first(static_cast<std::size_t>(content));
        rest = rest.subspan(static_cast<std::size_t>(content));
    }
    archive.need(rest.empty() && sections >= 2, "its sections are not as it says");
    Archive head = open(0, "its head");
    head_.transfer(head);
    head.end();
    head.need(sections == static_cast<std::uint32_t>(head_.layers) + 2, "layers are missing");
}

Archive SessionSections::open(int section, const std::string& name) const {
    const Section& at = sections_[static_cast<std::size_t>(section)];
    Archive archive(at.content, "'" + path_ + "', " + name + ",");
    archive.need(right_checksum(at.content, at.checksum), "the checksum is wrong");
    return archive;
}

}  // namespace winnow
