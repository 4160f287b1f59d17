#include "eval/datasets/model_tokenizer.h"

namespace winnow::eval {

Tokenizer model_tokenizer(std::shared_ptr<const Model> model) {
    return {
        .tokenize = [model](std::string_view text) { return model->tokenize(text, false, false); },
        .detokenize =
            [model](std::span<const std::int32_t> tokens) {
                std::string text;
                for (const std::int32_t token : tokens) {
                    text += model->piece(token);
                }
                return text;
            }};
}

}  // namespace winnow::eval
