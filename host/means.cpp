// The build compiles this folder with -ffp-contract=off.
#include "means.hpp"

#include <limits>

#include "params/pages.h"
#include "rotation.hpp"

namespace kvant {
namespace {

struct QuadSum {
  float sum[4] = {}, squares[4] = {};
};

float total(const float (&x)[4]) { return ((x[0] + x[1]) + x[2]) + x[3]; }

}  // namespace

std::vector<float> mean_of_rows(std::span<const float> rows, std::uint32_t dim, float inverse, bool rotate) {
  std::vector<float> mean(dim);
  float of_mean = 0.0f, of_rows = 0.0f;
  for (std::uint32_t quad = 0; quad < dim; quad += 4) {
    QuadSum at;
    for (std::size_t row = 0; row < rows.size(); row += dim)
      for (std::uint32_t i = 0; i < 4; ++i) {
        const float x = rows[row + quad + i];
        at.sum[i] += x;
        at.squares[i] += x * x;
      }
    float square[4];
    for (std::uint32_t i = 0; i < 4; ++i) {
      mean[quad + i] = at.sum[i] * inverse;
      square[i] = mean[quad + i] * mean[quad + i];
    }
    of_mean += total(square);
    of_rows += total(at.squares);
  }
  const float least = of_rows * inverse * KVANT_CENTRE_GAIN;
  if (!(of_mean > least && of_mean <= std::numeric_limits<float>::max())) return std::vector<float>(dim, 0.0f);
  if (rotate) rotate_row(mean);
  return mean;
}

}  // namespace kvant
