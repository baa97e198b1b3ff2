// Builds sealed states; the kinds of records are listed in the header.
#include "state_records.hpp"

#include <limits>

#include "cache_key.hpp"
#include "state_plan.hpp"
#include "state_stream.hpp"

namespace kvant::fuzz {
namespace {

constexpr std::size_t kMostStateBytes = 1u << 18;

std::uint64_t token_bytes(const LayerSpec& layer) {
  return layer.kv_heads * (canonical_row_bytes(format_info(layer.format_k), layer.head_dim_k) +
                           canonical_row_bytes(format_info(layer.format_v), layer.head_dim_v));
}

void add_page(FuzzInput& in, const CacheSpec& spec, RecordFields& fields) {
  const std::uint32_t group = in.below(3), tokens = in.below(18);
  std::uint8_t seed = in.u8();
  fields.u32(group);
  fields.u32(tokens);
  const std::uint64_t bytes = group < spec.layers.size() ? token_bytes(spec.layers[group]) * tokens : 8;
  std::vector<std::byte> blob(bytes);
  for (std::byte& one : blob) {
    one = std::byte{seed};
    seed = static_cast<std::uint8_t>(seed * 5 + 3);
  }
  fields.bytes(blob);
}

std::vector<std::int32_t> small_numbers(FuzzInput& in, std::size_t count) {
  std::vector<std::int32_t> numbers(count);
  for (std::int32_t& number : numbers) {
    const std::uint8_t value = in.u8();
    number = value == 255 ? -1 : value == 254 ? std::numeric_limits<std::int32_t>::min() : value;
  }
  return numbers;
}

void add_sequence(FuzzInput& in, const CacheSpec& spec, RecordFields& fields) {
  SavedSequence sequence;
  sequence.id = in.magnitude();
  sequence.length = in.magnitude();
  sequence.publish.priority = in.magnitude32();
  sequence.publish.ttl_ms = in.magnitude();
  const std::uint8_t flags = in.u8();
  sequence.pruned = (flags & 1) != 0;
  sequence.least_length = in.magnitude();
  sequence.salt = in.text(in.below(8));
  const std::uint64_t tokens = in.u8();
  sequence.tokens = small_numbers(in, tokens);
  const std::uint64_t pages =
      (flags & 2) != 0 ? in.u8() : sequence.length / spec.page_tokens + (sequence.length % spec.page_tokens != 0);
  for (std::size_t g = 0; g < spec.layers.size(); ++g)
    sequence.tables.push_back(small_numbers(in, pages < 256 ? static_cast<std::size_t>(pages) : 256));
  write_state_sequence(sequence, fields);
}

}  // namespace

CacheSpec state_spec() {
  CacheSpec spec;
  spec.layers = {{1, 32, 32, FormatId::q8_0, FormatId::q4_0, 0, 0}, {2, 32, 32, FormatId::f16, FormatId::q4_0, 20, 2}};
  spec.capacity_tokens = 256;
  spec.prefix_cache = true;
  spec.model_id = "fuzz";
  return spec;
}

std::vector<std::byte> sealed_state(FuzzInput& in) {
  const CacheSpec spec = state_spec();
  std::vector<std::byte> stream;
  StateWriter writer([&](std::span<const std::byte> piece) {
    stream.insert(stream.end(), piece.begin(), piece.end());
    return Status();
  });
  KVANT_FUZZ_CHECK(writer.begin().ok());
  RecordFields fields;
  while (!in.empty() && stream.size() < kMostStateBytes) {
    fields.clear();
    std::uint32_t type = 0;
    switch (in.below(5)) {
      case 0:
        type = static_cast<std::uint32_t>(StateRecord::header);
        write_state_header(spec, cache_content_key(spec), {}, fields);
        break;
      case 1:
        type = static_cast<std::uint32_t>(StateRecord::page);
        add_page(in, spec, fields);
        break;
      case 2:
        type = static_cast<std::uint32_t>(StateRecord::sequence);
        add_sequence(in, spec, fields);
        break;
      case 3:
        type = in.u8();
        fields.bytes(as_bytes(in.bytes(in.u16())));
        break;
      default:
        type = static_cast<std::uint32_t>(StateRecord::end);
        break;
    }
    KVANT_FUZZ_CHECK(writer.record(static_cast<StateRecord>(type), fields.data()).ok());
  }
  KVANT_FUZZ_CHECK(writer.end().ok());
  return stream;
}

}  // namespace kvant::fuzz
