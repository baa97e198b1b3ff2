// What a tier holds of one page of the prefix cache: for each layer group whether its page is there, and its blob, in the cache's
// formats or in narrower ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "geometry.hpp"
#include "prefix_key.hpp"
#include "tier.hpp"

namespace kvant {

// Entries of other formats have other keys: a cache never takes for exact what was stored narrower.
TierKey tier_key(const PrefixKey& page, const TierFormats& formats);

// Per layer group; empty: the page has left the group's window.
using GroupBlobs = std::vector<std::vector<std::byte>>;

std::vector<std::byte> pack_tier_blob(const Geometry& geometry, const TierFormats& formats, const GroupBlobs& blobs);
// nullopt: not an entry of this geometry.
std::optional<GroupBlobs> unpack_tier_blob(const Geometry& geometry, const TierFormats& formats, std::span<const std::byte> entry);

}  // namespace kvant
