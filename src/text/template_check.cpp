// What is refused of a chat template before anything recurses over it.
#include <winnow/error.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "text/template_guard.h"

namespace winnow {
namespace {

using jinja::token;

constexpr size_t kMaxBlocks = 100;       // blocks inside blocks
constexpr size_t kMaxBrackets = 100;     // brackets inside brackets
constexpr size_t kMaxOperators = 2'000;  // of one expression or statement
constexpr size_t kMaxElifs = 500;        // of one if

struct Block {
    std::string name;
    size_t position;
    size_t elifs = 0;
};

bool opens_block(const std::string& name) {
    return name == "if" || name == "for" || name == "macro" || name == "call" || name == "filter";
}

bool is_operator(const token& t) {
    switch (t.t) {
        case token::dot:
        case token::pipe:
        case token::additive_binary_operator:
        case token::multiplicative_binary_operator:
        case token::comparison_binary_operator:
        case token::unary_operator:
        case token::open_paren:
        case token::open_square_bracket:
            return true;
        case token::identifier:
            return t.value == "not" || t.value == "and" || t.value == "or" || t.value == "in" ||
                   t.value == "is" || t.value == "if" || t.value == "else";
        default:
            return false;
    }
}

class NestingCheck {
  public:
    explicit NestingCheck(const jinja::lexer_result& lexed)
        : tokens_(lexed.tokens), source_(lexed.source) {}

    void run() {
        for (size_t i = 0; i < tokens_.size(); ++i) {
            const token& t = tokens_[i];
            if (t.t == token::open_statement || t.t == token::open_expression) {
                brackets_ = 0;
                operators_ = 0;
                if (t.t == token::open_statement) statement(i + 1);
            }
            expression_token(t);
        }
        if (blocks_.empty()) return;
        refuse("its {% " + blocks_.back().name + " %} is never closed", blocks_.back().position);
    }

  private:
    [[noreturn]] void refuse(const std::string& what, size_t position) const {
        throw failure("The chat template is wrong at line " +
                      std::to_string(line_of(source_, position)) + ": " + what + ".");
    }

    void expression_token(const token& t) {
        if (t.t == token::open_paren || t.t == token::open_square_bracket ||
            t.t == token::open_curly_bracket) {
            if (++brackets_ > kMaxBrackets) refuse("over 100 brackets are nested", t.pos);
        } else if (t.t == token::close_paren || t.t == token::close_square_bracket ||
                   t.t == token::close_curly_bracket) {
            brackets_ -= std::min<size_t>(brackets_, 1);
        }
        if (is_operator(t) && ++operators_ > kMaxOperators) {
            refuse("one expression has over 2000 operators", t.pos);
        }
    }

    void statement(size_t i) {
        if (i >= tokens_.size() || tokens_[i].t != token::identifier) return;
        const std::string& name = tokens_[i].value;
        if (opens_block(name) || (name == "set" && !has_equals(i))) {
            blocks_.push_back({name, tokens_[i].pos});
            if (blocks_.size() > kMaxBlocks) refuse("over 100 blocks are nested", tokens_[i].pos);
        } else if (name == "elif" && !blocks_.empty()) {
            if (++blocks_.back().elifs > kMaxElifs) {
                refuse("one if has over 500 elifs", tokens_[i].pos);
            }
        } else if (name.starts_with("end") && name != "endgeneration") {
            if (blocks_.empty() || "end" + blocks_.back().name != name) {
                refuse("{% " + name + " %} closes nothing" +
                           (blocks_.empty() ? "" : "; {% " + blocks_.back().name + " %} is open"),
                       tokens_[i].pos);
            }
            blocks_.pop_back();
        }
    }

    /// Whether the set statement whose name is token i assigns, and so has no block.
    bool has_equals(size_t i) const {
        size_t depth = 0;
        for (; i < tokens_.size() && tokens_[i].t != token::close_statement; ++i) {
            const auto kind = tokens_[i].t;
            if (kind == token::open_paren || kind == token::open_square_bracket) ++depth;
            if (kind == token::close_paren || kind == token::close_square_bracket) --depth;
            if (kind == token::equals && depth == 0) return true;
        }
        return false;
    }

    const std::vector<token>& tokens_;
    const std::string& source_;
    std::vector<Block> blocks_;
    size_t brackets_ = 0;
    size_t operators_ = 0;
};

}  // namespace

size_t line_of(const std::string& source, size_t position) {
    const auto end = source.begin() + static_cast<ptrdiff_t>(std::min(position, source.size()));
    return 1 + static_cast<size_t>(std::count(source.begin(), end, '\n'));
}

void check_template_nesting(const jinja::lexer_result& lexed) {
    NestingCheck(lexed).run();
}

}  // namespace winnow
