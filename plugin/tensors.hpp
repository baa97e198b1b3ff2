// Tensors of the engine: checked completely before anything is touched, then turned into the core's views.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include <kvant/kvant.h>

#include "cache.hpp"
#include "objects.hpp"

namespace kvant::abi {

// What a call expects of a tensor [tokens][heads][dim].
struct TensorNeed {
  std::string_view name;
  std::uint64_t tokens = 0;
  std::uint32_t heads = 1, dim = 1;
  bool output = false;
  bool packed = false;  // no gaps between rows
};

// A tensor that passed: strides filled in, range known, buffer not yet imported.
struct CheckedTensor {
  std::string_view name;
  std::byte* host = nullptr;
  std::uint64_t buffer = 0, offset = 0;  // VkBuffer, bytes
  std::uint64_t bytes = 0;               // from the first to past the last element
  IoType type = IoType::f32;
  std::uint64_t token_stride = 0, head_stride = 0;
  bool output = false;
  bool present() const { return bytes != 0; }
};

Result<CheckedTensor> check_tensor(const kvant_tensor* tensor, const TensorNeed& need, const DeviceObject& device);

// An output may overlap nothing; inputs may share memory.
Status check_no_overlap(std::span<const CheckedTensor* const> tensors);

// The core's view. Buffers are wrapped for the executor; whoever owns `imports` releases them after the last use.
Result<TensorView> make_view(const CheckedTensor& tensor, Executor& executor, std::vector<BufferId>& imports);

// Releases the wraps of one call at its end. The executor keeps what submitted or recorded work still names.
class CallImports {
 public:
  explicit CallImports(Executor& executor) : executor_(executor) {}
  ~CallImports() {
    for (const BufferId buffer : ids) executor_.destroy_buffer(buffer);
  }
  CallImports(const CallImports&) = delete;
  CallImports& operator=(const CallImports&) = delete;

  std::vector<BufferId> ids;

 private:
  Executor& executor_;
};

}  // namespace kvant::abi
