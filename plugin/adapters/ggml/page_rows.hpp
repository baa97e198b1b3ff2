// Commands between rows in ggml's blocks and planar pages, one side of a cache.
#pragma once

#include "tensors.hpp"
#include "work.hpp"

namespace kvant::ggml {

// Rows as they lie in ggml's tensor; bytes.
struct RowPlace {
  std::uint64_t token_stride = 0, head_stride = 0;
};

// Pages are bound from multiples of this many on: they take a multiple of 256 bytes, the largest alignment that bindings may ask for.
inline constexpr std::uint32_t kAlignedPages = 16;

// One side of a cache: what its pages hold.
struct PageRows {
  FormatId format{};
  std::uint32_t head_dim = 0, heads = 0, page_tokens = 0;
  std::uint64_t page_bytes = 0;
};

// `tokens` rows, the first at byte `offset` of `buffer`, to (import) or from (extract) pages `first_page` and on of `pages`, whose
// beginning is aligned. A dispatch for each run that can be bound; the first has a barrier before it if `*barrier`, which is then taken
// back. Errors: resource_exhausted where a page or its rows cannot be bound.
Status record_page_rows(Work& work, KernelId kernel, const PageRows& side, std::uint32_t tokens, BufferId buffer, std::uint64_t offset,
                        const RowPlace& place, const BufferRange& pages, std::uint32_t first_page, bool* barrier);

}  // namespace kvant::ggml
