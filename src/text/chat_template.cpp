#include "text/chat_template.h"

#include <winnow/error.h>

#include <algorithm>
#include <exception>
#include <functional>
#include <utility>
#include <vector>

#include "text/template_guard.h"

namespace winnow {
namespace {

constexpr size_t kMaxSourceBytes = 1 << 20;

std::string first_line(const std::string& text) {
    const size_t begin = text.find_first_not_of('\n');
    if (begin == std::string::npos) return "no reason is given";
    return text.substr(begin, text.find('\n', begin) - begin);
}

std::string parse_message(const std::string& reason, size_t line) {
    std::string text = "The chat template cannot be parsed";
    if (line > 0) text += ", line " + std::to_string(line);
    return text + ": " + first_line(reason) + ".";
}

/// The engine's parse errors show a piece of the source with a caret below, not the line: finds the
/// piece again. Returns 0 where there is none.
size_t line_of_caret(const std::string& message, const std::string& source) {
    const size_t caret_row = message.rfind('\n');
    if (caret_row == std::string::npos || message.back() != '^') return 0;
    const size_t piece_row = message.rfind('\n', caret_row - 1);
    if (piece_row == std::string::npos) return 0;
    std::string piece = message.substr(piece_row + 1, caret_row - piece_row - 1);
    const size_t spaces = message.size() - caret_row - 2;
    if (piece.size() < 6 || spaces < 3) return 0;
    piece = piece.substr(3, piece.size() - 6);
    constexpr std::string_view kArrow = "\xE2\x86\xB5";  // stands for a line end
    for (size_t at = 0; (at = piece.find(kArrow, at)) != std::string::npos;) {
        piece.replace(at, kArrow.size(), "\n");
    }
    const size_t found = source.find(piece);
    return found == std::string::npos ? 0 : line_of(source, found + spaces - 3);
}

/// Other parse errors carry no place at all: the shortest beginning of the tokens that fails in the
/// same way ends at the culprit.
size_t line_of_failure(const jinja::lexer_result& lexed, const std::string& message) {
    const auto fails_alike = [&](size_t count) {
        const auto begin = lexed.tokens.begin();
        const jinja::lexer_result part{{begin, begin + static_cast<ptrdiff_t>(count)},
                                       lexed.source};
        try {
            jinja::parse_from_tokens(part);
        } catch (const std::exception& error) {
            return message == error.what();
        }
        return false;
    };
    size_t low = 0;
    size_t high = lexed.tokens.size();
    while (high - low > 1) {
        const size_t middle = (low + high) / 2;
        (fails_alike(middle) ? high : low) = middle;
    }
    return high == 0 ? 0 : line_of(lexed.source, lexed.tokens[high - 1].pos);
}

jinja::program parse_template(const std::string& source) {
    if (source.size() > kMaxSourceBytes) {
        throw failure("The chat template has " + std::to_string(source.size()) +
                      " bytes; at most 1048576 are taken.");
    }
    jinja::lexer_result lexed;
    try {
        lexed = jinja::lexer().tokenize(source);
    } catch (const std::exception& error) {
        throw failure(parse_message(error.what(), line_of_caret(error.what(), source)));
    }
    check_template_nesting(lexed);
    try {
        jinja::program program = jinja::parse_from_tokens(lexed);
        guard_template(program);
        return program;
    } catch (const std::exception& error) {
        size_t line = line_of_caret(error.what(), lexed.source);
        if (line == 0) line = line_of_failure(lexed, error.what());
        throw failure(parse_message(error.what(), line));
    }
}

/// "While executing X at line N, column M in source: ... Error: reason" as one sentence.
std::string render_message(const std::string& text) {
    const size_t place = text.find(" at line ");
    const size_t reason = text.rfind("\nError: ");
    if (place == std::string::npos || reason == std::string::npos) {
        return "The chat template failed: " + first_line(text) + ".";
    }
    std::string where = text.substr(place + 4, text.find(" in source", place) - place - 4);
    return "The chat template failed at " + where + ": " + first_line(text.substr(reason + 8)) +
           ".";
}

RenderLimits limits_for(size_t messages, size_t bytes) {
    RenderLimits limits;
    limits.steps += static_cast<int64_t>(std::min<size_t>(messages, 1'000'000)) * 1'000;
    limits.nestings += static_cast<int64_t>(std::min<size_t>(messages * 4, 10'000));
    limits.bytes += static_cast<int64_t>(bytes) * 64;
    return limits;
}

jinja::value text_value(std::string_view text) {
    return jinja::mk_val<jinja::value_string>(std::string(text));
}

jinja::value message_value(const ChatTurn& turn, bool typed) {
    auto message = jinja::mk_val<jinja::value_object>();
    message->insert("role", text_value(turn.role));
    if (!typed) {
        message->insert("content", text_value(turn.content));
        return message;
    }
    auto part = jinja::mk_val<jinja::value_object>();
    part->insert("type", text_value("text"));
    part->insert("text", text_value(turn.content));
    auto parts = jinja::mk_val<jinja::value_array>();
    parts->push_back(part);
    message->insert("content", parts);
    return message;
}

struct BuiltIn {
    std::string_view name;
    std::string_view source;
};

constexpr BuiltIn kBuiltIns[] = {
    {"chatml",
     "{%- for message in messages -%}"
     "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
     "{%- endfor -%}"
     "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"},
    {"llama2",
     "{%- set ns = namespace(system='') -%}"
     "{%- for message in messages -%}"
     "{%- if message['role'] == 'system' -%}"
     "{%- set ns.system = '<<SYS>>\\n' + message['content'] + '\\n<</SYS>>\\n\\n' -%}"
     "{%- elif message['role'] == 'assistant' -%}"
     "{{ ' ' + message['content'] + ' ' + eos_token }}"
     "{%- else -%}"
     "{{ bos_token + '[INST] ' + ns.system + message['content'] + ' [/INST]' }}"
     "{%- set ns.system = '' -%}"
     "{%- endif -%}"
     "{%- endfor -%}"},
    {"llama3",
     "{{- bos_token -}}"
     "{%- for message in messages -%}"
     "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
     "{{ message['content'] | trim + '<|eot_id|>' }}"
     "{%- endfor -%}"
     "{%- if add_generation_prompt -%}"
     "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
     "{%- endif -%}"},
    {"mistral",
     "{{- bos_token -}}"
     "{%- set ns = namespace(system='') -%}"
     "{%- for message in messages -%}"
     "{%- if message['role'] == 'system' -%}"
     "{%- set ns.system = message['content'] + '\\n\\n' -%}"
     "{%- elif message['role'] == 'assistant' -%}"
     "{{ ' ' + message['content'] + eos_token }}"
     "{%- else -%}"
     "{{ '[INST] ' + ns.system + message['content'] + ' [/INST]' }}"
     "{%- set ns.system = '' -%}"
     "{%- endif -%}"
     "{%- endfor -%}"},
};

}  // namespace

struct ChatTemplate::Impl {
    std::string source;
    std::string bos;
    std::string eos;
    jinja::program program;
    bool takes_system = true;
    bool typed_content = false;
    bool emits_bos = false;

    std::string render(std::span<const ChatTurn> messages, bool add_generation_prompt) const;
};

std::string ChatTemplate::Impl::render(std::span<const ChatTurn> messages,
                                       bool add_generation_prompt) const {
    size_t bytes = source.size();
    auto list = jinja::mk_val<jinja::value_array>();
    std::string merged;  // system and next message as one
    for (size_t i = 0; i < messages.size(); ++i) {
        ChatTurn turn = messages[i];
        bytes += turn.content.size();
        if (i == 0 && turn.role == "system" && !takes_system) {
            if (messages.size() == 1) break;
            merged = std::string(turn.content) + "\n" + std::string(messages[1].content);
            continue;
        }
        if (i == 1 && !merged.empty()) turn.content = merged;
        list->push_back(message_value(turn, typed_content));
    }
    try {
        const RenderGuard guard(limits_for(messages.size(), bytes));
        jinja::context context(source);
        context.set_val("messages", list);
        context.set_val("bos_token", text_value(bos));
        context.set_val("eos_token", text_value(eos));
        context.set_val("enable_thinking", jinja::mk_val<jinja::value_bool>(true));
        if (add_generation_prompt) {
            context.set_val("add_generation_prompt", jinja::mk_val<jinja::value_bool>(true));
        }
        const jinja::value result = jinja::runtime(context).execute(program);
        return jinja::runtime::gather_string_parts(result)->as_string().str();
    } catch (const std::exception& error) {
        throw failure(render_message(error.what()));
    }
}

ChatTemplate::ChatTemplate(const std::string& source, std::string bos, std::string eos) {
    auto impl = std::make_unique<Impl>();
    impl->source = source;
    impl->bos = std::move(bos);
    impl->eos = std::move(eos);
    impl->program = parse_template(source);
    // The engine tries the template on sample messages to learn what it can take.
    const auto caps = [&] {
        const RenderGuard guard(RenderLimits{});
        try {
            return jinja::caps_get(impl->program);
        } catch (const std::exception& error) {
            throw failure(render_message(error.what()));
        }
    }();
    impl->takes_system = caps.supports_system_role;
    impl->typed_content = caps.supports_typed_content && !caps.supports_string_content;
    if (!impl->bos.empty()) {
        const ChatTurn hello{"user", "Hello"};
        try {
            impl->emits_bos = impl->render({&hello, 1}, true).starts_with(impl->bos);
        } catch (const Error&) {
            // A template that cannot take one user message says so when it is used.
        }
    }
    impl_ = std::move(impl);
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

std::string ChatTemplate::apply(std::span<const ChatTurn> messages,
                                bool add_generation_prompt) const {
    return impl_->render(messages, add_generation_prompt);
}

bool ChatTemplate::emits_bos() const noexcept {
    return impl_->emits_bos;
}

std::string built_in_template(std::string_view name) {
    if (name.find("{{") != std::string_view::npos || name.find("{%") != std::string_view::npos) {
        return std::string(name);
    }
    std::string names;
    for (const BuiltIn& entry : kBuiltIns) {
        if (entry.name == name) return std::string(entry.source);
        names += (names.empty() ? "" : ", ") + std::string(entry.name);
    }
    throw usage_error("--chat-template '" + std::string(name) + "' is not a template; give " +
                      names + " or Jinja source.");
}

}  // namespace winnow
