#include "tensor_layout.hpp"

#include <cstring>

namespace kvant::conformance {

namespace {

template <typename Visit>
void for_each_element(const TensorLayout& layout, Visit visit) {
  std::size_t i = 0;
  for (std::uint32_t token = 0; token < layout.tokens; ++token)
    for (std::uint32_t head = 0; head < layout.heads; ++head)
      for (std::uint32_t d = 0; d < layout.dim; ++d, ++i) visit(i, layout.at(token, head, d) * layout.element_bytes());
}

std::uint16_t to_16(IoType type, float x) { return type == IoType::f16 ? f32_to_f16(x) : f32_to_bf16(x); }
float from_16(IoType type, std::uint16_t h) { return type == IoType::f16 ? f16_to_f32(h) : bf16_to_f32(h); }

}  // namespace

std::uint64_t TensorLayout::bytes() const {
  if (tokens == 0) return 0;
  return (at(tokens - 1, heads - 1, dim - 1) + 1 + (offset != 0 ? 6 : 0)) * element_bytes();
}

TensorLayout make_layout(IoType type, std::uint32_t tokens, std::uint32_t heads, std::uint32_t dim, Placement placement) {
  TensorLayout layout{type, tokens, heads, dim, 0, 0, 0};
  const bool gaps = placement == Placement::strided;
  layout.offset = gaps ? 24 : 0;
  layout.head_stride = dim + (gaps ? 4 : 0);
  layout.token_stride = heads * layout.head_stride + (gaps ? 12 : 0);
  return layout;
}

std::vector<float> round_to(IoType type, std::span<const float> values) {
  std::vector<float> out(values.begin(), values.end());
  if (type != IoType::f32)
    for (float& x : out) x = from_16(type, to_16(type, x));
  return out;
}

Bytes pack(const TensorLayout& layout, std::span<const float> values, std::byte gap) {
  Bytes bytes(static_cast<std::size_t>(layout.bytes()), gap);
  for_each_element(layout, [&](std::size_t i, std::uint64_t at) {
    if (layout.type == IoType::f32) {
      std::memcpy(bytes.data() + at, &values[i], 4);
    } else {
      const std::uint16_t half = to_16(layout.type, values[i]);
      std::memcpy(bytes.data() + at, &half, 2);
    }
  });
  return bytes;
}

std::vector<double> unpack(const TensorLayout& layout, std::span<const std::byte> bytes, std::size_t skip) {
  std::vector<double> out(static_cast<std::size_t>(layout.elements()));
  for_each_element(layout, [&](std::size_t i, std::uint64_t at) {
    if (layout.type == IoType::f32) {
      float x = 0;
      std::memcpy(&x, bytes.data() + skip + at, 4);
      out[i] = static_cast<double>(x);
    } else {
      std::uint16_t half = 0;
      std::memcpy(&half, bytes.data() + skip + at, 2);
      out[i] = static_cast<double>(from_16(layout.type, half));
    }
  });
  return out;
}

void copy_elements(const TensorLayout& layout, std::span<const std::byte> from, std::span<std::byte> to, std::size_t skip) {
  for_each_element(layout, [&](std::size_t, std::uint64_t at) {
    std::memcpy(to.data() + skip + at, from.data() + skip + at, layout.element_bytes());
  });
}

}  // namespace kvant::conformance
