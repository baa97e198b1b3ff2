// Which pages cool, and how far: those whose V costs least accuracy for the bytes that narrower formats save. Pure.
//
// A value's error reaches the output by its weight, so that a page's cost is its attention mass times what the squared error of V grows by
// (format_error). With errors that are convex in bits, steps in the order of cost per byte are the least cost for what they save.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "geometry.hpp"
#include "status.hpp"

namespace kvant {

// A page from one grade to the next that is narrower.
struct CoolStep {
  std::uint32_t group = 0, page = 0;  // id
  std::uint32_t from = 0, to = 0;     // grades
  double cost = 0;
  std::uint64_t saved = 0;            // bytes of the page, more than 0
};

// What a layer group takes when its pages stand together: whole slabs.
struct CoolGroup {
  std::uint32_t pages_per_slab = 1;
  std::array<std::uint32_t, kMostGrades> used{};                    // pages by grade
  std::array<std::vector<std::uint64_t>, kMostGrades> slab_bytes;   // by grade: what its first n slabs take
};

// Of a page that takes several steps the last one: where it goes. `steps`: of one page one after the other. `other_bytes` are taken besides the
// groups'. Errors: resource_exhausted, naming the least bytes that can be met.
Result<std::vector<CoolStep>> choose_cooled(std::vector<CoolGroup> groups, std::vector<CoolStep> steps, std::uint64_t other_bytes,
                                            std::uint64_t target_bytes);

}  // namespace kvant
