#include "staging_room.hpp"
#include "tensor_io.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

namespace kvant {
namespace {

struct Strides {
  std::uint64_t token, head;  // elements
};

Strides strides_of(const TensorView& view, const TensorShape& shape) {
  const std::uint64_t head = view.head_stride != 0 ? view.head_stride : shape.dim;
  return {view.token_stride != 0 ? view.token_stride : head * shape.heads, head};
}

// Copies tokens [first, first + count) between the view's strided rows and packed rows.
template <bool to_packed>
void move_rows(const TensorView& view, const TensorShape& shape, std::uint64_t first, std::uint64_t count,
               std::conditional_t<to_packed, std::byte*, const std::byte*> packed) {
  const Strides strides = strides_of(view, shape);
  const std::uint64_t element = io_bytes(view.type);
  const std::uint64_t row = shape.dim * element;
  auto copy = [&](std::byte* strided, std::uint64_t bytes) {
    if constexpr (to_packed) {
      std::memcpy(packed, strided, bytes);
    } else {
      std::memcpy(strided, packed, bytes);
    }
    packed += bytes;
  };
  if (strides.head == shape.dim && strides.token == strides.head * shape.heads) {
    copy(view.host + first * strides.token * element, count * row * shape.heads);
    return;
  }
  for (std::uint64_t t = first; t < first + count; ++t)
    for (std::uint64_t h = 0; h < shape.heads; ++h)
      copy(view.host + (t * strides.token + h * strides.head) * element, row);
}

// Scratch for a host tensor is bound whole.
Status ensure_scratch(ScratchBuffer& scratch, std::uint64_t bytes, const ExecutorLimits& limits) {
  if (bytes > limits.max_binding_bytes)
    return {StatusCode::resource_exhausted, "a tensor of " + std::to_string(bytes) + " bytes, the device binds at most " +
                                                std::to_string(limits.max_binding_bytes) + "; take fewer tokens at once"};
  return scratch.ensure(bytes, nullptr);
}

BoundTensor packed_tensor(BufferRange range, const TensorShape& shape) {
  return {range, 0, shape.heads * shape.dim, shape.dim};
}

}  // namespace

TensorIo::TensorIo(Executor& executor) : executor_(executor) {
  for (auto& scratch : scratch_) scratch = std::make_unique<ScratchBuffer>(executor);
}

std::uint64_t TensorIo::bytes_of(const TensorView& view, const TensorShape& shape) {
  // Staging pieces are aligned to 256 bytes.
  return view.host == nullptr ? 0 : ((shape.elements() * io_bytes(view.type) + 255) & ~std::uint64_t{255});
}

void TensorIo::begin(std::uint64_t host_bytes) {
  outputs_.clear();
  // Half of a piece's limit, since a ring that wraps may leave its tail unused.
  direct_ = host_bytes <= staging_piece_bytes(executor_.limits());
}

Result<BoundTensor> TensorIo::bind_buffer(const TensorView& view, const TensorShape& shape, bool written) const {
  const ExecutorLimits& limits = executor_.limits();
  const Strides strides = strides_of(view, shape);
  const std::uint64_t element = io_bytes(view.type);
  const std::uint64_t bytes =
      ((shape.tokens - 1) * strides.token + (shape.heads - 1) * strides.head + shape.dim) * element;
  const std::uint64_t misaligned = view.buffer.offset % limits.binding_alignment;
  const std::uint64_t bound = (misaligned + bytes + 3) & ~std::uint64_t{3};
  if (view.buffer.offset % element != 0)
    return Status(StatusCode::invalid_argument, "tensor offset (" + std::to_string(view.buffer.offset) +
                                                    ") is not a multiple of its element size, " +
                                                    std::to_string(element));
  if (bytes > view.buffer.size)
    return Status(StatusCode::invalid_argument, "tensor needs " + std::to_string(bytes) +
                                                    " bytes, its buffer range has " + std::to_string(view.buffer.size));
  if (bound > limits.max_binding_bytes)
    return Status(StatusCode::invalid_argument, "tensor spans " + std::to_string(bound) +
                                                    " bytes, the device binds at most " +
                                                    std::to_string(limits.max_binding_bytes));
  if (strides.token > std::numeric_limits<std::uint32_t>::max() ||
      strides.head > std::numeric_limits<std::uint32_t>::max())
    return Status(StatusCode::invalid_argument, "tensor strides (" + std::to_string(strides.token) + ", " +
                                                    std::to_string(strides.head) + ") exceed 2^32 - 1 elements");
  const std::uint64_t offset = misaligned / element;
  if (written && element == 2 && (offset % 2 != 0 || strides.token % 2 != 0 || strides.head % 2 != 0))
    return Status(StatusCode::invalid_argument,
                  "a 16-bit output needs an even offset and even strides, in elements (it has " +
                      std::to_string(offset) + ", " + std::to_string(strides.token) + ", " +
                      std::to_string(strides.head) + ")");
  // Kernels load 16-bit elements by the word; the last word must lie in the engine's range.
  if (bound > misaligned + view.buffer.size)
    return Status(StatusCode::invalid_argument, "a 16-bit tensor ends on half a 32-bit word, at byte " +
                                                    std::to_string(view.buffer.offset + bytes) +
                                                    ", and its buffer range has no more");
  return BoundTensor{{view.buffer.buffer, view.buffer.offset - misaligned, bound},
                     static_cast<std::uint32_t>(offset),
                     static_cast<std::uint32_t>(strides.token),
                     static_cast<std::uint32_t>(strides.head)};
}

std::uint64_t TensorIo::tokens_per_piece(const TensorView& view, const TensorShape& shape) const {
  const std::uint64_t row = std::uint64_t{shape.heads} * shape.dim * io_bytes(view.type);
  // Whole groups of tokens, so that a piece's copy stays on 4 bytes for 16-bit rows too.
  return std::max<std::uint64_t>(staging_piece_bytes(executor_.limits()) / row / 2 * 2, 2);
}

Status TensorIo::upload_pieces(ScratchBuffer& scratch, const TensorView& view, const TensorShape& shape) {
  const std::uint64_t row = std::uint64_t{shape.heads} * shape.dim * io_bytes(view.type);
  const std::uint64_t step = tokens_per_piece(view, shape);
  for (std::uint64_t t = 0; t < shape.tokens; t += step) {
    const std::uint64_t count = std::min(step, shape.tokens - t);
    KVANT_ASSIGN(const Staging staging, executor_.stage(count * row, BufferKind::upload));
    move_rows<true>(view, shape, t, count, staging.data);
    list_.clear();
    list_.add_copy({staging.range.buffer, staging.range.offset, scratch.buffer(), t * row, count * row}, "upload",
                   false);
    KVANT_ASSIGN([[maybe_unused]] const Ticket ticket, executor_.submit(list_));
  }
  return {};
}

Status TensorIo::download_pieces(const ScratchBuffer& scratch, const TensorView& view, const TensorShape& shape) {
  const std::uint64_t row = std::uint64_t{shape.heads} * shape.dim * io_bytes(view.type);
  const std::uint64_t step = tokens_per_piece(view, shape);
  for (std::uint64_t t = 0; t < shape.tokens; t += step) {
    const std::uint64_t count = std::min(step, shape.tokens - t);
    KVANT_ASSIGN(const Staging staging, executor_.stage(count * row, BufferKind::readback));
    list_.clear();
    list_.add_copy({scratch.buffer(), t * row, staging.range.buffer, staging.range.offset, count * row}, "download",
                   false);
    KVANT_ASSIGN(const Ticket ticket, executor_.submit(list_));
    KVANT_TRY(executor_.wait(ticket));
    move_rows<false>(view, shape, t, count, staging.data);
  }
  return {};
}

Result<BoundTensor> TensorIo::input(TensorRole role, const TensorView& view, const TensorShape& shape) {
  if (view.host == nullptr) return bind_buffer(view, shape, false);
  const std::uint64_t bytes = shape.elements() * io_bytes(view.type);
  if (direct_) {
    KVANT_ASSIGN(const Staging staging, executor_.stage(bytes, BufferKind::upload));
    move_rows<true>(view, shape, 0, shape.tokens, staging.data);
    return packed_tensor(staging.range, shape);
  }
  ScratchBuffer& scratch = *scratch_[static_cast<std::size_t>(role)];
  KVANT_TRY(ensure_scratch(scratch, bytes, executor_.limits()));
  KVANT_TRY(upload_pieces(scratch, view, shape));
  return packed_tensor(scratch.range(bytes), shape);
}

Result<BoundTensor> TensorIo::output(TensorRole role, const TensorView& view, const TensorShape& shape) {
  if (view.host == nullptr) return bind_buffer(view, shape, true);
  const std::uint64_t bytes = shape.elements() * io_bytes(view.type);
  if (direct_) {
    KVANT_ASSIGN(const Staging staging, executor_.stage(bytes, BufferKind::readback));
    outputs_.push_back({view, shape, staging.data, role});
    return packed_tensor(staging.range, shape);
  }
  ScratchBuffer& scratch = *scratch_[static_cast<std::size_t>(role)];
  KVANT_TRY(ensure_scratch(scratch, bytes, executor_.limits()));
  outputs_.push_back({view, shape, nullptr, role});
  return packed_tensor(scratch.range(bytes), shape);
}

Status TensorIo::finish(Ticket ticket) {
  if (outputs_.empty()) return {};
  KVANT_TRY(executor_.wait(ticket));
  for (const PendingOutput& output : outputs_) {
    if (output.staged != nullptr) {
      move_rows<false>(output.view, output.shape, 0, output.shape.tokens, output.staged);
    } else {
      KVANT_TRY(download_pieces(*scratch_[static_cast<std::size_t>(output.role)], output.view, output.shape));
    }
  }
  outputs_.clear();
  return {};
}

}  // namespace kvant
