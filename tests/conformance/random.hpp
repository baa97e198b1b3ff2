// Inputs of the cases: a counter-based generator, so that any element of any case can be made alone from (seed, name, stream,
// index), and the data classes built on it.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace kvant::conformance {

std::uint64_t hash_text(std::string_view text);

class Random {
 public:
  Random(std::uint64_t seed, std::string_view name, std::uint64_t stream);

  std::uint64_t bits(std::uint64_t index) const;
  double uniform(std::uint64_t index) const;                      // [0, 1)
  double normal(std::uint64_t index) const;                       // N(0, 1)
  std::uint32_t below(std::uint64_t index, std::uint32_t bound) const;
  std::vector<std::uint32_t> permutation(std::uint32_t count) const;

 private:
  std::uint64_t key_;
};

enum class DataClass : std::uint32_t {
  normal,
  uniform,
  outlier,   // normal, with every 13th channel 12 times as large: what keys look like
  small,     // normal times 0.01
  zeros,
  one_hot,   // one 1 per row: finds indexing errors
  ramp,      // the value tells token, head and channel
  constant,
  huge,      // normal times 2^17: beyond what fp16 holds
  count
};
std::string_view data_class_name(DataClass data);

// A dense tensor [tokens][heads][dim].
std::vector<float> make_tensor(const Random& random, DataClass data, std::uint32_t tokens, std::uint32_t heads, std::uint32_t dim);

}  // namespace kvant::conformance
