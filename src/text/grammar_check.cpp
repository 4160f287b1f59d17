#include "text/grammar_check.h"

#include <winnow/error.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <vector>

namespace winnow {
namespace {

constexpr size_t kMaxBytes = 1 << 20;
constexpr size_t kMaxDepth = 100;             // parentheses in parentheses
constexpr uint64_t kMaxRepeats = 2'000;       // libllama's own bound
constexpr uint64_t kNoMost = UINT64_MAX;      // a repetition without an upper bound
constexpr uint64_t kMaxElements = 2'000'000;  // after repetitions are written out
constexpr uint64_t kMaxPaths = 5'000'000;     // that libllama's recursion check follows
constexpr size_t kMaxLeftDepth = 5'000;       // of that check's recursion

/// One part of a sequence. Terminals have no rule.
struct Item {
    int rule = -1;
    bool empty = false;  // a terminal of no characters, or one that may repeat 0 times
    uint64_t times = 1;  // how often it is written out
    uint64_t elements = 1;
    uint64_t symbols = 1;  // rules libllama makes of it
};
using Sequence = std::vector<Item>;

struct Rule {
    std::string name;
    size_t line = 0;
    bool defined = false;
    bool nullable = false;
    std::vector<Sequence> alternatives;
};

bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
}

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

class Parser {
  public:
    Parser(const std::string& text, const std::string& flag,
           const std::function<bool(std::string_view)>& is_token)
        : text_(text), flag_(flag), is_token_(is_token) {}

    std::vector<Rule> run() {
        skip_space(true);
        while (!at_end()) rule();
        return std::move(rules_);
    }

    [[noreturn]] void refuse(const std::string& what, size_t line = 0) const {
        if (line == 0) line = this->line();
        throw usage_error(flag_ + " is not a grammar we can use, line " + std::to_string(line) +
                          ": " + what + ".");
    }

  private:
    /// The line of at_, which only grows.
    size_t line() const {
        for (const size_t end = std::min(at_, text_.size()); counted_ < end; ++counted_) {
            if (text_[counted_] == '\n') ++line_;
        }
        return line_;
    }

    bool at_end() const { return at_ >= text_.size(); }
    char peek(size_t ahead = 0) const {
        return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
    }

    void skip_space(bool newlines) {
        for (; !at_end(); ++at_) {
            const char c = peek();
            if (c == '#') {
                while (!at_end() && peek() != '\n' && peek() != '\r') ++at_;
                --at_;
                continue;
            }
            if (c == ' ' || c == '\t' || (newlines && (c == '\n' || c == '\r'))) continue;
            break;
        }
    }

    std::string word() {
        const size_t begin = at_;
        while (is_word(peek())) ++at_;
        if (at_ == begin) refuse("a rule's name is expected");
        return text_.substr(begin, at_ - begin);
    }

    int rule_id(const std::string& name) {
        const auto [it, is_new] = ids_.emplace(name, static_cast<int>(rules_.size()));
        if (is_new) {
            rules_.push_back({name, line(), false, false, {}});
            ++symbols_;
        }
        return it->second;
    }

    void rule() {
        const size_t first_line = line();
        const std::string name = word();
        skip_space(false);
        if (text_.compare(at_, 3, "::=") != 0) refuse("::= is expected after '" + name + "'");
        at_ += 3;
        skip_space(true);
        const auto id = static_cast<size_t>(rule_id(name));
        auto body = alternatives(false, 0);
        rules_[id].line = first_line;
        rules_[id].defined = true;
        rules_[id].alternatives = std::move(body);
        if (!at_end() && peek() != '\n' && peek() != '\r') {
            refuse(std::string("'") + peek() + "' is not expected here");
        }
        skip_space(true);
    }

    std::vector<Sequence> alternatives(bool nested, size_t depth) {
        if (depth > kMaxDepth) refuse("over 100 parentheses are nested");
        std::vector<Sequence> all{sequence(nested, depth)};
        while (peek() == '|') {
            ++at_;
            skip_space(true);
            all.push_back(sequence(nested, depth));
        }
        return all;
    }

    Sequence sequence(bool nested, size_t depth) {
        Sequence items;
        bool repeatable = false;
        while (!at_end()) {
            const char c = peek();
            if (c == '*' || c == '+' || c == '?' || c == '{') {
                if (!repeatable) refuse(std::string("nothing to repeat before '") + c + "'");
                repeat(items.back(), nested);
                continue;
            }
            if (!item(c, items, depth)) break;
            // An empty literal leaves nothing to repeat.
            repeatable = items.back().rule >= 0 || items.back().elements > 0;
            count(items.back().elements);
            skip_space(nested);
        }
        return items;
    }

    bool item(char c, Sequence& items, size_t depth) {
        Item next;
        if (c == '"') {
            next.elements = characters('"');
            next.empty = next.elements == 0;
        } else if (c == '[') {
            next.elements = characters(']');
            next.empty = next.elements == 0;
        } else if (c == '<' || c == '!') {
            token();
        } else if (c == '.') {
            ++at_;
        } else if (c == '(') {
            ++at_;
            skip_space(true);
            const uint64_t before = symbols_;
            next.rule = rule_id("(" + std::to_string(rules_.size()));
            auto body = alternatives(true, depth + 1);
            Rule& group = rules_[static_cast<size_t>(next.rule)];
            group.defined = true;
            group.alternatives = std::move(body);
            if (peek() != ')') refuse("')' is expected");
            ++at_;
            next.symbols = symbols_ - before;
        } else if (is_word(c)) {
            next.rule = rule_id(word());
        } else {
            return false;
        }
        items.push_back(next);
        return true;
    }

    /// Characters of a literal or a class up to its closing mark; returns how many.
    uint64_t characters(char close) {
        ++at_;
        if (close == ']' && peek() == '^') ++at_;
        uint64_t found = 0;
        while (peek() != close || at_end()) {
            one_character(close);
            ++found;
            if (close == ']' && peek() == '-' && peek(1) != ']') {
                ++at_;
                one_character(close);
                ++found;
            }
        }
        ++at_;
        return found;
    }

    void one_character(char close) {
        if (at_end() || peek() == '\0') {
            refuse(std::string("'") + close + "' is missing");
        }
        if (peek() != '\\') {
            ++at_;
            while ((static_cast<unsigned char>(peek()) & 0xC0U) == 0x80U) ++at_;
            return;
        }
        const char kind = peek(1);
        const size_t digits = kind == 'x' ? 2 : kind == 'u' ? 4 : kind == 'U' ? 8 : 0;
        if (digits == 0 &&
            (kind == '\0' || std::string_view("trn\\\"[]-").find(kind) == std::string_view::npos)) {
            refuse(std::string("'\\") + kind + "' is not an escape");
        }
        at_ += 2;
        for (size_t i = 0; i < digits; ++i, ++at_) {
            if (std::string_view("0123456789abcdefABCDEF").find(peek()) == std::string_view::npos ||
                at_end()) {
                refuse("an escape needs " + std::to_string(digits) + " hexadecimal digits");
            }
        }
    }

    void token() {
        if (peek() == '!') ++at_;
        const size_t begin = at_;
        if (peek() != '<') refuse("'<' is expected after '!'");
        const size_t end = text_.find('>', begin);
        if (end == std::string::npos) refuse("'>' is missing");
        at_ = end + 1;
        const std::string_view name = std::string_view(text_).substr(begin, at_ - begin);
        if (name.size() > 4 && name[1] == '[' && name[name.size() - 2] == ']') {
            const auto id = name.substr(2, name.size() - 4);
            if (id.size() <= 9 && std::all_of(id.begin(), id.end(), is_digit)) return;
        } else if (is_token_ && is_token_(name)) {
            return;
        }
        refuse("'" + std::string(name) + "' is not one token of the model");
    }

    uint64_t number() {
        if (!is_digit(peek())) refuse("a number is expected in { }");
        uint64_t value = 0;
        for (; is_digit(peek()); ++at_) {
            value = std::min<uint64_t>(value * 10 + static_cast<uint64_t>(peek() - '0'), 1'000'000);
        }
        return value;
    }

    void repeat(Item& item, bool nested) {
        const char kind = peek();
        uint64_t least = kind == '+' ? 1 : 0;
        uint64_t most = kind == '?' ? 1 : kNoMost;
        ++at_;
        skip_space(nested);
        if (kind == '{') {
            least = number();
            most = least;
            skip_space(nested);
            if (peek() == ',') {
                ++at_;
                skip_space(nested);
                most = is_digit(peek()) ? number() : kNoMost;
                skip_space(nested);
            }
            if (peek() != '}') refuse("'}' is expected");
            ++at_;
            skip_space(nested);
            if (most < least) refuse("a repetition's upper bound is below its lower one");
        }
        if (most > kMaxRepeats) most = kNoMost;  // as libllama does
        const uint64_t times = std::max<uint64_t>(most == kNoMost ? least : most, 1);
        if (times > kMaxRepeats || item.symbols * times > kMaxRepeats) {
            refuse("the repeated rules are written out over 2000 times");
        }
        symbols_ += most == kNoMost ? 1 : most - least;
        item.symbols *= times;
        item.times *= times;
        item.empty = item.empty || least == 0;
        count(item.elements * item.times);
    }

    void count(uint64_t elements) {
        total_ += elements;
        if (total_ > kMaxElements) refuse("the grammar is too large");
    }

    const std::string& text_;
    const std::string& flag_;
    const std::function<bool(std::string_view)>& is_token_;
    size_t at_ = 0;
    uint64_t total_ = 0;
    uint64_t symbols_ = 0;
    mutable size_t counted_ = 0;
    mutable size_t line_ = 1;
    std::vector<Rule> rules_;
    std::map<std::string, int> ids_;
};

bool may_be_empty(const Item& item, const std::vector<Rule>& rules) {
    return item.empty || (item.rule >= 0 && rules[static_cast<size_t>(item.rule)].nullable);
}

void find_nullable(std::vector<Rule>& rules) {
    for (bool changed = true; changed;) {
        changed = false;
        for (Rule& rule : rules) {
            if (rule.nullable) continue;
            for (const Sequence& items : rule.alternatives) {
                rule.nullable |= std::all_of(items.begin(), items.end(), [&](const Item& item) {
                    return may_be_empty(item, rules);
                });
            }
            changed |= rule.nullable;
        }
    }
}

/// Follows what each rule can begin with. Recursion is bounded by kMaxLeftDepth.
class LeftCheck {
  public:
    LeftCheck(const std::vector<Rule>& rules, const Parser& parser)
        : rules_(rules), parser_(parser), paths_(rules.size(), 0), open_(rules.size(), false) {}

    uint64_t visit(size_t id, size_t depth) {
        if (open_[id]) refuse(id, "is left-recursive: it can begin with itself");
        if (paths_[id] != 0) return paths_[id];
        if (depth > kMaxLeftDepth) refuse(id, "begins too many rules deep");
        open_[id] = true;
        uint64_t paths = 1;
        for (const Sequence& items : rules_[id].alternatives) {
            for (const Item& item : items) {
                if (item.rule >= 0) {
                    paths += item.times * visit(static_cast<size_t>(item.rule), depth + 1);
                }
                if (paths > kMaxPaths) refuse(id, "can begin in too many ways");
                if (!may_be_empty(item, rules_)) break;
            }
        }
        open_[id] = false;
        return paths_[id] = paths;
    }

  private:
    [[noreturn]] void refuse(size_t id, const std::string& what) const {
        const Rule& rule = rules_[id];
        const bool is_group = rule.name[0] == '(';
        parser_.refuse((is_group ? "a group" : "rule '" + rule.name + "'") + " " + what, rule.line);
    }

    const std::vector<Rule>& rules_;
    const Parser& parser_;
    std::vector<uint64_t> paths_;
    std::vector<bool> open_;
};

}  // namespace

void check_grammar(const std::string& text, const std::string& flag,
                   const std::function<bool(std::string_view)>& is_token) {
    Parser parser(text, flag, is_token);
    if (text.size() > kMaxBytes) parser.refuse("it has over 1048576 bytes", 1);
    if (text.find('\0') != std::string::npos) parser.refuse("it holds a zero byte", 1);
    std::vector<Rule> rules = parser.run();
    bool has_root = false;
    for (const Rule& rule : rules) {
        if (!rule.defined)
            parser.refuse("rule '" + rule.name + "' is used but not defined", rule.line);
        has_root |= rule.name == "root";
    }
    if (!has_root) parser.refuse("rule 'root' is not defined", 1);
    find_nullable(rules);
    LeftCheck check(rules, parser);
    for (size_t id = 0; id < rules.size(); ++id) check.visit(id, 0);
}

}  // namespace winnow
