// The dispatches of one append: rows of tokens into pages that are bound together, in as many parts as the kernel's indices ask for.
#pragma once

#include <cstdint>

#include "executor.hpp"
#include "formats.hpp"
#include "params/pages.h"

namespace kvant {

struct AppendCall {
  FormatId format_k{}, format_v{};
  std::uint32_t head_dim_k = 0, head_dim_v = 0, page_tokens = 16;
  std::uint32_t io_in = 0;         // KVANT_IO_*
  std::uint32_t flags = 0;         // KVANT_ROTATE_*, KVANT_CENTRE_*
  bool both_sides = true;          // else K alone is written
  params::AppendParams params{};   // of all tokens
  BufferRange k, v, k_rows, v_rows, slots, mass, means;
  const char* name = "append";     // of the dispatches, in profiles
};

// The first dispatch waits for what was recorded before it, if `barrier` says so.
void record_append(CommandList& list, const AppendCall& call, const Executor& executor, bool barrier);

}  // namespace kvant
