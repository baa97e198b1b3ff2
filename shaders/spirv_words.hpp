// The instructions of a SPIR-V module, one after the other. Used by the backend and by the build's own tool.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace kvant {

// visit(opcode, words of the instruction), for a module whose header has five words; stops where a length cannot be.
template <typename Visit>
void for_each_instruction(std::span<const std::uint32_t> words, Visit visit) {
  for (std::size_t at = 5; at < words.size();) {
    const std::size_t count = words[at] >> 16;
    if (count == 0 || at + count > words.size()) return;
    visit(words[at] & 0xFFFFu, words.subspan(at, count));
    at += count;
  }
}

}  // namespace kvant
