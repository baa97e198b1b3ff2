// What a tier's entry holds of a page, and under which key: as it is, in other formats, and cut.
#include "tier_blob.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <optional>

#include "host_prefix_model.hpp"

namespace kvant {
namespace {

using test::PrefixModel;
using Bytes = std::vector<std::byte>;

constexpr std::uint32_t kPageTokens = 16;

// One group of two layers whose keys and values differ in shape and format, and one of another shape.
CacheSpec mixed() {
  CacheSpec spec = PrefixModel::small(4);
  spec.layers = {{2, 64, 32, FormatId::f32, FormatId::f16, 0, 0},
                 {1, 32, 32, FormatId::bf16, FormatId::f32, 0, 0},
                 {2, 64, 32, FormatId::f16, FormatId::bf16, 0, 0}};
  return spec;
}

struct Part {
  std::uint32_t layer;
  Side side;
  FormatId format;
};
// The parts of a group's blob in order.
std::vector<Part> parts_of(const Geometry& geometry, std::size_t group) {
  std::vector<Part> parts;
  for (const std::uint32_t layer : geometry.groups[group].layers)
    for (const Side side : {Side::k, Side::v}) parts.push_back({layer, side, geometry.layers[layer].side(side).format});
  return parts;
}

// A blob of small numbers, exact in every wide format, each row another one; with other formats for K or V.
Bytes blob_of(const Geometry& geometry, std::size_t group, std::optional<FormatId> k = {}, std::optional<FormatId> v = {}) {
  Bytes blob;
  int row = 0;
  for (const Part& part : parts_of(geometry, group)) {
    const std::uint32_t head_dim = geometry.layers[part.layer].side(part.side).head_dim;
    const FormatInfo& format = format_info((part.side == Side::k ? k : v).value_or(part.format));
    for (std::uint32_t i = 0; i < geometry.groups[group].kv_heads * kPageTokens; ++i, ++row) {
      std::vector<float> values(head_dim);
      for (std::uint32_t d = 0; d < head_dim; ++d) values[d] = static_cast<float>((row * 7 + static_cast<int>(d) * 3) % 128 - 64);
      const std::size_t begin = blob.size();
      blob.resize(begin + canonical_row_bytes(format, head_dim));
      encode_canonical_row(format, values, std::span(blob).subspan(begin));
    }
  }
  return blob;
}

Bytes joined(std::initializer_list<Bytes> pieces) {
  Bytes all;
  for (const Bytes& piece : pieces) all.insert(all.end(), piece.begin(), piece.end());
  return all;
}

TEST_CASE("tier blob: keys and values are kept in their own formats, and come back as they were") {
  PrefixModel model(mixed());
  const Geometry& geometry = cache_debug(*model.cache).geometry();
  REQUIRE(geometry.groups.size() == 2);
  const GroupBlobs blobs{blob_of(geometry, 0), blob_of(geometry, 1)};
  const Bytes present(2, std::byte{1});
  for (const std::optional<FormatId> k : {std::optional<FormatId>(), std::optional(FormatId::f32), std::optional(FormatId::bf16)})
    for (const std::optional<FormatId> v : {std::optional<FormatId>(), std::optional(FormatId::f32), std::optional(FormatId::f16)}) {
      const TierFormats formats{k, v};
      const Bytes entry = pack_tier_blob(geometry, formats, blobs);
      CHECK(entry == joined({present, blob_of(geometry, 0, k, v), blob_of(geometry, 1, k, v)}));
      CHECK(unpack_tier_blob(geometry, formats, entry) == blobs);
    }
}

TEST_CASE("tier blob: a group that has no page has no bytes, wherever it stands") {
  PrefixModel model(mixed());
  const Geometry& geometry = cache_debug(*model.cache).geometry();
  const TierFormats formats{FormatId::f32, {}};
  for (const std::size_t missing : {0u, 1u}) {
    GroupBlobs blobs{blob_of(geometry, 0), blob_of(geometry, 1)};
    blobs[missing].clear();
    for (const TierFormats& tier : {TierFormats{}, formats})
      CHECK(unpack_tier_blob(geometry, tier, pack_tier_blob(geometry, tier, blobs)) == blobs);
  }
}

TEST_CASE("tier blob: an entry of any other length is none") {
  CacheSpec spec = PrefixModel::small(4);
  PrefixModel model(spec);
  const Geometry& geometry = cache_debug(*model.cache).geometry();
  const GroupBlobs blobs{blob_of(geometry, 0), blob_of(geometry, 1)};
  for (const TierFormats& formats : {TierFormats{}, TierFormats{FormatId::q8_0, {}}}) {
    const Bytes entry = pack_tier_blob(geometry, formats, blobs);
    for (std::size_t size = 0; size < entry.size(); ++size) {
      const Bytes cut(entry.begin(), entry.begin() + static_cast<std::ptrdiff_t>(size));  // of its own, so that no read goes beyond
      REQUIRE_FALSE(unpack_tier_blob(geometry, formats, cut).has_value());
    }
    CHECK(unpack_tier_blob(geometry, formats, entry).has_value());
  }
}

TEST_CASE("tier blob: the key is the page's, or one of its own for each pair of formats") {
  const PrefixKey page = sha256({});
  CHECK(tier_key(page, {}).bytes == page.bytes);
  const auto own = [&](std::initializer_list<std::pair<std::uint32_t, std::string_view>> formats) {
    KeyFields fields("kvant.tier.page/1");
    fields.add(1, page);
    for (const auto& [tag, name] : formats) fields.add(tag, name);
    return sha256(fields.bytes()).bytes;
  };
  CHECK(tier_key(page, {FormatId::q8_0, {}}).bytes == own({{2, "q8_0"}}));
  CHECK(tier_key(page, {{}, FormatId::q8_0}).bytes == own({{3, "q8_0"}}));
  CHECK(tier_key(page, {FormatId::q4_0, FormatId::q8_0}).bytes == own({{2, "q4_0"}, {3, "q8_0"}}));
  CHECK(tier_key(sha256(page.bytes), {FormatId::q8_0, {}}).bytes != own({{2, "q8_0"}}));
}

}  // namespace
}  // namespace kvant
