// What the tests of `winnow eval` stand on: a tiny model, a small haystack, and configurations.
#pragma once

#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "eval/runner.h"
#include "support/gguf_refusal.h"
#include "support/tiny_gguf.h"

namespace winnow::eval {

inline std::string message_of(const std::function<void()>& call) {
    try {
        call();
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

class Eval : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        folder_ = std::make_unique<testing::Folder>();
        testing::TinyModelOptions options;
        options.tokenizer = testing::TinyTokenizer::byte_bpe;
        options.context = 2048;
        testing::write_tiny_gguf(folder_->file("tiny.gguf"), options);
        model_ = Model::load(folder_->file("tiny.gguf"), {.threads = 1});
        std::filesystem::create_directories(folder_->file("hay"));
        std::string text;
        for (int i = 0; i < 60; ++i) {
            text += "Number " + std::to_string(i) + " of the ships came home. ";
        }
        std::ofstream(folder_->file("hay/b.txt")) << text;
        std::ofstream(folder_->file("hay/a.txt")) << "The first file! It has two sentences.";
    }
    static void TearDownTestSuite() {
        model_.reset();
        folder_.reset();
    }
    static Settings needle_settings() {
        Settings s;
        s.haystack = folder_->file("hay");
        s.s_len = 600;
        s.e_len = 700;
        s.step = 100;
        s.depths = 2;
        s.needle = "sf,number";
        return s;
    }
    static std::vector<Config> configs(const std::string& sweep, const Settings& s) {
        return make_configs(expand_sweep(sweep, {}), find_suite("needle"), s, model_);
    }

    static inline std::unique_ptr<testing::Folder> folder_;
    static inline std::shared_ptr<const Model> model_;
};

}  // namespace winnow::eval
