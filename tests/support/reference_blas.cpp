#include "support/reference_blas.h"

#ifdef WINNOW_REFERENCE_BLAS
#include <ggml-backend.h>
#include <ggml-blas.h>
#endif

namespace winnow::testing {

bool use_blas_in_libllama() {
#ifdef WINNOW_REFERENCE_BLAS
    ggml_backend_register(ggml_backend_blas_reg());
    return true;
#else
    return false;
#endif
}

}  // namespace winnow::testing
