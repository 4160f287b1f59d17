// Every flag of the command line, said once: the same visits make the flags, their help, their
// ranges and the `options` object of --json. Subcommands choose groups of them.
#pragma once

#include <winnow/options.h>
#include <winnow/sampling.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace winnow::cli {

struct Options {
    // model
    std::string model;
    int threads = 0;
    int ctx_size = 0;
    int batch_size = 512;
    bool allow_long = false;
    bool log = false;
    // cache
    CacheOptions cache;
    // prompt
    std::string prompt;
    std::string file;
    std::string system_prompt;
    std::string system_prompt_file;
    bool no_conversation = false;
    bool escape = false;
    std::string chat_template;
    std::string chat_template_file;
    std::string answer_prefix;
    bool verbose_prompt = false;
    std::vector<std::string> pin;
    std::string question_mark;
    // session on disk
    std::string session;
    bool session_ro = false;
    // generation
    int n_predict = -1;
    std::int64_t seed = -1;  ///< -1: drawn at the start, and replaced by the number drawn
    SamplingOptions sampling;
    std::string grammar_file;
    std::string json_schema_file;
    std::vector<std::string> reverse_prompt;
    // output
    bool json = false;
    bool color = false;
    bool compare_full = false;
};

/// A flag as the command line shows it.
struct Flag {
    std::string names;  ///< "-n,--n-predict"; the first long name, in snake case, is the JSON key
    std::string value;  ///< what --help calls its value
    std::string help;
    double low = -std::numeric_limits<double>::infinity();  ///< least value of a number
    double high = std::numeric_limits<double>::infinity();
};

constexpr double kIntMax = std::numeric_limits<std::int32_t>::max();

template <class O, class Visitor>
void visit_model_options(O& o, Visitor&& v) {
    v(Flag{"-m,--model", "FILE", "the GGUF file of the model"}, o.model);
    v(Flag{"-t,--threads", "N", "threads of all computation; 0: one per physical core", 0, 4096},
      o.threads);
    v(Flag{"-c,--ctx-size", "N", "most positions of a session; 0: those the model was trained for",
           0, kIntMax},
      o.ctx_size);
    v(Flag{"-b,--batch-size", "N", "prompt tokens per chunk of prefill", 1, 1 << 20}, o.batch_size);
    v(Flag{"--allow-long", "", "go on past the positions the model was trained for"}, o.allow_long);
    v(Flag{"--log", "", "show the messages of ggml and llama.cpp on stderr"}, o.log);
}

template <class O, class Visitor>
void visit_prompt_options(O& o, Visitor&& v) {
    v(Flag{"-p,--prompt", "TEXT", "the prompt; with -f it follows the file after a blank line"},
      o.prompt);
    v(Flag{"-f,--file", "FILE", "a file to read the prompt from, byte for byte; - is stdin"},
      o.file);
    v(Flag{"--system-prompt", "TEXT", "the system message (short: -sys)"}, o.system_prompt);
    v(Flag{"--system-prompt-file", "FILE", "a file that holds it (short: -sysf)"},
      o.system_prompt_file);
    v(Flag{"--no-conversation", "",
           "no chat template: the text goes to the model as it is (short: -no-cnv)"},
      o.no_conversation);
    v(Flag{"-e,--escape", "", "read \\n \\r \\t \\\" \\' \\\\ \\xHH in texts as escapes"},
      o.escape);
    v(Flag{"--chat-template", "NAME|JINJA", "used in place of the model's own chat template"},
      o.chat_template);
    v(Flag{"--chat-template-file", "FILE", "a file that holds it"}, o.chat_template_file);
    v(Flag{"--answer-prefix", "TEXT", "opens the answer; the model goes on from there"},
      o.answer_prefix);
    v(Flag{"--pin", "system|N|TEXT",
           "never evict the system prompt, the first N tokens, or every place of a text; may be "
           "repeated"},
      o.pin);
    v(Flag{"--question-mark", "TEXT",
           "with --question-hidden: the question begins where this text stands last; without it, "
           "it is what -p says behind -f"},
      o.question_mark);
    v(Flag{"--verbose-prompt", "", "show the prompt and its tokens on stderr"}, o.verbose_prompt);
}

template <class O, class Visitor>
void visit_session_options(O& o, Visitor&& v) {
    v(Flag{"--session", "FILE",
           "go on from the cache in this file, which is made or brought up to date"},
      o.session);
    v(Flag{"--session-ro", "", "do not write that file"}, o.session_ro);
}

template <class O, class Visitor>
void visit_generation_options(O& o, Visitor&& v) {
    auto& s = o.sampling;
    v(Flag{"-n,--n-predict,--predict", "N",
           "most tokens of the answer; -1: until it ends, 0: only read the prompt", -1, kIntMax},
      o.n_predict);
    v(Flag{"--temp,--temperature", "X", "0 takes the likeliest token; higher is freer", 0, 1e3},
      s.temp);
    v(Flag{"--top-k", "N", "draw from the N likeliest tokens; 0: all", 0, kIntMax}, s.top_k);
    v(Flag{"--top-p", "X", "draw from the likeliest tokens that hold this probability", 0, 1},
      s.top_p);
    v(Flag{"--min-p", "X", "leave out tokens below this share of the likeliest", 0, 1}, s.min_p);
    v(Flag{"--repeat-penalty", "X", "divides the logits of recent tokens; 1: off", 0.01, 100},
      s.repeat_penalty);
    v(Flag{"--repeat-last-n", "N", "how many tokens are recent; 0: none, -1: the context", -1,
           kIntMax},
      s.repeat_last_n);
    v(Flag{"--presence-penalty", "X", "taken off the logits of recent tokens", -100, 100},
      s.presence_penalty);
    v(Flag{"--frequency-penalty", "X", "the same, times how often they came", -100, 100},
      s.frequency_penalty);
    v(Flag{"-s,--seed", "N", "seed of the draws; -1: a new one each time", -1, 4294967295.0},
      o.seed);
    v(Flag{"--ignore-eos", "", "do not let the model end its answer"}, s.ignore_eos);
    v(Flag{"-r,--reverse-prompt", "TEXT", "ends the answer where it appears; may be repeated"},
      o.reverse_prompt);
    v(Flag{"--grammar", "GBNF", "the answer follows this grammar"}, s.grammar);
    v(Flag{"--grammar-file", "FILE", "a file that holds it"}, o.grammar_file);
    v(Flag{"-j,--json-schema", "JSON", "the answer is JSON of this schema; {} for any JSON"},
      s.json_schema);
    v(Flag{"--json-schema-file", "FILE", "a file that holds it (short: -jf)"}, o.json_schema_file);
}

/// The flags of the options every command that runs a model shares, cache options apart.
template <class O, class Visitor>
void visit_run_options(O& o, Visitor&& v) {
    visit_model_options(o, v);
    visit_prompt_options(o, v);
    visit_session_options(o, v);
    visit_generation_options(o, v);
}

}  // namespace winnow::cli
