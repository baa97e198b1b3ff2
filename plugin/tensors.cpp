// Checks of tensors: memory or buffer, type, alignment, strides, size without overflow, overlap.
#include "tensors.hpp"

#include "boundary.hpp"

namespace kvant::abi {
namespace {

std::uint64_t element_bytes(IoType type) { return type == IoType::f32 ? 4 : 2; }

// Past the last element, in elements; false when 64 bits do not hold it.
bool extent_elements(const TensorNeed& need, std::uint64_t token_stride, std::uint64_t head_stride, std::uint64_t& extent) {
  std::uint64_t tokens = 0, heads = 0;
  return !__builtin_mul_overflow(need.tokens - 1, token_stride, &tokens) &&
         !__builtin_mul_overflow(std::uint64_t{need.heads} - 1, head_stride, &heads) &&
         !__builtin_add_overflow(tokens, heads, &extent) && !__builtin_add_overflow(extent, need.dim, &extent);
}

// Rows that are written must not overlap: heads lie inside a token's stride, or tokens inside a head's.
bool rows_apart(const TensorNeed& need, std::uint64_t token_stride, std::uint64_t head_stride) {
  const bool one_token = need.tokens == 1, one_head = need.heads == 1;
  if ((!one_head && head_stride < need.dim) || (!one_token && token_stride < need.dim)) return false;
  if (one_token || one_head) return true;
  const auto spans = [&](std::uint64_t outer, std::uint64_t inner, std::uint64_t inner_count) {
    std::uint64_t span = 0;
    return !__builtin_mul_overflow(inner, inner_count - 1, &span) && !__builtin_add_overflow(span, need.dim, &span) &&
           outer >= span;
  };
  return spans(token_stride, head_stride, need.heads) || spans(head_stride, token_stride, need.tokens);
}

Status check_place(const kvant_tensor& t, const TensorNeed& need, const DeviceObject& device, std::uint64_t element) {
  if (t.data != nullptr && t.buffer != 0)
    return invalid(need.name, ".data (", hex(reinterpret_cast<std::uintptr_t>(t.data)), ") and ", need.name, ".buffer (",
                   hex(t.buffer), ") are both given; expected one of them");
  if (t.data == nullptr && t.buffer == 0)
    return invalid(need.name, ".data is NULL and ", need.name, ".buffer is 0; expected one of them");
  if (t.data != nullptr) {
    if (t.offset != 0) return invalid(need.name, ".offset (", t.offset, ") is not 0 for data in host memory");
    if (reinterpret_cast<std::uintptr_t>(t.data) % element != 0)
      return invalid(need.name, ".data (", hex(reinterpret_cast<std::uintptr_t>(t.data)), ") is not aligned to its ", element,
                     "-byte elements");
    return {};
  }
  if (!device.borrowed)
    return invalid(need.name, ".buffer (", hex(t.buffer), ") is given, but the device was not imported by " KVANT_EXT_VULKAN);
  if (t.offset % 4 != 0) return invalid(need.name, ".offset (", t.offset, ") is not a multiple of 4 bytes");
  if (element == 2 && (t.token_stride % 2 != 0 || t.head_stride % 2 != 0))
    return invalid(need.name, ".token_stride (", t.token_stride, ") or .head_stride (", t.head_stride,
                   ") is odd; expected multiples of 2 elements for 16-bit types in a buffer");
  return {};
}

}  // namespace

Result<CheckedTensor> check_tensor(const kvant_tensor* tensor, const TensorNeed& need, const DeviceObject& device) {
  kvant_tensor t{};
  KVANT_TRY(read_args(tensor, need.name, t));
  if (t.type > KVANT_TYPE_BF16)
    return invalid(need.name, ".type (", t.type, ") is not KVANT_TYPE_F32 (0), F16 (1) or BF16 (2)");
  if (t.reserved != 0) return invalid(need.name, ".reserved (", t.reserved, ") is not 0");
  const auto type = static_cast<IoType>(t.type);
  const std::uint64_t element = element_bytes(type);
  KVANT_TRY(check_place(t, need, device, element));

  const std::uint64_t packed_token = std::uint64_t{need.heads} * need.dim;
  const std::uint64_t token_stride = t.token_stride != 0 ? t.token_stride : packed_token;
  const std::uint64_t head_stride = t.head_stride != 0 ? t.head_stride : need.dim;
  if (need.packed && (token_stride != packed_token || head_stride != need.dim))
    return invalid(need.name, ".token_stride (", token_stride, ") and .head_stride (", head_stride, ") leave gaps; expected ",
                   packed_token, " and ", need.dim);
  if (need.output && !rows_apart(need, token_stride, head_stride))
    return invalid(need.name, ".token_stride (", token_stride, ") and .head_stride (", head_stride, ") make its ", need.tokens,
                   " x ", need.heads, " rows of ", need.dim, " elements overlap");

  std::uint64_t elements = 0, bytes = 0, end = 0;
  if (!extent_elements(need, token_stride, head_stride, elements) || __builtin_mul_overflow(elements, element, &bytes) ||
      __builtin_add_overflow(t.data != nullptr ? reinterpret_cast<std::uintptr_t>(t.data) : t.offset, bytes, &end))
    return invalid(need.name, ".token_stride (", token_stride, ") and .head_stride (", head_stride,
                   ") reach beyond 64-bit addresses for ", need.tokens, " tokens of ", need.heads, " heads");
  if (bytes > t.size)
    return invalid(need.name, ".size (", t.size, ") is less than the ", bytes, " bytes that ", need.tokens, " tokens of ",
                   need.heads, " heads of ", need.dim, " elements reach");

  CheckedTensor checked;
  checked.name = need.name;
  checked.host = static_cast<std::byte*>(t.data);
  checked.buffer = t.buffer;
  checked.offset = t.offset;
  checked.bytes = bytes;
  checked.type = type;
  checked.token_stride = token_stride;
  checked.head_stride = head_stride;
  checked.output = need.output;
  return checked;
}

Status check_no_overlap(std::span<const CheckedTensor* const> tensors) {
  const auto start = [](const CheckedTensor& t) {
    return t.host != nullptr ? std::uint64_t{reinterpret_cast<std::uintptr_t>(t.host)} : t.offset;
  };
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    for (std::size_t j = i + 1; j < tensors.size(); ++j) {
      const CheckedTensor &a = *tensors[i], &b = *tensors[j];
      if (!a.present() || !b.present() || (!a.output && !b.output) || a.buffer != b.buffer) continue;
      if (start(a) < start(b) + b.bytes && start(b) < start(a) + a.bytes)
        return invalid(a.name, " (", hex(start(a)), ", ", a.bytes, " bytes) and ", b.name, " (", hex(start(b)), ", ", b.bytes,
                       " bytes) overlap; expected outputs apart from all other tensors");
    }
  }
  return {};
}

Result<TensorView> make_view(const CheckedTensor& tensor, Executor& executor, std::vector<BufferId>& imports) {
  TensorView view;
  if (!tensor.present()) return view;
  view.host = tensor.host;
  view.type = tensor.type;
  view.token_stride = tensor.token_stride;
  view.head_stride = tensor.head_stride;
  if (tensor.host == nullptr) {
    KVANT_ASSIGN(const BufferId buffer, executor.import_buffer(tensor.buffer, tensor.offset + tensor.bytes));
    imports.push_back(buffer);
    view.buffer = {buffer, tensor.offset, tensor.bytes};
  }
  return view;
}

}  // namespace kvant::abi
