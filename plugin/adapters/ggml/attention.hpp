// FLASH_ATTN_EXT as the adapter's files share it: the facts of a node, and where its keys and values lie as pages.
#pragma once

#include "geometry.hpp"
#include "operations.hpp"
#include "page_rows.hpp"

namespace kvant::ggml {

// The facts of a FLASH_ATTN_EXT node.
struct Attention {
  const ggml_tensor *q, *k, *v, *mask, *sinks, *out;
  FormatId format_k{}, format_v{};
  std::uint32_t dim_k = 0, dim_v = 0, queries = 0, q_heads = 0, kv_heads = 0, keys = 0, sequences = 0;
  float scale = 1.0f, max_bias = 0.0f, soft_cap = 0.0f;
};

// Pages of both sides, whose numbers agree; slabs are runs of them that can be bound. Token t of sequence s is in page
// first + s * sequence_pages + t / tokens.
struct AttentionPages {
  std::uint64_t page_bytes[2] = {};
  BufferRange region[2];  // of page 0 and on
  std::uint32_t tokens = 0;  // of a page
  std::uint32_t first = 0, per_sequence = 0, sequence_pages = 0, total = 0, per_slab = 0, slabs = 0;

  BufferRange slab(int side, std::uint32_t index) const;
};

// Pages of their own for K and V in scratch memory; per_slab is 0 where not even a few pages can be bound. `region` is not set.
AttentionPages scratch_pages(const Attention& attention, const ExecutorLimits& limits);
// Pages that hold K and V: those of planar tensors, or scratch memory into which both are brought.
Result<AttentionPages> pages_for(Work& work, const Attention& attention);

// Attention of sequences [first, first + count), whose query rows follow one another in Q by its token stride, as they do in OUT.
Status record_sequences(Work& work, const Attention& attention, const AttentionPages& pages, std::uint32_t first, std::uint32_t count);

}  // namespace kvant::ggml
