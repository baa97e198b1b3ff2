// The store functions of the manager extension: whole tensors by (prefix, layer), a batch of prefixes a call.
#include "boundary.hpp"
#include "checks.hpp"
#include "manager_api.hpp"
#include "objects.hpp"
#include "prefix_args.hpp"
#include "tensors.hpp"

namespace kvant::abi {
namespace {

constexpr std::uint32_t kMaxBatch = 65536;

Status check_store(const CacheObject& cache) {
  if (cache.store == nullptr) return precondition("the cache has no store; call store_open first");
  if (cache.step_open) return precondition("a step of the cache is open; commit or abort it before the store is used");
  return {};
}

struct StoreInput {
  kvant_store_args values{};
  std::string_view salt;
  std::uint32_t batch = 1;
  std::span<const std::int32_t> tokens(std::uint32_t row) const {
    return {values.tokens + row * values.token_count, values.token_count};
  }
};

Status read_store_args(const kvant_store_args* args, const CacheObject& cache, bool tensors, StoreInput& input) {
  KVANT_TRY(read_args(args, "args", input.values));
  const kvant_store_args& values = input.values;
  input.batch = values.batch != 0 ? values.batch : 1;
  if (input.batch > kMaxBatch) return invalid("args.batch (", values.batch, ") is greater than ", kMaxBatch);
  if (values.token_count == 0 || values.token_count > kMaxTokens)
    return invalid("args.token_count (", values.token_count, ") is not between 1 and ", kMaxTokens);
  KVANT_TRY(check_pointer(values.tokens, "args.tokens", text(input.batch, " rows of ", values.token_count, " token ids")));
  KVANT_ASSIGN(input.salt, read_salt(values.salt, values.salt_size));
  KVANT_TRY(check_layer(values.layer, cache.cache->spec()));
  if (!tensors && (values.k != nullptr || values.v != nullptr))
    return invalid("args.", values.k != nullptr ? "k" : "v", " is given to a call that takes no tensor");
  return {};
}

// Row `row` of the batch.
Result<CheckedTensor> check_row(const kvant_tensor* tensor, std::uint64_t batch_stride, std::uint32_t row, const TensorNeed& need,
                                const DeviceObject& device) {
  kvant_tensor values{};
  KVANT_TRY(read_struct(tensor, need.name, values));
  if (row == 0) return check_tensor(tensor, need, device);
  const std::uint64_t stride = batch_stride != 0 ? batch_stride : need.tokens * need.heads * need.dim;
  const std::uint64_t element = values.type == KVANT_TYPE_F32 ? 4 : 2;
  std::uint64_t bytes = 0;
  if (!multiply(stride, row, element, bytes) || bytes > values.size)
    return invalid(need.name, ": row ", row, " of the batch begins beyond its ", values.size, " bytes");
  if (values.data != nullptr) {
    values.data = static_cast<char*>(values.data) + bytes;
  } else if (__builtin_add_overflow(values.offset, bytes, &values.offset)) {
    return invalid(need.name, ".offset: row ", row, " of the batch begins beyond 64-bit addresses");
  }
  values.size -= bytes;
  values.struct_size = sizeof values;
  return check_tensor(&values, need, device);
}

struct RowTensors {
  CheckedTensor k, v;
};

Result<std::vector<RowTensors>> check_rows(const StoreInput& input, const CacheObject& cache, bool output) {
  const LayerSpec& layer = cache.cache->spec().layers[input.values.layer];
  std::vector<RowTensors> rows(input.batch);
  for (std::uint32_t row = 0; row < input.batch; ++row) {
    const kvant_store_args& values = input.values;
    if (values.k != nullptr || !output) {
      KVANT_ASSIGN(rows[row].k, check_row(values.k, values.k_batch_stride, row,
                                          {"args.k", values.token_count, layer.kv_heads, layer.head_dim_k, output}, *cache.device));
    }
    if (values.v != nullptr || !output) {
      KVANT_ASSIGN(rows[row].v, check_row(values.v, values.v_batch_stride, row,
                                          {"args.v", values.token_count, layer.kv_heads, layer.head_dim_v, output}, *cache.device));
    }
    if (!output && rows[row].k.type != rows[row].v.type) return invalid("args.v.type is not args.k.type");
  }
  if (output) {
    std::vector<const CheckedTensor*> all;
    for (const RowTensors& row : rows)
      for (const CheckedTensor* tensor : {&row.k, &row.v})
        if (tensor->present()) all.push_back(tensor);
    KVANT_TRY(check_no_overlap(all));
  }
  return rows;
}

}  // namespace

kvant_error* store_open(kvant_cache* cache, const kvant_store_options* options) {
  return guard("store_open", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    kvant_store_options values{};
    KVANT_TRY(read_args(options, "options", values));
    if (values.reserved != 0) return invalid("options.reserved (", values.reserved, ") is not 0");
    if (!object->cache->spec().prefix_cache)
      return precondition("the cache was created without KVANT_CACHE_PREFIXES; a store needs its prefix cache");
    if (object->store != nullptr) return precondition("the cache has a store already");
    if (object->cold_of_store) return precondition("the cache is the cold cache of another store");
    StoreSpec spec;
    spec.hot = object->cache.get();
    std::shared_ptr<CacheObject> cold;
    if (values.cold_cache != nullptr) {
      KVANT_ASSIGN(cold, find<CacheObject>(values.cold_cache, "options.cold_cache"));
      if (cold->device != object->device) return invalid("options.cold_cache is of another device");
      if (!cold->cache->spec().prefix_cache)
        return precondition("options.cold_cache was created without KVANT_CACHE_PREFIXES");
      if (cold->store != nullptr) return precondition("options.cold_cache has a store of its own");
      if (cold->cold_of_store) return precondition("options.cold_cache is the cold cache of another store");
      spec.cold = cold->cache.get();
    }
    if (values.policy != nullptr) {
      KVANT_ASSIGN(spec.policy, read_policy(values.policy, "options.policy"));
    }
    if (values.promote_uses != 0) spec.promote_uses = values.promote_uses;
    KVANT_ASSIGN(object->store, TensorStore::create(object->device->executor(), spec));
    object->cold = std::move(cold);
    if (object->cold != nullptr) object->cold->cold_of_store = true;
    return {};
  });
}

kvant_error* store_put(kvant_cache* cache, const kvant_store_args* args) {
  return guard("store_put", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_store(*object));
    StoreInput input;
    KVANT_TRY(read_store_args(args, *object, true, input));
    KVANT_ASSIGN(const std::vector<RowTensors> rows, check_rows(input, *object, false));
    CallImports imports(object->device->executor());
    std::vector<StorePut> puts(input.batch);
    for (std::uint32_t row = 0; row < input.batch; ++row) {
      puts[row].tokens = input.tokens(row);
      KVANT_ASSIGN(puts[row].k, make_view(rows[row].k, object->device->executor(), imports.ids));
      KVANT_ASSIGN(puts[row].v, make_view(rows[row].v, object->device->executor(), imports.ids));
    }
    return object->store->put(puts, input.salt, input.values.layer);
  });
}

kvant_error* store_get(kvant_cache* cache, const kvant_store_args* args, std::uint32_t* out_found) {
  return guard("store_get", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_store(*object));
    KVANT_TRY(check_pointer(out_found, "out_found", "a number for each row of the batch"));
    StoreInput input;
    KVANT_TRY(read_store_args(args, *object, true, input));
    KVANT_ASSIGN(const std::vector<RowTensors> rows, check_rows(input, *object, true));
    CallImports imports(object->device->executor());
    for (std::uint32_t row = 0; row < input.batch; ++row) {
      TensorView k, v;
      if (rows[row].k.present()) {
        KVANT_ASSIGN(k, make_view(rows[row].k, object->device->executor(), imports.ids));
      }
      if (rows[row].v.present()) {
        KVANT_ASSIGN(v, make_view(rows[row].v, object->device->executor(), imports.ids));
      }
      KVANT_ASSIGN(const bool found, object->store->get(input.tokens(row), input.salt, input.values.layer, k, v));
      out_found[row] = found ? 1 : 0;
    }
    return {};
  });
}

kvant_error* store_find(kvant_cache* cache, const kvant_store_args* args, std::uint32_t* out_layers) {
  return guard("store_find", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_store(*object));
    KVANT_TRY(check_pointer(out_layers, "out_layers", "a number for each row of the batch"));
    StoreInput input;
    KVANT_TRY(read_store_args(args, *object, false, input));
    for (std::uint32_t row = 0; row < input.batch; ++row)
      out_layers[row] = object->store->layers_held(input.tokens(row), input.salt);
    return {};
  });
}

kvant_error* store_erase(kvant_cache* cache, const kvant_store_args* args) {
  return guard("store_erase", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_store(*object));
    StoreInput input;
    KVANT_TRY(read_store_args(args, *object, false, input));
    std::vector<std::span<const std::int32_t>> rows;
    for (std::uint32_t row = 0; row < input.batch; ++row) rows.push_back(input.tokens(row));
    object->store->erase(rows, input.salt);
    return {};
  });
}

kvant_error* store_clear(kvant_cache* cache) {
  return guard("store_clear", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_store(*object));
    object->store->clear();
    return {};
  });
}

kvant_error* store_stats(kvant_cache* cache, kvant_store_stats* stats) {
  return guard("store_stats", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_output(stats, "stats"));
    if (object->store == nullptr) return precondition("the cache has no store; call store_open first");
    const StoreCounters counters = object->store->counters();
    kvant_store_stats values{};
    values.puts = counters.puts;
    values.lookups = counters.lookups;
    values.hits = counters.hits;
    values.prefixes = counters.prefixes;
    values.cold_prefixes = counters.cold_prefixes;
    values.evicted = counters.evicted;
    values.demoted = counters.demoted;
    values.promoted = counters.promoted;
    write_struct(stats, values);
    return {};
  });
}

}  // namespace kvant::abi
