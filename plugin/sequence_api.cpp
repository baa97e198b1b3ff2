// sequence_create, _destroy, _fork, _truncate, _length, _read, _export.
#include "api.hpp"
#include "boundary.hpp"
#include "checks.hpp"
#include "objects.hpp"
#include "tensors.hpp"

namespace kvant::abi {
namespace {

// An open step's tables point at the pages of its sequences, so these stay as they are.
Status check_not_in_step(const CacheObject& cache, kvant_sequence sequence, std::string_view name) {
  if (cache.in_step(sequence))
    return precondition(name, " (", hex(sequence), ") is part of the cache's open step; commit or abort it first");
  return {};
}

Status check_tokens(CacheObject& cache, SequenceId sequence, std::uint64_t tokens) {
  KVANT_ASSIGN(const std::uint64_t length, cache.cache->sequence_length(sequence));
  if (tokens > length) return invalid("tokens (", tokens, ") is greater than the sequence's ", length, " tokens");
  return {};
}

struct ReadPlace {
  SequenceId sequence{};
  Side side{};
  const LayerSpec* layer = nullptr;
  std::uint32_t head_dim() const { return side == Side::k ? layer->head_dim_k : layer->head_dim_v; }
  FormatId format() const { return side == Side::k ? layer->format_k : layer->format_v; }
};

Result<ReadPlace> check_read(CacheObject& cache, kvant_sequence sequence, std::uint32_t layer, std::uint32_t side,
                             std::uint64_t begin, std::uint64_t count) {
  ReadPlace place;
  KVANT_TRY(check_sequences_kept(cache));
  KVANT_ASSIGN(place.sequence, cache.sequence(sequence, "sequence"));
  KVANT_TRY(check_layer(layer, cache.cache->spec()));
  KVANT_ASSIGN(place.side, check_side(side));
  KVANT_TRY(check_token_range(cache, place.sequence, begin, count));
  place.layer = &cache.cache->spec().layers[layer];
  return place;
}

}  // namespace

kvant_error* sequence_create(kvant_cache* cache, kvant_sequence* out_sequence) {
  return guard("sequence_create", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_pointer(out_sequence, "out_sequence", "a place for the sequence"));
    KVANT_TRY(check_sequences_kept(*object));
    KVANT_ASSIGN(const SequenceId id, object->cache->create_sequence());
    *out_sequence = static_cast<kvant_sequence>(id);
    return {};
  });
}

kvant_error* sequence_destroy(kvant_cache* cache, kvant_sequence sequence) {
  return guard("sequence_destroy", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_sequences_kept(*object));
    KVANT_ASSIGN(const SequenceId id, object->sequence(sequence, "sequence"));
    KVANT_TRY(check_not_in_step(*object, sequence, "sequence"));
    KVANT_TRY(object->cache->destroy_sequence(id));
    return {};
  });
}

kvant_error* sequence_fork(kvant_cache* cache, kvant_sequence parent, std::uint64_t tokens, kvant_sequence* out_child) {
  return guard("sequence_fork", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_pointer(out_child, "out_child", "a place for the sequence"));
    KVANT_TRY(check_sequences_kept(*object));
    KVANT_ASSIGN(const SequenceId id, object->sequence(parent, "parent"));
    KVANT_TRY(check_tokens(*object, id, tokens));
    KVANT_ASSIGN(const SequenceId child, object->cache->fork_sequence(id, tokens));
    *out_child = static_cast<kvant_sequence>(child);
    return {};
  });
}

kvant_error* sequence_truncate(kvant_cache* cache, kvant_sequence sequence, std::uint64_t tokens) {
  return guard("sequence_truncate", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_sequences_kept(*object));
    KVANT_ASSIGN(const SequenceId id, object->sequence(sequence, "sequence"));
    KVANT_TRY(check_not_in_step(*object, sequence, "sequence"));
    KVANT_TRY(check_tokens(*object, id, tokens));
    return object->cache->truncate_sequence(id, tokens);
  });
}

kvant_error* sequence_length(kvant_cache* cache, kvant_sequence sequence, std::uint64_t* out_tokens) {
  return guard("sequence_length", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_pointer(out_tokens, "out_tokens", "a place for the length"));
    KVANT_TRY(check_sequences_kept(*object));
    KVANT_ASSIGN(const SequenceId id, object->sequence(sequence, "sequence"));
    KVANT_ASSIGN(*out_tokens, object->cache->sequence_length(id));
    return {};
  });
}

kvant_error* sequence_read(kvant_cache* cache, kvant_sequence sequence, std::uint32_t layer, std::uint32_t side,
                           std::uint64_t begin, std::uint64_t count, const kvant_tensor* out) {
  return guard("sequence_read", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_ASSIGN(const ReadPlace place, check_read(*object, sequence, layer, side, begin, count));
    if (count == 0) return {};
    const TensorNeed need{"out", count, place.layer->kv_heads, place.head_dim(), true, false};
    KVANT_ASSIGN(const CheckedTensor tensor, check_tensor(out, need, *object->device));
    CallImports imports(object->device->executor());
    KVANT_ASSIGN(const TensorView view, make_view(tensor, object->device->executor(), imports.ids));
    return object->cache->read(place.sequence, layer, place.side, begin, count, view);
  });
}

kvant_error* sequence_export(kvant_cache* cache, kvant_sequence sequence, std::uint32_t layer, std::uint32_t side,
                             std::uint64_t begin, std::uint64_t count, void* out, std::uint64_t out_size) {
  return guard("sequence_export", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_ASSIGN(const ReadPlace place, check_read(*object, sequence, layer, side, begin, count));
    const std::uint64_t row = canonical_row_bytes(kvant::format_info(place.format()), place.head_dim());
    std::uint64_t expected = 0;
    if (!multiply(count, place.layer->kv_heads, row, expected)) return invalid("count (", count, ") exceeds 64-bit sizes");
    if (out_size != expected)
      return invalid("out_size (", out_size, ") is not the ", expected, " bytes of ", count, " tokens of ",
                     place.layer->kv_heads, " rows of ", row, " bytes");
    if (count == 0) return {};
    KVANT_TRY(check_pointer(out, "out", text(expected, " bytes")));
    return object->cache->read_canonical(place.sequence, layer, place.side, begin, count,
                                         {static_cast<std::byte*>(out), expected});
  });
}

}  // namespace kvant::abi
