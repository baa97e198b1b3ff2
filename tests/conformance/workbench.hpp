// Workbench: buffers with guard zones on any executor, filled and fetched through staging, for cases that run single kernels.
#pragma once

#include <cstring>
#include <span>
#include <vector>

#include "executor.hpp"

namespace kvant::conformance {

using Bytes = std::vector<std::byte>;

inline constexpr std::size_t kGuardBytes = 256;
inline constexpr std::byte kGuardByte{0xC9};
inline constexpr std::byte kPoisonByte{0xFF};  // NaN in every float format
inline constexpr std::byte kCanaryByte{0xB7};  // what outputs hold before a kernel writes them

// A buffer on the executor: guard, content, guard. `range` is the content.
struct Buffer {
  BufferId id = BufferId::none;
  BufferRange range;
};

class Workbench {
 public:
  explicit Workbench(Executor& executor) : executor_(executor) {}
  ~Workbench();
  Workbench(const Workbench&) = delete;
  Workbench& operator=(const Workbench&) = delete;

  Executor& executor() { return executor_; }
  Result<Buffer> make(std::span<const std::byte> content);
  Result<Buffer> make_filled(std::uint64_t size, std::byte value);
  // The content with both guard zones, so that a comparison of two fetches sees writes outside.
  Result<Bytes> fetch(const Buffer& buffer);
  Status run(const CommandList& list);

 private:
  Executor& executor_;
  std::vector<BufferId> buffers_;
};

template <typename T>
Bytes to_bytes(std::span<const T> values) {
  Bytes bytes(values.size_bytes());
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

template <typename Params>
void set_push(Dispatch& dispatch, const Params& params) {
  static_assert(sizeof(Params) <= kMaxPushBytes);
  std::memcpy(dispatch.push.data(), &params, sizeof(params));
}

}  // namespace kvant::conformance
