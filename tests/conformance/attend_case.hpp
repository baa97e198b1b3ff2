// What the parts of the attention list share: the work that a case may be, and its config and name.
#pragma once

#include "cases.hpp"

namespace kvant::conformance {

// Length of an item's keys: tuning's, two pages, all that the kernel takes.
enum class Splits { tuned, shortest, whole };

constexpr std::uint64_t kWorkOfACase = 4'000'000;  // multiply-adds; keeps the whole list within minutes on two cores

std::uint64_t work(const Case& c);
// Pairs of large axis values would make cases of seconds: shrinks what the kernel's code paths depend on least.
void shrink(Case& c, std::uint64_t budget);
// Chooses the index-th config of the module for the case's shape, cuts it shorter if asked, and names the case. False
// if the module has no config for that shape.
bool finish_attend(Case& c, KernelId module, std::uint32_t config_index, Splits splits);

}  // namespace kvant::conformance
