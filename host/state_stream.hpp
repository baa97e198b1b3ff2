// The stream of records in which a cache's state is saved: every record carries its number, size and checksum, so that a flipped bit,
// a missing end, records of another stream or in another order are seen. docs/state_files.md has the bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "status.hpp"

namespace kvant {

using StateSink = std::function<Status(std::span<const std::byte>)>;
// Fills a part of the span and gives its size; 0 at the end.
using StateSource = std::function<Result<std::size_t>(std::span<std::byte>)>;

inline constexpr std::uint32_t kStateVersion = 1;

enum class StateRecord : std::uint32_t { header = 1, page = 2, sequence = 3, end = 4 };

// Little-endian fields of a record.
class RecordFields {
 public:
  void u32(std::uint32_t value) { put(value, 4); }
  void u64(std::uint64_t value) { put(value, 8); }
  void bytes(std::span<const std::byte> value) { data_.insert(data_.end(), value.begin(), value.end()); }
  void text(std::string_view value);  // size, then bytes
  void clear() { data_.clear(); }
  std::span<const std::byte> data() const { return data_; }

 private:
  void put(std::uint64_t value, int size);
  std::vector<std::byte> data_;
};

// Reads them back: what lies beyond the record reads as zero and `ok` turns false.
class FieldReader {
 public:
  explicit FieldReader(std::span<const std::byte> data) : data_(data) {}
  std::uint32_t u32() { return static_cast<std::uint32_t>(get(4)); }
  std::uint64_t u64() { return get(8); }
  std::span<const std::byte> bytes(std::uint64_t size);
  std::string text();
  std::uint64_t left() const { return data_.size(); }
  bool ok() const { return ok_; }
  bool finished() const { return ok_ && data_.empty(); }

 private:
  std::uint64_t get(int size);
  std::span<const std::byte> data_;
  bool ok_ = true;
};

class StateWriter {
 public:
  explicit StateWriter(StateSink sink) : sink_(std::move(sink)) {}
  Status begin();
  Status record(StateRecord type, std::span<const std::byte> payload);
  Status end();  // the last record

 private:
  StateSink sink_;
  std::uint64_t number_ = 0;
};

class StateReader {
 public:
  explicit StateReader(StateSource source) : source_(std::move(source)) {}
  // Errors: incompatible (not a state, or of another version), data_loss (anything wrong with the bytes).
  Status begin();
  // The next record; its payload is valid until the next call. After the end record nothing may follow.
  Result<StateRecord> next();
  std::span<const std::byte> payload() const { return payload_; }

 private:
  Status fill(std::span<std::byte> out);
  Status fill_payload(std::uint64_t size);
  Status broken(const std::string& what) const;

  StateSource source_;
  std::vector<std::byte> payload_;
  std::uint64_t number_ = 0;
};

}  // namespace kvant
