// A reader over the bytes of a GGUF file that never steps over the end: the first problem is kept, with the field's
// name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

namespace kvant::engine {

class GgufCursor {
 public:
  explicit GgufCursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  bool ok() const { return problem_.empty(); }
  const std::string& problem() const { return problem_; }
  uint64_t position() const { return position_; }
  uint64_t remaining() const { return bytes_.size() - position_; }

  void fail(const std::string& problem) {
    if (problem_.empty()) {
      problem_ = problem;
    }
  }

  // Little-endian, as the file and every machine this is built for.
  template <typename T>
  T read(const std::string& field) {
    T value{};
    if (!need(sizeof(T), field)) {
      return value;
    }
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }

  std::string read_string(const std::string& field) {
    const uint64_t length = read<uint64_t>("the length of " + field);
    if (!ok() || !need(length, field)) {
      return {};
    }
    std::string text(reinterpret_cast<const char*>(bytes_.data() + position_), static_cast<size_t>(length));
    position_ += length;
    return text;
  }

  // A count of things that take at least `least_bytes` each; refused before anything is reserved for them.
  uint64_t read_count(const std::string& field, uint64_t least_bytes) {
    const uint64_t count = read<uint64_t>(field);
    if (ok() && count > remaining() / least_bytes) {
      fail(field + " (" + std::to_string(count) + ") needs at least " + std::to_string(least_bytes) +
           " bytes each, and " + std::to_string(remaining()) + " bytes are left in the file");
    }
    return ok() ? count : 0;
  }

 private:
  bool need(uint64_t bytes, const std::string& field) {
    if (!ok()) {
      return false;
    }
    if (bytes > remaining()) {
      fail(field + " needs " + std::to_string(bytes) + " bytes at offset " + std::to_string(position_) +
           ", and the file ends at " + std::to_string(bytes_.size()));
      return false;
    }
    return true;
  }

  std::span<const std::byte> bytes_;
  uint64_t position_ = 0;
  std::string problem_;
};

}  // namespace kvant::engine
