// The tensors of a GGUF file in memory: mapped where they can be used as they lie, repacked where
// ggml has a faster layout for products on this CPU.
#pragma once

#include <cstdint>
#include <memory>

#include "model/arch.h"

namespace winnow {

class WeightStore {
  public:
    /// Throws a failure Error naming the file when a tensor is missing, of the wrong shape, or the
    /// weights do not fit in the memory that is free. Keeps `file` mapped.
    WeightStore(std::shared_ptr<const gguf::File> file, const Arch& arch, const Hparams& hparams);
    ~WeightStore();

    const Weights& weights() const;
    /// The matrices that enter products.
    const std::vector<const ggml_tensor*>& matrices() const;
    /// A matrix's rows as the file stores them, also where the tensor itself is repacked.
    const void* plain_data(const ggml_tensor* matrix) const;
    std::uint64_t bytes() const;           ///< of all tensors as stored in the file
    std::uint64_t repacked_bytes() const;  ///< of the copies in ggml's faster layouts
    std::uint64_t parameters() const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace winnow
