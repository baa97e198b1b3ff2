// q5_k, q3_k and q2_k against the ggml library that is loaded: random blocks decode to the same bits, each side's encoder writes what the
// other decodes, and kvant's errs no more than 3 % above ggml's. Prints the errors that docs/formats/k_quants.md quotes.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "interchange.hpp"

extern "C" {
void dequantize_row_q5_K(const void* x, float* y, std::int64_t k);
void dequantize_row_q3_K(const void* x, float* y, std::int64_t k);
void dequantize_row_q2_K(const void* x, float* y, std::int64_t k);
void quantize_row_q5_K_ref(const float* x, void* y, std::int64_t k);
void quantize_row_q3_K_ref(const float* x, void* y, std::int64_t k);
void quantize_row_q2_K_ref(const float* x, void* y, std::int64_t k);
}

using namespace kvant;

namespace {

struct Theirs {
  const char* name;
  void (*decode)(const void*, float*, std::int64_t);
  void (*encode)(const float*, void*, std::int64_t);
  std::vector<std::size_t> scales;  // where a block has its f16
};
const Theirs kTheirs[] = {{"q5_k", dequantize_row_q5_K, quantize_row_q5_K_ref, {0, 2}},
                          {"q3_k", dequantize_row_q3_K, quantize_row_q3_K_ref, {108}},
                          {"q2_k", dequantize_row_q2_K, quantize_row_q2_K_ref, {80, 82}}};

std::vector<float> ours(const InterchangeFormat& format, std::span<const std::byte> bytes, std::size_t size) {
  std::vector<float> y(size);
  decode_interchange(format, bytes, y);
  return y;
}

bool decodes_alike(const InterchangeFormat& format, const Theirs& theirs) {
  constexpr std::size_t kBlocks = 20000;
  std::mt19937 engine(1);
  std::vector<std::byte> bytes(kBlocks * format.block_bytes);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(engine() >> 24);
  for (std::size_t block = 0; block < kBlocks; ++block) {
    for (const std::size_t offset : theirs.scales) {
      std::byte& high = bytes[block * format.block_bytes + offset + 1];
      if ((high & std::byte{0x7C}) == std::byte{0x7C}) high &= std::byte{0xFB};  // NaN need not have the same bits
    }
  }
  std::vector<float> y(kBlocks * kInterchangeBlock);
  theirs.decode(bytes.data(), y.data(), static_cast<std::int64_t>(y.size()));
  return std::memcmp(ours(format, bytes, y.size()).data(), y.data(), y.size() * sizeof(float)) == 0;
}

double relative_mse(const std::vector<float>& x, const std::vector<float>& y) {
  double error = 0, squares = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    error += std::pow(double{x[i]} - double{y[i]}, 2.0);
    squares += std::pow(double{x[i]}, 2.0);
  }
  return error / squares;
}

using Source = std::function<double(double normal, double uniform, std::size_t i)>;
struct DataSet {
  const char* name;
  Source value;  // of N(0,1), of [0,1) and of the place
};
const DataSet kSets[] = {{"normal", [](double n, double, std::size_t) { return n; }},
                         {"normal x 0.001", [](double n, double, std::size_t) { return 1e-3 * n; }},
                         {"uniform", [](double, double u, std::size_t) { return 2 * u - 1; }},
                         {"bimodal", [](double n, double u, std::size_t) { return (u < 0.5 ? -2 : 2) + 0.5 * n; }},
                         {"positive", [](double n, double, std::size_t) { return std::fabs(n); }},
                         {"outliers", [](double n, double, std::size_t i) { return i % 64 == 7 ? 15 + 10 * n : n; }}};

bool errs_no_more(const InterchangeFormat& format, const Theirs& theirs, const DataSet& set) {
  std::mt19937 engine(5);
  std::vector<float> x(2000 * std::size_t{kInterchangeBlock});
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double a = (static_cast<double>(engine()) + 1) / 4294967297.0, b = static_cast<double>(engine()) / 4294967296.0;
    const double normal = std::sqrt(-2 * std::log(a)) * std::cos(6.283185307179586 * b);
    x[i] = static_cast<float>(set.value(normal, static_cast<double>(engine()) / 4294967296.0, i));
  }
  const auto size = static_cast<std::int64_t>(x.size());
  std::vector<std::byte> own(interchange_bytes(format, x.size())), other(own.size());
  encode_interchange(format, x, own);
  theirs.encode(x.data(), other.data(), size);
  std::vector<float> y(x.size());
  theirs.decode(own.data(), y.data(), size);
  const double error = relative_mse(x, y), reference = relative_mse(x, ours(format, other, x.size()));
  std::printf("%s %-14s relMSE %.3e, ggml's encoder %.3e, ratio %.3f\n", theirs.name, set.name, error, reference, error / reference);
  return error <= 1.03 * reference;
}

}  // namespace

int main() {
#ifndef __x86_64__
  std::puts("skipped: ggml may be built with fused multiply-add here, and then rounds otherwise");
  return 77;
#endif
  int failures = 0;
  const auto check = [&](bool good, const char* what, const char* name) {
    if (!good) std::printf("FAILED: %s: %s\n", name, what);
    failures += good ? 0 : 1;
  };
  for (const Theirs& theirs : kTheirs) {
    const InterchangeFormat* format = interchange_by_name(theirs.name);
    if (format == nullptr) {
      check(false, "no such format", theirs.name);
      continue;
    }
    check(decodes_alike(*format, theirs), "random blocks decode otherwise", theirs.name);
    for (const DataSet& set : kSets) check(errs_no_more(*format, theirs, set), set.name, theirs.name);
    const std::vector<float> zeros(kInterchangeBlock);
    std::vector<std::byte> own(format->block_bytes), other(format->block_bytes);
    encode_interchange(*format, zeros, own);
    theirs.encode(zeros.data(), other.data(), kInterchangeBlock);
    check(own == other, "zeros have other bytes", theirs.name);
  }
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
