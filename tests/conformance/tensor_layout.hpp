// Where the elements of an engine tensor [token][head][dim] lie in a buffer, packed or with gaps, and how to put them there and
// take them back.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cache.hpp"
#include "cases.hpp"
#include "workbench.hpp"

namespace kvant::conformance {

struct TensorLayout {
  IoType type = IoType::f32;
  std::uint32_t tokens = 0, heads = 0, dim = 0;
  std::uint32_t offset = 0, token_stride = 0, head_stride = 0;  // elements

  std::uint32_t element_bytes() const { return type == IoType::f32 ? 4u : 2u; }
  std::uint64_t elements() const { return std::uint64_t{tokens} * heads * dim; }
  std::uint64_t bytes() const;  // of the whole tensor, offset and gaps included
  std::uint64_t at(std::uint32_t token, std::uint32_t head, std::uint32_t d) const {
    return offset + std::uint64_t{token} * token_stride + std::uint64_t{head} * head_stride + d;
  }
};

// Packed, or for Placement::strided with an offset and gaps between heads and tokens.
TensorLayout make_layout(IoType type, std::uint32_t tokens, std::uint32_t heads, std::uint32_t dim, Placement placement);

// Rounds each value to the element type, as an engine of that type would hold it.
std::vector<float> round_to(IoType type, std::span<const float> values);

// Bytes of the tensor; gaps hold `gap`.
Bytes pack(const TensorLayout& layout, std::span<const float> values, std::byte gap);
// Elements out of bytes that start `skip` bytes before the tensor.
std::vector<double> unpack(const TensorLayout& layout, std::span<const std::byte> bytes, std::size_t skip);
// Copies the elements of `from` into `to`, so that what remains different is guards and gaps.
void copy_elements(const TensorLayout& layout, std::span<const std::byte> from, std::span<std::byte> to, std::size_t skip);

}  // namespace kvant::conformance
