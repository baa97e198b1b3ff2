#include "random.hpp"

#include <cmath>
#include <numbers>
#include <utility>

namespace kvant::conformance {

namespace {

// The finalizer of splitmix64: every output bit depends on every input bit.
std::uint64_t mix(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

}  // namespace

std::uint64_t hash_text(std::string_view text) {  // FNV-1a
  std::uint64_t hash = 0xCBF29CE484222325ull;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
  return hash;
}

Random::Random(std::uint64_t seed, std::string_view name, std::uint64_t stream)
    : key_(mix(mix(seed) ^ hash_text(name)) ^ mix(stream * 0xD1342543DE82EF95ull)) {}

std::uint64_t Random::bits(std::uint64_t index) const { return mix(key_ + index * 0x9E3779B97F4A7C15ull); }

double Random::uniform(std::uint64_t index) const { return static_cast<double>(bits(index) >> 11) * 0x1p-53; }

double Random::normal(std::uint64_t index) const {
  const double u = 1.0 - uniform(index * 2), v = uniform(index * 2 + 1);
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

std::uint32_t Random::below(std::uint64_t index, std::uint32_t bound) const {
  return static_cast<std::uint32_t>(uniform(index) * bound);
}

std::vector<std::uint32_t> Random::permutation(std::uint32_t count) const {
  std::vector<std::uint32_t> order(count);
  for (std::uint32_t i = 0; i < count; ++i) order[i] = i;
  for (std::uint32_t i = count; i > 1; --i) std::swap(order[i - 1], order[below(i, i)]);
  return order;
}

std::string_view data_class_name(DataClass data) {
  static constexpr std::string_view kNames[] = {"normal", "uniform", "outlier", "small", "zeros", "onehot", "ramp", "constant",
                                                "huge"};
  return kNames[static_cast<std::size_t>(data)];
}

std::vector<float> make_tensor(const Random& random, DataClass data, std::uint32_t tokens, std::uint32_t heads, std::uint32_t dim) {
  std::vector<float> x(std::size_t{tokens} * heads * dim);
  std::size_t i = 0;
  for (std::uint32_t token = 0; token < tokens; ++token) {
    for (std::uint32_t head = 0; head < heads; ++head) {
      const std::uint32_t hot = random.below((std::uint64_t{token} << 20) + head, dim);
      for (std::uint32_t d = 0; d < dim; ++d, ++i) {
        double value = 0.0;
        switch (data) {
          case DataClass::normal: value = random.normal(i); break;
          case DataClass::uniform: value = 2.0 * random.uniform(i) - 1.0; break;
          case DataClass::outlier: value = random.normal(i) * (d % 13 == 5 ? 12.0 : 1.0); break;
          case DataClass::small: value = random.normal(i) * 0.01; break;
          case DataClass::one_hot: value = d == hot ? 1.0 : 0.0; break;
          case DataClass::ramp: value = 0.03125 * (token % 61) - 0.25 * head + static_cast<double>(d) / dim; break;
          case DataClass::constant: value = 0.6875; break;
          case DataClass::huge: value = random.normal(i) * 0x1p17; break;
          case DataClass::zeros:
          case DataClass::count: break;
        }
        x[i] = static_cast<float>(value);
      }
    }
  }
  return x;
}

}  // namespace kvant::conformance
