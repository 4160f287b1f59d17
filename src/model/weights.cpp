#include "model/weights.h"

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml-cpu.h>

#include <limits>
#include <unordered_map>

#include "core/free_memory.h"

namespace winnow {

namespace {

struct ContextDeleter {
    void operator()(ggml_context* ctx) const { ggml_free(ctx); }
};
struct BufferDeleter {
    void operator()(ggml_backend_buffer_t buffer) const { ggml_backend_buffer_free(buffer); }
};
using Context = std::unique_ptr<ggml_context, ContextDeleter>;
using BackendBuffer = std::unique_ptr<ggml_backend_buffer, BufferDeleter>;

constexpr std::size_t kTensorAlignment = 32;  // what ggml's CPU kernels expect

Context make_context(std::size_t tensors) {
    return Context(ggml_init({.mem_size = ggml_tensor_overhead() * (tensors + 1),
                              .mem_buffer = nullptr,
                              .no_alloc = true}));
}

// The layouts ggml can repack weights into on this CPU; empty where it has none.
std::vector<ggml_backend_buffer_type_t> repack_types(ggml_backend_dev_t cpu) {
    auto* get =
        reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(ggml_backend_reg_get_proc_address(
            ggml_backend_dev_backend_reg(cpu), "ggml_backend_dev_get_extra_bufts"));
    std::vector<ggml_backend_buffer_type_t> types;
    for (ggml_backend_buffer_type_t* type = get != nullptr ? get(cpu) : nullptr;
         type != nullptr && *type != nullptr; ++type) {
        types.push_back(*type);
    }
    return types;
}

}  // namespace

struct WeightStore::Impl : WeightBinder {
    std::shared_ptr<const gguf::File> file;
    Weights weights;
    Context tensors;
    BackendBuffer mapped;
    std::vector<BackendBuffer> copies;
    std::vector<const ggml_tensor*> matrices;
    std::unordered_map<const ggml_tensor*, const void*> plain;
    ggml_backend_dev_t cpu = nullptr;
    std::vector<ggml_backend_buffer_type_t> faster;
    std::uint64_t bytes = 0;
    std::uint64_t repacked = 0;
    std::uint64_t parameters = 0;

    ggml_tensor* require(const std::string& name, int columns, int rows) override {
        file->require_tensor(name);
        return optional(name, columns, rows);
    }

    ggml_tensor* optional(const std::string& name, int columns, int rows) override {
        const gguf::TensorEntry* entry = file->find_tensor(name);
        if (entry == nullptr) {
            return nullptr;
        }
        check_shape(*entry, columns, rows);
        ggml_tensor* tensor = create(*entry);
        bytes += entry->bytes;
        parameters += static_cast<std::uint64_t>(ggml_nelements(tensor));
        if (rows > 0) {
            matrices.push_back(tensor);
            plain[tensor] = file->tensor_data(*entry).data();
        }
        // The embedding is read by rows, which repacked layouts cannot do.
        if (rows == 0 || name == "token_embd.weight" || !repack(*entry, tensor)) {
            map(*entry, tensor);
        }
        return tensor;
    }

    void check_shape(const gguf::TensorEntry& entry, int columns, int rows) const {
        const auto expected_rows = static_cast<std::uint64_t>(rows == 0 ? 1 : rows);
        if (entry.dims[0] != static_cast<std::uint64_t>(columns) ||
            entry.dims[1] != expected_rows || entry.dims[2] != 1 || entry.dims[3] != 1) {
            throw file->error(
                "tensor '" + entry.name + "' has shape " + std::to_string(entry.dims[0]) + " x " +
                std::to_string(entry.dims[1]) + ", but the model's keys say " +
                std::to_string(columns) + " x " + std::to_string(expected_rows) + ".");
        }
        if (rows == 0 && entry.type != GGML_TYPE_F32) {
            throw file->error("tensor '" + entry.name +
                              "' is a norm, bias or factor and must be f32, but is " +
                              find_tensor_type_name(entry) + ".");
        }
    }

    static std::string find_tensor_type_name(const gguf::TensorEntry& entry) {
        return ggml_type_name(static_cast<ggml_type>(entry.type));
    }

    ggml_tensor* create(const gguf::TensorEntry& entry) const {
        ggml_tensor* tensor = ggml_new_tensor_2d(tensors.get(), static_cast<ggml_type>(entry.type),
                                                 static_cast<int64_t>(entry.dims[0]),
                                                 static_cast<int64_t>(entry.dims[1]));
        ggml_set_name(tensor, entry.name.c_str());
        return tensor;
    }

    void map(const gguf::TensorEntry& entry, ggml_tensor* tensor) {
        const std::span<const std::byte> data = file->tensor_data(entry);
        if (reinterpret_cast<std::uintptr_t>(data.data()) % kTensorAlignment == 0) {
            // ggml only reads weights; its buffer type has no const.
            ggml_backend_tensor_alloc(mapped.get(), tensor, const_cast<std::byte*>(data.data()));
            return;
        }
        copy(entry, tensor, ggml_backend_cpu_buffer_type());
    }

    bool repack(const gguf::TensorEntry& entry, ggml_tensor* tensor) {
        for (ggml_backend_buffer_type_t type : faster) {
            if (supports_product(type, tensor)) {
                copy(entry, tensor, type);
                repacked += entry.bytes;
                return true;
            }
        }
        return false;
    }

    void copy(const gguf::TensorEntry& entry, ggml_tensor* tensor,
              ggml_backend_buffer_type_t type) {
        const std::size_t size = ggml_backend_buft_get_alloc_size(type, tensor);
        BackendBuffer buffer(ggml_backend_buft_alloc_buffer(type, size));
        if (!buffer) {
            throw file->error("the system has no memory for the " + std::to_string(size) +
                              " bytes of tensor '" + entry.name + "'.");
        }
        ggml_backend_tensor_alloc(buffer.get(), tensor, ggml_backend_buffer_get_base(buffer.get()));
        ggml_backend_tensor_set(tensor, file->tensor_data(entry).data(), 0, entry.bytes);
        copies.push_back(std::move(buffer));
    }

    // ggml answers for an operation, so ask with a product of the tensor and one row.
    bool supports_product(ggml_backend_buffer_type_t type, const ggml_tensor* tensor) const {
        Context scratch = make_context(4);
        BackendBuffer empty(ggml_backend_buft_alloc_buffer(type, 0));
        ggml_tensor* weight =
            ggml_new_tensor_2d(scratch.get(), tensor->type, tensor->ne[0], tensor->ne[1]);
        weight->buffer = empty.get();
        ggml_tensor* row = ggml_new_tensor_2d(scratch.get(), GGML_TYPE_F32, tensor->ne[0], 1);
        return ggml_backend_dev_supports_op(cpu, ggml_mul_mat(scratch.get(), weight, row));
    }
};

WeightStore::WeightStore(std::shared_ptr<const gguf::File> file, const Arch& arch,
                         const Hparams& hparams)
    : impl_(std::make_unique<Impl>()) {
    Impl& s = *impl_;
    s.file = std::move(file);
    if (s.file->file_bytes() > available_memory()) {
        throw s.file->error("the file takes " + std::to_string(s.file->file_bytes() >> 20) +
                            " MiB, but only " + std::to_string(available_memory() >> 20) +
                            " MiB of memory are free; use a smaller model or quantisation.");
    }
    s.cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    s.faster = repack_types(s.cpu);
    s.tensors = make_context(s.file->tensors().size() + 1);
    const std::span<const std::byte> whole = s.file->bytes();
    s.mapped.reset(
        ggml_backend_cpu_buffer_from_ptr(const_cast<std::byte*>(whole.data()), whole.size()));
    ggml_backend_buffer_set_usage(s.mapped.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);

    Weights& w = s.weights;
    w.token_embd = s.require("token_embd.weight", hparams.embedding, hparams.vocabulary);
    w.output_norm = s.require("output_norm.weight", hparams.embedding, 0);
    w.output = s.optional("output.weight", hparams.embedding, hparams.vocabulary);
    w.output = w.output != nullptr ? w.output : w.token_embd;
    w.output_bias = s.optional("output.bias", hparams.vocabulary, 0);
    w.rope_factors = s.optional("rope_freqs.weight", hparams.rope.dims / 2, 0);
    w.layers.resize(hparams.layers);
    for (int layer = 0; layer < hparams.layers; ++layer) {
        arch.bind(s, hparams, layer, w.layers[layer]);
    }
}

WeightStore::~WeightStore() = default;
const Weights& WeightStore::weights() const {
    return impl_->weights;
}
const std::vector<const ggml_tensor*>& WeightStore::matrices() const {
    return impl_->matrices;
}
const void* WeightStore::plain_data(const ggml_tensor* matrix) const {
    const auto found = impl_->plain.find(matrix);
    return found == impl_->plain.end() ? nullptr : found->second;
}
std::uint64_t WeightStore::bytes() const {
    return impl_->bytes;
}
std::uint64_t WeightStore::repacked_bytes() const {
    return impl_->repacked;
}
std::uint64_t WeightStore::parameters() const {
    return impl_->parameters;
}

}  // namespace winnow
