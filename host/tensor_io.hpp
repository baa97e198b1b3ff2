// TensorIo: the engine's tensors as bindings. Host tensors go through staging, packed; buffers are bound where they
// lie. A call whose host tensors exceed the staging ring goes through device scratch piece by piece instead.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "cache_spec.hpp"
#include "device_table.hpp"

namespace kvant {

struct TensorShape {
  std::uint64_t tokens = 0;
  std::uint32_t heads = 1, dim = 1;
  std::uint64_t elements() const { return tokens * heads * dim; }
};

inline std::uint32_t io_bytes(IoType type) { return type == IoType::f32 ? 4 : 2; }

// A tensor as kernels see it: offset and strides in elements of its type, relative to the bound range.
struct BoundTensor {
  BufferRange range;
  std::uint32_t offset = 0, token_stride = 0, head_stride = 0;
};

// What a kernel does with a tensor; also the scratch that a large host tensor takes.
enum class TensorRole : std::uint32_t { k, v, q, out, lse, count };

class TensorIo {
 public:
  explicit TensorIo(Executor& executor);

  // Starts a call that stages `host_bytes` in all (bytes_of each host tensor). In direct mode everything is staged for
  // the one list submitted next; otherwise inputs are submitted on the way and outputs fetched at the end.
  void begin(std::uint64_t host_bytes);
  bool direct() const { return direct_; }
  static std::uint64_t bytes_of(const TensorView& view, const TensorShape& shape);

  Result<BoundTensor> input(TensorRole role, const TensorView& view, const TensorShape& shape);
  Result<BoundTensor> output(TensorRole role, const TensorView& view, const TensorShape& shape);
  bool has_host_output() const { return !outputs_.empty(); }
  // After the submit whose ticket this is: waits and writes the host outputs. Without such outputs it returns at once.
  Status finish(Ticket ticket);

 private:
  struct PendingOutput {
    TensorView view;
    TensorShape shape;
    const std::byte* staged = nullptr;  // direct mode
    TensorRole role{};                  // scratch otherwise
  };

  Result<BoundTensor> bind_buffer(const TensorView& view, const TensorShape& shape, bool written) const;
  Status upload_pieces(ScratchBuffer& scratch, const TensorView& view, const TensorShape& shape);
  Status download_pieces(const ScratchBuffer& scratch, const TensorView& view, const TensorShape& shape);
  std::uint64_t tokens_per_piece(const TensorView& view, const TensorShape& shape) const;

  Executor& executor_;
  std::array<std::unique_ptr<ScratchBuffer>, static_cast<std::size_t>(TensorRole::count)> scratch_;
  std::vector<PendingOutput> outputs_;
  CommandList list_;
  bool direct_ = true;
};

}  // namespace kvant
