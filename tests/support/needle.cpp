#include "support/needle.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace winnow::testing {

namespace {

std::string detokenize(const Model& model, const std::vector<std::int32_t>& tokens) {
    std::string text;
    for (const std::int32_t token : tokens) {
        text += model.piece(token);
    }
    return text;
}

// Behind the last sentence that ends at or before `at`; the start where there is none.
std::size_t sentence_end(const std::string& text, std::size_t at) {
    for (std::size_t end = std::min(at, text.size()); end > 0; --end) {
        const bool stop = std::string_view(".!?").find(text[end - 1]) != std::string_view::npos;
        if (stop && (end == text.size() || text[end] == ' ' || text[end] == '\n')) {
            return end;
        }
    }
    return 0;
}

}  // namespace

std::string read_haystack(const std::string& folder, std::size_t most_bytes) {
    std::vector<std::filesystem::path> files;
    if (std::filesystem::is_directory(folder)) {
        for (const auto& entry : std::filesystem::directory_iterator(folder)) {
            if (entry.path().extension() == ".txt") {
                files.push_back(entry.path());
            }
        }
    }
    std::sort(files.begin(), files.end());
    std::string text;
    for (const std::filesystem::path& file : files) {
        std::ifstream in(file, std::ios::binary);
        text += text.empty() ? "" : "\n";
        text.append(std::istreambuf_iterator<char>(in), {});
        if (text.size() >= most_bytes) {
            break;
        }
    }
    return text.substr(0, most_bytes);
}

NeedlePrompt needle_prompt(const Model& model, const std::string& haystack, int length,
                           double depth, const std::string& key, const std::string& number) {
    constexpr std::size_t kSkip = 1000;
    std::vector<std::int32_t> tokens = model.tokenize(haystack, false, false);
    const std::size_t wanted = static_cast<std::size_t>(length - 120);
    if (tokens.size() < kSkip + wanted) {
        throw failure("the haystack has " + std::to_string(tokens.size()) + " tokens, but " +
                      std::to_string(kSkip + wanted) + " are needed.");
    }
    tokens.assign(tokens.begin() + kSkip, tokens.begin() + kSkip + static_cast<long>(wanted));
    const std::vector<std::int32_t> before(
        tokens.begin(), tokens.begin() + static_cast<long>(depth * static_cast<double>(wanted)));
    std::string context = detokenize(model, tokens);
    const std::size_t at = sentence_end(context, detokenize(model, before).size());
    const std::string needle =
        "One of the special magic numbers for " + key + " is: " + number + ".";
    context.insert(at, at == 0 ? needle + " " : " " + needle);

    const std::array<ChatMessage, 1> messages{
        {{"user", "Read the following text carefully and answer the question at the end.\n\n" +
                      context + "\n\nWhat is the special magic number for " + key +
                      " mentioned in the provided text?"}}};
    const std::string text = model.apply_chat_template(messages) + "The special magic number for " +
                             key + " mentioned in the provided text is";
    return {model.tokenize(text, false, true), number};
}

std::string greedy_answer(Session& session, int most) {
    std::string text;
    for (int i = 0; i < most; ++i) {
        const std::span<const float> logits = session.logits();
        const auto token = static_cast<std::int32_t>(
            std::max_element(logits.begin(), logits.end()) - logits.begin());
        if (session.model().is_end_of_generation(token)) {
            break;
        }
        text += session.model().piece(token);
        if (i + 1 < most) {
            session.decode(token);
        }
    }
    return text;
}

}  // namespace winnow::testing
