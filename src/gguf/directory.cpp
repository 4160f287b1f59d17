// Header, metadata and tensor directory. No count or length is trusted before it has been
// compared with the bytes that are left, so a hostile file can neither overrun nor allocate.
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "gguf/checks.h"

namespace winnow::gguf {

static_assert(std::endian::native == std::endian::little, "GGUF is read as little-endian");

namespace {

constexpr std::uint64_t kMaxFileBytes = 1ULL << 60U;  // so that no sum of sizes overflows
constexpr std::uint64_t kMaxValues = 1U << 16U;
constexpr std::uint64_t kMaxTensors = 1U << 17U;
constexpr std::uint64_t kMaxKeyBytes = 65535;
constexpr std::uint64_t kMaxTensorNameBytes = 63;       // ggml's GGML_MAX_NAME with its NUL
constexpr std::uint64_t kMaxStringBytes = 1U << 30U;    // ggml's own limit
constexpr std::uint64_t kMaxArrayElements = 1U << 30U;  // likewise
constexpr std::uint32_t kMinAlignment = 8;
constexpr std::uint32_t kMaxAlignment = 1U << 20U;
constexpr std::uint64_t kMinValueBytes = 8 + 1 + 4 + 1;           // key, type, smallest value
constexpr std::uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;  // name, dims, type, offset

std::string number(std::uint64_t value) {
    return std::to_string(value);
}

/// Bytes of one value of a fixed size; 0 for strings and arrays.
std::uint64_t value_bytes(ValueType type) {
    switch (type) {
        case ValueType::u8:
        case ValueType::i8:
        case ValueType::boolean:
            return 1;
        case ValueType::u16:
        case ValueType::i16:
            return 2;
        case ValueType::u32:
        case ValueType::i32:
        case ValueType::f32:
            return 4;
        case ValueType::u64:
        case ValueType::i64:
        case ValueType::f64:
            return 8;
        case ValueType::string:
        case ValueType::array:
            return 0;
    }
    return 0;
}

bool has_control_bytes(std::string_view text) {
    return std::ranges::any_of(
        text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

class Reader {
  public:
    Reader(std::span<const std::byte> head, std::uint64_t file_bytes, const std::string& path)
        : head_(head), file_bytes_(file_bytes), path_(path) {}

    Directory read();

  private:
    [[noreturn]] void fail(std::string_view sentence) const { throw file_error(path_, sentence); }
    std::uint64_t left() const { return head_.size() - at_; }

    std::span<const std::byte> take(std::uint64_t bytes, std::string_view what);
    template <typename T>
    T number_of(std::string_view what) {
        T value;
        std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
        return value;
    }
    std::string_view text(std::string_view what, std::uint64_t limit);
    std::string_view name(std::string_view what, std::uint64_t limit);

    void read_magic();
    void read_version();
    std::uint64_t count(std::string_view what, std::uint64_t limit, std::uint64_t least_bytes);
    ValueType value_type(std::string_view key);
    KeyValue read_value();
    void read_array(KeyValue& value);
    void read_alignment();
    TensorEntry read_tensor();
    void read_shape(TensorEntry& tensor);
    void size_tensor(TensorEntry& tensor);
    void place_tensors();

    std::span<const std::byte> head_;
    std::uint64_t file_bytes_;
    const std::string& path_;
    std::uint64_t at_ = 0;
    Directory out_;
};

std::span<const std::byte> Reader::take(std::uint64_t bytes, std::string_view what) {
    if (bytes > left()) {
        fail("the file is cut short: " + std::string(what) + " at byte " + number(at_) + " needs " +
             number(bytes) + " bytes, but " + number(left()) + " are left; fetch the file again");
    }
    const auto taken = head_.subspan(at_, bytes);
    at_ += bytes;
    return taken;
}

std::string_view Reader::text(std::string_view what, std::uint64_t limit) {
    const auto length = number_of<std::uint64_t>(what);
    if (length > limit) {
        fail(std::string(what) + " at byte " + number(at_) + " says it is " + number(length) +
             " bytes long; at most " + number(limit) + " are allowed");
    }
    const auto bytes = take(length, what);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string_view Reader::name(std::string_view what, std::uint64_t limit) {
    const std::uint64_t start = at_;
    const std::string_view read = text(what, limit);
    if (read.empty() || has_control_bytes(read)) {
        fail(std::string(what) + " at byte " + number(start) +
             (read.empty() ? " is empty" : " holds a control byte: " + quoted(read)) +
             "; a name of printable characters is needed");
    }
    return read;
}

/// Files that people take for a GGUF, by their first bytes.
struct Foreign {
    std::string_view start;
    const char* what;
};
constexpr Foreign kForeign[] = {
    {"FUGG", "a big-endian GGUF; winnow reads little-endian ones"},
    {"PK\x03\x04", "a zip archive, perhaps a PyTorch checkpoint; convert it to GGUF first"},
    {"\x1f\x8b", "a gzip archive; unpack it first"},
    {"lmgg", "a GGML file, older than GGUF; fetch or convert the model as GGUF"},
    {"fmgg", "a GGMF file, older than GGUF; fetch or convert the model as GGUF"},
    {"tjgg", "a GGJT file, older than GGUF; fetch or convert the model as GGUF"},
    {"algg", "a GGLA adapter, not a model"},
    {"version https://git-lfs", "a Git LFS pointer, not the model itself; run git lfs pull"},
    {"<!", "a web page; the download went wrong"},
    {"<html", "a web page; the download went wrong"},
    {"{", "a JSON file, not a model"},
};

void Reader::read_magic() {
    const std::string_view start(reinterpret_cast<const char*>(head_.data()), head_.size());
    if (start.empty()) fail("the file is empty; a GGUF model is needed");
    for (const Foreign& foreign : kForeign) {
        if (start.starts_with(foreign.start)) fail(std::string("this is ") + foreign.what);
    }
    if (start.size() > 9 && start[8] == '{' && !start.starts_with("GGUF")) {
        fail("this looks like a safetensors file; convert it to GGUF first");
    }
    const auto length = std::min<std::size_t>(4, start.size());
    if (start.substr(0, 4) != "GGUF") {
        fail("this is not a GGUF file: it starts with " + quoted(start.substr(0, length)) +
             " instead of 'GGUF'");
    }
    at_ = 4;
}

void Reader::read_version() {
    out_.version = number_of<std::uint32_t>("the version");
    if (out_.version == 2 || out_.version == 3) return;
    if (out_.version != 0 && (out_.version & 0xffffU) == 0) {
        fail("this is a big-endian GGUF; winnow reads little-endian ones");
    }
    fail("GGUF version " + number(out_.version) + " is not known; versions 2 and 3 are read");
}

std::uint64_t Reader::count(std::string_view what, std::uint64_t limit, std::uint64_t least_bytes) {
    const auto value = number_of<std::uint64_t>(what);
    if (value > limit) {
        fail(std::string(what) + " is " + number(value) + "; at most " + number(limit) +
             " is allowed");
    }
    if (value * least_bytes > head_.size()) {
        fail("the file is cut short: " + std::string(what) + " is " + number(value) +
             ", too many for its " + number(file_bytes_) + " bytes; fetch the file again");
    }
    return value;
}

ValueType Reader::value_type(std::string_view key) {
    const auto id = number_of<std::uint32_t>("a value type");
    if (id > static_cast<std::uint32_t>(ValueType::f64)) {
        fail("key " + quoted(key) + " has the unknown value type " + number(id) +
             "; types 0 to 12 are known");
    }
    return static_cast<ValueType>(id);
}

void Reader::read_array(KeyValue& value) {
    value.element_type = value_type(value.key);
    value.count = number_of<std::uint64_t>("an array length");
    if (value.element_type == ValueType::array) {
        fail("key " + quoted(value.key) + " is an array of arrays, which no model needs");
    }
    const std::uint64_t fixed = value_bytes(value.element_type);
    const std::uint64_t least = fixed != 0 ? fixed : 8;
    if (value.count > kMaxArrayElements || value.count > left() / least) {
        fail("key " + quoted(value.key) + " says it has " + number(value.count) +
             " elements, but only " + number(left()) + " bytes of the file are left");
    }
    const std::uint64_t start = at_;
    if (fixed != 0) {
        take(value.count * fixed, "an array");
    } else {
        for (std::uint64_t i = 0; i < value.count; ++i) {
            text("string " + number(i) + " of an array", kMaxStringBytes);
        }
    }
    value.payload = head_.subspan(start, at_ - start);
}

KeyValue Reader::read_value() {
    KeyValue value;
    value.key = name("the name of a key", kMaxKeyBytes);
    value.type = value_type(value.key);
    value.element_type = value.type;
    if (value.type == ValueType::array) {
        read_array(value);
    } else if (value.type == ValueType::string) {
        value.payload = std::as_bytes(std::span(text("a string value", kMaxStringBytes)));
    } else {
        value.payload = take(value_bytes(value.type), "a value");
    }
    if (!out_.value_index.emplace(value.key, out_.values.size()).second) {
        fail("key " + quoted(value.key) + " occurs twice");
    }
    return value;
}

void Reader::read_alignment() {
    const auto at = out_.value_index.find("general.alignment");
    if (at == out_.value_index.end()) return;
    const KeyValue& value = out_.values[at->second];
    if (value.type != ValueType::u32) {
        fail(std::string("general.alignment is of type ") + value_type_name(value.type) +
             "; u32 is needed");
    }
    std::memcpy(&out_.alignment, value.payload.data(), sizeof(out_.alignment));
    if (!std::has_single_bit(out_.alignment) || out_.alignment < kMinAlignment ||
        out_.alignment > kMaxAlignment) {
        fail("general.alignment is " + number(out_.alignment) +
             "; a power of two from 8 to 1048576 is needed");
    }
}

void Reader::read_shape(TensorEntry& tensor) {
    tensor.n_dims = number_of<std::uint32_t>("a number of dimensions");
    if (tensor.n_dims < 1 || tensor.n_dims > 4) {
        fail("tensor " + quoted(tensor.name) + " has " + number(tensor.n_dims) +
             " dimensions; 1 to 4 are allowed");
    }
    std::uint64_t elements = 1;
    for (std::uint32_t i = 0; i < tensor.n_dims; ++i) {
        const auto dim = number_of<std::uint64_t>("a dimension");
        constexpr std::uint64_t kMost = std::numeric_limits<std::int64_t>::max();
        if (dim == 0 || dim > kMost / elements) {
            fail("tensor " + quoted(tensor.name) + " has " + number(dim) + " as dimension " +
                 number(i) + (dim == 0 ? "; 1 or more is needed" : ", so its size overflows"));
        }
        tensor.dims[i] = dim;
        elements *= dim;
    }
}

void Reader::size_tensor(TensorEntry& tensor) {
    const TensorType* type = find_tensor_type(tensor.type);
    if (type == nullptr) {
        const char* removed = removed_tensor_type(tensor.type);
        fail("tensor " + quoted(tensor.name) + " has type " + number(tensor.type) +
             (removed != nullptr ? std::string(", the removed ") + removed
                                 : std::string(", which is unknown; a newer winnow may read it")));
    }
    if (tensor.dims[0] % type->block_elements != 0) {
        fail("tensor " + quoted(tensor.name) + " has rows of " + number(tensor.dims[0]) +
             " elements; type " + type->name + " needs a multiple of " +
             number(type->block_elements));
    }
    const std::uint64_t elements =
        tensor.dims[0] * tensor.dims[1] * tensor.dims[2] * tensor.dims[3];
    const std::uint64_t blocks = elements / type->block_elements;
    if (blocks > file_bytes_ / type->block_bytes) {
        fail("tensor " + quoted(tensor.name) + " has " + number(elements) + " elements of type " +
             type->name + ", more than the file's " + number(file_bytes_) +
             " bytes can hold; fetch the file again");
    }
    tensor.bytes = blocks * type->block_bytes;
}

TensorEntry Reader::read_tensor() {
    TensorEntry tensor;
    tensor.name = name("the name of a tensor", kMaxTensorNameBytes);
    if (!out_.tensor_index.emplace(tensor.name, out_.tensors.size()).second) {
        fail("tensor " + quoted(tensor.name) + " occurs twice");
    }
    read_shape(tensor);
    tensor.type = number_of<std::uint32_t>("a tensor type");
    size_tensor(tensor);
    tensor.offset = number_of<std::uint64_t>("a tensor offset");
    return tensor;
}

// ggml reads tensors only when they follow each other without gaps; this rules out overlaps too.
void Reader::place_tensors() {
    const std::uint64_t mask = out_.alignment - 1;
    out_.data_offset = out_.tensors.empty() ? at_ : (at_ + mask) & ~mask;
    std::uint64_t expected = 0;
    for (const TensorEntry& tensor : out_.tensors) {
        if ((tensor.offset & mask) != 0) {
            fail("tensor " + quoted(tensor.name) + " starts at offset " + number(tensor.offset) +
                 ", which is no multiple of the alignment " + number(out_.alignment));
        }
        if (tensor.offset != expected) {
            fail("tensor " + quoted(tensor.name) + " starts at offset " + number(tensor.offset) +
                 "; after the tensor before it, " + number(expected) + " is needed");
        }
        // Each size is at most the file's, and the sum is compared at each step: no overflow.
        if (out_.data_offset + tensor.offset + tensor.bytes > file_bytes_) {
            fail("the file is cut short: tensor " + quoted(tensor.name) + " ends at byte " +
                 number(out_.data_offset + tensor.offset + tensor.bytes) + ", but the file has " +
                 number(file_bytes_) + "; fetch the file again");
        }
        expected = (tensor.offset + tensor.bytes + mask) & ~mask;
    }
}

Directory Reader::read() {
    read_magic();
    read_version();
    const auto n_tensors = count("the number of tensors", kMaxTensors, kMinTensorBytes);
    const auto n_values = count("the number of keys", kMaxValues, kMinValueBytes);
    out_.values.reserve(n_values);
    for (std::uint64_t i = 0; i < n_values; ++i) out_.values.push_back(read_value());
    read_alignment();
    out_.tensors.reserve(n_tensors);
    for (std::uint64_t i = 0; i < n_tensors; ++i) out_.tensors.push_back(read_tensor());
    place_tensors();
    return std::move(out_);
}

}  // namespace

Directory read_directory(std::span<const std::byte> head, std::uint64_t file_bytes,
                         const std::string& path) {
    if (file_bytes > kMaxFileBytes) {
        throw file_error(path, "the file claims " + number(file_bytes) + " bytes; at most " +
                                   number(kMaxFileBytes) + " are read");
    }
    const auto length = std::min<std::uint64_t>(head.size(), file_bytes);
    return Reader(head.first(length), file_bytes, path).read();
}

}  // namespace winnow::gguf
