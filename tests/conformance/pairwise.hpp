// Covering arrays: rows of axis values in which every pair of values of two axes occurs at least once. Deterministic.
#pragma once

#include <cstdint>
#include <vector>

namespace kvant::conformance {

// sizes[i] values on axis i. A row has one value index per axis.
std::vector<std::vector<std::uint32_t>> pairwise_rows(const std::vector<std::uint32_t>& sizes);

}  // namespace kvant::conformance
