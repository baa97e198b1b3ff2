// What is known of a SPIR-V module's constants once its specialization constants have values.
#pragma once

#include <cstdint>
#include <map>
#include <span>

namespace kvant {

// Values of constants of 32 bits and less by id, booleans as 0 and 1; what cannot be told is left out. `spec`: values by constant id; ids
// beyond it have the module's defaults.
std::map<std::uint32_t, std::uint32_t> known_constants(std::span<const std::uint32_t> words, std::span<const std::uint32_t> spec);

}  // namespace kvant
