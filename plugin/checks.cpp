// Checks of the values that several functions take.
#include "checks.hpp"

namespace kvant::abi {

Result<FormatId> check_format(std::uint32_t format, std::string_view name) {
  if (const InterchangeFormat* interchange = interchange_by_id(format))
    return invalid(name, " (", hex(format), ") is ", interchange->name, ", which is for quantize and dequantize only");
  const auto id = format_from_id(format);
  if (!id) return invalid(name, " (", format, ") is not a format id; expected 0 to ", formats().size() - 1);
  return *id;
}

Result<RowFormat> check_row_format(std::uint32_t format, std::string_view name) {
  if (const InterchangeFormat* interchange = interchange_by_id(format)) return RowFormat{.interchange = interchange};
  const auto id = format_from_id(format);
  if (!id) {
    const auto others = interchange_formats();
    return invalid(name, " (", format, ") is not a format id; expected 0 to ", formats().size() - 1, ", or ", hex(others.front().id), " to ",
                   hex(others.back().id), " (", interchange_names(), ")");
  }
  return RowFormat{.held = *id};
}

Result<Side> check_side(std::uint32_t side) {
  if (side > KVANT_SIDE_V) return invalid("side (", side, ") is not KVANT_SIDE_K (0) or KVANT_SIDE_V (1)");
  return static_cast<Side>(side);
}

Status check_layer(std::uint32_t layer, const CacheSpec& spec) {
  if (layer >= spec.layers.size())
    return invalid("layer (", layer, ") is not less than the cache's ", spec.layers.size(), " layers");
  return {};
}

Status check_head_dim(std::uint32_t head_dim, std::string_view name) {
  if (head_dim < 32 || head_dim > 576 || head_dim % 8 != 0)
    return invalid(name, " (", head_dim, ") is not a multiple of 8 between 32 and 576");
  return {};
}

Status check_sequences_kept(const CacheObject& cache) {
  if (cache.cache->spec().external_pages)
    return precondition("the cache was created with KVANT_CACHE_EXTERNAL_PAGES; it has no sequences");
  return {};
}

Status check_pages_external(const CacheObject& cache) {
  if (!cache.cache->spec().external_pages)
    return precondition("the cache was created without KVANT_CACHE_EXTERNAL_PAGES; it keeps its page tables itself");
  return {};
}

Status check_token_range(CacheObject& cache, SequenceId sequence, std::uint64_t begin, std::uint64_t count) {
  KVANT_ASSIGN(const std::uint64_t length, cache.cache->sequence_length(sequence));
  if (begin > length || count > length - begin)
    return invalid("tokens from begin (", begin, ") for count (", count, ") do not lie inside the sequence's ", length, " tokens");
  return {};
}

bool multiply(std::uint64_t a, std::uint64_t b, std::uint64_t c, std::uint64_t& product) {
  return !__builtin_mul_overflow(a, b, &product) && !__builtin_mul_overflow(product, c, &product);
}

}  // namespace kvant::abi
