// The mean that centring subtracts (docs/centring.md), in f32 with the operations and the order of shaders/means.comp.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kvant {

// Of rows [token][dim]: their mean, rotated if asked, or zeros where it would not pay. `inverse` is 1 / number of rows, rounded once.
std::vector<float> mean_of_rows(std::span<const float> rows, std::uint32_t dim, float inverse, bool rotate);

}  // namespace kvant
