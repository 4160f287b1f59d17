#include "prompt.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "eval/prompt_parts.h"
#include "terminal.h"

namespace winnow::cli {
namespace {

std::string read_stream(std::istream& stream) {
    return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

std::string read_file(const std::string& flag, const std::string& path) {
    std::error_code ignored;
    if (std::filesystem::is_directory(path, ignored)) {
        throw failure(flag + " names " + path + ", which is a folder; it takes a file.");
    }
    errno = 0;
    std::ifstream stream(path, std::ios::binary);
    std::string text;
    bool broken = !stream.is_open();
    try {
        if (!broken) text = read_stream(stream);
    } catch (const std::ios_base::failure&) {
        broken = true;  // the iterators throw where a read fails
    }
    if (broken || stream.bad()) {
        throw failure(flag + " names " + path +
                      ", which cannot be read: " + std::strerror(errno != 0 ? errno : EIO) + ".");
    }
    return text;
}

// The value of a flag, or what the file of its twin holds.
std::string text_or_file(const std::string& text, const std::string& flag,
                         const std::string& path) {
    return path.empty() ? text : read_file(flag, path);
}

// The file, then a blank line, then the prompt.
std::string join_prompt(const std::string& file, const std::string& prompt) {
    if (file.empty() || prompt.empty()) return file + prompt;
    return file + (file.back() == '\n' ? "\n" : "\n\n") + prompt;
}

int hex_digits(std::string_view text, int& value) {
    const std::string_view digits = text.substr(0, 2);
    const auto [end, code] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    return code == std::errc() ? static_cast<int>(end - digits.data()) : 0;
}

char simple_escape(char c) {
    switch (c) {
        case 'n':
            return '\n';
        case 'r':
            return '\r';
        case 't':
            return '\t';
        case '\'':
        case '"':
        case '\\':
            return c;
        default:
            return '\0';
    }
}

std::string render_first(const Model& model, const Texts& texts) {
    std::vector<ChatMessage> messages;
    if (!texts.system.empty()) messages.push_back({"system", texts.system});
    messages.push_back({"user", texts.user});
    return model.apply_chat_template(messages, true, texts.chat_template);
}

}  // namespace

std::string unescaped(std::string_view text) {
    std::string result;
    for (std::size_t i = 0; i < text.size(); ++i) {
        int code = 0;
        if (text[i] != '\\' || i + 1 == text.size()) {
            result += text[i];
        } else if (const char plain = simple_escape(text[i + 1]); plain != '\0') {
            result += plain;
            ++i;
        } else if (const int n = text[i + 1] == 'x' ? hex_digits(text.substr(i + 2), code) : 0;
                   n > 0) {
            result += static_cast<char>(code);
            i += static_cast<std::size_t>(n) + 1;
        } else {
            result += text[i];
        }
    }
    return result;
}

Texts load_texts(Options& options) {
    const auto escapes = [&](std::string text) { return options.escape ? unescaped(text) : text; };
    Texts texts;
    std::string file;
    if (options.file == "-") {
        file = read_stream(std::cin);
    } else if (!options.file.empty()) {
        file = read_file("-f", options.file);
    }
    texts.user = join_prompt(escapes(file), escapes(options.prompt));
    if (!options.file.empty()) texts.question = escapes(options.prompt);
    texts.system =
        escapes(text_or_file(options.system_prompt, "-sysf", options.system_prompt_file));
    texts.chat_template =
        text_or_file(options.chat_template, "--chat-template-file", options.chat_template_file);
    texts.typed_template = !options.chat_template.empty();
    texts.answer_prefix = escapes(options.answer_prefix);
    for (std::string& word : options.reverse_prompt) word = escapes(word);
    for (std::string& text : options.pin) text = escapes(text);
    options.question_mark = escapes(options.question_mark);

    SamplingOptions& sampling = options.sampling;
    sampling.grammar = text_or_file(sampling.grammar, "--grammar-file", options.grammar_file);
    sampling.json_schema =
        text_or_file(sampling.json_schema, "--json-schema-file", options.json_schema_file);
    if (!sampling.json_schema.empty() && !nlohmann::json::accept(sampling.json_schema)) {
        const std::string what = options.json_schema_file.empty()
                                     ? "--json-schema"
                                     : "The file " + options.json_schema_file;
        throw Error(options.json_schema_file.empty() ? ErrorKind::usage : ErrorKind::failure,
                    what + " is not JSON; a schema looks like {\"type\": \"object\"}.");
    }
    return texts;
}

void require_prompt(const Texts& texts) {
    if (!texts.user.empty()) return;
    throw failure("There is no prompt: give a text by -p, a file by -f, or both.");
}

std::vector<std::int32_t> tokenize_rendered(const Model& model, std::string_view text) {
    const std::vector<std::int32_t> special = model.tokenize("", true, true);
    std::vector<std::int32_t> tokens = model.tokenize(text, false, true);
    const bool has_bos = !special.empty() && !tokens.empty() && tokens.front() == special.front();
    return special.empty() || has_bos ? tokens : model.tokenize(text, true, true);
}

void require_good_template(const Model& model, const Texts& texts) {
    if (!texts.typed_template) return;
    try {
        const ChatMessage message{"user", "text"};
        model.apply_chat_template({&message, 1}, true, texts.chat_template);
    } catch (const Error& error) {
        throw usage_error("--chat-template cannot be used. " + std::string(error.what()));
    }
}

std::vector<std::int32_t> prompt_tokens(const Model& model, const Options& options,
                                        const Texts& texts) {
    const bool templated =
        !options.no_conversation && (!texts.chat_template.empty() || model.has_chat_template());
    std::vector<std::int32_t> tokens;
    if (templated) {
        require_good_template(model, texts);
        tokens = tokenize_rendered(model, render_first(model, texts) + texts.answer_prefix);
    } else {
        const std::string system = texts.system.empty() ? "" : texts.system + "\n\n";
        tokens = model.tokenize(system + texts.user + texts.answer_prefix, true, true);
    }
    if (tokens.empty()) throw failure("The prompt holds no tokens for this model.");
    return tokens;
}

namespace {

// Tokens that do not depend on what the user says: special ones, the system prompt, and the marks
// that open the user's message.
int system_tokens(const Model& model, const Options& options, Texts texts,
                  const std::vector<std::int32_t>& tokens) {
    texts.user = texts.user.starts_with('A') ? "B" : "A";
    const std::vector<std::int32_t> other = prompt_tokens(model, options, texts);
    const auto apart = std::mismatch(tokens.begin(), tokens.end(), other.begin(), other.end());
    return static_cast<int>(apart.first - tokens.begin());
}

}  // namespace

FirstPrompt first_prompt(const Model& model, const Options& options, const Texts& texts,
                         std::vector<std::int32_t> tokens) {
    FirstPrompt prompt;
    prompt.tokens = std::move(tokens);
    if (options.pin.empty() && !options.cache.question_hidden) return prompt;
    std::vector<std::string> pieces;
    for (const std::int32_t token : prompt.tokens) pieces.push_back(model.piece(token, true));
    const eval::TokenText text(pieces);
    const int system =
        options.pin.empty() ? 0 : system_tokens(model, options, texts, prompt.tokens);
    for (const std::string& what : options.pin) {
        const auto ranges = eval::pinned_ranges(what, text, system);
        prompt.pins.insert(prompt.pins.end(), ranges.begin(), ranges.end());
    }
    if (options.cache.question_hidden) {
        const bool marked = !options.question_mark.empty();
        const std::string flag = marked ? "--question-mark" : "-p";
        const std::size_t end =
            text.text().size() - std::min(text.text().size(), texts.answer_prefix.size());
        prompt.question_at = static_cast<std::size_t>(
            eval::question_start(flag, marked ? options.question_mark : texts.question, text, end));
    }
    return prompt;
}

void check_restored(const Session& session, const FirstPrompt& prompt, const std::string& file) {
    const std::span<const std::int32_t> seen = session.tokens();
    const auto apart =
        std::mismatch(seen.begin(), seen.end(), prompt.tokens.begin(), prompt.tokens.end());
    const auto common = static_cast<std::size_t>(apart.first - seen.begin());
    if (common < seen.size()) {
        throw failure("--session names " + file + ", which holds another prompt: of its " +
                      with_commas(seen.size()) + " tokens the first " + with_commas(common) +
                      " are this prompt's. Give the same text or another file; a file made with "
                      "--question-hidden takes any question about its text.");
    }
    if (seen.size() < prompt.question_at) {
        throw failure("--session names " + file + ", which has seen " + with_commas(seen.size()) +
                      " of the " + with_commas(prompt.question_at) +
                      " tokens before the question; give the same text or another file.");
    }
    const auto end = static_cast<int>(seen.size());
    for (const auto& [first, last] : prompt.pins) {
        const bool held = std::ranges::any_of(session.pins(), [&](const auto& range) {
            return range.first <= first && std::min(last, end) <= range.second;
        });
        if (first < end && !held) {
            throw usage_error("--pin names tokens " + std::to_string(first) + " to " +
                              std::to_string(last) + ", which " + file +
                              " was made without, so they may be gone; make it anew.");
        }
    }
}

SessionTiming read_prompt(Session& session, const FirstPrompt& prompt,
                          const ProgressCallback& progress, const std::function<void()>& keep) {
    for (const auto& [first, last] : prompt.pins) session.pin(first, last);
    SessionTiming sum;
    const auto read = [&](std::size_t end) {
        const auto done = static_cast<std::size_t>(session.position());
        if (done >= end) return false;
        session.prefill(std::span(prompt.tokens).subspan(done, end - done), progress);
        sum.prefill_ms += session.timing().prefill_ms;
        sum.compress_ms += session.timing().compress_ms;
        return true;
    };
    const bool hidden = prompt.question_at > 0;
    const bool worth = read(hidden ? prompt.question_at : prompt.tokens.size());
    if (worth && keep) keep();
    read(prompt.tokens.size());
    return sum;
}

std::string show_tokens(const Model& model, const std::vector<std::int32_t>& tokens) {
    std::string text = "prompt: " + with_commas(tokens.size()) + " tokens\n";
    for (const std::int32_t token : tokens) {
        std::string piece = model.piece(token, true);
        for (std::size_t at = 0; (at = piece.find('\n', at)) != std::string::npos; at += 2) {
            piece.replace(at, 1, "\\n");
        }
        text += format("%7d  '%s'\n", token, piece.c_str());
    }
    return text;
}

}  // namespace winnow::cli
