// What the tests of datasets share: temporary folders, errors as text, simple tokenizers.
#pragma once

#include <winnow/error.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>

#include "eval/dataset.h"

namespace winnow::testing {

/// An empty folder of this name in the tests' temporary folder.
inline std::string fresh_folder(const std::string& name) {
    const std::filesystem::path folder =
        std::filesystem::temp_directory_path() / ("winnow_" + name);
    std::filesystem::remove_all(folder);
    std::filesystem::create_directories(folder);
    return folder.string();
}

inline void write_file(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path, std::ios::binary) << text;
}

inline std::string read_file(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

/// "usage: ..." or "failure: ..." of the Error that f throws; empty where it throws none.
template <class F>
std::string error_text(const F& f) {
    try {
        f();
    } catch (const Error& error) {
        return (error.kind() == ErrorKind::usage ? "usage: " : "failure: ") +
               std::string(error.what());
    }
    return {};
}

/// A token per byte.
inline eval::Tokenizer byte_tokenizer() {
    return {.tokenize =
                [](std::string_view text) {
                    return std::vector<std::int32_t>(text.begin(), text.end());
                },
            .detokenize =
                [](std::span<const std::int32_t> tokens) {
                    return std::string(tokens.begin(), tokens.end());
                }};
}

/// Roughly as a model's: a token per piece of up to four letters, a space going with what follows,
/// and per digit or sign.
inline eval::Tokenizer piece_tokenizer() {
    struct Pieces {
        std::map<std::string, std::int32_t, std::less<>> ids;
        std::vector<std::string> texts;
    };
    const auto pieces = std::make_shared<Pieces>();
    const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
    return {.tokenize =
                [pieces, letter](std::string_view text) {
                    std::vector<std::int32_t> tokens;
                    for (std::size_t i = 0; i < text.size();) {
                        std::size_t end = i + (text[i] == ' ' && i + 1 < text.size() ? 1 : 0);
                        const std::size_t first = end++;
                        while (letter(text[first]) && end < text.size() && end < first + 4 &&
                               letter(text[end])) {
                            ++end;
                        }
                        const std::string piece(text.substr(i, end - i));
                        const auto [found, fresh] = pieces->ids.emplace(
                            piece, static_cast<std::int32_t>(pieces->texts.size()));
                        if (fresh) {
                            pieces->texts.push_back(piece);
                        }
                        tokens.push_back(found->second);
                        i = end;
                    }
                    return tokens;
                },
            .detokenize =
                [pieces](std::span<const std::int32_t> tokens) {
                    std::string text;
                    for (const std::int32_t token : tokens) {
                        text += pieces->texts.at(static_cast<std::size_t>(token));
                    }
                    return text;
                }};
}

}  // namespace winnow::testing
