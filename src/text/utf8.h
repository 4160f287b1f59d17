// Text that reaches a terminal or a JSON field: whole characters only, and stop strings held back.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace winnow {

/// Replaces every maximal invalid part by U+FFFD, as the Unicode standard recommends.
std::string sanitize_utf8(std::string_view bytes);

/// The same rules for a stream whose pieces may end inside a character, as tokens do.
class Utf8Stream {
  public:
    /// Returns the whole characters known so far; at most 3 bytes are held back.
    std::string push(std::string_view bytes);
    /// Ends the stream: a character that never got whole comes out as one U+FFFD.
    std::string finish();

  private:
    std::string held_;
};

/// Finds stop strings (reverse prompts) in streamed text. Text that may be the beginning of a stop
/// string is held back until it is known to be one or not.
class StopMatcher {
  public:
    /// Empty stop strings are ignored.
    explicit StopMatcher(std::vector<std::string> stops);

    /// Returns the text that is safe to print. After a match it returns the text before the stop
    /// string, and nothing from then on.
    std::string push(std::string_view text);
    /// Ends the stream and returns what was held back; empty after a match.
    std::string finish();
    /// Ready for the next answer.
    void reset();

    bool stopped() const noexcept { return stopped_; }
    /// The stop string that matched, empty before that.
    const std::string& matched() const noexcept { return matched_; }

  private:
    size_t held_prefix() const;

    std::vector<std::string> stops_;
    std::string held_;
    std::string matched_;
    bool stopped_ = false;
};

}  // namespace winnow
