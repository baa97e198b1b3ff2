// Run-time choice between the two compilations of the matrix product.
#include "matmul.hpp"

#include <thread>

#include "matmul_kernel.hpp"

namespace kvant::engine {

#if defined(KVANT_ENGINE_AVX2)
void matmul_avx2(const float* input, const float* weight, float* out, size_t rows, size_t in_features,
                 size_t out_features);
#endif

namespace {

struct Generic;

bool use_avx2() {
#if defined(KVANT_ENGINE_AVX2)
  static const bool supported = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return supported;
#else
  return false;
#endif
}

void product(const float* input, const float* weight, float* out, size_t rows, size_t in_features,
             size_t out_features) {
#if defined(KVANT_ENGINE_AVX2)
  if (use_avx2()) {
    matmul_avx2(input, weight, out, rows, in_features, out_features);
    return;
  }
#endif
  matmul_kernel<Generic>(input, weight, out, rows, in_features, out_features);
}

}  // namespace

void matmul(const float* input, const float* weight, float* out, size_t rows, size_t in_features, size_t out_features) {
  // A prefill's rows are shared by two threads; starting one costs far less than such a product, and a decode step's
  // single row is not worth it. More would take the cores from a device that is the CPU itself.
  constexpr size_t kRowsForTwo = 64;
  if (rows < kRowsForTwo || std::thread::hardware_concurrency() < 2) {
    product(input, weight, out, rows, in_features, out_features);
    return;
  }
  const size_t half = rows / 2;
  std::thread other(product, input + half * in_features, weight, out + half * out_features, rows - half, in_features,
                    out_features);
  product(input, weight, out, half, in_features, out_features);
  other.join();
}

const char* matmul_code() { return use_avx2() ? "avx2" : "generic"; }

}  // namespace kvant::engine
