// The table of formats, the planar layout of pages, and rows: many blocks in canonical or planar form.
#include "formats.hpp"

#include <algorithm>
#include <cassert>
#include <vector>

#include "format_codec.hpp"

namespace kvant {
namespace {

constexpr std::uint32_t kMaxBlock = 64;

FormatInfo make_info(FormatId id, std::string_view name, std::uint32_t block, std::uint32_t code_bits,
                     std::uint32_t high_bits, std::uint32_t scale_bytes, std::uint32_t row_pad, bool int_dot,
                     const FormatCodec& codec) {
  return {id,           name,    block, code_bits, high_bits, scale_bytes, row_pad,
          int_dot,      codec.canonical_block,     codec.canonical_bytes,  codec.encode_block,
          codec.decode_block, codec.pack_canonical, codec.unpack_canonical};
}

const std::vector<FormatInfo>& table() {
  // Never destroyed: at process exit other threads may still be inside of a call.
  static const std::vector<FormatInfo>& rows = *new const std::vector<FormatInfo>([] {
    std::vector<FormatInfo> all{
#define KVANT_FORMAT(symbol, id, block, code_bits, high_bits, scale_bytes, row_pad, int_dot)                          \
  make_info(FormatId::symbol, #symbol, block, code_bits, high_bits, scale_bytes, row_pad, int_dot != 0, codec_##symbol),
#include "formats.def"
#undef KVANT_FORMAT
    };
    std::sort(all.begin(), all.end(), [](const FormatInfo& a, const FormatInfo& b) { return a.id < b.id; });
    return all;
  }());
  return rows;
}

constexpr std::uint32_t round_up(std::uint32_t value, std::uint32_t unit) { return (value + unit - 1) / unit * unit; }

// One block of a row: its elements' codes (the high plane's bit at bit code_bits) and its scale.
struct Block {
  std::uint32_t codes[kMaxBlock] = {};
  std::uint32_t scale_bits = 0;
};

Block encode(const FormatInfo& format, std::span<const float> x, std::uint32_t begin) {
  float padded[kMaxBlock] = {};
  const auto count = std::min<std::size_t>(format.block, x.size() - begin);
  std::copy_n(x.begin() + begin, count, padded);
  Block block;
  format.encode_block(padded, block.codes, &block.scale_bits);
  return block;
}

void decode(const FormatInfo& format, const Block& block, std::span<float> x, std::uint32_t begin) {
  float padded[kMaxBlock];
  format.decode_block(block.codes, block.scale_bits, padded);
  const auto count = std::min<std::size_t>(format.block, x.size() - begin);
  std::copy_n(padded, count, x.begin() + begin);
}

// Canonical blocks that make up one block: 32 of one element each for formats without a scale.
std::uint32_t canonical_parts(const FormatInfo& format) { return format.block / format.canonical_block; }

void store_canonical(const FormatInfo& format, const Block& block, std::uint32_t begin, std::span<std::byte> out) {
  for (std::uint32_t part = 0; part < canonical_parts(format); ++part) {
    const std::uint32_t element = part * format.canonical_block;
    const std::size_t offset = std::size_t{(begin + element) / format.canonical_block} * format.canonical_bytes;
    if (offset < out.size()) format.pack_canonical(block.codes + element, block.scale_bits, out.data() + offset);
  }
}

Block load_canonical(const FormatInfo& format, std::span<const std::byte> in, std::uint32_t begin) {
  Block block;
  for (std::uint32_t part = 0; part < canonical_parts(format); ++part) {
    const std::uint32_t element = part * format.canonical_block;
    const std::size_t offset = std::size_t{(begin + element) / format.canonical_block} * format.canonical_bytes;
    if (offset < in.size()) format.unpack_canonical(in.data() + offset, block.codes + element, &block.scale_bits);
  }
  return block;
}

// The planes of one row.
struct Row {
  std::byte* codes;
  std::byte* high;
  std::byte* scale;
};

Row row_of(const PageLayout& layout, std::byte* head, std::uint32_t token) {
  return {head + std::size_t{token} * layout.code_row_bytes,
          head + layout.high_offset + std::size_t{token} * layout.high_row_bytes,
          head + layout.scale_offset + std::size_t{token} * layout.scale_row_bytes};
}

void store_planar(const FormatInfo& format, const PageLayout& layout, const Row& row, const Block& block,
                  std::uint32_t begin) {
  const std::uint32_t row_elements = layout.code_row_bytes * 8 / format.code_bits;
  const std::uint32_t count = std::min(format.block, row_elements - begin);
  if (format.code_bits < 8) {
    const std::uint32_t per_byte = 8 / format.code_bits, mask = (1u << format.code_bits) - 1u;
    for (std::uint32_t i = 0; i < count; i += per_byte) {
      std::uint32_t byte = 0;
      for (std::uint32_t j = 0; j < per_byte; ++j) byte |= (block.codes[i + j] & mask) << (j * format.code_bits);
      row.codes[(begin + i) / per_byte] = static_cast<std::byte>(byte);
    }
  } else {
    const std::uint32_t bytes = format.code_bits / 8;
    for (std::uint32_t i = 0; i < count; ++i) codec::store_le(row.codes + (begin + i) * bytes, block.codes[i], bytes);
  }
  if (format.high_bits != 0) {
    for (std::uint32_t i = 0; i < count; i += 32) {
      std::uint32_t word = 0;
      for (std::uint32_t j = 0; j < 32; ++j) word |= ((block.codes[i + j] >> format.code_bits) & 1u) << j;
      codec::store_le(row.high + (begin + i) / 8, word, 4);
    }
  }
  codec::store_le(row.scale + begin / format.block * format.scale_bytes, block.scale_bits, format.scale_bytes);
}

Block load_planar(const FormatInfo& format, const PageLayout& layout, const Row& row, std::uint32_t begin) {
  const std::uint32_t row_elements = layout.code_row_bytes * 8 / format.code_bits;
  const std::uint32_t count = std::min(format.block, row_elements - begin);
  // Codes past the row's end are those of padding zeros, which a whole canonical block holds too.
  const float zeros[kMaxBlock] = {};
  Block block;
  if (count < format.block) format.encode_block(zeros, block.codes, &block.scale_bits);
  if (format.code_bits < 8) {
    const std::uint32_t per_byte = 8 / format.code_bits, mask = (1u << format.code_bits) - 1u;
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::uint32_t byte = std::to_integer<std::uint32_t>(row.codes[(begin + i) / per_byte]);
      block.codes[i] = (byte >> (i % per_byte * format.code_bits)) & mask;
    }
  } else {
    const std::uint32_t bytes = format.code_bits / 8;
    for (std::uint32_t i = 0; i < count; ++i) block.codes[i] = codec::load_le(row.codes + (begin + i) * bytes, bytes);
  }
  if (format.high_bits != 0) {
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::uint32_t element = begin + i;
      const std::uint32_t bit = (std::to_integer<std::uint32_t>(row.high[element / 8]) >> (element % 8)) & 1u;
      block.codes[i] |= bit << format.code_bits;
    }
  }
  block.scale_bits = codec::load_le(row.scale + begin / format.block * format.scale_bytes, format.scale_bytes);
  return block;
}

// A row is read through the same view that writes it; nothing is written through the result.
Row const_row_of(const PageLayout& layout, const std::byte* head, std::uint32_t token) {
  return row_of(layout, const_cast<std::byte*>(head), token);
}

}  // namespace

std::span<const FormatInfo> formats() { return table(); }

const FormatInfo& format_info(FormatId id) {
  const auto& rows = table();
  const auto found = std::find_if(rows.begin(), rows.end(), [id](const FormatInfo& row) { return row.id == id; });
  assert(found != rows.end());
  return *found;
}

std::optional<FormatId> format_from_id(std::uint32_t id) {
  for (const FormatInfo& row : table()) {
    if (static_cast<std::uint32_t>(row.id) == id) return row.id;
  }
  return std::nullopt;
}

std::optional<FormatId> format_by_name(std::string_view name) {
  for (const FormatInfo& row : table()) {
    if (row.name == name) return row.id;
  }
  return std::nullopt;
}

PageLayout page_layout(const FormatInfo& format, std::uint32_t head_dim, std::uint32_t page_tokens) {
  assert(head_dim > 0 && head_dim % 8 == 0 && page_tokens % 16 == 0);
  PageLayout layout{};
  layout.code_row_bytes = round_up(head_dim, format.row_pad) * format.code_bits / 8;
  layout.high_row_bytes = format.high_bits == 0 ? 0 : round_up(head_dim, 32) / 8;
  layout.scale_row_bytes = round_up(head_dim, format.block) / format.block * format.scale_bytes;
  layout.high_offset = page_tokens * layout.code_row_bytes;
  layout.scale_offset = layout.high_offset + page_tokens * layout.high_row_bytes;
  layout.head_bytes = layout.scale_offset + page_tokens * layout.scale_row_bytes;
  return layout;
}

std::uint64_t canonical_row_bytes(const FormatInfo& format, std::uint32_t head_dim) {
  const std::uint64_t blocks = (std::uint64_t{head_dim} + format.canonical_block - 1) / format.canonical_block;
  return blocks * format.canonical_bytes;
}

void encode_canonical_row(const FormatInfo& format, std::span<const float> x, std::span<std::byte> out) {
  assert(out.size() == canonical_row_bytes(format, static_cast<std::uint32_t>(x.size())));
  for (std::uint32_t begin = 0; begin < x.size(); begin += format.block) {
    store_canonical(format, encode(format, x, begin), begin, out);
  }
}

void decode_canonical_row(const FormatInfo& format, std::span<const std::byte> in, std::span<float> x) {
  assert(in.size() == canonical_row_bytes(format, static_cast<std::uint32_t>(x.size())));
  for (std::uint32_t begin = 0; begin < x.size(); begin += format.block) {
    decode(format, load_canonical(format, in, begin), x, begin);
  }
}

void encode_planar_row(const FormatInfo& format, const PageLayout& layout, std::byte* head, std::uint32_t token,
                       std::span<const float> x) {
  const Row row = row_of(layout, head, token);
  for (std::uint32_t begin = 0; begin < x.size(); begin += format.block) {
    store_planar(format, layout, row, encode(format, x, begin), begin);
  }
}

void decode_planar_row(const FormatInfo& format, const PageLayout& layout, const std::byte* head, std::uint32_t token,
                       std::span<float> x) {
  const Row row = const_row_of(layout, head, token);
  for (std::uint32_t begin = 0; begin < x.size(); begin += format.block) {
    decode(format, load_planar(format, layout, row, begin), x, begin);
  }
}

void planar_to_canonical_row(const FormatInfo& format, const PageLayout& layout, const std::byte* head,
                             std::uint32_t token, std::uint32_t head_dim, std::span<std::byte> out) {
  assert(out.size() == canonical_row_bytes(format, head_dim));
  const Row row = const_row_of(layout, head, token);
  for (std::uint32_t begin = 0; begin < head_dim; begin += format.block) {
    store_canonical(format, load_planar(format, layout, row, begin), begin, out);
  }
}

void canonical_to_planar_row(const FormatInfo& format, const PageLayout& layout, std::byte* head, std::uint32_t token,
                             std::uint32_t head_dim, std::span<const std::byte> in) {
  assert(in.size() == canonical_row_bytes(format, head_dim));
  const Row row = row_of(layout, head, token);
  for (std::uint32_t begin = 0; begin < head_dim; begin += format.block) {
    store_planar(format, layout, row, load_canonical(format, in, begin), begin);
  }
}

}  // namespace kvant
