// Parts of a prompt, found among its tokens by their text.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace winnow::eval {

/// A half-open range of token indices.
using TokenRange = std::pair<int, int>;

/// A prompt as the texts of its tokens, in which characters may lie across tokens.
class TokenText {
  public:
    explicit TokenText(const std::vector<std::string>& pieces);

    const std::string& text() const { return text_; }
    int tokens() const { return static_cast<int>(ends_.size()); }
    /// The tokens that hold bytes of [at, at + size); not empty where size is not 0.
    TokenRange range(std::size_t at, std::size_t size) const;

  private:
    std::string text_;
    std::vector<std::size_t> ends_;  // of each token in text_
};

/// What `--pin WHAT` names: `system` the first `system_tokens` tokens, a number so many of the
/// first, anything else every place where that text stands. Throws a usage Error where there is no
/// such part.
std::vector<TokenRange> pinned_ranges(const std::string& what, const TokenText& prompt,
                                      int system_tokens);

/// The first token of the question, which begins where `question` stands last before the byte
/// `end`; blanks around it do not count. Throws a usage Error that names `flag` where the prompt
/// does not hold it, or nothing stands before it.
int question_start(const std::string& flag, std::string_view question, const TokenText& prompt,
                   std::size_t end = std::string::npos);

}  // namespace winnow::eval
