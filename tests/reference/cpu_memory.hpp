// Memory of the CPU executor: buffers between guard zones, and views of bindings in which every access is bounds-checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace kvant::reference {

// Bytes between two guard zones. Fresh memory holds 0xFF: NaN in every float format, -1 in every integer.
class GuardedBuffer {
 public:
  explicit GuardedBuffer(std::uint64_t size);

  std::byte* data() { return storage_.data() + kGuardBytes; }
  std::uint64_t size() const { return size_; }
  bool guards_intact() const;

  static constexpr std::size_t kGuardBytes = 256;

 private:
  std::vector<std::byte> storage_;
  std::uint64_t size_;
};

// The first fault of a dispatch: which binding was read or written where, and how large it is.
class FaultLog {
 public:
  void report(std::string message) {
    if (message_.empty()) message_ = std::move(message);
  }
  bool empty() const { return message_.empty(); }
  const std::string& message() const { return message_; }

 private:
  std::string message_;
};

// A bound range as a kernel sees it. Accesses outside are reported to the log; reads then give zero, writes are dropped.
class View {
 public:
  View() = default;
  View(std::span<std::byte> bytes, std::string name, FaultLog& log) : bytes_(bytes), name_(std::move(name)), log_(&log) {}

  std::uint64_t size() const { return bytes_.size(); }
  const std::string& name() const { return name_; }

  // A pointer to [offset, offset + count), or null after reporting.
  std::byte* range(std::uint64_t offset, std::uint64_t count, const char* what);

  template <typename T>
  T load(std::uint64_t byte_offset) {
    T value{};
    if (std::byte* p = range(byte_offset, sizeof(T), "reads")) std::memcpy(&value, p, sizeof(T));
    return value;
  }
  template <typename T>
  void store(std::uint64_t byte_offset, T value) {
    if (std::byte* p = range(byte_offset, sizeof(T), "writes")) std::memcpy(p, &value, sizeof(T));
  }
  std::uint32_t word(std::uint64_t index) { return load<std::uint32_t>(index * 4); }
  float float_at(std::uint64_t index) { return load<float>(index * 4); }

 private:
  std::span<std::byte> bytes_;
  std::string name_;
  FaultLog* log_ = nullptr;
};

// Elements of an engine tensor (KVANT_IO_*), by element index.
double load_element(View& view, std::uint32_t io_type, std::uint64_t index);
void store_element(View& view, std::uint32_t io_type, std::uint64_t index, double value);
std::uint32_t io_bytes(std::uint32_t io_type);

}  // namespace kvant::reference
