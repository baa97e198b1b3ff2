// The table of interchange formats, and whole rows in them.
#include "interchange.hpp"

#include <cassert>

#include "format_k.hpp"

namespace kvant {
namespace {

constexpr InterchangeFormat kFormats[] = {
    {kInterchangeFirstId, "q5_k", 176, codec::encode_q5_k, codec::decode_q5_k},
    {kInterchangeFirstId + 1, "q3_k", 110, codec::encode_q3_k, codec::decode_q3_k},
    {kInterchangeFirstId + 2, "q2_k", 84, codec::encode_q2_k, codec::decode_q2_k},
};

}  // namespace

std::span<const InterchangeFormat> interchange_formats() { return kFormats; }

const InterchangeFormat* interchange_by_id(std::uint32_t id) {
  for (const InterchangeFormat& format : kFormats) {
    if (format.id == id) return &format;
  }
  return nullptr;
}

const InterchangeFormat* interchange_by_name(std::string_view name) {
  for (const InterchangeFormat& format : kFormats) {
    if (format.name == name) return &format;
  }
  return nullptr;
}

std::string interchange_names() {
  std::string names;
  for (const InterchangeFormat& format : kFormats) names += (names.empty() ? "" : ", ") + std::string(format.name);
  return names;
}

std::uint64_t interchange_bytes(const InterchangeFormat& format, std::uint64_t elements) {
  assert(elements % kInterchangeBlock == 0);
  return elements / kInterchangeBlock * format.block_bytes;
}

void encode_interchange(const InterchangeFormat& format, std::span<const float> x, std::span<std::byte> out) {
  assert(out.size() == interchange_bytes(format, x.size()));
  for (std::size_t block = 0; block < x.size() / kInterchangeBlock; ++block) {
    format.encode_block(x.data() + block * kInterchangeBlock, out.data() + block * format.block_bytes);
  }
}

void decode_interchange(const InterchangeFormat& format, std::span<const std::byte> in, std::span<float> x) {
  assert(in.size() == interchange_bytes(format, x.size()));
  for (std::size_t block = 0; block < x.size() / kInterchangeBlock; ++block) {
    format.decode_block(in.data() + block * format.block_bytes, x.data() + block * kInterchangeBlock);
  }
}

}  // namespace kvant
