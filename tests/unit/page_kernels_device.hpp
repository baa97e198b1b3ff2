// Runs one page kernel on the device that the environment offers: uploads the bindings, dispatches, reads them back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "backend.hpp"
#include "formats.hpp"

namespace kvant::test {

using Bytes = std::vector<std::byte>;

class PageKernelDevice {
 public:
  // The environment's best device, opened once; null if there is none, and then `reason` says why. With
  // KVANT_REQUIRE_DEVICE set a missing device fails the test instead.
  static PageKernelDevice* get(std::string& reason);

  // Runs `kernel` over copies of `bindings` and writes back what the device left in them.
  Status run(KernelId kernel, const SpecValues& spec, const void* push, std::size_t push_bytes,
             std::vector<Bytes*> bindings, std::array<std::uint32_t, 3> groups);
 private:
  std::unique_ptr<Instance> instance_;
  std::unique_ptr<DeviceContext> context_;
};

// Skips the test case with the reason when there is no device.
#define KVANT_DEVICE_OR_SKIP(device)                                                  \
  std::string device##_reason;                                                        \
  ::kvant::test::PageKernelDevice* device = ::kvant::test::PageKernelDevice::get(device##_reason); \
  if (device == nullptr) {                                                            \
    MESSAGE("skipped, no device: " << device##_reason);                               \
    return;                                                                           \
  }

// With KVANT_TEST_FULL=1 every format meets every head dimension. Otherwise each format meets some, and each head
// dimension some formats: a software device spends seconds on a pipeline.
bool take_combination(std::uint32_t format_index, std::uint32_t head_dim_index, std::uint32_t one_in);

// A side of a slab in host memory: pages of `kv_heads` heads, filled with a byte that tells what was not written.
struct HostRegion {
  const FormatInfo* format;
  std::uint32_t head_dim, page_tokens, kv_heads;
  PageLayout layout;
  Bytes bytes;

  HostRegion(FormatId id, std::uint32_t dim, std::uint32_t tokens, std::uint32_t heads, std::uint32_t pages,
             std::byte fill)
      : format(&format_info(id)), head_dim(dim), page_tokens(tokens), kv_heads(heads),
        layout(page_layout(*format, dim, tokens)),
        bytes(std::size_t{pages} * heads * layout.head_bytes + kGuardBytes, fill) {}

  std::byte* head(std::uint32_t page, std::uint32_t head_index) {
    return bytes.data() + (std::size_t{page} * kv_heads + head_index) * layout.head_bytes;
  }

  static constexpr std::size_t kGuardBytes = 64;
};

// Rounds to the element type as the engine would hold it; the value that the kernel sees.
float as_io(std::uint32_t io_type, float x);
// A tensor's bytes; elements of io_type at any element index.
void store_io(std::uint32_t io_type, Bytes& tensor, std::size_t element, float x);
float load_io(std::uint32_t io_type, const Bytes& tensor, std::size_t element);
std::size_t io_bytes(std::uint32_t io_type);

inline bool same_or_both_nan(float a, float b) {
  return std::memcmp(&a, &b, sizeof(float)) == 0 || (a != a && b != b);
}

template <typename T>
Bytes bytes_of(const std::vector<T>& values) {
  Bytes bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

}  // namespace kvant::test
