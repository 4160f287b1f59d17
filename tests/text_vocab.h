// What the tests of the text layer share: errors as text, and the vocabularies of real models.
#pragma once

#include <gtest/gtest.h>
#include <winnow/error.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "text/vocab.h"

namespace winnow {

/// The message of the Error that f throws, with its kind in front; empty if it throws none.
template <class F>
inline std::string error_of(const F& f) {
    try {
        f();
    } catch (const Error& error) {
        return (error.kind() == ErrorKind::usage ? "usage: " : "failure: ") +
               std::string(error.what());
    }
    return {};
}

inline bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

inline std::string repeat(const std::string& text, int times) {
    std::string out;
    for (int i = 0; i < times; ++i) out += text;
    return out;
}

inline std::string model_path(const std::string& file) {
    const char* folder = std::getenv("WINNOW_TEST_MODELS");
    const char* home = std::getenv("HOME");
    if (folder == nullptr && home == nullptr) return file;
    return (folder != nullptr ? std::string(folder) : std::string(home) + "/.cache/winnow-models") +
           "/" + file;
}

inline constexpr const char* kSmol = "SmolLM2-135M-Instruct.Q4_1.gguf";
inline constexpr const char* kQwen = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf";

inline std::shared_ptr<const Vocab> load_once(const std::string& file) {
    static std::map<std::string, std::shared_ptr<const Vocab>> loaded;
    auto& vocab = loaded[file];
    if (!vocab && std::filesystem::exists(model_path(file))) vocab = Vocab::load(model_path(file));
    return vocab;
}

#define NEED_VOCAB(name, file)                                                        \
    const auto name = load_once(file);                                                \
    if (!name)                                                                        \
    GTEST_SKIP() << "The model " << file << " is missing; set WINNOW_TEST_MODELS to " \
                 << "the folder that has it."

}  // namespace winnow
