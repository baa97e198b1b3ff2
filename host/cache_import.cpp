// CacheImpl: fresh tokens of a step given as canonical bytes. They reach their pages as they are: nothing is quantized again.
#include <algorithm>
#include <cstring>

#include "cache_impl.hpp"
#include "checked.hpp"
#include "staging_room.hpp"

namespace kvant {
namespace {

// Consecutive fresh tokens of one page.
struct PagePiece {
  std::uint32_t page = 0, offset = 0;  // first token within the page
  std::uint64_t token = 0, count = 0;  // of the step's fresh tokens
};

std::vector<PagePiece> cut_by_page(std::span<const std::int32_t> slots, std::uint32_t page_tokens) {
  std::vector<PagePiece> pieces;
  for (std::uint64_t token = 0; token < slots.size(); ++token) {
    const auto slot = static_cast<std::uint32_t>(slots[token]);
    if (pieces.empty() || pieces.back().page != slot / page_tokens)
      pieces.push_back({slot / page_tokens, slot % page_tokens, token, 0});
    ++pieces.back().count;
  }
  return pieces;
}

}  // namespace

Status CacheImpl::check_import(const Step& step, std::uint32_t layer, std::span<const std::byte> k,
                               std::span<const std::byte> v) const {
  if (step.cache_ != this || open_step_ != &step)
    return {StatusCode::failed_precondition, "the step is not the open step of this cache"};
  if (spec_.external_pages)
    return {StatusCode::failed_precondition, "the engine keeps the pages of this cache: tokens are not imported into it"};
  KVANT_TRY(check_layer(layer));
  if (step_.fresh_tokens == 0) return {StatusCode::failed_precondition, "the step appends no tokens to import"};
  const std::uint32_t kv_heads = geometry_.group_of(layer).kv_heads;
  for (const Side side : {Side::k, Side::v}) {
    const SideGeometry& facts = geometry_.layers[layer].side(side);
    const std::span<const std::byte> bytes = side == Side::k ? k : v;
    const std::uint64_t needed =
        std::uint64_t{step_.fresh_tokens} * kv_heads * canonical_row_bytes(format_info(facts.format), facts.head_dim);
    if (bytes.size() != needed)
      return {StatusCode::invalid_argument,
              std::string(side == Side::k ? "k" : "v") + " of layer " + std::to_string(layer) + " has " +
                  std::to_string(bytes.size()) + " bytes, " + std::to_string(step_.fresh_tokens) + " tokens take " +
                  std::to_string(needed)};
  }
  return {};
}

// Whole pages go up. A piece that begins inside of a page keeps what the page holds before it, which comes down first.
Status CacheImpl::import_side(std::uint32_t layer, Side side, std::span<const std::byte> bytes) {
  const std::uint32_t kv_heads = geometry_.group_of(layer).kv_heads;
  const SideGeometry& facts = geometry_.layers[layer].side(side);
  const FormatInfo& format = format_info(facts.format);
  const std::uint64_t row_bytes = canonical_row_bytes(format, facts.head_dim);
  const std::vector<PagePiece> pieces =
      cut_by_page(step_.groups[geometry_.layers[layer].group].batch.slots, geometry_.page_tokens);
  const std::uint64_t most = most_staged(executor_.limits(), facts.page_bytes);
  for (std::size_t first = 0; first < pieces.size(); first += most) {
    const std::size_t count = std::min<std::size_t>(most, pieces.size() - first);
    std::vector<std::byte> images(count * facts.page_bytes);
    for (std::size_t i = 0; i < count; ++i) {
      if (pieces[first + i].offset == 0) continue;
      KVANT_ASSIGN(const Staging down, executor_.stage(facts.page_bytes, BufferKind::readback));
      const BufferRange source = page_range(layer, side, pieces[first + i].page);
      list_.clear();
      list_.add_copy({source.buffer, source.offset, down.range.buffer, down.range.offset, source.size}, "import", false);
      KVANT_ASSIGN(const Ticket ticket, executor_.submit(list_));
      KVANT_TRY(executor_.wait(ticket));
      std::memcpy(images.data() + i * facts.page_bytes, down.data, facts.page_bytes);
    }
    KVANT_ASSIGN(const Staging up, executor_.stage(count * facts.page_bytes, BufferKind::upload));
    list_.clear();
    for (std::size_t i = 0; i < count; ++i) {
      const PagePiece& piece = pieces[first + i];
      std::byte* const image = images.data() + i * facts.page_bytes;
      for (std::uint64_t t = 0; t < piece.count; ++t)
        for (std::uint32_t head = 0; head < kv_heads; ++head)
          canonical_to_planar_row(format, facts.layout, image + std::uint64_t{head} * facts.layout.head_bytes,
                                  piece.offset + static_cast<std::uint32_t>(t), facts.head_dim,
                                  bytes.subspan(((piece.token + t) * kv_heads + head) * row_bytes, row_bytes));
      std::memcpy(up.data + i * facts.page_bytes, image, facts.page_bytes);
      if (side == Side::k) record_clear_mass(layer, piece.page, piece.offset, piece.count);
      const BufferRange target = page_range(layer, side, piece.page);
      list_.add_copy({up.range.buffer, up.range.offset + i * facts.page_bytes, target.buffer, target.offset, target.size},
                     "import", false);
    }
    KVANT_ASSIGN([[maybe_unused]] const Ticket ticket, executor_.submit(list_));
  }
  return {};
}

Status CacheImpl::import_layer(Step& step, std::uint32_t layer, std::span<const std::byte> k,
                               std::span<const std::byte> v) {
  KVANT_TRY(check_import(step, layer, k, v));
  KVANT_TRY(import_side(layer, Side::k, k));
  KVANT_TRY(import_side(layer, Side::v, v));
  means_.settle(layer, false);  // the rows lie under what the engine knows: means that come later would not be theirs
  step_.appended[layer] = true;
  step_.imported[layer] = true;
  return {};
}

}  // namespace kvant
