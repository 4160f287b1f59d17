// winnow tune: how `mixed` splits a budget over a model's layers, tokens and bits.
#include <unistd.h>
#include <winnow/tune.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "builtin_text.h"
#include "commands.h"
#include "files.h"
#include "flags.h"
#include "progress.h"
#include "prompt.h"
#include "signals.h"
#include "terminal.h"

namespace winnow::cli {
namespace {

using Json = nlohmann::ordered_json;

// The trials of a search that has not ended, a line each, behind a line that says of what: so
// kill -9 loses no more than the one in work. Gone when the profile is written.
class TrialLog {
  public:
    TrialLog(std::string path, const Json& of) : path_(std::move(path)) {
        std::ifstream in(path_, std::ios::binary);
        std::string line, whole;
        bool same = false;
        while (std::getline(in, line) && !in.eof()) {
            const Json object = Json::parse(line, nullptr, false);
            if (whole.empty()) {
                same = object == of;
            } else if (object.is_object() && object.contains("trial") &&
                       object["trial"].is_string() && object.contains("kl") &&
                       object["kl"].is_number()) {
                known_[object["trial"].get<std::string>()] = object["kl"].get<double>();
            } else {
                break;  // nothing behind a damaged line counts
            }
            if (!same) break;
            whole += line + "\n";
        }
        if (!same) {
            known_.clear();
            whole = of.dump() + "\n";
        }
        replace_file("-o", path_, whole);
        file_ = std::fopen(path_.c_str(), "ab");
        if (file_ == nullptr) throw failure("-o: " + path_ + " cannot be written.");
    }
    ~TrialLog() { std::fclose(file_); }
    TrialLog(const TrialLog&) = delete;
    TrialLog& operator=(const TrialLog&) = delete;

    const std::map<std::string, double>& known() const { return known_; }

    void add(const TuneTrial& trial) {
        const std::string line = Json{{"trial", trial.name}, {"kl", trial.kl}}.dump() + "\n";
        if (std::fwrite(line.data(), 1, line.size(), file_) != line.size() ||
            std::fflush(file_) != 0) {
            throw failure("-o: " + path_ + " cannot be written; the trials before are kept.");
        }
        fsync(fileno(file_));
    }
    void remove() const {
        std::error_code ignored;
        std::filesystem::remove(path_, ignored);
    }

  private:
    std::string path_;
    std::map<std::string, double> known_;
    std::FILE* file_ = nullptr;
};

// "1/32 of the full cache: KL 0.106 -> 0.096, held out 0.110 -> 0.101".
std::string summary(const Json& profile) {
    std::string text;
    for (const Json& at : profile.at("points")) {
        text +=
            format("  1/%-4.0f %12.0f bytes   KL %.4f -> %.4f   held out %.4f -> %.4f\n",
                   1.0 / at.at("share").get<double>(), at.at("bytes").get<double>(),
                   at.at("kl_builtin").get<double>(), at.at("kl").get<double>(),
                   at.at("held_out_kl_builtin").get<double>(), at.at("held_out_kl").get<double>());
    }
    return text;
}

// A bar on a terminal, elsewhere a line now and then.
class TuneBar {
  public:
    explicit TuneBar(bool quiet) : quiet_(quiet), terminal_(is_terminal(2)), bar_(!quiet) {}
    void show(const TuneProgress& at) {
        const double share = at.trials > 0 ? static_cast<double>(at.done) / at.trials : 0.0;
        const std::string what = at.trial == nullptr
                                     ? format("reading %.0f %%", 100.0 * at.prefill)
                                     : format("trial %d of about %d", at.done, at.trials);
        bar_.show("tune", share, what);
        if (!quiet_ && !terminal_ && at.trial != nullptr && at.done >= next_) {
            write_err("tune: " + what + "\n");
            next_ = at.done + 40;
        }
    }

  private:
    bool quiet_, terminal_;
    int next_ = 40;
    ProgressBar bar_;
};

}  // namespace

int tune_command(const Arguments& args) {
    Options options;
    std::string output;
    TuneOptions tuning;
    auto parser =
        make_parser("tune",
                    "Fits the method mixed to a model: which split of a budget over layers, "
                    "tokens and bits of K and V costs least.",
                    options, kModelFlags);
    add_value(*parser, "Text",
              {"-f,--file", "FILE",
               "a text as the model will meet it; - is stdin; without it a "
               "built-in one"},
              options.file);
    add_value(*parser, "Text",
              {"--tokens", "N", "tokens of one prompt; three are read", 256, kIntMax},
              tuning.prompt_tokens);
    add_value(
        *parser, "Text",
        {"--force-tokens", "N", "tokens behind each whose predictions are compared", 16, 4096},
        tuning.forced);
    add_value(*parser, "Output",
              {"-o,--output", "FILE", "the profile; without it, where planning looks for it"},
              output);
    add_switch(*parser, "--json", options.json, "the profile on stdout, and nothing else");
    if (!parse(*parser, args)) return 0;
    settle(options, "tune", kModelFlags);
    const std::string text = options.file.empty() ? kBuiltinText : load_texts(options).user;
    if (!output.empty()) check_writable("-o", output);

    const InterruptScope interrupts;
    const auto model = load_model(options);
    if (output.empty()) {
        output = profile_path(*model);
        if (output.empty()) throw usage_error("there is no home to leave a profile in; give -o.");
        std::error_code ignored;
        std::filesystem::create_directories(std::filesystem::path(output).parent_path(), ignored);
        check_writable("-o", output);
    }
    const std::vector<std::int32_t> tokens = model->tokenize(text, true, false);
    TrialLog log(output + ".trials", {{"format", "winnow-trials"},
                                      {"version", version()},
                                      {"model_sha256", model->sha256()},
                                      {"tokens", tokens},
                                      {"prompt_tokens", tuning.prompt_tokens},
                                      {"force_tokens", tuning.forced}});
    if (!log.known().empty() && !options.json) {
        write_err(format("tune: going on after %zu trials\n", log.known().size()));
    }
    std::string profile;
    {
        TuneBar bar(options.json);
        profile = tune_profile(model, tokens, tuning, log.known(), [&](const TuneProgress& at) {
            if (at.trial != nullptr) log.add(*at.trial);
            bar.show(at);
            return !interrupted();
        });
    }
    replace_file("-o", output, profile);
    log.remove();
    if (options.json) {
        write_out(profile);
        flush_out();
        return 0;
    }
    write_err("tuned on " + with_commas(tokens.size()) + " tokens: " + output + "\n");
    write_out(summary(Json::parse(profile)));
    flush_out();
    return 0;
}

}  // namespace winnow::cli
