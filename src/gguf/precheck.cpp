#include "gguf/precheck.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <utility>

#include "gguf/checks.h"

namespace winnow::gguf {

namespace {

/// An integer of any GGUF type: `magnitude` is the absolute value.
struct Integer {
    bool negative = false;
    std::uint64_t magnitude = 0;
};

template <typename T>
T load(const std::byte* from) {
    T value;
    std::memcpy(&value, from, sizeof(T));
    return value;
}

Integer from_signed(std::int64_t value) {
    const bool negative = value < 0;
    const auto bits = static_cast<std::uint64_t>(value);
    return {negative, negative ? 0 - bits : bits};
}

/// The value at `from` when the type is an integer type.
std::optional<Integer> load_integer(ValueType type, const std::byte* from) {
    switch (type) {
        case ValueType::u8:
            return Integer{false, load<std::uint8_t>(from)};
        case ValueType::u16:
            return Integer{false, load<std::uint16_t>(from)};
        case ValueType::u32:
            return Integer{false, load<std::uint32_t>(from)};
        case ValueType::u64:
            return Integer{false, load<std::uint64_t>(from)};
        case ValueType::i8:
            return from_signed(load<std::int8_t>(from));
        case ValueType::i16:
            return from_signed(load<std::int16_t>(from));
        case ValueType::i32:
            return from_signed(load<std::int32_t>(from));
        case ValueType::i64:
            return from_signed(load<std::int64_t>(from));
        default:
            return std::nullopt;
    }
}

std::string shown(const Integer& value) {
    return (value.negative ? "-" : "") + std::to_string(value.magnitude);
}

std::string shown(double value) {
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%g", value);
    return text.data();
}

std::string type_of(const KeyValue& value) {
    if (value.type != ValueType::array) return value_type_name(value.type);
    return std::string("array of ") + value_type_name(value.element_type);
}

Error wrong_type(const File& file, const KeyValue& value, std::string_view wanted) {
    return file.error("key " + quoted(value.key) + " is of type " + type_of(value) + "; " +
                      std::string(wanted) + " is needed");
}

std::uint64_t to_unsigned(const File& file, const KeyValue& value, const std::byte* from,
                          std::uint64_t most) {
    const auto integer = load_integer(value.element_type, from);
    if (!integer) throw wrong_type(file, value, "an integer");
    if (integer->negative || integer->magnitude > most) {
        throw file.error("key " + quoted(value.key) + " holds " + shown(*integer) +
                         "; a number from 0 to " + std::to_string(most) + " is needed");
    }
    return integer->magnitude;
}

float to_float(const File& file, const KeyValue& value, const std::byte* from) {
    double number = 0;
    if (value.element_type == ValueType::f32) {
        number = static_cast<double>(load<float>(from));
    } else if (value.element_type == ValueType::f64) {
        number = load<double>(from);
    } else if (const auto integer = load_integer(value.element_type, from)) {
        number = static_cast<double>(integer->magnitude) * (integer->negative ? -1.0 : 1.0);
    } else {
        throw wrong_type(file, value, "a number");
    }
    if (!(std::abs(number) <= static_cast<double>(std::numeric_limits<float>::max()))) {
        throw file.error("key " + quoted(value.key) + " holds " + shown(number) +
                         "; a finite 32-bit number is needed");
    }
    return static_cast<float>(number);
}

const KeyValue& single(const File& file, const KeyValue& value, std::string_view wanted) {
    if (value.type == ValueType::array) throw wrong_type(file, value, wanted);
    return value;
}

std::uint64_t unsigned_of(const File& file, const KeyValue& value, std::uint64_t most) {
    return to_unsigned(file, single(file, value, "an integer"), value.payload.data(), most);
}

float float_of(const File& file, const KeyValue& value) {
    return to_float(file, single(file, value, "a number"), value.payload.data());
}

bool bool_of(const File& file, const KeyValue& value) {
    if (value.type != ValueType::boolean) throw wrong_type(file, value, "a boolean");
    return value.payload[0] != std::byte{0};
}

std::string string_of(const File& file, const KeyValue& value) {
    if (value.type != ValueType::string) throw wrong_type(file, value, "a string");
    std::string text(reinterpret_cast<const char*>(value.payload.data()), value.payload.size());
    if (text.find('\0') != std::string::npos) {
        throw file.error("key " + quoted(value.key) + " holds a NUL byte; text is needed");
    }
    return text;
}

constexpr std::uint64_t kMostU32 = std::numeric_limits<std::uint32_t>::max();
constexpr std::uint64_t kMostU64 = std::numeric_limits<std::uint64_t>::max();

/// Closes a file descriptor at the end of a scope.
class Descriptor {
  public:
    explicit Descriptor(int fd) : fd_(fd) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() {
        if (fd_ >= 0) ::close(fd_);
    }
    int get() const { return fd_; }

  private:
    int fd_;
};

}  // namespace

const char* value_type_name(ValueType type) noexcept {
    constexpr const char* kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                      "bool", "string", "array", "u64", "i64", "f64"};
    const auto index = static_cast<std::size_t>(type);
    return index < std::size(kNames) ? kNames[index] : "unknown";
}

File File::parse(std::span<const std::byte> head, std::uint64_t file_bytes, std::string name) {
    File file;
    file.path_ = std::move(name);
    file.file_bytes_ = file_bytes;
    file.head_ = head;
    file.directory_ = read_directory(head, file_bytes, file.path_);
    check_vocabulary(file);
    check_chat_templates(file);
    return file;
}

File File::open(const std::string& path) {
    // O_NONBLOCK: opening a pipe must not wait for a writer; it has no effect on regular files.
    const Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat status {};
    if (descriptor.get() < 0 || ::fstat(descriptor.get(), &status) != 0) {
        throw file_error(path, std::string("the model cannot be opened: ") + std::strerror(errno));
    }
    if (S_ISDIR(status.st_mode)) {
        throw file_error(path, "this is a folder; the path of a GGUF file is needed");
    }
    if (!S_ISREG(status.st_mode)) {
        throw file_error(path, "this is not a regular file; a GGUF file on disk is needed");
    }
    const auto bytes = static_cast<std::size_t>(status.st_size);
    if (bytes == 0) throw file_error(path, "the file is empty; a GGUF model is needed");
    void* address = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, descriptor.get(), 0);
    if (address == MAP_FAILED) {
        throw file_error(path, "the file of " + std::to_string(bytes) +
                                   " bytes cannot be mapped: " + std::strerror(errno));
    }
    std::shared_ptr<const void> mapping(
        address, [bytes](const void* mapped) { ::munmap(const_cast<void*>(mapped), bytes); });
    File file = parse({static_cast<const std::byte*>(address), bytes}, bytes, path);
    file.mapping_ = std::move(mapping);
    return file;
}

Error File::error(std::string_view sentence) const {
    return file_error(path_, sentence);
}

const TensorEntry* File::find_tensor(std::string_view name) const {
    const auto at = directory_.tensor_index.find(std::string(name));
    return at == directory_.tensor_index.end() ? nullptr : &directory_.tensors[at->second];
}

const TensorEntry& File::require_tensor(std::string_view name) const {
    const TensorEntry* tensor = find_tensor(name);
    if (tensor == nullptr) throw error("tensor " + quoted(name) + " is missing");
    return *tensor;
}

std::span<const std::byte> File::tensor_data(const TensorEntry& tensor) const {
    const std::uint64_t start = data_offset() + tensor.offset;
    if (start > head_.size() || tensor.bytes > head_.size() - start) {
        throw error("the bytes of tensor " + quoted(tensor.name) + " were not read");
    }
    return head_.subspan(start, tensor.bytes);
}

const KeyValue* File::find(std::string_view key) const {
    const auto at = directory_.value_index.find(key);
    return at == directory_.value_index.end() ? nullptr : &directory_.values[at->second];
}

const KeyValue& File::require(std::string_view key) const {
    const KeyValue* value = find(key);
    if (value == nullptr) throw error("key " + quoted(key) + " is missing");
    return *value;
}

std::uint32_t File::get_u32(std::string_view key, std::uint32_t fallback) const {
    return has(key) ? require_u32(key) : fallback;
}

std::uint64_t File::get_u64(std::string_view key, std::uint64_t fallback) const {
    return has(key) ? require_u64(key) : fallback;
}

std::int64_t File::get_i64(std::string_view key, std::int64_t fallback) const {
    const KeyValue* value = find(key);
    if (value == nullptr) return fallback;
    const auto integer =
        load_integer(single(*this, *value, "an integer").type, value->payload.data());
    if (!integer) throw wrong_type(*this, *value, "an integer");
    constexpr std::uint64_t kMost = std::numeric_limits<std::int64_t>::max();
    if (integer->magnitude > kMost + (integer->negative ? 1 : 0)) {
        throw error("key " + quoted(key) + " holds " + shown(*integer) + "; at most " +
                    std::to_string(kMost) + " is allowed");
    }
    const std::uint64_t bits = integer->negative ? 0 - integer->magnitude : integer->magnitude;
    return static_cast<std::int64_t>(bits);
}

float File::get_f32(std::string_view key, float fallback) const {
    return has(key) ? require_f32(key) : fallback;
}

bool File::get_bool(std::string_view key, bool fallback) const {
    return has(key) ? require_bool(key) : fallback;
}

std::string File::get_string(std::string_view key, std::string_view fallback) const {
    return has(key) ? require_string(key) : std::string(fallback);
}

std::uint32_t File::require_u32(std::string_view key) const {
    return static_cast<std::uint32_t>(unsigned_of(*this, require(key), kMostU32));
}

std::uint64_t File::require_u64(std::string_view key) const {
    return unsigned_of(*this, require(key), kMostU64);
}

float File::require_f32(std::string_view key) const {
    return float_of(*this, require(key));
}

bool File::require_bool(std::string_view key) const {
    return bool_of(*this, require(key));
}

std::string File::require_string(std::string_view key) const {
    return string_of(*this, require(key));
}

std::uint64_t File::array_size(std::string_view key) const {
    const KeyValue* value = find(key);
    if (value == nullptr) return 0;
    if (value->type != ValueType::array) throw wrong_type(*this, *value, "an array");
    return value->count;
}

std::vector<std::uint32_t> File::get_u32_array(std::string_view key) const {
    const std::uint64_t count = array_size(key);
    if (count == 0) return {};
    const KeyValue& value = require(key);
    const std::size_t step = value.payload.size() / count;
    // The first element is read before anything is allocated: it rules out arrays of strings.
    to_unsigned(*this, value, value.payload.data(), kMostU32);
    std::vector<std::uint32_t> out(count);
    for (std::size_t i = 0; i < count; ++i) {
        out[i] = static_cast<std::uint32_t>(
            to_unsigned(*this, value, value.payload.data() + i * step, kMostU32));
    }
    return out;
}

std::vector<float> File::get_f32_array(std::string_view key) const {
    const std::uint64_t count = array_size(key);
    if (count == 0) return {};
    const KeyValue& value = require(key);
    const std::size_t step = value.payload.size() / count;
    to_float(*this, value, value.payload.data());
    std::vector<float> out(count);
    for (std::size_t i = 0; i < count; ++i) {
        out[i] = to_float(*this, value, value.payload.data() + i * step);
    }
    return out;
}

std::vector<std::string_view> File::get_string_array(std::string_view key) const {
    const std::uint64_t count = array_size(key);
    if (count == 0) return {};
    const KeyValue& value = require(key);
    if (value.element_type != ValueType::string) {
        throw wrong_type(*this, value, "an array of strings");
    }
    std::vector<std::string_view> out(count);
    const std::byte* from = value.payload.data();  // lengths were checked when the file was read
    for (std::string_view& text : out) {
        const auto length = load<std::uint64_t>(from);
        text = {reinterpret_cast<const char*>(from + sizeof(length)), length};
        from += sizeof(length) + length;
    }
    return out;
}

std::vector<std::uint32_t> File::per_layer_u32(std::string_view key, std::uint32_t layers,
                                               std::optional<std::uint32_t> fallback) const {
    if (fallback && !has(key)) return std::vector<std::uint32_t>(layers, *fallback);
    if (require(key).type != ValueType::array) {
        return std::vector<std::uint32_t>(layers, require_u32(key));
    }
    const std::uint64_t count = array_size(key);
    if (count != layers) {
        throw error("key " + quoted(key) + " has " + std::to_string(count) + " elements for " +
                    std::to_string(layers) + " layers; one for each is needed");
    }
    return get_u32_array(key);
}

}  // namespace winnow::gguf
