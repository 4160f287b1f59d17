#include <winnow/winnow.h>

#include <iostream>

int main(int argc, char** argv) try {
    if (argc != 3) throw winnow::usage_error("Give two arguments: a GGUF file and a question.");
    const auto model = winnow::Model::load(argv[1]);
    winnow::Session session(model, {.method = "snapkv", .max_capacity_prompts = 256, .nbits = 4});
    winnow::Sampler sampler(model, {});  // greedy

    const winnow::ChatMessage question{"user", argv[2]};
    session.prefill(model->tokenize(model->apply_chat_template({&question, 1}), false, true));
    for (int i = 0; i < 60; ++i) {
        const int token = sampler.sample(session.logits());
        if (model->is_end_of_generation(token)) break;
        std::cout << model->piece(token) << std::flush;
        sampler.accept(token);
        session.decode(token);
    }
    const winnow::CacheStats stats = session.stats();
    std::cerr << "\n" << stats.bytes << " of " << stats.bytes_full_f16 << " bytes of cache\n";
} catch (const winnow::Error& error) {
    std::cerr << error.what() << "\n";
    return 1;
}
