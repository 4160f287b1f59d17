#include "eval_flags.h"

#include <cmath>

#include "terminal.h"

namespace winnow::cli {
namespace {

constexpr const char* kRun = "Run";

class Adder {
  public:
    explicit Adder(CLI::App& parser) : parser_(parser) {}
    template <class Field>
    void operator()(const Flag& flag, Field& field) {
        add_value(parser_, "Suite", flag, field);
    }
    void operator()(const std::string& name, const std::string& help, bool& field) {
        add_switch(parser_, name, field, help, "Suite");
    }

  private:
    CLI::App& parser_;
};

void add_lengths(Adder& add, eval::Settings& s, const char* otherwise) {
    add(Flag{"--s-len", "N", std::string("first length in tokens") + otherwise, 1, kIntMax},
        s.s_len);
    add(Flag{"--e-len", "N", "last length", 1, kIntMax}, s.e_len);
    add(Flag{"--step", "N", "from one length to the next (1000)", 1, kIntMax}, s.step);
}

void add_needle(Adder& add, eval::Settings& s) {
    add(Flag{"--haystack", "DIR", "folder of .txt files that make the long text"}, s.haystack);
    add(Flag{"--mode", "NAME", "honest: chat template, needle unmarked; paper: the paper's prompt"},
        s.mode);
    add(Flag{"--needle", "NAME", "sf (a sentence), number (seven digits), or sf,number"}, s.needle);
    add_lengths(add, s, " (1000, 2000, 3000 and 4000)");
    add(Flag{"--depths", "N", "depths from 0 to 100 %", 1, 101}, s.depths);
    add("--answer-prefix",
        "open the answer about San Francisco too (the number's is opened always)", s.answer_prefix);
}

void add_datasets(Adder& add, eval::Settings& s) {
    add(Flag{"--datasets,--tasks", "LIST", "tasks, with commas; default all"}, s.datasets);
    add(Flag{"--data", "DIR", "folder of the benchmark's .jsonl files"}, s.data);
}

void add_suite(Adder& add, const std::string& suite, eval::Settings& s) {
    if (suite == "needle") {
        add_needle(add, s);
    } else if (suite == "fidelity") {
        add(Flag{"-f,--file", "PATH", "a text, or a folder of .txt files"}, s.file);
        add_lengths(add, s, " of the prompts (2000)");
        add(Flag{"--force-tokens", "N", "tokens forced behind a prompt (128)", 1, 1 << 20},
            s.force_tokens);
        add("--pack-decode", "forced tokens enter the cache one by one and are packed",
            s.pack_decode);
    } else if (suite == "ruler") {
        add_datasets(add, s);
        add(Flag{"--haystack", "DIR", "folder of .txt files: the essays"}, s.haystack);
        add(Flag{"--squad", "FILE", "SQuAD's JSON, for qa_1"}, s.squad);
        add(Flag{"--hotpotqa", "FILE", "HotpotQA's JSON, for qa_2"}, s.hotpotqa);
        add(Flag{"--word-list", "FILE", "words, one a line, in place of our own"}, s.word_list);
        add(Flag{"--write-samples", "DIR", "folder to write the samples made to, as JSONL"},
            s.write_samples);
        add_lengths(add, s, " of the prompts with their answers (4096)");
        add("--raw-prompts", "no chat template for any task", s.raw_prompts);
    } else if (suite == "longbench") {
        add_datasets(add, s);
        add(Flag{"--prompts", "DIR", "folder of the official dataset2prompt.json"}, s.prompts);
        add("--raw-prompts", "no chat template for any task, as in the paper", s.raw_prompts);
    }
}

}  // namespace

Parser eval_parser(const std::string& suite, const std::string& summary, EvalFlags& f) {
    auto parser = make_parser("eval " + suite, summary + ".", f.options, kModelFlags | kCacheFlags);
    Adder add(*parser);
    add_suite(add, suite, f.settings);
    if (suite == "fidelity") {
        add(Flag{"--against", "NAME", "llama.cpp: its own caches too, beside its own f16 cache"},
            f.against);
    }
    const auto run = [&](const Flag& flag, auto& field) { add_value(*parser, kRun, flag, field); };
    run({"--sweep", "TEXT",
         "the caches: 'method=snapkv,h2o; cap=128,1/16; quant=kivi:16,4,2' (16: not packed)"},
        f.sweep);
    run({"--sweep-file", "FILE", "sweeps, one a line"}, f.sweep_file);
    run({"--save-dir", "DIR", "where the results go; a second call goes on"}, f.save_dir);
    run({"--max-num-examples", "N", "samples of each task, cell or length", 1, kIntMax},
        f.settings.max_num_examples);
    run({"--sample-method", "NAME", "topk: the first ones, random: drawn by --seed"},
        f.settings.sample_method);
    run({"--model-version", "NAME", "a label that is noted in the results"},
        f.settings.model_version);
    run({"--pin", "system|N|TEXT",
         "never evict a prompt's beginning, its first N tokens, or every place of a text; may be "
         "repeated"},
        f.settings.pin);
    run({"--seed", "N", "of everything that is drawn", 0, kIntMax}, f.seed);
    run({"--decode-batch", "N",
         "caches whose answers share a decode step; 0: as many as leave the bits of each (0)", 0,
         1024},
        f.decode_batch);
    run({"--shard", "i/n", "this process's share; else as Open MPI, PMI or Slurm says"}, f.shard);
    add_switch(*parser, "--json", f.options.json, "one JSON object on stdout, and nothing else");
    return parser;
}

std::string human_seconds(double seconds) {
    const auto s = static_cast<long>(std::lround(std::max(seconds, 0.0)));
    if (s >= 3600) return format("%ld h %ld m", s / 3600, s / 60 % 60);
    if (s >= 60) return format("%ld m %ld s", s / 60, s % 60);
    return format("%ld s", s);
}

}  // namespace winnow::cli
