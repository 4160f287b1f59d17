// The frame of a session's file: sections with checksums, and the head, which every reader needs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/archive.h"
#include "winnow/options.h"

namespace winnow {

/// 2: `mixed` keeps running sums of squared attention; 1 had the first power.
inline constexpr std::uint32_t kSessionVersion = 3;

/// Whose session a file holds, and what it has seen.
struct SessionHead {
    std::string winnow, name, architecture, sha256;
    CacheOptions options;
    std::int32_t layers = 0;
    std::int32_t position = 0;
    std::vector<std::int32_t> tokens;
    std::vector<std::pair<int, int>> pins;

    void transfer(Archive& archive);
};

/// Every option's name and value, as files and messages write them.
std::vector<std::pair<std::string, std::string>> option_texts(const CacheOptions& options);

/// The beginning of a file of these sections, and a section's frame.
std::vector<std::byte> session_preamble(std::uint32_t sections, std::uint64_t content_bytes);
std::vector<std::byte> section_frame(std::span<const std::byte> content);

/// Takes a file apart. Views into `bytes`, which must outlive it; `path` is for messages.
class SessionSections {
  public:
    /// Throws a failure Error for a file that is none, of another version, shorter or longer than
    /// it says, or whose head is damaged.
    SessionSections(std::span<const std::byte> bytes, const std::string& path);

    const SessionHead& head() const { return head_; }
    /// What session-wide state and each layer's are read from; throws where the checksum is wrong.
    Archive state() const { return open(1, "its state"); }
    Archive layer(int layer) const { return open(2 + layer, "layer " + std::to_string(layer)); }

  private:
    struct Section {
        std::span<const std::byte> content;
        std::uint64_t checksum = 0;
    };
    Archive open(int section, const std::string& name) const;

    std::string path_;
    std::vector<Section> sections_;
    SessionHead head_;
};

}  // namespace winnow
