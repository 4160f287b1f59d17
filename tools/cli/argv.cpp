#include "argv.h"

#include <winnow/error.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "suggest.h"

namespace winnow::cli {
namespace {

using Pair = std::pair<std::string_view, std::string_view>;

// CLI11 knows one letter behind one dash; llama.cpp has these as well.
constexpr std::array<Pair, 5> kShortNames{{
    {"-sys", "--system-prompt"},
    {"-sysf", "--system-prompt-file"},
    {"-no-cnv", "--no-conversation"},
    {"-co", "--color"},
    {"-jf", "--json-schema-file"},
}};

constexpr std::string_view kBitsOfK =
    "choose the format of the cache by --quant-method and the bits of K by --nbits-k (2, 3, 4, "
    "8 or 16)";
constexpr std::string_view kBitsOfV =
    "choose the format of the cache by --quant-method and the bits of V by --nbits-v (2, 3, 4, "
    "8 or 16)";
constexpr std::string_view kAttention =
    "leave it out: attention always reads the packed cache in one pass; --quant-method and "
    "--nbits say how it is packed";
constexpr std::string_view kOffload =
    "leave it out: this build computes on the CPU; -t says with how many threads";

constexpr std::string_view kBatch =
    "-b says how many tokens of a prompt are read at once; there is no second size";
constexpr std::string_view kThreads = "-t says the threads of prompt and answer alike";
constexpr std::string_view kChat = "`winnow chat` holds a conversation, `winnow run` answers once";
constexpr std::string_view kMapped = "leave it out: the file is always mapped";
constexpr std::string_view kOneTurn = "leave it out: `winnow run` answers one prompt and ends";
constexpr std::string_view kEvict =
    "choose what leaves the cache by --method, as in --method streamingllm, whose --n-sink "
    "tokens stay; --allow-long goes on past the trained context";
constexpr std::string_view kLocal =
    "nothing is fetched at run time; -m names the GGUF file of a model";
constexpr std::string_view kMerge = "merge adapters into the model first, with llama-export-lora";

constexpr std::string_view kPromptCache =
    "--session FILE keeps the prompt's cache and goes on from it; --session-ro leaves the file as "
    "it is, and `winnow chat --session` keeps the answers too";

// Flags of llama.cpp whose job another flag does here.
constexpr auto kAnswered = std::to_array<Pair>({
    {"--prompt-cache", kPromptCache},
    {"--prompt-cache-ro", kPromptCache},
    {"--prompt-cache-all", kPromptCache},
    {"-ctk", kBitsOfK},
    {"--cache-type-k", kBitsOfK},
    {"-ctv", kBitsOfV},
    {"--cache-type-v", kBitsOfV},
    {"-fa", kAttention},
    {"--flash-attn", kAttention},
    {"-ngl", kOffload},
    {"--gpu-layers", kOffload},
    {"--n-gpu-layers", kOffload},
    {"-dev", kOffload},
    {"--device", kOffload},
    {"-ub", kBatch},
    {"--ubatch-size", kBatch},
    {"-tb", kThreads},
    {"--threads-batch", kThreads},
    {"-cnv", kChat},
    {"--conversation", kChat},
    {"-i", kChat},
    {"--interactive", kChat},
    {"-st", kOneTurn},
    {"--single-turn", kOneTurn},
    {"--no-display-prompt", "leave it out: the prompt is never printed again"},
    {"--jinja", "leave it out: chat templates are always read as Jinja"},
    {"--no-warmup", "leave it out: there is no warm-up"},
    {"--mlock", kMapped},
    {"--no-mmap", kMapped},
    {"--keep", kEvict},
    {"--context-shift", kEvict},
    {"--no-context-shift", kEvict},
    {"-hf", kLocal},
    {"--hf-repo", kLocal},
    {"-mu", kLocal},
    {"--model-url", kLocal},
    {"--lora", kMerge},
    {"-v", "--log shows the messages of ggml and llama.cpp"},
    {"--verbose", "--log shows the messages of ggml and llama.cpp"},
});

template <std::size_t N>
std::string_view look_up(const std::array<Pair, N>& table, std::string_view name) {
    const auto* found = std::find_if(table.begin(), table.end(),
                                     [&](const Pair& pair) { return pair.first == name; });
    return found == table.end() ? std::string_view{} : found->second;
}

std::vector<std::string> known_names(const CLI::App& parser) {
    std::vector<std::string> names;
    for (const CLI::Option* option : parser.get_options()) {
        for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
        for (const std::string& name : option->get_snames()) names.push_back("-" + name);
    }
    for (const auto& [name, replacement] : kShortNames) {
        if (parser.get_option_no_throw(std::string(replacement)) != nullptr) {
            names.emplace_back(name);
        }
    }
    return names;
}

Error unknown_flag(const CLI::App& parser, const std::string& name) {
    return usage_error("There is no flag " + name + " in `" + parser.get_name() +
                       "`; the nearest is " + nearest(name, known_names(parser)) + ".");
}

// The flag as CLI11 knows it.
std::string canonical(const CLI::App& parser, std::string name) {
    if (name.starts_with("--")) std::replace(name.begin(), name.end(), '_', '-');
    if (const auto answer = look_up(kAnswered, name); !answer.empty()) {
        throw usage_error("There is no " + name + " here: " + std::string(answer) + ".");
    }
    if (const auto known = look_up(kShortNames, name); !known.empty()) name = known;
    const bool spelled = name.starts_with("--") ? name.size() > 2 : name.size() == 2;
    if (!spelled || parser.get_option_no_throw(name) == nullptr) throw unknown_flag(parser, name);
    return name;
}

// llama.cpp lets --color stand alone or take one of three words.
bool is_color_word(const std::string& word) {
    return word == "on" || word == "auto" || word == "off";
}

}  // namespace

bool is_switch(const CLI::App& parser, const std::string& name) {
    return parser.get_option(name)->get_items_expected_max() == 0;
}

std::vector<std::string> normalise(const CLI::App& parser, const std::vector<std::string>& args) {
    std::vector<std::string> result;
    for (std::size_t i = 0; i < args.size(); ++i) {
        const std::string& word = args[i];
        if (word.size() < 2 || word.front() != '-') {
            throw usage_error("'" + word + "' stands alone in `" + parser.get_name() +
                              "`; every value follows its flag, and a text with blanks is "
                              "quoted: -m model.gguf -p \"the prompt\".");
        }
        const std::size_t equals = word.starts_with("--") ? word.find('=') : std::string::npos;
        const std::string name = canonical(parser, word.substr(0, equals));
        const CLI::Option* option = parser.get_option_no_throw(name);
        const bool joined = equals != std::string::npos;
        if (name == "--color" && !joined && i + 1 < args.size() && is_color_word(args[i + 1])) {
            if (args[++i] != "off") result.push_back(name);
            continue;
        }
        if (is_switch(parser, name)) {
            if (joined) throw usage_error(name + " is a switch and takes no value.");
            result.push_back(name);
            continue;
        }
        if (!joined && i + 1 == args.size()) {
            throw usage_error(name + " needs a value behind it: " + name + " " +
                              option->get_type_name() + ".");
        }
        result.push_back(name);
        result.push_back(joined ? word.substr(equals + 1) : args[++i]);
    }
    return result;
}

}  // namespace winnow::cli
