#include "flags.h"

#include <winnow/winnow.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <charconv>
#include <filesystem>
#include <sstream>
#include <string_view>
#include <type_traits>

#include "argv.h"
#include "suggest.h"
#include "terminal.h"

namespace winnow::cli {
namespace {

std::string range_of(const Flag& flag) {
    const bool low = flag.low > -std::numeric_limits<double>::infinity();
    const bool high = flag.high < std::numeric_limits<double>::infinity();
    return low && high ? format(" from %.10g to %.10g", flag.low, flag.high) : "";
}

template <class T>
T parse_number(const Flag& flag, const std::string& text) {
    T value{};
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool whole = code == std::errc() && end == text.data() + text.size();
    const auto as_double = static_cast<double>(value);
    // The comparison is false for NaN.
    if (whole && as_double >= flag.low && as_double <= flag.high) return value;
    const char* problem = code == std::errc::result_out_of_range ? "', which is too large" : "'";
    throw usage_error(long_name(flag) + " is '" + text + problem + "; it takes a " +
                      (std::is_integral_v<T> ? "whole number" : "number") + range_of(flag) + ".");
}

// Makes one flag of CLI11 per field visited. The values come as they were written: CLI11's own
// conversions take lists apart and report less.
class FlagMaker {
  public:
    FlagMaker(CLI::App& parser, std::string group) : parser_(parser), group_(std::move(group)) {}

    void operator()(const Flag& flag, bool& field) {
        parser_.add_flag(flag.names, field, flag.help)->group(group_);
    }
    void operator()(const Flag& flag, std::string& field) {
        add(flag, field, [&field](const CLI::results_t& words) { field = words.back(); });
    }
    void operator()(const Flag& flag, std::vector<std::string>& field) {
        auto* option = parser_.add_option(
            flag.names, [&field](const CLI::results_t& words) { return field = words, true; },
            flag.help);
        option->type_name(flag.value)->group(group_);
        option->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    }
    template <class T>
    requires std::is_arithmetic_v<T>
    void operator()(const Flag& flag, T& field) {
        add(flag, format(std::is_same_v<T, float> ? "%.6g" : "%.10g", static_cast<double>(field)),
            [flag, &field](const CLI::results_t& words) {
                field = parse_number<T>(flag, words.back());
            });
    }

  private:
    template <class Read>
    void add(const Flag& flag, const std::string& shown_default, Read read) {
        auto* option = parser_.add_option(
            flag.names,
            [read](const CLI::results_t& words) {
                read(words);
                return true;
            },
            flag.help);
        option->type_name(flag.value)->group(group_)->expected(1);
        option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
        if (!shown_default.empty()) option->default_str(shown_default);
    }

    CLI::App& parser_;
    std::string group_;
};

// In CacheOptions a zero means "not said"; who writes it down made a mistake.
void refuse_zero(Flag& flag) {
    const std::string name = long_name(flag);
    if (name.starts_with("--nbits")) {
        flag.low = 2;
        flag.high = 16;
    } else if (name == "--max-capacity-prompts") {
        flag.low = 1;
        flag.high = kIntMax;
    } else if (name == "--max-capacity-prompts-ratio") {
        flag.low = 1e-6;
        flag.high = 1;
    }
}

void add_cache_flags(CLI::App& parser, CacheOptions& cache, bool listed_too) {
    FlagMaker make(parser, "Cache (snake_case is read alike)");
    visit_cache_options(cache, [&](const char* name, auto& field, const char* help) {
        using Field = std::decay_t<decltype(field)>;
        const bool listed = std::find(kListedCacheFlags.begin(), kListedCacheFlags.end(),
                                      std::string_view(name)) != kListedCacheFlags.end();
        if (listed && !listed_too) return;
        std::string names = "--" + std::string(name);
        // The paper's scripts have this one both ways.
        if (names == "--max-capacity-prompts") names += ",--max-capacity-prompt";
        const char* value = names == "--kvquant-codebook"        ? "FILE"
                            : std::is_same_v<Field, std::string> ? "NAME"
                            : std::is_integral_v<Field>          ? "N"
                                                                 : "X";
        Flag flag{names, value, help};
        refuse_zero(flag);
        make(flag, field);
    });
}

void lower_case(std::string& name) {
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
}

std::vector<std::string> names_of(const std::vector<MethodInfo>& list,
                                  std::initializer_list<const char*> more) {
    std::vector<std::string> names;
    for (const MethodInfo& entry : list) names.push_back(entry.name);
    for (const char* name : more) {
        if (std::find(names.begin(), names.end(), name) == names.end()) names.emplace_back(name);
    }
    return names;
}

void check_name(const std::string& flag, const std::string& value,
                const std::vector<std::string>& names) {
    if (value.empty() || std::find(names.begin(), names.end(), value) != names.end()) return;
    throw usage_error(flag + " is '" + value + "', which is unknown; the nearest is '" +
                      nearest(value, names) + "', of " + quoted_list(names) + ".");
}

void only_one(const std::string& a, const std::string& flag_a, const std::string& b,
              const std::string& flag_b) {
    if (a.empty() || b.empty()) return;
    throw usage_error(flag_a + " and " + flag_b + " are both given; only one of them counts.");
}

}  // namespace

namespace {

void settle_question(const Options& options) {
    const bool marked = !options.question_mark.empty();
    if (marked && !options.cache.question_hidden) {
        throw usage_error(
            "--question-mark says where the question begins that --question-hidden hides; give "
            "both or neither.");
    }
    const bool apart = !options.file.empty() && !options.prompt.empty();
    std::error_code ignored;
    const bool restored =
        !options.session.empty() && std::filesystem::exists(options.session, ignored);
    if (options.cache.question_hidden && !marked && !apart && !restored) {
        throw usage_error(
            "--question-hidden needs to know the question: give the text by -f and the question "
            "by -p, or say by --question-mark TEXT where it begins.");
    }
}

}  // namespace

void settle_cache(CacheOptions& cache) {
    for (auto* name : {&cache.method, &cache.quant_method, &cache.pooling, &cache.gqa_score_agg}) {
        lower_case(*name);
    }
    if (cache.method == "fullkv" || cache.method.empty()) cache.method = "full";
    std::istringstream chain(cache.method);  // adakv:snapkv is two names
    for (std::string name; std::getline(chain, name, ':');) {
        check_name("--method", name, names_of(policy_list(), {"layerquant", "mixed"}));
    }
    check_name("--quant-method", cache.quant_method,
               names_of(format_list(), {"none", "layerquant"}));
    check_name("--pooling", cache.pooling, {"max", "avg"});
    check_name("--gqa-score-agg", cache.gqa_score_agg, {"mean", "max", "sum"});
    validate(cache);
}

std::string long_name(const Flag& flag) {
    const std::size_t begin = flag.names.find("--");
    return flag.names.substr(begin, flag.names.find(',', begin) - begin);
}

std::string json_key(const Flag& flag) {
    std::string key = long_name(flag).substr(2);
    std::replace(key.begin(), key.end(), '-', '_');
    return key;
}

void DeleteParser::operator()(CLI::App* parser) const {
    delete parser;
}

Parser make_parser(const std::string& command, const std::string& summary, Options& options,
                   unsigned groups) {
    Parser parser(new CLI::App(summary, "winnow " + command));
    parser->set_help_flag("-h,--help", "show this help")->group("Other");
    parser->set_version_flag("--version", std::string("winnow ") + version(), "show the version")
        ->group("Other");
    parser->get_formatter()->column_width(36);
    if ((groups & kModelFlags) != 0) visit_model_options(options, FlagMaker(*parser, "Model"));
    if ((groups & kPromptFlags) != 0) visit_prompt_options(options, FlagMaker(*parser, "Prompt"));
    if ((groups & kSessionFileFlags) != 0) {
        visit_session_options(options, FlagMaker(*parser, "Session"));
    }
    if ((groups & kGenerationFlags) != 0) {
        visit_generation_options(options, FlagMaker(*parser, "Answer"));
    }
    if ((groups & kCacheFlags) != 0) add_cache_flags(*parser, options.cache, true);
    if ((groups & kOtherCacheFlags) != 0) add_cache_flags(*parser, options.cache, false);
    return parser;
}

void add_switch(CLI::App& parser, const std::string& name, bool& field, const std::string& help,
                const std::string& group) {
    parser.add_flag(name, field, help)->group(group);
}

void add_value(CLI::App& parser, const std::string& group, const Flag& flag, std::string& field) {
    FlagMaker(parser, group)(flag, field);
}

void add_value(CLI::App& parser, const std::string& group, const Flag& flag, int& field) {
    FlagMaker(parser, group)(flag, field);
}

void add_value(CLI::App& parser, const std::string& group, const Flag& flag, double& field) {
    FlagMaker(parser, group)(flag, field);
}

void add_value(CLI::App& parser, const std::string& group, const Flag& flag,
               std::vector<std::string>& field) {
    FlagMaker(parser, group)(flag, field);
}

bool parse(CLI::App& parser, const std::vector<std::string>& args) {
    std::vector<std::string> words = normalise(parser, args);
    std::reverse(words.begin(), words.end());  // CLI11 takes them from the back
    try {
        parser.parse(words);
    } catch (const CLI::CallForHelp&) {
        write_out(parser.help());
        return flush_out(), false;
    } catch (const CLI::CallForVersion&) {
        write_out(std::string("winnow ") + version() + "\n");
        return flush_out(), false;
    } catch (const CLI::ParseError& error) {
        throw usage_error(error.what());
    }
    return true;
}

void settle(Options& options, const std::string& command, unsigned groups) {
    if ((groups & kCacheFlags) != 0) settle_cache(options.cache);
    only_one(options.system_prompt, "-sys", options.system_prompt_file, "-sysf");
    only_one(options.chat_template, "--chat-template", options.chat_template_file,
             "--chat-template-file");
    only_one(options.sampling.grammar, "--grammar", options.grammar_file, "--grammar-file");
    only_one(options.sampling.json_schema, "--json-schema", options.json_schema_file,
             "--json-schema-file");
    const bool system = !options.system_prompt.empty() || !options.system_prompt_file.empty();
    if (options.no_conversation && system) {
        throw usage_error(
            "-sys and -no-cnv are both given; without a chat template there is no "
            "place for a system message, so put it into the prompt.");
    }
    if ((groups & kPromptFlags) != 0) settle_question(options);
    if (options.session_ro && options.session.empty()) {
        throw usage_error(
            "--session-ro is given without --session FILE, which it would not write.");
    }
    const bool grammar = !options.sampling.grammar.empty() || !options.grammar_file.empty();
    const bool schema = !options.sampling.json_schema.empty() || !options.json_schema_file.empty();
    if (grammar && schema) {
        throw usage_error("A grammar and a JSON schema are both given; an answer follows one.");
    }
    if (options.model.empty() && (groups & kModelFlags) != 0) {
        throw usage_error("`winnow " + command +
                          "` needs a model: -m FILE, the path of a GGUF file.");
    }
}

}  // namespace winnow::cli
