// The envelope in which disk, remote and custom tiers keep an entry: a header that names the key and carries a
// checksum, then the value. What was cut off, flipped, swapped with another entry or never ours does not open.
// docs/tiers.md has the bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "tier.hpp"

namespace kvant {

inline constexpr std::uint32_t kEntryVersion = 1;
inline constexpr std::size_t kEntryHeaderBytes = 80;
// Larger values are not stored, and a header that claims one is corrupt: no size from outside costs more memory than
// this.
inline constexpr std::uint64_t kMaxEntryBytes = 1u << 30;
inline constexpr std::uint32_t kMaxEntryParts = 4096;

// Which piece of an entry an envelope holds. Most entries are of one part.
struct EntryPart {
  std::uint32_t number = 0;
  std::uint32_t parts = 1;
  std::uint64_t whole =
      0;  // XXH3-64 of the joined value, that parts of different values never mix; 0 for a single part
  bool operator==(const EntryPart&) const = default;
};

std::uint64_t hash_whole_value(std::span<const std::byte> value);

using EntryHeader = std::array<std::byte, kEntryHeaderBytes>;
EntryHeader seal_entry(const TierKey& key, std::span<const std::byte> value, const EntryPart& part = {});
// Header and value in one piece.
std::vector<std::byte> make_entry(const TierKey& key, std::span<const std::byte> value, const EntryPart& part = {});

// What a header says, before memory is taken for the value: none unless it is of this key and of an entry that takes
// `entry_bytes` with its header.
struct EntryFrame {
  EntryPart part;
  std::uint64_t value_bytes = 0;
};
std::optional<EntryFrame> read_entry_header(std::span<const std::byte, kEntryHeaderBytes> header, const TierKey& key,
                                            std::uint64_t entry_bytes);
// Whether header and value are together what was sealed.
bool entry_is_sound(std::span<const std::byte, kEntryHeaderBytes> header, std::span<const std::byte> value);

// Both checks; the value is a part of `entry`. None: corrupt.
struct OpenEntry {
  EntryPart part;
  std::span<const std::byte> value;
};
std::optional<OpenEntry> open_entry(std::span<const std::byte> entry, const TierKey& key);

}  // namespace kvant
