// Bounds on chat templates. The Jinja parser and evaluator recurse once per nested bracket, block
// and chained operator, so an unbounded template would overflow the stack.
#include <array>
#include <cctype>
#include <vector>

#include "gguf/checks.h"

namespace winnow::gguf {

namespace {

constexpr std::size_t kMaxTemplateBytes = 1U << 20U;
constexpr std::size_t kMaxDepth = 100;
constexpr std::size_t kMaxTagOperators = 1000;

bool is_word(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
}

template <std::size_t N>
bool any_of(std::string_view word, const std::array<std::string_view, N>& words) {
    for (const std::string_view each : words) {
        if (word == each) return true;
    }
    return false;
}

// Follows the tokenizer of the parser it protects, also where that one is lax: braces are counted
// across tags, and a comment inside a tag ends the tag.
class Scanner {
  public:
    explicit Scanner(std::string_view text) : text_(text) {}
    std::string run();

  private:
    bool at(std::string_view start) const { return text_.substr(at_).starts_with(start); }
    bool too_deep() const { return brackets_ > kMaxDepth || blocks_ > kMaxDepth; }
    void open_tag(bool statement);
    void close_tag();
    void skip_string();
    void read_word();
    void read_symbol();
    bool read_delimiter();

    std::string_view text_;
    std::size_t at_ = 0;
    bool in_tag_ = false;
    bool statement_ = false;         // the tag is {% %}
    bool assigns_ = false;           // it holds a = outside brackets
    std::string_view keyword_;       // the first word of a statement
    std::size_t curly_ = 0;          // open braces; wraps below 0 like the parser's own counter
    std::size_t brackets_ = 0;       // open brackets of this tag
    std::size_t operators_ = 0;      // operators of this tag
    std::size_t blocks_ = 0;         // open blocks, each elif counted as one more
    std::vector<std::size_t> open_;  // for each open block: 1 + its elifs
};

void Scanner::open_tag(bool statement) {
    if (!statement) curly_ = 0;
    // A tag opened inside a tag is an error to the parser; its brackets stay counted until then.
    if (!in_tag_) {
        brackets_ = 0;
        operators_ = 0;
    }
    in_tag_ = true;
    statement_ = statement;
    assigns_ = false;
    keyword_ = {};
    at_ += 2;
    if (at("-")) ++at_;
}

void Scanner::close_tag() {
    static constexpr std::array<std::string_view, 5> kOpeners = {"if", "for", "macro", "call",
                                                                 "filter"};
    static constexpr std::array<std::string_view, 6> kClosers = {"endif",   "endfor",    "endmacro",
                                                                 "endcall", "endfilter", "endset"};
    in_tag_ = false;
    if (!statement_) return;
    if (any_of(keyword_, kOpeners) || (keyword_ == "set" && !assigns_)) {
        open_.push_back(1);
        ++blocks_;
    } else if (keyword_ == "elif" && !open_.empty()) {
        ++open_.back();
        ++blocks_;
    } else if (any_of(keyword_, kClosers) && !open_.empty()) {
        blocks_ -= open_.back();
        open_.pop_back();
    }
}

void Scanner::skip_string() {
    const char quote = text_[at_++];
    while (at_ < text_.size() && text_[at_] != quote) at_ += text_[at_] == '\\' ? 2 : 1;
    ++at_;
}

void Scanner::read_word() {
    const std::size_t start = at_;
    while (at_ < text_.size() && is_word(text_[at_])) ++at_;
    const std::string_view word = text_.substr(start, at_ - start);
    if (statement_ && keyword_.empty()) keyword_ = word;
    static constexpr std::array<std::string_view, 7> kOperators = {"not",  "and", "or", "if",
                                                                   "else", "in",  "is"};
    if (any_of(word, kOperators)) ++operators_;
}

void Scanner::read_symbol() {
    const char c = text_[at_];
    const char next = at_ + 1 < text_.size() ? text_[at_ + 1] : '\0';
    if (c == '{') ++curly_;
    if (c == '}') --curly_;
    if (c == '(' || c == '[' || c == '{') ++brackets_;
    if ((c == ')' || c == ']' || c == '}') && brackets_ > 0) --brackets_;
    if (std::string_view("([{.|+-~*/%<>=!").find(c) != std::string_view::npos) ++operators_;
    const bool comparison = std::string_view("<>=!").find(c) != std::string_view::npos;
    if (comparison && next == '=') {
        ++at_;
    } else if (c == '=' && brackets_ == 0) {
        assigns_ = true;
    }
    ++at_;
}

/// Opens or closes a tag or skips a comment; false when there is none here.
bool Scanner::read_delimiter() {
    if (at("{#")) {
        const std::size_t end = text_.find("#}", at_ + 2);
        at_ = end == std::string_view::npos ? text_.size() : end + 2;
        if (in_tag_) close_tag();
        return true;
    }
    if (at("{%") || at("{{")) {
        open_tag(at("{%"));
        return true;
    }
    if (!in_tag_) return false;
    for (const std::string_view end : {"-%}", "-}}", "%}", "}}"}) {
        if (!at(end) || (end == "}}" && curly_ > 0)) continue;
        at_ += end.size();
        close_tag();
        return true;
    }
    return false;
}

std::string Scanner::run() {
    while (at_ < text_.size()) {
        if (read_delimiter()) {
            // handled
        } else if (!in_tag_) {
            ++at_;
        } else if (text_[at_] == '\'' || text_[at_] == '"') {
            skip_string();
        } else if (is_word(text_[at_])) {
            read_word();
        } else {
            read_symbol();
        }
        if (too_deep()) {
            return "is nested deeper than " + std::to_string(kMaxDepth) + " levels near byte " +
                   std::to_string(at_);
        }
        if (operators_ > kMaxTagOperators) {
            return "has a tag with more than " + std::to_string(kMaxTagOperators) +
                   " operators near byte " + std::to_string(at_);
        }
    }
    return {};
}

}  // namespace

std::string template_problem(std::string_view text) {
    return Scanner(text).run();
}

void check_chat_templates(const File& file) {
    constexpr std::string_view kKey = "tokenizer.chat_template";
    for (const KeyValue& value : file.values()) {
        if (value.key != kKey && !value.key.starts_with("tokenizer.chat_template.")) continue;
        const std::string text = file.require_string(value.key);
        if (text.size() > kMaxTemplateBytes) {
            throw file.error(quoted(value.key) + " is " + std::to_string(text.size()) +
                             " bytes long; at most " + std::to_string(kMaxTemplateBytes) +
                             " are allowed");
        }
        const std::string problem = template_problem(text);
        if (!problem.empty()) throw file.error(quoted(value.key) + " " + problem);
    }
}

}  // namespace winnow::gguf
