// sequence_write, sequence_keep, sequence_identify, sequence_shift and clear_all of the manager extension.
#include <cmath>

#include "boundary.hpp"
#include "checks.hpp"
#include "manager_api.hpp"
#include "objects.hpp"
#include "tensors.hpp"

namespace kvant::abi {

kvant_error* sequence_write(kvant_cache* cache, kvant_sequence sequence, std::uint32_t layer, std::uint64_t begin,
                            std::uint64_t count, const kvant_tensor* k, const kvant_tensor* v) {
  return guard("sequence_write", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_sequences_kept(*object));
    KVANT_ASSIGN(const SequenceId id, object->sequence(sequence, "sequence"));
    KVANT_TRY(check_layer(layer, object->cache->spec()));
    KVANT_ASSIGN(const std::uint64_t length, object->cache->sequence_length(id));
    if (begin > length) return invalid("begin (", begin, ") is greater than the sequence's ", length, " tokens");
    if (count > kMaxTokens || begin + count > kMaxTokens)
      return invalid("count (", count, ") takes the sequence beyond ", kMaxTokens, " tokens");
    if (object->step_open) return precondition("a step of the cache is open; commit or abort it before sequence_write");
    if (count == 0) return {};
    const LayerSpec& facts = object->cache->spec().layers[layer];
    KVANT_ASSIGN(const CheckedTensor k_tensor, check_tensor(k, {"k", count, facts.kv_heads, facts.head_dim_k}, *object->device));
    KVANT_ASSIGN(const CheckedTensor v_tensor, check_tensor(v, {"v", count, facts.kv_heads, facts.head_dim_v}, *object->device));
    if (k_tensor.type != v_tensor.type)
      return invalid("v.type (", static_cast<std::uint32_t>(v_tensor.type), ") is not k.type (",
                     static_cast<std::uint32_t>(k_tensor.type), ")");
    CallImports imports(object->device->executor());
    KVANT_ASSIGN(const TensorView k_view, make_view(k_tensor, object->device->executor(), imports.ids));
    KVANT_ASSIGN(const TensorView v_view, make_view(v_tensor, object->device->executor(), imports.ids));
    return object->cache->write(id, layer, begin, count, k_view, v_view);
  });
}

kvant_error* sequence_keep(kvant_cache* cache, kvant_sequence sequence, std::uint64_t count, const std::uint64_t* places) {
  return guard("sequence_keep", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_sequences_kept(*object));
    KVANT_ASSIGN(const SequenceId id, object->sequence(sequence, "sequence"));
    KVANT_ASSIGN(const std::uint64_t length, object->cache->sequence_length(id));
    if (count > length) return invalid("count (", count, ") is greater than the sequence's ", length, " tokens");
    if (count != 0) KVANT_TRY(check_pointer(places, "places", text(count, " places of tokens")));
    if (object->step_open) return precondition("a step of the cache is open; commit or abort it before sequence_keep");
    for (std::uint64_t i = 0; i < count; ++i) {
      if (places[i] >= length) return invalid("places[", i, "] (", places[i], ") is not less than the sequence's ", length, " tokens");
      if (i != 0 && places[i] <= places[i - 1])
        return invalid("places[", i, "] (", places[i], ") is not greater than the one before, ", places[i - 1]);
    }
    return object->cache->keep_tokens(id, {places, count});
  });
}

kvant_error* sequence_identify(kvant_cache* cache, kvant_sequence sequence, std::uint64_t count, const std::int32_t* tokens) {
  return guard("sequence_identify", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_sequences_kept(*object));
    KVANT_ASSIGN(const SequenceId id, object->sequence(sequence, "sequence"));
    KVANT_ASSIGN(const std::uint64_t length, object->cache->sequence_length(id));
    if (count > length) return invalid("count (", count, ") is greater than the sequence's ", length, " tokens");
    if (count != 0) KVANT_TRY(check_pointer(tokens, "tokens", text(count, " token ids")));
    if (object->step_open) return precondition("a step of the cache is open; commit or abort it before sequence_identify");
    return object->cache->identify(id, {tokens, count});
  });
}

kvant_error* sequence_shift(kvant_cache* cache, kvant_sequence sequence, std::uint64_t begin, std::uint64_t count,
                            const kvant_rotation* rotation, std::int64_t positions) {
  return guard("sequence_shift", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_sequences_kept(*object));
    KVANT_ASSIGN(const SequenceId id, object->sequence(sequence, "sequence"));
    KVANT_TRY(check_token_range(*object, id, begin, count));
    kvant_rotation values{};
    KVANT_TRY(read_args(rotation, "rotation", values));
    if ((values.flags & ~KVANT_ROTATION_HALVES) != 0)
      return invalid("rotation.flags (", hex(values.flags), ") have bits beyond ", hex(KVANT_ROTATION_HALVES));
    if (values.pair_count == 0) return invalid("rotation.pair_count (0) is not at least 1");
    for (const LayerSpec& layer : object->cache->spec().layers)
      if (values.pair_count > layer.head_dim_k / 2)
        return invalid("rotation.pair_count (", values.pair_count, ") is greater than half of a layer's head_dim_k, ", layer.head_dim_k);
    KVANT_TRY(check_pointer(values.frequencies, "rotation.frequencies", text(values.pair_count, " numbers")));
    Rotation turn;
    turn.halves = (values.flags & KVANT_ROTATION_HALVES) != 0;
    for (std::uint32_t i = 0; i < values.pair_count; ++i) {
      if (!std::isfinite(values.frequencies[i]))
        return invalid("rotation.frequencies[", i, "] (", values.frequencies[i], ") is not a finite number");
      turn.frequencies.push_back(values.frequencies[i]);
    }
    if (object->step_open) return precondition("a step of the cache is open; commit or abort it before sequence_shift");
    return object->cache->shift_keys(id, begin, count, turn, positions);
  });
}

kvant_error* clear_all(kvant_cache* cache, std::uint64_t* out_sequences) {
  return guard("clear_all", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_sequences_kept(*object));
    KVANT_TRY(check_pointer(out_sequences, "out_sequences", "a place for the number of sequences"));
    if (object->step_open) return precondition("a step of the cache is open; commit or abort it before clear_all");
    std::uint64_t destroyed = 0;
    if (object->store != nullptr) object->store->clear();
    const std::vector<SequenceId> all = object->cache->sequences();
    for (const SequenceId id : all) {
      KVANT_TRY(object->cache->destroy_sequence(id));
      ++destroyed;
    }
    if (object->cache->spec().prefix_cache) {
      KVANT_ASSIGN([[maybe_unused]] const std::uint64_t pages, object->cache->clear_prefixes());
    }
    *out_sequences = destroyed;
    return {};
  });
}

}  // namespace kvant::abi
