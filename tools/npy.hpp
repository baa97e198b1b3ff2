// NumPy .npy files of little-endian float16 or float32 in C order, as floats.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "outcome.hpp"

namespace kvant::tools {

struct NpyArray {
  std::vector<uint64_t> shape;
  std::vector<float> values;
};

Outcome<NpyArray> read_npy(const std::string& path);

}  // namespace kvant::tools
