#include "eval/sweep.h"

#include <winnow/error.h>
#include <winnow/plan.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <map>
#include <set>

#include "core/nearest.h"

namespace winnow::eval {

namespace {

std::string trimmed(std::string text) {
    const auto blank = [](unsigned char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
    text.erase(text.begin(), std::find_if_not(text.begin(), text.end(), blank));
    text.erase(std::find_if_not(text.rbegin(), text.rend(), blank).base(), text.end());
    return text;
}

std::string lower(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) {
        return static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    });
    return text;
}

std::vector<std::string> split(const std::string& text, char at) {
    std::vector<std::string> parts;
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find(at, begin), text.size());
        parts.push_back(trimmed(text.substr(begin, end - begin)));
        begin = end + 1;
    }
    return parts;
}

Error bad(const std::string& part, const std::string& why) {
    return usage_error("the sweep says '" + part + "': " + why);
}

template <class T>
T parse_number(const std::string& part, const std::string& text) {
    T value{};
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (code != std::errc() || end != text.data() + text.size()) {
        throw bad(part, "'" + text + "' is not a " +
                            (std::is_integral_v<T> ? "whole number." : "number."));
    }
    return value;
}

using Edit = std::function<void(CacheOptions&)>;

double parse_share(const std::string& part, const std::string& value) {
    const std::size_t slash = value.find('/');
    const double ratio = slash == std::string::npos
                             ? parse_number<double>(part, value)
                             : parse_number<double>(part, value.substr(0, slash)) /
                                   parse_number<double>(part, value.substr(slash + 1));
    if (!(ratio > 0.0 && ratio <= 1.0)) {
        throw bad(part, "a share of the prompt is above 0 and at most 1.");
    }
    return ratio;
}

// "512", "0.25" or "1/16".
Edit parse_cap(const std::string& part, const std::string& value) {
    const std::size_t slash = value.find('/');
    if (slash == std::string::npos && value.find('.') == std::string::npos) {
        const int cap = parse_number<int>(part, value);
        return [cap](CacheOptions& o) {
            o.max_capacity_prompts = cap;
            o.max_capacity_prompts_ratio = 0.0;
        };
    }
    const double ratio = parse_share(part, value);
    return [ratio](CacheOptions& o) {
        o.max_capacity_prompts = 0;
        o.max_capacity_prompts_ratio = ratio;
    };
}

// "1/16" of the prompt's full cache, or bytes: the same for every method.
Edit parse_budget(const std::string& part, const std::string& value) {
    if (value.find('/') != std::string::npos) {
        parse_share(part, value);
    } else {
        parse_byte_count("sweep", value);
    }
    return [value](CacheOptions& o) { o.kv_budget = kEqualBytes + value; };
}

void set_bits(CacheOptions& o, const std::string& format, int k, int v) {
    o.quant_method = k == 16 && v == 16 ? "none" : format;
    o.nbits = k;
    o.nbits_k = k == v ? 0 : k;
    o.nbits_v = k == v ? 0 : v;
}

// "4" or "k4v2" of a format.
Edit parse_bits(const std::string& part, const std::string& format, const std::string& bits) {
    const std::size_t v = bits.find('v');
    if (bits.starts_with("k") && v != std::string::npos) {
        const int of_k = parse_number<int>(part, bits.substr(1, v - 1));
        const int of_v = parse_number<int>(part, bits.substr(v + 1));
        return [=](CacheOptions& o) { set_bits(o, format, of_k, of_v); };
    }
    const int both = parse_number<int>(part, bits);
    return [=](CacheOptions& o) { set_bits(o, format, both, both); };
}

// "kivi:16,8,4", "hqq:4,k4v2", "none": a format goes on until the next one is named.
std::vector<Edit> parse_quants(const std::string& part, const std::vector<std::string>& values) {
    std::vector<std::string> known{"none", "layerquant"};
    for (const MethodInfo& format : format_list()) {
        known.push_back(format.name);
    }
    std::vector<Edit> edits;
    std::string format = "kivi";
    for (const std::string& value : values) {
        const std::size_t colon = value.find(':');
        const bool digit = !value.empty() && value[0] >= '0' && value[0] <= '9';
        const bool apart = value.starts_with("k") && value.find('v') != std::string::npos &&
                           value.find_first_not_of("kv0123456789") == std::string::npos;
        if (colon == std::string::npos && (digit || apart)) {
            edits.push_back(parse_bits(part, format, value));
            continue;
        }
        format = lower(trimmed(value.substr(0, colon)));
        if (std::find(known.begin(), known.end(), format) == known.end()) {
            throw bad(part, "there is no format '" + format + "'" + did_you_mean(format, known));
        }
        if (colon != std::string::npos) {
            edits.push_back(parse_bits(part, format, trimmed(value.substr(colon + 1))));
        } else {
            edits.push_back([format](CacheOptions& o) {
                o.quant_method = format;
                o.nbits = o.nbits_k = o.nbits_v = 0;
            });
        }
    }
    return edits;
}

std::string kebab(std::string name) {
    std::replace(name.begin(), name.end(), '_', '-');
    return name;
}

// Sets the option called `key`; false where there is none.
bool set_option(CacheOptions& o, const std::string& part, const std::string& key,
                const std::string& value) {
    bool found = false;
    visit_cache_options(o, [&](const char* name, auto& field, const char*) {
        if (key != name) {
            return;
        }
        found = true;
        using Field = std::decay_t<decltype(field)>;
        if constexpr (std::is_same_v<Field, std::string>) {
            const bool path = key == "profile" || key == "kvquant-codebook";
            field = path ? value : lower(value);
        } else if constexpr (std::is_same_v<Field, bool>) {
            field = value == "1" || value == "true";
        } else {
            field = parse_number<Field>(part, value);
        }
    });
    return found;
}

std::vector<std::string> known_keys() {
    std::vector<std::string> keys{"budget", "cap", "quant"};
    CacheOptions o;
    visit_cache_options(o, [&](const char* name, auto&, const char*) { keys.emplace_back(name); });
    return keys;
}

std::vector<Edit> parse_clause(const std::string& part) {
    const std::size_t equals = part.find('=');
    if (equals == std::string::npos) {
        throw bad(part, "a part is key=value,value, as in cap=128,256.");
    }
    const std::string key = kebab(lower(trimmed(part.substr(0, equals))));
    const std::vector<std::string> values = split(part.substr(equals + 1), ',');
    if (std::find(values.begin(), values.end(), "") != values.end()) {
        throw bad(part, "a value is missing; values are separated by single commas.");
    }
    if (key == "quant") {
        return parse_quants(part, values);
    }
    std::vector<Edit> edits;
    std::vector<std::string> methods{"fullkv"};
    for (const MethodInfo& policy : policy_list()) {
        methods.push_back(policy.name);
    }
    for (const std::string& value : values) {
        CacheOptions scratch;
        if (key == "cap") {
            edits.push_back(parse_cap(part, value));
        } else if (key == "budget") {
            edits.push_back(parse_budget(part, value));
        } else if (key == "method") {
            const std::string name = lower(value);
            for (const std::string& each : split(name, ':')) {  // adakv:snapkv is two names
                if (std::find(methods.begin(), methods.end(), each) == methods.end()) {
                    throw bad(part,
                              "there is no method '" + each + "'" + did_you_mean(each, methods));
                }
            }
            edits.push_back(
                [name](CacheOptions& o) { o.method = name == "fullkv" ? "full" : name; });
        } else if (set_option(scratch, part, key, value)) {
            edits.push_back([=](CacheOptions& o) { set_option(o, part, key, value); });
        } else {
            throw bad(part, "there is no key '" + key + "'" + did_you_mean(key, known_keys()));
        }
    }
    return edits;
}

// Files that one method or format alone reads: the others of a sweep go without. Where nobody reads
// one that the sweep itself names, it stays, to be refused.
void drop_unread_files(std::vector<CacheOptions>& all, const CacheOptions& base) {
    const auto drop = [&](std::string CacheOptions::*field, const auto& reads) {
        const bool read = std::any_of(all.begin(), all.end(), reads);
        for (CacheOptions& o : all) {
            if (!reads(o) && (read || o.*field == base.*field)) {
                (o.*field).clear();
            }
        }
    };
    drop(&CacheOptions::profile, [](const CacheOptions& o) {
        const bool planned = !o.kv_budget.empty() && !o.kv_budget.starts_with(kEqualBytes);
        return o.method == "mixed" || (o.method == "full" && planned);
    });
    drop(&CacheOptions::kvquant_codebook,
         [](const CacheOptions& o) { return o.quant_method == "kvquant"; });
}

}  // namespace

std::vector<CacheOptions> expand_sweep(const std::string& text, const CacheOptions& base) {
    std::vector<CacheOptions> all{base};
    bool any = false;
    std::vector<std::string> parts = split(text, ';');
    for (const std::string& part : parts) {
        if (part.empty()) {
            continue;
        }
        any = true;
        std::vector<CacheOptions> more;
        const std::vector<Edit> edits = parse_clause(part);
        for (const CacheOptions& options : all) {
            for (const Edit& edit : edits) {
                edit(more.emplace_back(options));
            }
        }
        all = std::move(more);
    }
    drop_unread_files(all, base);
    if (!any) {
        throw usage_error(
            "--sweep is empty; it takes key=value,value parts separated by "
            "semicolons, as in 'method=snapkv,h2o; cap=128,256; quant=kivi:16,4'.");
    }
    return all;
}

std::vector<CacheOptions> read_sweep_file(const std::string& path, const CacheOptions& base) {
    std::ifstream in(path);
    if (!in) {
        throw failure("--sweep-file names " + path + ", which cannot be read.");
    }
    std::vector<CacheOptions> all;
    for (std::string line; std::getline(in, line);) {
        line = trimmed(line);
        if (!line.empty() && line[0] != '#') {
            const std::vector<CacheOptions> more = expand_sweep(line, base);
            all.insert(all.end(), more.begin(), more.end());
        }
    }
    if (all.empty()) {
        throw failure("--sweep-file names " + path + ", which holds no sweep.");
    }
    return all;
}

}  // namespace winnow::eval
