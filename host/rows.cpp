// quantize_rows, dequantize_rows: the append and read kernels on a temporary slab of one KV head, for callers that want
// codes and no cache. Rows are tokens; pages are repacked to and from canonical bytes on the host.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "append_record.hpp"
#include "cache_spec.hpp"
#include "checked.hpp"
#include "geometry.hpp"
#include "params/grids.h"
#include "params/pages.h"
#include "staging_room.hpp"

namespace kvant {
namespace {

constexpr std::uint32_t kPageTokens = 16;

// How many rows go at once, and what a page of them takes.
struct Chunk {
  SideGeometry side;
  std::uint64_t row_bytes = 0;  // canonical
  std::uint64_t rows = 0;       // in all
  std::uint32_t pages = 0;      // of one chunk
  std::uint32_t tokens() const { return pages * kPageTokens; }
};

Result<Chunk> plan_chunks(const Executor& executor, FormatId format, std::uint32_t head_dim, std::uint64_t floats,
                          std::uint64_t bytes) {
  Chunk chunk;
  chunk.side = make_side(format, head_dim, 1, kPageTokens);
  chunk.row_bytes = canonical_row_bytes(format_info(format), head_dim);
  chunk.rows = floats / head_dim;
  if (floats % head_dim != 0 || bytes != chunk.rows * chunk.row_bytes)
    return Status(StatusCode::invalid_argument, std::to_string(floats) + " floats and " + std::to_string(bytes) +
                                                    " bytes are not the same rows of " + std::to_string(head_dim) +
                                                    " elements (" + std::to_string(chunk.row_bytes) + " bytes each)");
  // A chunk stages its floats, its pages and its slots.
  const std::uint64_t page_cost = chunk.side.page_bytes + kPageTokens * (4ull * head_dim + 4);
  const ExecutorLimits& limits = executor.limits();
  const std::uint64_t most = most_staged(limits, page_cost);
  const std::uint64_t bound =
      std::max<std::uint64_t>(1, limits.max_binding_bytes / std::max<std::uint64_t>(page_cost, 1));
  chunk.pages = static_cast<std::uint32_t>(
      std::clamp<std::uint64_t>(divide_up(chunk.rows, kPageTokens), 1, std::min(most, bound)));
  return chunk;
}

// A device buffer for the length of a call.
struct TemporaryBuffer {
  Executor& executor;
  BufferId buffer = BufferId::none;
  ~TemporaryBuffer() { executor.destroy_buffer(buffer); }
};

Result<Staging> stage_slots(Executor& executor, std::uint32_t tokens) {
  KVANT_ASSIGN(const Staging staging, executor.stage(std::uint64_t{tokens} * 4, BufferKind::upload));
  std::vector<std::int32_t> slots(tokens);
  std::iota(slots.begin(), slots.end(), 0);
  std::memcpy(staging.data, slots.data(), slots.size() * 4);
  return staging;
}

}  // namespace

Status quantize_rows(Executor& executor, FormatId format_id, std::uint32_t head_dim, std::span<const float> x,
                     std::span<std::byte> out) {
  KVANT_ASSIGN(const Chunk chunk, plan_chunks(executor, format_id, head_dim, x.size(), out.size()));
  if (chunk.rows == 0) return {};
  const FormatInfo& format = format_info(format_id);
  TemporaryBuffer slab{executor};
  KVANT_ASSIGN(slab.buffer, executor.create_buffer(chunk.pages * chunk.side.page_bytes, BufferKind::device));
  CommandList list;
  for (std::uint64_t first = 0; first < chunk.rows; first += chunk.tokens()) {
    const auto tokens = static_cast<std::uint32_t>(std::min<std::uint64_t>(chunk.tokens(), chunk.rows - first));
    const std::uint64_t page_bytes = divide_up(tokens, kPageTokens) * chunk.side.page_bytes;
    KVANT_ASSIGN(const Staging floats, executor.stage(std::uint64_t{tokens} * head_dim * 4, BufferKind::upload));
    std::memcpy(floats.data, x.data() + first * head_dim, std::uint64_t{tokens} * head_dim * 4);
    KVANT_ASSIGN(const Staging slots, stage_slots(executor, tokens));
    KVANT_ASSIGN(const Staging codes, executor.stage(page_bytes, BufferKind::readback));

    AppendCall call;
    call.format_k = call.format_v = format_id;
    call.head_dim_k = call.head_dim_v = head_dim;
    call.page_tokens = kPageTokens;
    call.io_in = KVANT_IO_F32;
    call.both_sides = false;
    call.params.tokens = tokens;
    call.params.kv_heads = 1;
    call.params.page_count = chunk.pages;
    call.params.slots_stride = 1;
    call.params.k_token_stride = call.params.k_head_stride = head_dim;
    call.k = {slab.buffer, 0, chunk.pages * chunk.side.page_bytes};
    call.k_rows = floats.range;
    call.slots = slots.range;
    call.name = "quantize";
    list.clear();
    record_append(list, call, executor, false);
    list.add_copy({slab.buffer, 0, codes.range.buffer, codes.range.offset, page_bytes}, "quantize", true);
    KVANT_ASSIGN(const Ticket ticket, executor.submit(list));
    KVANT_TRY(executor.wait(ticket));
    for (std::uint32_t t = 0; t < tokens; ++t)
      planar_to_canonical_row(format, chunk.side.layout, codes.data + t / kPageTokens * chunk.side.page_bytes,
                              t % kPageTokens, head_dim, out.subspan((first + t) * chunk.row_bytes, chunk.row_bytes));
  }
  return {};
}

Status dequantize_rows(Executor& executor, FormatId format_id, std::uint32_t head_dim, std::span<const std::byte> in,
                       std::span<float> x) {
  KVANT_ASSIGN(const Chunk chunk, plan_chunks(executor, format_id, head_dim, x.size(), in.size()));
  const FormatInfo& format = format_info(format_id);
  const std::uint32_t local_size = executor.page_kernel_config(KernelId::read).local_size;
  CommandList list;
  for (std::uint64_t first = 0; first < chunk.rows; first += chunk.tokens()) {
    const auto tokens = static_cast<std::uint32_t>(std::min<std::uint64_t>(chunk.tokens(), chunk.rows - first));
    const std::uint64_t page_bytes = divide_up(tokens, kPageTokens) * chunk.side.page_bytes;
    KVANT_ASSIGN(const Staging codes, executor.stage(page_bytes, BufferKind::upload));
    std::memset(codes.data, 0, page_bytes);
    for (std::uint32_t t = 0; t < tokens; ++t)
      canonical_to_planar_row(format, chunk.side.layout, codes.data + t / kPageTokens * chunk.side.page_bytes,
                              t % kPageTokens, head_dim, in.subspan((first + t) * chunk.row_bytes, chunk.row_bytes));
    KVANT_ASSIGN(const Staging slots, stage_slots(executor, tokens));
    KVANT_ASSIGN(const Staging floats, executor.stage(std::uint64_t{tokens} * head_dim * 4, BufferKind::readback));

    params::ReadParams read{};
    read.tokens = tokens;
    read.kv_heads = 1;
    read.page_count = static_cast<std::uint32_t>(divide_up(tokens, kPageTokens));
    read.out_token_stride = read.out_head_stride = head_dim;
    list.clear();
    Dispatch& dispatch = list.add_dispatch(KernelId::read, "dequantize", false);
    dispatch.spec[KVANT_SPEC_LOCAL_SIZE] = local_size;
    dispatch.spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(format_id);
    dispatch.spec[KVANT_SPEC_HEAD_DIM_K] = head_dim;
    dispatch.spec[KVANT_SPEC_PAGE_TOKENS] = kPageTokens;
    dispatch.spec[KVANT_SPEC_IO_TYPE_OUT] = KVANT_IO_F32;
    std::memcpy(dispatch.push.data(), &read, sizeof read);
    dispatch.bindings[0] = codes.range;
    dispatch.bindings[1] = floats.range;
    dispatch.bindings[2] = slots.range;
    dispatch.groups = params::read_grid(tokens, 1, head_dim, local_size, executor.limits().max_groups[0]);
    KVANT_ASSIGN(const Ticket ticket, executor.submit(list));
    KVANT_TRY(executor.wait(ticket));
    std::memcpy(x.data() + first * head_dim, floats.data, std::uint64_t{tokens} * head_dim * 4);
  }
  return {};
}

}  // namespace kvant
