#include "cpu_memory.hpp"

#include <algorithm>

#include "formats.hpp"
#include "params/types.h"

namespace kvant::reference {

namespace {
constexpr std::byte kGuard{0xA5};
}

GuardedBuffer::GuardedBuffer(std::uint64_t size)
    : storage_(static_cast<std::size_t>(size) + 2 * kGuardBytes, std::byte{0xFF}), size_(size) {
  std::fill_n(storage_.begin(), kGuardBytes, kGuard);
  std::fill_n(storage_.end() - kGuardBytes, kGuardBytes, kGuard);
}

bool GuardedBuffer::guards_intact() const {
  const auto is_guard = [](std::byte b) { return b == kGuard; };
  return std::all_of(storage_.begin(), storage_.begin() + kGuardBytes, is_guard) &&
         std::all_of(storage_.end() - kGuardBytes, storage_.end(), is_guard);
}

std::byte* View::range(std::uint64_t offset, std::uint64_t count, const char* what) {
  if (count <= bytes_.size() && offset <= bytes_.size() - count) return bytes_.data() + offset;
  if (log_ != nullptr)
    log_->report(name_ + ": " + what + " bytes " + std::to_string(offset) + " to " + std::to_string(offset + count) +
                 " of a binding of " + std::to_string(bytes_.size()));
  return nullptr;
}

std::uint32_t io_bytes(std::uint32_t io_type) { return io_type == KVANT_IO_F32 ? 4u : 2u; }

double load_element(View& view, std::uint32_t io_type, std::uint64_t index) {
  switch (io_type) {
    case KVANT_IO_F16: return static_cast<double>(f16_to_f32(view.load<std::uint16_t>(index * 2)));
    case KVANT_IO_BF16: return static_cast<double>(bf16_to_f32(view.load<std::uint16_t>(index * 2)));
    default: return static_cast<double>(view.load<float>(index * 4));
  }
}

void store_element(View& view, std::uint32_t io_type, std::uint64_t index, double value) {
  const float rounded = static_cast<float>(value);
  switch (io_type) {
    case KVANT_IO_F16: view.store(index * 2, f32_to_f16(rounded)); break;
    case KVANT_IO_BF16: view.store(index * 2, f32_to_bf16(rounded)); break;
    default: view.store(index * 4, rounded); break;
  }
}

}  // namespace kvant::reference
