// libFuzzer target: any bytes are either a checked GGUF, all of which can be read, or a short
// Error.
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -Isrc -Iinclude
//       fuzz/gguf_fuzz.cpp src/gguf/*.cpp -o gguf_fuzz
//   ./gguf_fuzz -dict=fuzz/gguf.dict -max_len=16384
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

#include "gguf/precheck.h"

namespace {

using winnow::Error;
using winnow::gguf::File;

constexpr std::size_t kLongestMessage = 400;

void need(bool holds) {
    if (!holds) std::abort();
}

template <typename Call>
void attempt(const Call& call) {
    try {
        call();
    } catch (const Error& error) {
        const std::string_view message = error.what();
        need(error.kind() == winnow::ErrorKind::failure);
        need(message.starts_with("'fuzz.gguf': ") && message.size() < kLongestMessage);
        need(message.find('\n') == std::string_view::npos);
    }
}

void read_values(const File& file) {
    for (const auto& value : file.values()) {
        need(file.find(value.key) == &value);
        attempt([&] { file.require_u32(value.key); });
        attempt([&] { file.get_u64(value.key, 0); });
        attempt([&] { file.get_i64(value.key, 0); });
        attempt([&] { file.require_f32(value.key); });
        attempt([&] { file.require_bool(value.key); });
        attempt([&] { file.require_string(value.key); });
        attempt([&] { file.get_u32_array(value.key); });
        attempt([&] { file.get_f32_array(value.key); });
        attempt([&] { need(file.get_string_array(value.key).size() == value.count); });
        attempt([&] { need(file.per_layer_u32(value.key, 3).size() == 3); });
    }
}

void read_tensors(const File& file) {
    std::uint64_t end = 0;  // tensors must not overlap
    for (const auto& tensor : file.tensors()) {
        need(file.find_tensor(tensor.name) == &tensor);
        need(tensor.offset >= end && tensor.offset % file.alignment() == 0);
        end = tensor.offset + tensor.bytes;
        need(file.data_offset() + end <= file.file_bytes());
        attempt([&] {
            unsigned sum = 0;
            for (const std::byte byte : file.tensor_data(tensor)) {
                sum += std::to_integer<unsigned>(byte);
            }
            need(sum != ~0U);  // keeps the reads
        });
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto head = std::as_bytes(std::span(data, size));
    // The second pass pretends that tensor data follows, so that the directory is reached.
    for (const std::uint64_t more : {0, 1 << 20}) {
        attempt([&] {
            const File file = File::parse(head, size + more, "fuzz.gguf");
            attempt([&] { winnow::gguf::refuse_unsupported(file); });
            read_values(file);
            read_tensors(file);
        });
    }
    return 0;
}
