// A tiny model and a text about ships in a scratch folder, for tests of the command line.
#pragma once

#include <memory>
#include <string>

#include "support/program.h"
#include "support/tiny_gguf.h"

namespace winnow::testing {

/// "Ship 0 came home in the rain. Ship 1 ..."
inline std::string ship_text() {
    std::string text;
    for (int i = 0; i < 20; ++i) {
        text += "Ship " + std::to_string(i) + " came home in the rain. ";
    }
    return text;
}

/// With the model as tiny.gguf and ship_text() as text.
inline std::unique_ptr<Program> program_with_ships() {
    auto program = std::make_unique<Program>();
    TinyModelOptions options;
    options.tokenizer = TinyTokenizer::byte_bpe;
    write_tiny_gguf(program->path("tiny.gguf"), options);
    program->file("text", ship_text());
    return program;
}

}  // namespace winnow::testing
