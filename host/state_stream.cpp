#include "state_stream.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace kvant {
namespace {

constexpr std::string_view kMagic = "KVANTSTA";
constexpr std::size_t kFileHeader = 16, kRecordHeader = 32;
constexpr std::uint32_t kRecordMagic = 0x4352564B;  // "KVRC"
// Payloads are read in pieces of this: a size that lies costs no memory.
constexpr std::uint64_t kPiece = 1u << 20;
// The largest record that anybody writes: the tables of a sequence of 2^31 tokens, or a page of 32 tokens of the widest layers.
constexpr std::uint64_t kMostPayload = std::uint64_t{1} << 35;

void put_little_endian(std::byte* out, std::uint64_t value, int size) {
  for (int i = 0; i < size; ++i) out[i] = static_cast<std::byte>(value >> (8 * i) & 0xFF);
}

std::uint64_t get_little_endian(const std::byte* in, int size) {
  std::uint64_t value = 0;
  for (int i = 0; i < size; ++i) value |= std::to_integer<std::uint64_t>(in[i]) << (8 * i);
  return value;
}

// Of the header up to the checksum, then of the payload; the record's number is its seed, so that each has but one place.
std::uint64_t checksum(std::span<const std::byte> header, std::span<const std::byte> payload, std::uint64_t number) {
  const std::uint64_t of_header = XXH3_64bits_withSeed(header.data(), header.size(), number);
  return XXH3_64bits_withSeed(payload.data(), payload.size(), of_header);
}

}  // namespace

void RecordFields::put(std::uint64_t value, int size) {
  std::array<std::byte, 8> bytes;
  put_little_endian(bytes.data(), value, size);
  data_.insert(data_.end(), bytes.begin(), bytes.begin() + size);
}

void RecordFields::text(std::string_view value) {
  u64(value.size());
  bytes(std::as_bytes(std::span(value)));
}

std::uint64_t FieldReader::get(int size) {
  const std::span<const std::byte> raw = bytes(static_cast<std::uint64_t>(size));
  return raw.empty() ? 0 : get_little_endian(raw.data(), size);
}

std::span<const std::byte> FieldReader::bytes(std::uint64_t size) {
  if (!ok_ || size > data_.size()) {
    ok_ = false;
    return {};
  }
  const std::span<const std::byte> taken = data_.first(size);
  data_ = data_.subspan(size);
  return taken;
}

std::string FieldReader::text() {
  const std::span<const std::byte> raw = bytes(u64());
  return {reinterpret_cast<const char*>(raw.data()), raw.size()};
}

Status StateWriter::begin() {
  std::array<std::byte, kFileHeader> header{};
  std::memcpy(header.data(), kMagic.data(), kMagic.size());
  put_little_endian(header.data() + 8, kStateVersion, 4);
  return sink_(header);
}

Status StateWriter::record(StateRecord type, std::span<const std::byte> payload) {
  std::array<std::byte, kRecordHeader> header{};
  put_little_endian(header.data(), kRecordMagic, 4);
  put_little_endian(header.data() + 4, static_cast<std::uint32_t>(type), 4);
  put_little_endian(header.data() + 8, payload.size(), 8);
  put_little_endian(header.data() + 16, number_, 8);
  put_little_endian(header.data() + 24, checksum(std::span(header).first(24), payload, number_), 8);
  ++number_;
  KVANT_TRY(sink_(header));
  return payload.empty() ? Status() : sink_(payload);
}

Status StateWriter::end() { return record(StateRecord::end, {}); }

Status StateReader::broken(const std::string& what) const {
  return {StatusCode::data_loss, "record " + std::to_string(number_) + " of the saved state " + what};
}

Status StateReader::fill(std::span<std::byte> out) {
  while (!out.empty()) {
    KVANT_ASSIGN(const std::size_t got, source_(out));
    if (got == 0) return broken("is missing or cut off");
    if (got > out.size()) return broken("came with more bytes than were asked for");
    out = out.subspan(got);
  }
  return {};
}

Status StateReader::fill_payload(std::uint64_t size) {
  payload_.clear();
  while (payload_.size() < size) {
    const std::size_t begin = payload_.size();
    payload_.resize(begin + std::min(kPiece, size - begin));
    KVANT_TRY(fill(std::span(payload_).subspan(begin)));
  }
  return {};
}

Status StateReader::begin() {
  std::array<std::byte, kFileHeader> header{};
  KVANT_TRY(fill(header));
  if (std::memcmp(header.data(), kMagic.data(), kMagic.size()) != 0)
    return {StatusCode::incompatible, "this is no saved state of kvant: its first bytes are not " + std::string(kMagic)};
  const std::uint64_t version = get_little_endian(header.data() + 8, 4);
  if (version != kStateVersion)
    return {StatusCode::incompatible, "the saved state has version " + std::to_string(version) + "; expected " +
                                          std::to_string(kStateVersion)};
  if (get_little_endian(header.data() + 12, 4) != 0)
    return {StatusCode::data_loss, "the reserved bytes at the head of the saved state are not 0"};
  return {};
}

Result<StateRecord> StateReader::next() {
  std::array<std::byte, kRecordHeader> header{};
  KVANT_TRY(fill(header));
  if (get_little_endian(header.data(), 4) != kRecordMagic) return broken("does not begin as one");
  if (get_little_endian(header.data() + 16, 8) != number_) return broken("has the number of another one");
  const std::uint64_t size = get_little_endian(header.data() + 8, 8);
  if (size > kMostPayload) return broken("says that it has " + std::to_string(size) + " bytes");
  KVANT_TRY(fill_payload(size));
  if (get_little_endian(header.data() + 24, 8) != checksum(std::span(header).first(24), payload_, number_))
    return broken("does not have its checksum");
  const auto type = static_cast<StateRecord>(get_little_endian(header.data() + 4, 4));
  if (type == StateRecord::end) {
    std::array<std::byte, 1> more{};
    KVANT_ASSIGN(const std::size_t got, source_(more));
    if (got != 0) return broken("is the last one, and bytes follow it");
  }
  ++number_;
  return type;
}

}  // namespace kvant
