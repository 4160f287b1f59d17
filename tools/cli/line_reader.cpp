#include "line_reader.h"

#include <iostream>

#include "terminal.h"

#ifdef WINNOW_HAVE_EDITLINE
#include <editline/readline.h>

#include <clocale>
#include <cstdio>
#include <cstdlib>
#endif

namespace winnow::cli {
namespace {

constexpr int kStdIn = 0;
constexpr int kStdErr = 2;

#ifdef WINNOW_HAVE_EDITLINE
std::optional<std::string> edited_line(const char* prompt) {
    char* line = readline(prompt);
    if (line == nullptr) return std::nullopt;
    std::string text = line;
    std::free(line);
    if (!text.empty()) add_history(text.c_str());
    return text;
}
#endif

}  // namespace

LineReader::LineReader() : interactive_(is_terminal(kStdIn) && is_terminal(kStdErr)) {
#ifdef WINNOW_HAVE_EDITLINE
    if (!interactive_) return;
    std::setlocale(LC_CTYPE, "");  // or the editor takes a character for several
    rl_outstream = stderr;         // stdout holds answers alone
    using_history();
#endif
}

std::optional<std::string> LineReader::line(const char* prompt) {
#ifdef WINNOW_HAVE_EDITLINE
    if (interactive_) return edited_line(prompt);
#endif
    if (interactive_) write_err(prompt);
    std::string text;
    if (!std::getline(std::cin, text)) return std::nullopt;
    if (!text.empty() && text.back() == '\r') text.pop_back();
    return text;
}

std::optional<std::string> LineReader::next() {
    std::optional<std::string> message = line("> ");
    while (message && message->ends_with('\\')) {
        message->back() = '\n';
        const auto more = line(". ");
        if (!more) break;
        *message += *more;
    }
    return message;
}

}  // namespace winnow::cli
