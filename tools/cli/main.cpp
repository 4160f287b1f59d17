// The command line `winnow`: chooses the subcommand and turns every mistake into one message and
// an exit code: 2 usage, 1 a file, model or prompt, 130 Ctrl-C.
#include <algorithm>
#include <array>
#include <exception>
#include <limits>
#include <new>
#include <string>

#include "commands.h"
#include "signals.h"
#include "suggest.h"
#include "terminal.h"

namespace winnow::cli {
namespace {

struct Command {
    const char* name;
    const char* summary;
    int (*run)(const Arguments& args);
};

constexpr auto kCommands = std::to_array<Command>({
    {"run", "answer a prompt", run_command},
    {"chat", "talk over one compressed cache", chat_command},
    {"inspect", "show which tokens of a prompt are kept", inspect_command},
    {"session", "show what a file of --session holds", session_command},
    {"methods", "list the pruning methods and the cache formats", methods_command},
    {"info", "show a model's shape and what its cache costs", info_command},
    {"plan", "show what a byte budget would keep, without loading weights", plan_command},
    {"calibrate", "fit kvquant's levels for a model on a text", calibrate_command},
    {"tune", "fit how a byte budget is split to a model", tune_command},
    {"bench", "measure prefill and decode, also beside llama.cpp", bench_command},
    {"eval", "run needle, RULER, LongBench or fidelity over many caches", eval_command},
    {"check", "hold a compressed cache against the full one on your text", check_command},
    {"report", "turn results of `winnow eval` into a page, charts and CSV", report_command},
});

constexpr int kFailure = 1;
constexpr int kUsage = 2;
constexpr int kInterrupted = 130;

std::string overview() {
    std::string text =
        "winnow: language models over a pruned and packed key-value cache\n\n"
        "usage: winnow COMMAND [flags]\n\n";
    for (const Command& command : kCommands) {
        text += "  " + padded(command.name, 10) + command.summary + "\n";
    }
    return text +
           "\n`winnow COMMAND -h` lists its flags, `winnow --version` shows the version.\n\n"
           "  winnow run -m model.gguf -f book.txt -p \"Who is Anna?\" \\\n"
           "      --method pyramidkv --max-capacity-prompts 512 --quant-method kivi --nbits 4\n";
}

int dispatch(const Arguments& args) {
    if (args.empty()) {
        throw usage_error(
            "a command is missing, as in `winnow run -m FILE -p TEXT`; `winnow -h` "
            "lists them.");
    }
    const std::string& name = args.front();
    if (name == "-h" || name == "--help" || name == "help") {
        write_out(overview());
        return flush_out(), 0;
    }
    if (name == "--version") {
        write_out(std::string("winnow ") + version() + "\n");
        return flush_out(), 0;
    }
    for (const Command& command : kCommands) {
        if (name == command.name) return command.run({args.begin() + 1, args.end()});
    }
    if (name.starts_with("-")) {
        throw usage_error("winnow takes its command before its flags: `winnow run " + name +
                          " ...`; `winnow -h` lists the commands.");
    }
    std::vector<std::string> names;
    for (const Command& command : kCommands) names.emplace_back(command.name);
    throw usage_error("There is no command '" + name + "'; the nearest is '" +
                      nearest(name, names) + "', of " + quoted_list(names) + ".");
}

// Values of the user's are part of messages: no control characters, and never a page of them.
std::string presentable(std::string message) {
    constexpr std::size_t kLongest = 1200;
    if (message.size() > kLongest) message = message.substr(0, kLongest) + " ...";
    std::size_t line_breaks = 0;
    for (char& c : message) {
        if (c == '\n' && ++line_breaks <= 4) continue;
        if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = ' ';
    }
    while (!message.empty() && message.back() == ' ') message.pop_back();
    return message;
}

int report(const std::string& message, int exit_code) {
    write_err("winnow: " + presentable(message) + "\n");
    return exit_code;
}

int guarded(const Arguments& args) {
    try {
        return dispatch(args);
    } catch (const Error& error) {
        const int code = error.kind() == ErrorKind::usage     ? kUsage
                         : error.kind() == ErrorKind::stopped ? kInterrupted
                                                              : kFailure;
        return report(error.what(), code);
    } catch (const std::bad_alloc&) {
        return report("There is not enough memory for this.", kFailure);
    } catch (const std::exception& error) {
        return report(error.what(), kFailure);
    }
}

}  // namespace

std::shared_ptr<const Model> load_model(const Options& options, std::size_t text_bytes) {
    if (options.log) {
        set_log_callback([](int, const std::string& message) { write_err(message); });
    }
    LoadOptions load;
    load.threads = options.threads;
    explain_lost_file(options.model);
    load.cache = options.cache;
    // A lower bound: few texts have tokens of more than 16 bytes on average.
    constexpr std::size_t kMostBytesPerToken = 16;
    load.least_tokens = static_cast<int>(
        std::min<std::size_t>(text_bytes / kMostBytesPerToken, std::numeric_limits<int>::max()));
    if (text_bytes > 0) load.answer_tokens = std::max(options.n_predict, 0);
    if (options.ctx_size > 0) {
        load.answer_tokens =
            std::clamp(options.ctx_size - load.least_tokens, 0, load.answer_tokens);
    }
    auto model = Model::load(options.model, load);
    throw_if_interrupted();
    return model;
}

}  // namespace winnow::cli

int main(int argc, char** argv) {
    winnow::cli::exit_on_interrupt();
    return winnow::cli::guarded(winnow::cli::Arguments(argv + std::min(argc, 1), argv + argc));
}
