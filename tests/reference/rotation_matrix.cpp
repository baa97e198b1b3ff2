#include "rotation_matrix.hpp"

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace kvant::reference {

namespace {

double sign(std::size_t element) {
  const auto number = static_cast<std::uint32_t>(element + 1);
  const std::uint32_t first = number * 2654435761u;
  return (first ^ first / 32768u) * 2246822519u >= 2147483648u ? -1.0 : 1.0;
}

// The entry of the matrix; 0 where the elements lie in different blocks.
double entry(std::size_t elements, std::size_t row, std::size_t column) {
  std::size_t begin = 0;
  while (begin < elements) {
    std::size_t size = 1;
    while (2 * size <= elements - begin) size *= 2;
    if (row < begin + size) {
      if (column < begin || column >= begin + size) return 0.0;
      return (std::popcount((row - begin) & (column - begin)) % 2 == 0 ? 1.0 : -1.0) / std::sqrt(static_cast<double>(size));
    }
    begin += size;
    if (column < begin) return 0.0;
  }
  return 0.0;
}

}  // namespace

std::vector<double> rotated(const std::vector<double>& row) {
  std::vector<double> out(row.size(), 0.0);
  for (std::size_t i = 0; i < row.size(); ++i)
    for (std::size_t j = 0; j < row.size(); ++j) out[i] += entry(row.size(), i, j) * sign(j) * row[j];
  return out;
}

std::vector<double> rotated_back(const std::vector<double>& row) {
  std::vector<double> out(row.size(), 0.0);
  for (std::size_t i = 0; i < row.size(); ++i)
    for (std::size_t j = 0; j < row.size(); ++j) out[i] += sign(i) * entry(row.size(), i, j) * row[j];
  return out;
}

}  // namespace kvant::reference
