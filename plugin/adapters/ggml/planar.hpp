// PlanarTensors: which KV cache tensors lie as planar pages inside their buffers, and their way there and back. A tensor's 32 rows take
// exactly as many bytes in planes as in ggml's blocks, so a tensor is turned in place, and reads and writes from outside are translated.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "executor.hpp"
#include "tensors.hpp"

namespace kvant::ggml {

class Work;

inline constexpr std::uint32_t kPageTokens = 32;  // at least, and in scratch memory
// Bytes that are turned or translated at a time: what scratch memory is taken for it.
inline constexpr std::uint64_t kPieceBytes = 16ull << 20;

// Which tensors are turned: none, those that SET_ROWS fills and FLASH_ATTN_EXT reads, or all that FLASH_ATTN_EXT reads.
enum class PlanarMode { never, caches, always };

// A tensor of rows [heads][head_dim]; page p holds rows page_tokens * p and on.
struct PlanarTensor {
  BufferId buffer = BufferId::none;
  std::uint64_t offset = 0, bytes = 0;
  FormatId format{};
  std::uint32_t page_tokens = kPageTokens;
  std::uint32_t heads = 0, head_dim = 0;  // 0: not known yet, only that rows are set
  bool planar = false;
  std::uint32_t uses = 0, strikes = 0;    // graphs since it was turned; how often it was turned back soon after

  std::uint64_t row_bytes = 0;
  std::uint64_t page_bytes() const { return row_bytes * page_tokens; }
};

// A view of a planar tensor as attention sees it: token t of sequence s is in page first_page + s * sequence_pages + t / page_tokens.
struct PlanarView {
  const PlanarTensor* tensor = nullptr;
  std::uint32_t first_page = 0, sequence_pages = 0;
};

// Whether a view of K or V is the rows of its tensor by `heads`, from a page's beginning on, where planes take as many bytes as ggml's blocks
// and pages can be bound. Its tensor may have no memory yet.
bool rows_are_heads(const ggml_tensor* view, std::uint32_t heads, const ExecutorLimits& limits);

class PlanarTensors {
 public:
  explicit PlanarTensors(PlanarMode mode) : mode_(mode) {}

  // Rows of this tensor are set: it may be a cache. Other tensors that lay here are gone.
  Status note_rows_set(Work& work, const ggml_tensor* destination);
  // Turns K and V of an attention into pages, where they are caches and their views fit.
  Status prepare(Work& work, const ggml_tensor* k, const ggml_tensor* v, std::uint32_t kv_heads);
  // The planar tensor in which a tensor of its type lies as a whole, or null.
  const PlanarTensor* find(const ggml_tensor* tensor) const;
  // K or V of an attention; nothing where it is not planar, or not by these heads.
  std::optional<PlanarView> view(const ggml_tensor* tensor, const ExecutorLimits& limits) const;
  // What overlaps these bytes lies in ggml's blocks after this.
  Status settle(Work& work, BufferId buffer, std::uint64_t offset, std::uint64_t bytes);
  Status settle(Work& work, const ggml_tensor* tensor);

  // Bytes from outside. `reach` comes first, before anything is staged: whether the range is to be read and written through here, that
  // is lies in one planar tensor; otherwise it is settled.
  Result<bool> reach(Work& work, BufferId buffer, std::uint64_t offset, std::uint64_t size);
  Status read(Work& work, BufferId buffer, std::uint64_t offset, const BufferRange& to);
  Status write(Work& work, const BufferRange& from, BufferId buffer, std::uint64_t offset);
  // Whether any planar tensor lies there.
  bool touches(BufferId buffer, std::uint64_t offset, std::uint64_t size) const;
  // Whether whole pages of both ranges agree, or neither is planar, so that bytes may be copied as they are.
  bool alike(BufferId source, std::uint64_t source_offset, BufferId destination, std::uint64_t offset, std::uint64_t size) const;
  // Whether the range is whole pages of planar tensors, or outside all: equal bytes are equal bytes in either form.
  bool whole(BufferId buffer, std::uint64_t offset, std::uint64_t size) const;
  void forget(BufferId buffer);
  // Before a new tensor lies there: rows again, and nothing known of them.
  Status release(Work& work, BufferId buffer, std::uint64_t offset, std::uint64_t bytes);

 private:
  PlanarTensor* at(BufferId buffer, std::uint64_t offset);
  const PlanarTensor* holding(BufferId buffer, std::uint64_t offset, std::uint64_t size) const;
  Status turn(Work& work, PlanarTensor& tensor, bool planar);
  Status move(Work& work, KernelId kernel, const PlanarTensor& tensor, std::uint32_t first_page, std::uint32_t pages, const BufferRange& rows);

  PlanarMode mode_;
  std::vector<PlanarTensor> tensors_;
};

}  // namespace kvant::ggml
