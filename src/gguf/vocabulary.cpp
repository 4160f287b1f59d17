// The tables of the tokenizer must agree, or the tokenizer behind us aborts or reads past them.
#include <cstring>
#include <unordered_set>

#include "gguf/checks.h"

namespace winnow::gguf {

namespace {

constexpr std::uint64_t kMaxTokens = 1U << 22U;
constexpr std::uint64_t kMaxMerges = 1U << 23U;
constexpr std::int32_t kByteToken = 6;  // a token that stands for one byte, written <0xNN>
constexpr std::string_view kPrefix = "tokenizer.ggml.";

std::string number(std::uint64_t value) {
    return std::to_string(value);
}

/// Throws unless the key is an array of one of the two element types.
void need_array_of(const File& file, const KeyValue& value, ValueType type, ValueType other) {
    if (value.type == ValueType::array &&
        (value.element_type == type || value.element_type == other)) {
        return;
    }
    std::string wanted = std::string("an array of ") + value_type_name(type);
    if (other != type) wanted += std::string(" or ") + value_type_name(other);
    throw file.error(quoted(value.key) + " is no array of the right type; " + wanted +
                     " is needed");
}

std::int32_t element_i32(const KeyValue& value, std::size_t i) {
    std::int32_t read;
    std::memcpy(&read, value.payload.data() + i * sizeof(read), sizeof(read));
    return read;
}

// libllama reads a token up to its first NUL and gives an empty one this name; it aborts when two
// tokens are then the same.
void check_distinct(const File& file, const std::vector<std::string_view>& tokens) {
    std::unordered_set<std::string_view> seen;
    seen.reserve(tokens.size());
    std::vector<std::size_t> unnamed;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        const std::string_view token = tokens[i].substr(0, tokens[i].find('\0'));
        if (token.empty()) {
            unnamed.push_back(i);
        } else if (!seen.insert(token).second) {
            throw file.error("tokenizer.ggml.tokens holds " + quoted(token) + " twice, again as " +
                             "token " + number(i) + "; each token must differ");
        }
    }
    for (const std::size_t i : unnamed) {
        if (seen.contains("[EMPTY_" + number(i) + "]")) {
            throw file.error("tokenizer.ggml.tokens holds the name of the empty token " +
                             number(i) + " as another token; each token must differ");
        }
    }
}

/// The table `key` must have one entry per token. Null when the file has no such table.
const KeyValue* table_of_tokens(const File& file, const std::string& key, std::uint64_t tokens,
                                ValueType type, ValueType other) {
    const KeyValue* table = file.find(key);
    if (table == nullptr) return nullptr;
    need_array_of(file, *table, type, other);
    if (table->count != tokens) {
        throw file.error(key + " has " + number(table->count) + " elements for " + number(tokens) +
                         " tokens; one for each is needed");
    }
    return table;
}

void check_byte_tokens(const File& file, const KeyValue& types,
                       const std::vector<std::string_view>& tokens) {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        if (element_i32(types, i) != kByteToken) continue;
        const std::string_view token = tokens[i];
        if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') {
            throw file.error("token " + number(i) + " is marked as a byte but is named " +
                             quoted(token) + "; a name such as '<0x0A>' is needed");
        }
    }
}

/// Returns the number of tokens, or 0 without a token list.
std::uint64_t check_tokens(const File& file) {
    const KeyValue* list = file.find("tokenizer.ggml.tokens");
    if (list == nullptr) return 0;
    need_array_of(file, *list, ValueType::string, ValueType::string);
    if (list->count == 0 || list->count > kMaxTokens) {
        throw file.error("tokenizer.ggml.tokens has " + number(list->count) + " tokens; 1 to " +
                         number(kMaxTokens) + " are allowed");
    }
    const auto tokens = file.get_string_array(list->key);
    check_distinct(file, tokens);
    table_of_tokens(file, "tokenizer.ggml.scores", list->count, ValueType::f32, ValueType::i32);
    const KeyValue* types = table_of_tokens(file, "tokenizer.ggml.token_type", list->count,
                                            ValueType::i32, ValueType::i32);
    if (types != nullptr) check_byte_tokens(file, *types, tokens);
    return list->count;
}

void check_merges(const File& file) {
    const KeyValue* merges = file.find("tokenizer.ggml.merges");
    if (merges == nullptr) return;
    need_array_of(file, *merges, ValueType::string, ValueType::string);
    if (merges->count > kMaxMerges) {
        throw file.error("tokenizer.ggml.merges has " + number(merges->count) +
                         " merges; at most " + number(kMaxMerges) + " are allowed");
    }
}

/// The size of a vocabulary that has no token list.
std::uint64_t declared_vocabulary(const File& file) {
    const std::string arch = file.get_string("general.architecture", "");
    const std::uint64_t size = file.get_u64(arch + ".vocab_size", 0);
    if (size > kMaxTokens) {
        throw file.error(arch + ".vocab_size is " + number(size) + "; at most " +
                         number(kMaxTokens) + " is allowed");
    }
    return size;
}

}  // namespace

void check_vocabulary(const File& file) {
    const std::uint64_t listed = check_tokens(file);
    check_merges(file);
    const std::uint64_t declared = declared_vocabulary(file);
    const std::uint64_t tokens = listed != 0 ? listed : declared;
    for (const KeyValue& value : file.values()) {
        if (!value.key.starts_with(kPrefix) || !value.key.ends_with("_token_id")) continue;
        const std::uint64_t id = file.require_u64(value.key);
        if (tokens != 0 && id >= tokens) {
            throw file.error(quoted(value.key) + " is " + number(id) + ", but the vocabulary has " +
                             number(tokens) + " tokens");
        }
    }
}

}  // namespace winnow::gguf
