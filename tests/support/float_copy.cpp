#include "support/float_copy.h"

#include <ggml.h>
#include <gguf.h>

#include <cstring>
#include <memory>
#include <stdexcept>
#include <vector>

namespace winnow::testing {

namespace {

struct Free {
    void operator()(gguf_context* file) const { gguf_free(file); }
    void operator()(ggml_context* tensors) const { ggml_free(tensors); }
};
using File = std::unique_ptr<gguf_context, Free>;
using Tensors = std::unique_ptr<ggml_context, Free>;

}  // namespace

void write_float_copy(const std::string& from, const std::string& to) {
    ggml_context* loaded = nullptr;
    const File source(gguf_init_from_file(from.c_str(), {.no_alloc = false, .ctx = &loaded}));
    const Tensors tensors(loaded);
    if (source == nullptr) {
        throw std::runtime_error("cannot read " + from);
    }
    const auto count = gguf_get_n_tensors(source.get());
    const Tensors headers(ggml_init({.mem_size = ggml_tensor_overhead() * (count + 1),
                                     .mem_buffer = nullptr,
                                     .no_alloc = true}));
    const File copy(gguf_init_empty());
    gguf_set_kv(copy.get(), source.get());
    gguf_set_val_u32(copy.get(), "general.file_type", 0);
    std::vector<std::vector<float>> data;
    for (std::int64_t i = 0; i < count; ++i) {
        ggml_tensor* tensor = ggml_get_tensor(loaded, gguf_get_tensor_name(source.get(), i));
        if (ggml_is_quantized(tensor->type)) {
            ggml_tensor* plain =
                ggml_new_tensor(headers.get(), GGML_TYPE_F32, GGML_MAX_DIMS, tensor->ne);
            ggml_set_name(plain, tensor->name);
            std::vector<float>& values =
                data.emplace_back(static_cast<std::size_t>(ggml_nelements(tensor)));
            ggml_get_type_traits(tensor->type)
                ->to_float(tensor->data, values.data(), ggml_nelements(tensor));
            plain->data = values.data();
            tensor = plain;
        }
        gguf_add_tensor(copy.get(), tensor);
    }
    if (!gguf_write_to_file(copy.get(), to.c_str(), false)) {
        throw std::runtime_error("cannot write " + to);
    }
}

}  // namespace winnow::testing
