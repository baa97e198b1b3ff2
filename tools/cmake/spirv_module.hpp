// The few facts that the build needs of a SPIR-V module, read from its words. For the build-time tool only.
#pragma once

#include <cstdint>
#include <set>
#include <span>

namespace kvant::build {

struct Module {
  std::set<std::uint32_t> capabilities;
  std::set<std::uint32_t> spec_ids;
  std::set<std::uint32_t> bindings;
  std::set<std::uint32_t> descriptor_sets;
  std::uint32_t push_constant_bytes = 0;  // end of the last member of the push-constant block
  bool barrier_in_loop = false;           // directly, or in a function that is called inside of a loop
};

// `words` has passed spirv-val: indices inside of an instruction are trusted.
Module reflect(std::span<const std::uint32_t> words);

}  // namespace kvant::build
