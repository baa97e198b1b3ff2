// Sized structs: every prefix that an older host could pass, larger structs with garbage behind, sizes that cannot be; the
// fields beyond an output's struct_size stay untouched; next chains.
#include <algorithm>
#include <cstddef>
#include <functional>

#include <kvant/kvant_ext_vulkan.h>

#include "library.hpp"

using namespace abi_test;

namespace {

constexpr std::size_t kHeader = 16;
constexpr unsigned char kGarbage = 0xA5;

// A struct inside a larger block of garbage, as a host of a later version would pass it.
template <typename T>
struct Padded {
  alignas(16) unsigned char bytes[sizeof(T) + 64];

  Padded(const T& value, std::size_t struct_size) {
    std::memset(bytes, kGarbage, sizeof bytes);
    std::memcpy(bytes, &value, sizeof(T));
    std::memcpy(bytes, &struct_size, sizeof struct_size);
  }
  T* get() { return reinterpret_cast<T*>(bytes); }
  bool untouched_from(std::size_t offset) const {
    for (std::size_t i = offset; i < sizeof bytes; ++i)
      if (bytes[i] != kGarbage) return false;
    return true;
  }
};

// Bytes beyond `size` become garbage: what the library would read if it ignored struct_size.
template <typename T>
Padded<T> prefix_of(const T& value, std::size_t size) {
  Padded<T> padded(value, size);
  std::memset(padded.bytes + size, kGarbage, sizeof padded.bytes - size);
  return padded;
}

// `call` with every size that must be refused, for a struct that is otherwise good.
template <typename T>
void refuse_small(const T& value, const char* source, const std::function<kvant_error*(T*)>& call) {
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{8}, std::size_t{15}}) {
    Padded<T> padded(value, size);
    check_error(call(padded.get()), KVANT_ERROR_INVALID_ARGUMENT, source, "struct_size (" + std::to_string(size) + ")");
  }
  // Misplaced sizes are not the library's business, but they must not crash it.
}

// An output struct at every prefix: the call works, and nothing behind struct_size changes.
template <typename T>
void fill_prefixes(const char* source, const std::function<kvant_error*(T*)>& call) {
  refuse_small<T>(make<T>(), source, call);
  for (std::size_t size = kHeader; size <= sizeof(T) + 32; size += 4) {
    CAPTURE(source);
    CAPTURE(size);
    Padded<T> padded = prefix_of(make<T>(), size);
    const std::size_t given = size;
    check_ok(call(padded.get()));
    CHECK(padded.untouched_from(std::max(size, kHeader)));
    std::size_t kept = 0;
    std::memcpy(&kept, padded.bytes, sizeof kept);
    CHECK(kept == given);
    if (size >= sizeof(T)) CHECK(padded.untouched_from(sizeof(T)));
  }
  // An unknown extension in an output's chain is refused as well.
  kvant_next unknown{sizeof unknown, nullptr, 0x7777, 0};
  T value = make<T>();
  value.next = &unknown;
  check_error(call(&value), KVANT_ERROR_UNIMPLEMENTED, source, "0x7777");
  unknown.flags = KVANT_NEXT_OPTIONAL;
  check_ok(call(&value));
}

template <typename T>
void accept_larger(const T& value, const std::function<kvant_error*(T*)>& call) {
  for (const std::size_t more : {std::size_t{8}, std::size_t{64}}) {
    Padded<T> padded(value, sizeof(T) + more);
    check_ok(call(padded.get()));
  }
}

template <typename T>
void refuse_chains(const T& good, const char* source, const std::function<kvant_error*(T*)>& call) {
  kvant_next node{sizeof node, nullptr, 0x1234, 0};
  T value = good;
  value.next = &node;
  check_error(call(&value), KVANT_ERROR_UNIMPLEMENTED, source, "0x1234");
  node.struct_size = 8;
  check_error(call(&value), KVANT_ERROR_INVALID_ARGUMENT, source, "struct_size (8)");
  node.struct_size = 0;
  check_error(call(&value), KVANT_ERROR_INVALID_ARGUMENT, source, "struct_size (0)");
  node = {sizeof node, nullptr, 0x1234, KVANT_NEXT_OPTIONAL | 0x80};
  check_error(call(&value), KVANT_ERROR_INVALID_ARGUMENT, source, "0x81");
  node = {sizeof node, &node, 0x1234, KVANT_NEXT_OPTIONAL};
  check_error(call(&value), KVANT_ERROR_INVALID_ARGUMENT, source, "chain");
}

}  // namespace

TEST_CASE("structs: outputs without a device") {
  Session session({.open_device = false});
  fill_prefixes<kvant_build_info>("get_build_info", [](kvant_build_info* info) { return api().get_build_info(info); });
  fill_prefixes<kvant_format_info>("format_info",
                                   [&](kvant_format_info* info) { return api().format_info(session.context, 0, info); });
  std::uint32_t count = 0;
  require_ok(api().device_count(session.context, &count));
  if (count != 0)
    fill_prefixes<kvant_device_info>("device_info",
                                     [&](kvant_device_info* info) { return api().device_info(session.context, 0, info); });
}

TEST_CASE("structs: context arguments") {
  auto args = make<kvant_context_args>();
  args.log_level = KVANT_LOG_ERROR;
  const std::function<kvant_error*(kvant_context_args*)> call = [](kvant_context_args* a) {
    kvant_context* context = nullptr;
    kvant_error* error = api().context_create(a, &context);
    CHECK((error == nullptr) == (context != nullptr));
    api().context_destroy(context);
    return error;
  };
  refuse_small<kvant_context_args>(args, "context_create", call);
  refuse_chains<kvant_context_args>(args, "context_create", call);
  accept_larger<kvant_context_args>(args, call);
  for (std::size_t size = kHeader; size <= sizeof args; size += 4) {
    auto padded = prefix_of(args, size);
    check_ok(call(padded.get()));  // garbage behind would be a log function and a level out of range
  }
}

TEST_CASE("structs: device arguments") {
  Session session({.open_device = false});
  if (std::uint32_t count = 0; take(api().device_count(session.context, &count)).code != 0 || count == 0) {
    session.has_device();
    return;
  }
  const auto args = make<kvant_device_args>();
  const std::function<kvant_error*(kvant_device_args*)> call = [&](kvant_device_args* a) {
    kvant_device* device = nullptr;
    kvant_error* error = api().device_open(session.context, a, &device);
    CHECK((error == nullptr) == (device != nullptr));
    api().device_close(device);
    return error;
  };
  refuse_small<kvant_device_args>(args, "device_open", call);
  refuse_chains<kvant_device_args>(args, "device_open", call);
  accept_larger<kvant_device_args>(args, call);
  for (std::size_t size = kHeader; size <= sizeof args; size += 4) {
    auto padded = prefix_of(args, size);
    check_ok(call(padded.get()));
  }
}

TEST_CASE("structs: caches, steps and tensors") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  fill_prefixes<kvant_device_info>("device_describe",
                                   [&](kvant_device_info* info) { return api().device_describe(session.device, info); });

  auto layer = make<kvant_layer_args>();
  layer.kv_heads = 1;
  layer.head_dim_k = 32;
  layer.head_dim_v = 64;
  auto cache_args = make<kvant_cache_args>();
  cache_args.layer_count = 1;
  cache_args.layers = &layer;
  cache_args.capacity_tokens = 64;
  const std::function<kvant_error*(kvant_cache_args*)> create = [&](kvant_cache_args* a) {
    kvant_cache* cache = nullptr;
    kvant_error* error = api().cache_create(session.device, a, &cache);
    CHECK((error == nullptr) == (cache != nullptr));
    api().cache_destroy(cache);
    return error;
  };
  SUBCASE("cache arguments") {
    refuse_small<kvant_cache_args>(cache_args, "cache_create", create);
    refuse_chains<kvant_cache_args>(cache_args, "cache_create", create);
    accept_larger<kvant_cache_args>(cache_args, create);
    // A host whose struct ended before page_tokens and flags gets their defaults.
    auto old = prefix_of(cache_args, offsetof(kvant_cache_args, page_tokens));
    check_ok(create(old.get()));
    // One that ended before capacity_tokens lacks a required field.
    auto older = prefix_of(cache_args, offsetof(kvant_cache_args, capacity_tokens));
    check_error(create(older.get()), KVANT_ERROR_INVALID_ARGUMENT, "cache_create", "capacity_tokens (0)");
  }
  SUBCASE("layer arguments") {
    const std::function<kvant_error*(kvant_layer_args*)> with_layer = [&](kvant_layer_args* a) {
      cache_args.layers = a;
      return create(&cache_args);
    };
    refuse_small<kvant_layer_args>(layer, "cache_create", with_layer);
    refuse_chains<kvant_layer_args>(layer, "cache_create", with_layer);
    accept_larger<kvant_layer_args>(layer, with_layer);
    auto old = prefix_of(layer, offsetof(kvant_layer_args, head_dim_v));  // V as K, formats 0, no window
    check_ok(with_layer(old.get()));
  }
  SUBCASE("an array of older, shorter structs is read by their own size") {
    struct OldLayer {
      std::size_t struct_size;
      const kvant_next* next;
      std::uint32_t kv_heads, head_dim_k;
    };
    const OldLayer layers[2] = {{sizeof(OldLayer), nullptr, 1, 32}, {sizeof(OldLayer), nullptr, 2, 64}};
    cache_args.layer_count = 2;
    cache_args.layers = reinterpret_cast<const kvant_layer_args*>(layers);
    check_ok(create(&cache_args));
    cache_args.layer_stride = sizeof(OldLayer);
    check_ok(create(&cache_args));
    cache_args.layer_stride = 16;
    check_error(create(&cache_args), KVANT_ERROR_INVALID_ARGUMENT, "cache_create", "layer_stride (16)");
    cache_args.layer_stride = sizeof(OldLayer) + 4;
    check_error(create(&cache_args), KVANT_ERROR_INVALID_ARGUMENT, "cache_create", "layer_stride (28)");
  }
  SUBCASE("stats, entries, runs and tensors") {
    kvant_cache* cache = make_cache(session, {.kv_heads = 1, .head_dim_k = 32, .head_dim_v = 32});
    fill_prefixes<kvant_cache_stats>("cache_stats", [&](kvant_cache_stats* stats) { return api().cache_stats(cache, stats); });
    auto entry = make<kvant_step_entry>();
    require_ok(api().sequence_create(cache, &entry.sequence));
    entry.append = 2;
    auto step_args = make<kvant_step_args>();
    step_args.entry_count = 1;
    step_args.entries = &entry;
    const std::function<kvant_error*(kvant_step_args*)> plan = [&](kvant_step_args* a) {
      kvant_step* step = nullptr;
      kvant_error* error = api().step_plan(cache, a, &step);
      CHECK((error == nullptr) == (step != nullptr));
      api().step_abort(step);
      return error;
    };
    refuse_small<kvant_step_args>(step_args, "step_plan", plan);
    refuse_chains<kvant_step_args>(step_args, "step_plan", plan);
    accept_larger<kvant_step_args>(step_args, plan);
    const std::function<kvant_error*(kvant_step_entry*)> with_entry = [&](kvant_step_entry* e) {
      step_args.entries = e;
      return plan(&step_args);
    };
    refuse_small<kvant_step_entry>(entry, "step_plan", with_entry);
    refuse_chains<kvant_step_entry>(entry, "step_plan", with_entry);
    accept_larger<kvant_step_entry>(entry, with_entry);
    auto old_entry = prefix_of(entry, offsetof(kvant_step_entry, queries));
    check_ok(with_entry(old_entry.get()));
    step_args.entries = &entry;

    kvant_step* step = nullptr;
    require_ok(api().step_plan(cache, &step_args, &step));
    StepData data;
    data.k = random_floats(64, 1);
    data.v = random_floats(64, 2);
    std::vector<kvant_tensor> tensors;
    kvant_run_args run = run_args_of(data, tensors);
    const std::function<kvant_error*(kvant_run_args*)> run_call = [&](kvant_run_args* a) { return api().step_run(step, 0, a); };
    refuse_small<kvant_run_args>(run, "step_run", run_call);
    refuse_chains<kvant_run_args>(run, "step_run", run_call);
    accept_larger<kvant_run_args>(run, run_call);
    auto old_run = prefix_of(run, offsetof(kvant_run_args, q));
    check_ok(run_call(old_run.get()));
    const std::function<kvant_error*(kvant_tensor*)> with_k = [&](kvant_tensor* t) {
      run.k = t;
      return api().step_run(step, 0, &run);
    };
    const kvant_tensor k = tensors[0];
    refuse_small<kvant_tensor>(k, "step_run", with_k);
    refuse_chains<kvant_tensor>(k, "step_run", with_k);
    accept_larger<kvant_tensor>(k, with_k);
    auto old_tensor = prefix_of(k, offsetof(kvant_tensor, buffer));
    check_ok(with_k(old_tensor.get()));
    api().step_abort(step);
    api().cache_destroy(cache);
  }
  SUBCASE("paged arguments") {
    kvant_cache* cache = make_cache(session, {.kv_heads = 1, .head_dim_k = 32, .head_dim_v = 32, .external = true});
    const std::int64_t slots[2] = {5, -1};
    auto args = make<kvant_paged_args>();
    args.token_count = 2;
    args.slot_mapping = slots;
    const std::function<kvant_error*(kvant_paged_args*)> plan = [&](kvant_paged_args* a) {
      kvant_step* step = nullptr;
      kvant_error* error = api().paged_plan(cache, a, &step);
      CHECK((error == nullptr) == (step != nullptr));
      api().step_abort(step);
      return error;
    };
    refuse_small<kvant_paged_args>(args, "paged_plan", plan);
    refuse_chains<kvant_paged_args>(args, "paged_plan", plan);
    accept_larger<kvant_paged_args>(args, plan);
    auto old = prefix_of(args, offsetof(kvant_paged_args, qo_indptr));
    check_ok(plan(old.get()));
    api().cache_destroy(cache);
  }
}
