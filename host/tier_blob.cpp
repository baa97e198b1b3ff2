#include "tier_blob.hpp"

#include <cassert>
#include <cstring>

namespace kvant {
namespace {

constexpr std::uint32_t kTagPage = 1, kTagFormatK = 2, kTagFormatV = 3;

FormatId stored(const TierFormats& formats, Side side, FormatId own) {
  return (side == Side::k ? formats.k : formats.v).value_or(own);
}

// Bytes of a page's blob of one group, in the cache's formats or the tier's.
std::uint64_t blob_bytes(const Geometry& geometry, std::size_t group, const TierFormats& formats) {
  std::uint64_t bytes = 0;
  for (const std::uint32_t layer : geometry.groups[group].layers)
    for (const Side side : {Side::k, Side::v}) {
      const SideGeometry& facts = geometry.layers[layer].side(side);
      bytes += canonical_row_bytes(format_info(stored(formats, side, facts.format)), facts.head_dim) *
               geometry.groups[group].kv_heads * geometry.page_tokens;
    }
  return bytes;
}

// Every row from one format to another; `to_stored`: from the cache's to the tier's.
std::vector<std::byte> recode(const Geometry& geometry, std::size_t group, const TierFormats& formats,
                              std::span<const std::byte> in, bool to_stored) {
  std::vector<std::byte> out;
  std::vector<float> row;
  for (const std::uint32_t layer : geometry.groups[group].layers)
    for (const Side side : {Side::k, Side::v}) {
      const SideGeometry& facts = geometry.layers[layer].side(side);
      const FormatId other = stored(formats, side, facts.format);
      const FormatInfo& from = format_info(to_stored ? facts.format : other);
      const FormatInfo& to = format_info(to_stored ? other : facts.format);
      const std::uint64_t from_bytes = canonical_row_bytes(from, facts.head_dim), to_bytes = canonical_row_bytes(to, facts.head_dim);
      row.resize(facts.head_dim);
      for (std::uint64_t i = 0; i < std::uint64_t{geometry.groups[group].kv_heads} * geometry.page_tokens; ++i) {
        const std::size_t begin = out.size();
        out.resize(begin + to_bytes);
        if (from.id == to.id) {
          std::memcpy(out.data() + begin, in.data(), to_bytes);
        } else {
          decode_canonical_row(from, in.first(from_bytes), row);
          encode_canonical_row(to, row, std::span(out).subspan(begin, to_bytes));
        }
        in = in.subspan(from_bytes);
      }
    }
  return out;
}

}  // namespace

TierKey tier_key(const PrefixKey& page, const TierFormats& formats) {
  TierKey key;
  key.bytes = page.bytes;
  if (!formats.changes()) return key;
  KeyFields fields("kvant.tier.page/1");
  fields.add(kTagPage, page);
  if (formats.k) fields.add(kTagFormatK, format_info(*formats.k).name);
  if (formats.v) fields.add(kTagFormatV, format_info(*formats.v).name);
  key.bytes = sha256(fields.bytes()).bytes;
  return key;
}

std::vector<std::byte> pack_tier_blob(const Geometry& geometry, const TierFormats& formats, const GroupBlobs& blobs) {
  assert(blobs.size() == geometry.groups.size());
  std::vector<std::byte> entry;
  for (const std::vector<std::byte>& blob : blobs) entry.push_back(blob.empty() ? std::byte{0} : std::byte{1});
  for (std::size_t g = 0; g < blobs.size(); ++g) {
    if (blobs[g].empty()) continue;
    assert(blobs[g].size() == blob_bytes(geometry, g, {}));
    const std::vector<std::byte> narrow = formats.changes() ? recode(geometry, g, formats, blobs[g], true) : blobs[g];
    entry.insert(entry.end(), narrow.begin(), narrow.end());
  }
  return entry;
}

std::optional<GroupBlobs> unpack_tier_blob(const Geometry& geometry, const TierFormats& formats,
                                           std::span<const std::byte> entry) {
  const std::size_t groups = geometry.groups.size();
  if (entry.size() < groups) return std::nullopt;
  const std::span<const std::byte> present = entry.first(groups);
  entry = entry.subspan(groups);
  GroupBlobs blobs(groups);
  for (std::size_t g = 0; g < groups; ++g) {
    if (present[g] == std::byte{0}) continue;
    const std::uint64_t bytes = blob_bytes(geometry, g, formats);
    if (present[g] != std::byte{1} || entry.size() < bytes) return std::nullopt;
    const std::span<const std::byte> blob = entry.first(bytes);
    blobs[g] = formats.changes() ? recode(geometry, g, formats, blob, false) : std::vector(blob.begin(), blob.end());
    entry = entry.subspan(bytes);
  }
  if (!entry.empty()) return std::nullopt;
  return blobs;
}

}  // namespace kvant
