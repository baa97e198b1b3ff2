#include "tier_entry.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>

namespace kvant {
namespace {

constexpr std::uint32_t kMagic = 0x4554564B;  // "KVTE"
// Offsets of the fields.
constexpr std::size_t kVersion = 4, kKey = 8, kNumber = 40, kParts = 44, kWhole = 48, kSize = 56, kChecksum = 64;

void put_little_endian(std::byte* out, std::uint64_t value, int size) {
  for (int i = 0; i < size; ++i) out[i] = static_cast<std::byte>(value >> (8 * i) & 0xFF);
}

std::uint64_t get_little_endian(const std::byte* in, int size) {
  std::uint64_t value = 0;
  for (int i = 0; i < size; ++i) value |= std::to_integer<std::uint64_t>(in[i]) << (8 * i);
  return value;
}

// Of everything before the checksum, then of the value.
XXH128_hash_t checksum(const std::byte* header, std::span<const std::byte> value) {
  XXH3_state_t state;
  XXH3_128bits_reset(&state);
  XXH3_128bits_update(&state, header, kChecksum);
  XXH3_128bits_update(&state, value.data(), value.size());
  return XXH3_128bits_digest(&state);
}

}  // namespace

std::uint64_t hash_whole_value(std::span<const std::byte> value) { return XXH3_64bits(value.data(), value.size()); }

EntryHeader seal_entry(const TierKey& key, std::span<const std::byte> value, const EntryPart& part) {
  EntryHeader header{};
  put_little_endian(header.data(), kMagic, 4);
  put_little_endian(header.data() + kVersion, kEntryVersion, 4);
  std::copy(key.bytes.begin(), key.bytes.end(), header.begin() + kKey);
  put_little_endian(header.data() + kNumber, part.number, 4);
  put_little_endian(header.data() + kParts, part.parts, 4);
  put_little_endian(header.data() + kWhole, part.whole, 8);
  put_little_endian(header.data() + kSize, value.size(), 8);
  const XXH128_hash_t sum = checksum(header.data(), value);
  put_little_endian(header.data() + kChecksum, sum.low64, 8);
  put_little_endian(header.data() + kChecksum + 8, sum.high64, 8);
  return header;
}

std::vector<std::byte> make_entry(const TierKey& key, std::span<const std::byte> value, const EntryPart& part) {
  const EntryHeader header = seal_entry(key, value, part);
  std::vector<std::byte> entry(header.size() + value.size());
  std::copy(header.begin(), header.end(), entry.begin());
  std::copy(value.begin(), value.end(), entry.begin() + header.size());
  return entry;
}

std::optional<EntryFrame> read_entry_header(std::span<const std::byte, kEntryHeaderBytes> header, const TierKey& key,
                                            std::uint64_t entry_bytes) {
  if (get_little_endian(header.data(), 4) != kMagic) return std::nullopt;
  if (get_little_endian(header.data() + kVersion, 4) != kEntryVersion) return std::nullopt;
  if (!std::equal(key.bytes.begin(), key.bytes.end(), header.begin() + kKey)) return std::nullopt;
  EntryFrame frame;
  frame.part.number = static_cast<std::uint32_t>(get_little_endian(header.data() + kNumber, 4));
  frame.part.parts = static_cast<std::uint32_t>(get_little_endian(header.data() + kParts, 4));
  frame.part.whole = get_little_endian(header.data() + kWhole, 8);
  frame.value_bytes = get_little_endian(header.data() + kSize, 8);
  if (frame.part.number >= frame.part.parts || frame.part.parts > kMaxEntryParts) return std::nullopt;
  if (frame.value_bytes == 0 || frame.value_bytes > kMaxEntryBytes) return std::nullopt;
  if (entry_bytes != frame.value_bytes + kEntryHeaderBytes) return std::nullopt;
  return frame;
}

bool entry_is_sound(std::span<const std::byte, kEntryHeaderBytes> header, std::span<const std::byte> value) {
  const XXH128_hash_t sum = checksum(header.data(), value);
  return get_little_endian(header.data() + kChecksum, 8) == sum.low64 &&
         get_little_endian(header.data() + kChecksum + 8, 8) == sum.high64;
}

std::optional<OpenEntry> open_entry(std::span<const std::byte> entry, const TierKey& key) {
  if (entry.size() < kEntryHeaderBytes) return std::nullopt;
  const auto header = entry.first<kEntryHeaderBytes>();
  const std::optional<EntryFrame> frame = read_entry_header(header, key, entry.size());
  const std::span<const std::byte> value = entry.subspan(kEntryHeaderBytes);
  if (!frame.has_value() || !entry_is_sound(header, value)) return std::nullopt;
  return OpenEntry{frame->part, value};
}

}  // namespace kvant
