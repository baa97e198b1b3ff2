// The matrix product compiled with -mavx2 -mfma (tools/CMakeLists.txt). Eigen's namespace is renamed here so that the
// linker cannot mix these instantiations with those of files that must run on any processor.
#if defined(KVANT_ENGINE_AVX2)
#define Eigen EigenForAvx2
#include "matmul_kernel.hpp"

namespace kvant::engine {

namespace {
struct Avx2;
}

void matmul_avx2(const float* input, const float* weight, float* out, size_t rows, size_t in_features,
                 size_t out_features);
void matmul_avx2(const float* input, const float* weight, float* out, size_t rows, size_t in_features,
                 size_t out_features) {
  matmul_kernel<Avx2>(input, weight, out, rows, in_features, out_features);
}

}  // namespace kvant::engine
#endif
