// The rotation of docs/rotation.md as a matrix, in double, element by element: no fast transform, nothing shared with host/rotation.cpp.
#pragma once

#include <vector>

namespace kvant::reference {

std::vector<double> rotated(const std::vector<double>& row);
std::vector<double> rotated_back(const std::vector<double>& row);

}  // namespace kvant::reference
