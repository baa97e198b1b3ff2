// Made-up vectors whose distributions cache formats meet differently, and made-up keys as some models have them.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace kvant::tools {

struct MadeUp {
  std::string name;
  uint64_t seed;
  bool keys;  // stands for keys: the same offset in all of them costs attention nothing
  // [rows][head_dim]
  std::vector<float> (*values)(std::mt19937_64& random, uint64_t rows, uint32_t head_dim);
};

// Normal, small, uniform, bimodal and heavy-tailed values; keys with outlier channels, with a bias on slow RoPE pairs
// and with one channel far from zero.
const std::vector<MadeUp>& made_up();
// The same vectors every time.
std::vector<float> draw(const MadeUp& data, uint64_t rows, uint32_t head_dim);
std::vector<float> normal_values(uint64_t seed, size_t count);

}  // namespace kvant::tools
