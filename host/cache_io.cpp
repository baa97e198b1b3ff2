// CacheImpl: reading tokens back, dequantized by the read kernel or as the codes that are stored.
#include <algorithm>
#include <cstring>

#include "cache_impl.hpp"
#include "checked.hpp"
#include "params/grids.h"
#include "rotation.hpp"
#include "params/pages.h"
#include "staging_room.hpp"

namespace kvant {

Status CacheImpl::check_readable(const Sequence& sequence, std::uint32_t layer, std::uint64_t begin,
                                 std::uint64_t count) const {
  KVANT_TRY(check_layer(layer));
  if (begin > sequence.length || count > sequence.length - begin)
    return {StatusCode::invalid_argument, "tokens " + std::to_string(begin) + " to " + std::to_string(begin + count) +
                                              " are not within the sequence's " + std::to_string(sequence.length) +
                                              " tokens"};
  if (count == 0) return {};
  const std::uint32_t page_tokens = geometry_.page_tokens;
  const PageTable& table = sequence.tables[geometry_.layers[layer].group];
  const auto first = static_cast<std::uint32_t>(begin / page_tokens);
  const auto end = static_cast<std::uint32_t>(divide_up(begin + count, page_tokens));
  const std::uint32_t hole = table.first_hole(first, end);
  if (hole == end) return {};
  return {StatusCode::failed_precondition,
          "token " + std::to_string(std::max<std::uint64_t>(begin, std::uint64_t{hole} * page_tokens)) +
              " has left the window of " + std::to_string(geometry_.group_of(layer).window) + " tokens of layer " +
              std::to_string(layer)};
}

Status CacheImpl::read(SequenceId id, std::uint32_t layer, Side side, std::uint64_t begin, std::uint64_t count,
                       const TensorView& out) {
  KVANT_ASSIGN(const Sequence* const sequence, find(id));
  KVANT_TRY(check_readable(*sequence, layer, begin, count));
  const PageTable& table = sequence->tables[geometry_.layers[layer].group];
  const auto page_tokens = static_cast<std::int32_t>(geometry_.page_tokens);
  std::vector<std::int32_t> slots;
  slots.reserve(count);
  for (std::uint64_t token = begin; token < begin + count; ++token)
    slots.push_back(table.at(static_cast<std::uint32_t>(token / geometry_.page_tokens)) * page_tokens +
                    static_cast<std::int32_t>(token % geometry_.page_tokens));
  return read_by_slots(layer, side, slots, out);
}

// Gathers rows by slot; the slabs named are allocated. Goes in pieces that fit the staging ring and the kernel's
// counters.
Status CacheImpl::read_by_slots(std::uint32_t layer, Side side, std::span<const std::int32_t> slots,
                                const TensorView& out) {
  const GroupGeometry& group = geometry_.group_of(layer);
  const SideGeometry& facts = geometry_.layers[layer].side(side);  // heads are as large in every grade
  const ExecutorLimits& limits = executor_.limits();
  const std::uint32_t local_size = executor_.page_kernel_config(KernelId::read).local_size;
  const std::uint64_t row_bytes = std::uint64_t{group.kv_heads} * facts.head_dim * io_bytes(out.type);
  const std::uint64_t staged_row = (out.host != nullptr ? row_bytes : 0) + sizeof(std::int32_t);
  const std::uint64_t most_units = params::kMaxUnits / params::read_units(1, group.kv_heads, facts.head_dim);
  const std::uint64_t room = staging_piece_bytes(limits) - std::min<std::uint64_t>(staging_piece_bytes(limits), 512);
  const std::uint64_t step = std::clamp<std::uint64_t>(room / staged_row, 1, most_units);
  const std::uint64_t head_stride = out.head_stride != 0 ? out.head_stride : facts.head_dim;
  const std::uint64_t token_stride = out.token_stride != 0 ? out.token_stride : head_stride * group.kv_heads;

  std::vector<std::uint32_t> slabs;
  for (std::uint64_t first = 0; first < slots.size(); first += step) {
    const std::span<const std::int32_t> piece =
        slots.subspan(first, std::min<std::uint64_t>(step, slots.size() - first));
    TensorView view = out;
    const std::uint64_t skipped = first * token_stride * io_bytes(out.type);
    if (view.host != nullptr) {
      view.host += skipped;
    } else {
      view.buffer.offset += skipped;
      view.buffer.size -= std::min(skipped, view.buffer.size);
    }
    const TensorShape shape{piece.size(), group.kv_heads, facts.head_dim};
    io_.begin(TensorIo::bytes_of(view, shape) + piece.size_bytes());
    KVANT_ASSIGN(const BoundTensor bound, io_.output(TensorRole::out, view, shape));
    KVANT_ASSIGN(const Staging table, executor_.stage(piece.size_bytes(), BufferKind::upload));
    std::memcpy(table.data, piece.data(), piece.size_bytes());

    slabs.clear();
    for (std::int32_t slot : piece)
      if (slot >= 0) slabs.push_back(group.slab_of(static_cast<std::uint32_t>(slot) / geometry_.page_tokens));
    std::sort(slabs.begin(), slabs.end());
    slabs.erase(std::unique(slabs.begin(), slabs.end()), slabs.end());
    if (slabs.empty()) slabs.push_back(kNoSlab);  // rows of zeros only

    list_.clear();
    for (std::uint32_t slab : slabs) {
      params::ReadParams read{};
      read.tokens = static_cast<std::uint32_t>(piece.size());
      read.kv_heads = group.kv_heads;
      if (slab != kNoSlab) {
        read.page_begin = group.first_page(slab);
        read.page_count = group.pages_in(slab);
      }
      read.out_offset = bound.offset;
      read.out_token_stride = bound.token_stride;
      read.out_head_stride = bound.head_stride;
      read.write_zero_rows = slab == slabs.front() ? 1 : 0;
      Dispatch& dispatch = list_.add_dispatch(KernelId::read, "read", false);
      dispatch.spec[KVANT_SPEC_LOCAL_SIZE] = local_size;
      const std::uint32_t grade = slab != kNoSlab ? group.grade_of(slab) : 0;
      dispatch.spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(geometry_.layers[layer].side(side, grade).format);
      dispatch.spec[KVANT_SPEC_HEAD_DIM_K] = facts.head_dim;
      dispatch.spec[KVANT_SPEC_PAGE_TOKENS] = geometry_.page_tokens;
      dispatch.spec[KVANT_SPEC_IO_TYPE_OUT] = static_cast<std::uint32_t>(out.type);
      dispatch.spec[KVANT_SPEC_FLAGS] = geometry_.layers[layer].side_transforms(side);
      std::memcpy(dispatch.push.data(), &read, sizeof read);
      if (slab != kNoSlab) dispatch.bindings[0] = slabs_.region(layer, side, slab);
      dispatch.bindings[1] = bound.range;
      dispatch.bindings[2] = table.range;
      dispatch.bindings[3] = means_.range(layer, side);
      dispatch.groups =
          params::read_grid(read.tokens, group.kv_heads, facts.head_dim, local_size, limits.max_groups[0]);
    }
    KVANT_ASSIGN(const Ticket ticket, executor_.submit(list_));
    KVANT_TRY(io_.finish(ticket));
  }
  return {};
}

Result<std::vector<float>> CacheImpl::means(std::uint32_t layer, Side side) {
  KVANT_TRY(check_layer(layer));
  KVANT_ASSIGN(std::vector<float> rows, means_.download(layer, side));
  const std::uint32_t dim = geometry_.layers[layer].side(side).head_dim;
  if ((geometry_.layers[layer].side_transforms(side) & KVANT_ROTATE_K) != 0)
    for (std::size_t at = 0; at < rows.size(); at += dim) rotate_row_back(std::span(rows).subspan(at, dim));
  return rows;
}

// Downloads whole pages and repacks rows on the host, so that the bytes are those of the codes in the pool; those of cooled pages are
// encoded in the layer's format.
Status CacheImpl::read_canonical(SequenceId id, std::uint32_t layer, Side side, std::uint64_t begin,
                                 std::uint64_t count, std::span<std::byte> out) {
  KVANT_ASSIGN(const Sequence* const sequence, find(id));
  KVANT_TRY(check_readable(*sequence, layer, begin, count));
  const GroupGeometry& group = geometry_.group_of(layer);
  const SideGeometry& facts = geometry_.layers[layer].side(side);
  const FormatInfo& format = format_info(facts.format);
  const std::uint64_t row_bytes = canonical_row_bytes(format, facts.head_dim);  // cooled pages are no larger
  const std::uint64_t token_bytes = row_bytes * group.kv_heads;
  const auto needed = checked_multiply(token_bytes, count);
  if (!needed || out.size() != *needed)
    return {StatusCode::invalid_argument, "out has " + std::to_string(out.size()) + " bytes, " + std::to_string(count) +
                                              " tokens take " + std::to_string(token_bytes * count)};
  if (count == 0) return {};

  const std::uint32_t page_tokens = geometry_.page_tokens;
  const PageTable& table = sequence->tables[geometry_.layers[layer].group];
  const std::uint64_t first_page = begin / page_tokens, end_page = divide_up(begin + count, page_tokens);
  const std::uint64_t step = most_staged(executor_.limits(), facts.page_bytes);
  for (std::uint64_t first = first_page; first < end_page; first += step) {
    const std::uint64_t pages = std::min(step, end_page - first);
    KVANT_ASSIGN(const Staging staging, executor_.stage(pages * facts.page_bytes, BufferKind::readback));
    list_.clear();
    for (std::uint64_t i = 0; i < pages; ++i) {
      const BufferRange source =
          page_range(layer, side, static_cast<std::uint32_t>(table.at(static_cast<std::uint32_t>(first + i))));
      list_.add_copy({source.buffer, source.offset, staging.range.buffer, staging.range.offset + i * facts.page_bytes,
                      source.size},
                     "download", false);
    }
    KVANT_ASSIGN(const Ticket ticket, executor_.submit(list_));
    KVANT_TRY(executor_.wait(ticket));
    const std::uint64_t token_begin = std::max(begin, first * page_tokens);
    const std::uint64_t token_end = std::min(begin + count, (first + pages) * page_tokens);
    for (std::uint64_t token = token_begin; token < token_end; ++token) {
      const std::byte* page = staging.data + (token / page_tokens - first) * facts.page_bytes;
      const auto page_id = static_cast<std::uint32_t>(table.at(static_cast<std::uint32_t>(token / page_tokens)));
      const SideGeometry& stored = geometry_.layers[layer].side(side, group.grade_of(group.slab_of(page_id)));
      for (std::uint32_t head = 0; head < group.kv_heads; ++head)
        repack_row(stored, page + std::uint64_t{head} * stored.layout.head_bytes, static_cast<std::uint32_t>(token % page_tokens), format,
                   out.subspan((token - begin) * token_bytes + head * row_bytes, row_bytes));
    }
  }
  return {};
}

}  // namespace kvant
