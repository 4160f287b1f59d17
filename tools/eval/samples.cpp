#include "eval/samples.h"

#include <winnow/error.h>

#include <algorithm>
#include <array>
#include <map>

namespace winnow::eval {

namespace {

// The user's message as the model reads it, before tokenizing.
std::string rendered(const Model& model, const Sample& sample) {
    if (!sample.chat_template || !model.has_chat_template()) {
        return sample.input + sample.answer_prefix;
    }
    const std::array<ChatMessage, 1> messages{{{"user", sample.input}}};
    return model.apply_chat_template(messages) + sample.answer_prefix;
}

std::vector<std::int32_t> tokens_of(const Model& model, const Sample& sample) {
    const std::string text = rendered(model, sample);
    // A raw prompt is the benchmark's; what looks like a marker in it stays text.
    return sample.chat_template && model.has_chat_template() ? tokenize_prompt(model, text)
                                                             : model.tokenize(text, true, false);
}

// The last line of the user's message, and the one above where it only opens the answer.
std::string last_line(std::string text) {
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) {
        text.pop_back();
    }
    std::size_t at = text.rfind('\n');
    if (at != std::string::npos && at > 0 && text.substr(at + 1) == "Answer:") {
        at = text.rfind('\n', at - 1);
    }
    return text.substr(at + 1);
}

std::string hash_samples(const std::vector<Sample>& samples) {
    std::string all;
    for (const Sample& sample : samples) {
        all += sample.task + "\n" + std::to_string(sample.index) + "\n" + sample.input + "\n" +
               sample.answer_prefix + "\n" + std::to_string(sample.max_new_tokens) + "\n";
        for (const std::string& output : sample.outputs) {
            all += output + "\n";
        }
        for (const std::string& name : sample.all_classes) {
            all += name + "\n";
        }
    }
    return hash_text(all);
}

}  // namespace

std::vector<std::string> split_names(const std::string& list) {
    std::vector<std::string> names;
    for (std::size_t at = 0; at <= list.size();) {
        const std::size_t end = std::min(list.find(',', at), list.size());
        std::string name = list.substr(at, end - at);
        std::erase(name, ' ');
        if (!name.empty()) {
            names.push_back(name);
        }
        at = end + 1;
    }
    return names;
}

int template_tokens(const Model& model) {
    if (!model.has_chat_template()) {
        return 0;
    }
    const std::string word = "word";
    const std::array<ChatMessage, 1> messages{{{"user", word}}};
    const auto around = tokenize_prompt(model, model.apply_chat_template(messages)).size();
    return static_cast<int>(around - model.tokenize(word, false, false).size());
}

PromptSet prompts_of(Dataset dataset, const Settings& settings,
                     const std::shared_ptr<const Model>& model,
                     const std::function<double(const Sample&, const std::string&)>& score) {
    const auto samples = std::make_shared<const std::vector<Sample>>(std::move(dataset.samples));
    if (samples->empty()) {
        throw failure("there is no sample to run; --datasets and --data say which.");
    }
    const int context = context_of(settings, *model);
    PromptSet set;
    auto place = std::make_shared<std::map<std::string, std::size_t>>();
    for (std::size_t i = 0; i < samples->size(); ++i) {
        const Sample& sample = (*samples)[i];
        std::string id = sample.task + "-" + std::to_string(sample.index);
        if (!place->emplace(id, i).second) {  // official files may number nothing
            id += "-line" + std::to_string(i);
            place->emplace(id, i);
        }
        set.ids.push_back(id);
        set.weights.push_back(static_cast<double>(sample.input.size()));
    }
    set.make = [=, ids = set.ids](std::size_t i) {
        const Sample& sample = (*samples)[i];
        Prompt prompt;
        prompt.id = ids[i];
        prompt.task = sample.task;
        prompt.index = sample.index;
        prompt.length = sample.length;
        prompt.tokens = tokens_of(*model, sample);
        if (sample.asks_last) {
            prompt.question_at = question_token(*model, prompt.tokens, last_line(sample.input),
                                                sample.answer_prefix);
        }
        prompt.max_new_tokens = sample.max_new_tokens;
        prompt.stop_at_newline = sample.stop_at_newline;
        prompt.expected = sample.outputs;
        prompt.all_classes = sample.all_classes;
        const int needed = static_cast<int>(prompt.tokens.size()) + sample.max_new_tokens;
        if (needed > context) {
            throw usage_error("prompt " + prompt.id + " and its answer need " +
                              std::to_string(needed) + " positions, but the context has " +
                              std::to_string(context) +
                              "; use a shorter length, or -c with --allow-long.");
        }
        return prompt;
    };
    set.score = [=](const Prompt& prompt, const std::string& reply) {
        return score((*samples)[place->at(prompt.id)], reply);
    };
    set.wording = dataset.wording;
    set.settings = {{"datasets", settings.datasets},
                    {"max_num_examples", settings.max_num_examples},
                    {"sample_method", settings.sample_method},
                    {"samples_sha256", hash_samples(*samples)},
                    {"model_version", settings.model_version}};
    return set;
}

}  // namespace winnow::eval
