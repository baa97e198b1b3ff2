// CacheImpl: whole pages as canonical bytes, down from the device and up again, all layers of a group together. What state files and
// tiers hold of a page is its blob: for each layer of the group K's rows, then V's, [token][head], of the tokens that are filled, in the
// layer's formats: those of cooled pages are encoded in them.
#include <algorithm>
#include <cassert>
#include <cstring>

#include "cache_impl.hpp"
#include "staging_room.hpp"

namespace kvant {
namespace {

// A part of a blob: one side of one layer of one page.
struct PagePart {
  std::uint32_t layer = 0;
  Side side = Side::k;
  std::size_t page = 0;         // in the list of pages
  std::uint64_t blob_begin = 0;
};

}  // namespace

void CacheImpl::repack_row(const SideGeometry& stored, const std::byte* head, std::uint32_t token, const FormatInfo& format, std::span<std::byte> out) {
  const FormatInfo& own = format_info(stored.format);
  if (own.id == format.id) return planar_to_canonical_row(own, stored.layout, head, token, stored.head_dim, out);
  std::vector<float> row(stored.head_dim);
  decode_planar_row(own, stored.layout, head, token, row);
  encode_canonical_row(format, row, out);
}

std::uint64_t CacheImpl::token_blob_bytes(std::uint32_t group) const {
  std::uint64_t bytes = 0;
  for (const std::uint32_t layer : geometry_.groups[group].layers)
    for (const SideGeometry& side : geometry_.layers[layer].sides)
      bytes += canonical_row_bytes(format_info(side.format), side.head_dim) * geometry_.groups[group].kv_heads;
  return bytes;
}

// Calls move(parts, staged bytes) for runs of parts that fit into one staging buffer.
template <typename F>
Status CacheImpl::for_page_parts(std::uint32_t group, std::span<const FilledPage> pages, F&& move) {
  const std::uint64_t most = most_staged(executor_.limits(), 1);
  std::vector<PagePart> parts;
  std::uint64_t staged = 0;
  for (std::size_t p = 0; p < pages.size(); ++p) {
    std::uint64_t begin = 0;
    for (const std::uint32_t layer : geometry_.groups[group].layers)
      for (const Side side : {Side::k, Side::v}) {
        const SideGeometry& facts = geometry_.layers[layer].side(side);
        if (staged != 0 && staged + facts.page_bytes > most) {
          KVANT_TRY(move(std::span<const PagePart>(parts), staged));
          parts.clear();
          staged = 0;
        }
        parts.push_back({layer, side, p, begin});
        staged += facts.page_bytes;
        begin += canonical_row_bytes(format_info(facts.format), facts.head_dim) * geometry_.groups[group].kv_heads *
                 pages[p].tokens;
      }
  }
  return parts.empty() ? Status() : move(std::span<const PagePart>(parts), staged);
}

Status CacheImpl::download_pages(std::uint32_t group, std::span<const FilledPage> pages,
                                 std::vector<std::vector<std::byte>>& blobs) {
  const std::uint64_t token_bytes = token_blob_bytes(group);
  const std::uint32_t kv_heads = geometry_.groups[group].kv_heads;
  blobs.clear();
  for (const FilledPage& page : pages) blobs.emplace_back(token_bytes * page.tokens);
  return for_page_parts(group, pages, [&](std::span<const PagePart> parts, std::uint64_t staged) -> Status {
    KVANT_ASSIGN(const Staging staging, executor_.stage(staged, BufferKind::readback));
    list_.clear();
    std::uint64_t at = 0;
    for (const PagePart& part : parts) {
      const BufferRange source = page_range(part.layer, part.side, pages[part.page].page);
      list_.add_copy({source.buffer, source.offset, staging.range.buffer, staging.range.offset + at, source.size}, "download",
                     false);
      at += source.size;
    }
    KVANT_ASSIGN(const Ticket ticket, executor_.submit(list_));
    KVANT_TRY(executor_.wait(ticket));
    const std::byte* image = staging.data;
    for (const PagePart& part : parts) {
      const GroupGeometry& of = geometry_.groups[group];
      const SideGeometry& stored = geometry_.layers[part.layer].side(part.side, of.grade_of(of.slab_of(pages[part.page].page)));
      const FormatInfo& format = format_info(geometry_.layers[part.layer].side(part.side).format);
      const std::uint64_t row = canonical_row_bytes(format, stored.head_dim);
      std::span<std::byte> out = std::span(blobs[part.page]).subspan(part.blob_begin);
      for (std::uint32_t token = 0; token < pages[part.page].tokens; ++token)
        for (std::uint32_t head = 0; head < kv_heads; ++head, out = out.subspan(row))
          repack_row(stored, image + std::uint64_t{head} * stored.layout.head_bytes, token, format, out.first(row));
      image += stored.page_bytes;
    }
    return {};
  });
}

Status CacheImpl::upload_pages(std::uint32_t group, std::span<const FilledPage> pages,
                               std::span<const std::span<const std::byte>> blobs) {
  const std::uint32_t kv_heads = geometry_.groups[group].kv_heads;
  std::vector<std::byte> image;
  return for_page_parts(group, pages, [&](std::span<const PagePart> parts, std::uint64_t staged) -> Status {
    KVANT_ASSIGN(const Staging staging, executor_.stage(staged, BufferKind::upload));
    list_.clear();
    std::uint64_t at = 0;
    for (const PagePart& part : parts) {
      const SideGeometry& facts = geometry_.layers[part.layer].side(part.side);
      const FormatInfo& format = format_info(facts.format);
      const std::uint64_t row = canonical_row_bytes(format, facts.head_dim);
      assert(blobs[part.page].size() == token_blob_bytes(group) * pages[part.page].tokens);
      std::span<const std::byte> in = blobs[part.page].subspan(part.blob_begin);
      image.assign(facts.page_bytes, std::byte{0});
      for (std::uint32_t token = 0; token < pages[part.page].tokens; ++token)
        for (std::uint32_t head = 0; head < kv_heads; ++head, in = in.subspan(row))
          canonical_to_planar_row(format, facts.layout, image.data() + std::uint64_t{head} * facts.layout.head_bytes, token,
                                  facts.head_dim, in.first(row));
      std::memcpy(staging.data + at, image.data(), image.size());
      const BufferRange target = page_range(part.layer, part.side, pages[part.page].page);
      list_.add_copy({staging.range.buffer, staging.range.offset + at, target.buffer, target.offset, target.size}, "upload",
                     false);
      at += facts.page_bytes;
    }
    KVANT_ASSIGN([[maybe_unused]] const Ticket ticket, executor_.submit(list_));
    return {};
  });
}

Status CacheImpl::fill_pages(std::uint32_t group, std::span<const FilledPage> pages,
                             std::span<const std::span<const std::byte>> blobs) {
  std::vector<TakenPage> taken;
  std::vector<std::uint32_t> ids;
  for (const FilledPage& page : pages) {
    ids.push_back(page.page);
    taken.push_back({0, group, 0, static_cast<std::int32_t>(page.page), kNoPage});
  }
  KVANT_TRY(ready_pages(taken));
  KVANT_TRY(clear_mass_pages(group, ids));
  return upload_pages(group, pages, blobs);
}

}  // namespace kvant
