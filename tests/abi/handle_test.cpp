// Handles: NULL, destroyed, of another type, of another copy of the library, plain garbage; parents that outlive children.
#include <functional>

#include <kvant/kvant_ext_vulkan.h>

#include "library.hpp"

using namespace abi_test;

namespace {

enum class Kind { context, device, cache, step };

struct Call {
  const char* source;
  Kind kind;
  std::function<kvant_error*(void*)> invoke;  // with otherwise good arguments
};

// Places that the calls may write to; filled with a mark that must survive.
struct Places {
  std::uint32_t u32 = 0xDEADBEEF;
  std::uint64_t u64 = 0xDEADBEEFDEADBEEF;
  double f64 = -1.25;
  void* pointer = this;
  kvant_format_info format = make<kvant_format_info>();
  kvant_device_info info = make<kvant_device_info>();
  kvant_profile_entry profile = make<kvant_profile_entry>();
  kvant_cache_stats stats = make<kvant_cache_stats>();
  std::vector<float> floats = std::vector<float>(64, 7.0F);
  bool untouched() const {
    return u32 == 0xDEADBEEF && u64 == 0xDEADBEEFDEADBEEF && f64 == -1.25 && pointer == this && format.name == nullptr &&
           info.name == nullptr && profile.label == nullptr && stats.total_pages == 0 &&
           floats == std::vector<float>(64, 7.0F);
  }
};

std::vector<Call> all_calls(Places& p) {
  const kvant_api& a = api();
  const auto ctx = [](void* h) { return static_cast<kvant_context*>(h); };
  const auto dev = [](void* h) { return static_cast<kvant_device*>(h); };
  const auto cac = [](void* h) { return static_cast<kvant_cache*>(h); };
  static auto layer = make<kvant_layer_args>();
  layer.kv_heads = 1;
  layer.head_dim_k = 32;
  static auto cache_args = make<kvant_cache_args>();
  cache_args.layer_count = 1;
  cache_args.layers = &layer;
  cache_args.capacity_tokens = 32;
  static auto entry = make<kvant_step_entry>();
  entry.append = 1;
  static auto step_args = make<kvant_step_args>();
  step_args.entry_count = 1;
  step_args.entries = &entry;
  static auto run_args = make<kvant_run_args>();
  static const std::int64_t slot = 0;
  static const std::int32_t pages[2] = {0, 1};
  static auto paged_args = make<kvant_paged_args>();
  paged_args.token_count = 1;
  paged_args.slot_mapping = &slot;
  static kvant_tensor out;
  out = tensor_of(p.floats);
  return {
      {"format_count", Kind::context, [=, &p](void* h) { return a.format_count(ctx(h), &p.u32); }},
      {"format_info", Kind::context, [=, &p](void* h) { return a.format_info(ctx(h), 0, &p.format); }},
      {"format_find", Kind::context, [=, &p](void* h) { return a.format_find(ctx(h), "f16", &p.u32); }},
      {"device_count", Kind::context, [=, &p](void* h) { return a.device_count(ctx(h), &p.u32); }},
      {"device_info", Kind::context, [=, &p](void* h) { return a.device_info(ctx(h), 0, &p.info); }},
      {"device_open", Kind::context,
       [=, &p](void* h) { return a.device_open(ctx(h), nullptr, reinterpret_cast<kvant_device**>(&p.pointer)); }},
      {"row_bytes", Kind::context, [=, &p](void* h) { return a.row_bytes(ctx(h), 0, 64, &p.u64); }},
      {"device_describe", Kind::device, [=, &p](void* h) { return a.device_describe(dev(h), &p.info); }},
      {"device_profile", Kind::device, [=, &p](void* h) { return a.device_profile(dev(h), &p.u32); }},
      {"device_profile_entry", Kind::device, [=, &p](void* h) { return a.device_profile_entry(dev(h), 0, &p.profile); }},
      {"device_measure_copy", Kind::device, [=, &p](void* h) { return a.device_measure_copy(dev(h), 4096, &p.f64); }},
      {"quantize", Kind::device,
       [=, &p](void* h) {
         static const float input[32] = {};
         return a.quantize(dev(h), 0, 32, 1, input, 128, p.floats.data(), 128);
       }},
      {"dequantize", Kind::device,
       [=, &p](void* h) {
         static const float input[32] = {};
         return a.dequantize(dev(h), 0, 32, 1, input, 128, p.floats.data(), 128);
       }},
      {"cache_create", Kind::device,
       [=, &p](void* h) { return a.cache_create(dev(h), &cache_args, reinterpret_cast<kvant_cache**>(&p.pointer)); }},
      {"cache_stats", Kind::cache, [=, &p](void* h) { return a.cache_stats(cac(h), &p.stats); }},
      {"cache_convert", Kind::cache, [=](void* h) { return a.cache_convert(cac(h), 0, KVANT_SIDE_K, 0); }},
      {"sequence_create", Kind::cache, [=, &p](void* h) { return a.sequence_create(cac(h), &p.u64); }},
      {"sequence_destroy", Kind::cache, [=](void* h) { return a.sequence_destroy(cac(h), 1); }},
      {"sequence_fork", Kind::cache, [=, &p](void* h) { return a.sequence_fork(cac(h), 1, 0, &p.u64); }},
      {"sequence_truncate", Kind::cache, [=](void* h) { return a.sequence_truncate(cac(h), 1, 0); }},
      {"sequence_length", Kind::cache, [=, &p](void* h) { return a.sequence_length(cac(h), 1, &p.u64); }},
      {"sequence_read", Kind::cache, [=](void* h) { return a.sequence_read(cac(h), 1, 0, 0, 0, 1, &out); }},
      {"sequence_export", Kind::cache,
       [=, &p](void* h) { return a.sequence_export(cac(h), 1, 0, 0, 0, 1, p.floats.data(), 128); }},
      {"step_plan", Kind::cache,
       [=, &p](void* h) { return a.step_plan(cac(h), &step_args, reinterpret_cast<kvant_step**>(&p.pointer)); }},
      {"paged_plan", Kind::cache,
       [=, &p](void* h) { return a.paged_plan(cac(h), &paged_args, reinterpret_cast<kvant_step**>(&p.pointer)); }},
      {"paged_read", Kind::cache, [=](void* h) { return a.paged_read(cac(h), 0, 0, 1, &slot, &out); }},
      {"cache_means", Kind::cache, [=, &p](void* h) { return a.cache_means(cac(h), 0, 0, p.floats.data(), p.floats.size()); }},
      {"paged_copy", Kind::cache, [=](void* h) { return a.paged_copy(cac(h), 1, &pages[0], &pages[1]); }},
      {"step_run", Kind::step, [=](void* h) { return a.step_run(static_cast<kvant_step*>(h), 0, &run_args); }},
      {"step_commit", Kind::step, [=](void* h) { return a.step_commit(static_cast<kvant_step*>(h)); }},
  };
}

const char* kind_name(Kind kind) {
  constexpr const char* kNames[] = {"kvant_context", "kvant_device", "kvant_cache", "kvant_step"};
  return kNames[static_cast<int>(kind)];
}

void destroy_everything(void* handle) {
  api().step_abort(static_cast<kvant_step*>(handle));
  api().cache_destroy(static_cast<kvant_cache*>(handle));
  api().device_close(static_cast<kvant_device*>(handle));
  api().context_destroy(static_cast<kvant_context*>(handle));
}

kvant_step* open_step(kvant_cache* cache, kvant_sequence sequence) {
  auto entry = make<kvant_step_entry>();
  entry.sequence = sequence;
  entry.append = 1;
  auto args = make<kvant_step_args>();
  args.entry_count = 1;
  args.entries = &entry;
  kvant_step* step = nullptr;
  require_ok(api().step_plan(cache, &args, &step));
  return step;
}

// These warnings have been logged since the last look, and nothing else.
void check_warnings(Session& session, const std::vector<std::string>& beginnings) {
  REQUIRE(session.log.size() == beginnings.size());
  for (std::size_t i = 0; i < beginnings.size(); ++i) {
    CHECK(session.log[i].level == KVANT_LOG_WARNING);
    CHECK_MESSAGE(session.log[i].text.rfind(beginnings[i], 0) == 0, session.log[i].text);
    CHECK(session.log[i].text.find("; ignored") != std::string::npos);
  }
  session.log.clear();
}

}  // namespace

TEST_CASE("handles: NULL and garbage are refused by every function") {
  Places places;
  int local = 0;
  for (const Call& call : all_calls(places)) {
    check_error(call.invoke(nullptr), KVANT_ERROR_INVALID_ARGUMENT, call.source, "is NULL");
    for (void* garbage : {static_cast<void*>(&local), reinterpret_cast<void*>(1), reinterpret_cast<void*>(~std::uintptr_t{0})})
      check_error(call.invoke(garbage), KVANT_ERROR_NOT_FOUND, call.source, kind_name(call.kind));
  }
  destroy_everything(nullptr);
  destroy_everything(&local);
  destroy_everything(reinterpret_cast<void*>(~std::uintptr_t{0}));
  const auto* vulkan = [&] {
    Session session({.open_device = false});
    return static_cast<const kvant_ext_vulkan*>(api().get_extension(session.context, KVANT_EXT_VULKAN));
  }();
  std::uint64_t semaphore = 5, value = 6;
  kvant_device* device = nullptr;
  const auto args = make<kvant_vulkan_device_args>();
  CHECK(vulkan->recommended(nullptr) == nullptr);
  check_error(vulkan->device_import(nullptr, &args, &device), KVANT_ERROR_INVALID_ARGUMENT, "device_import", "is NULL");
  check_error(vulkan->device_timeline(nullptr, &semaphore, &value), KVANT_ERROR_INVALID_ARGUMENT, "device_timeline", "NULL");
  check_error(vulkan->device_wait(nullptr), KVANT_ERROR_INVALID_ARGUMENT, "device_wait", "NULL");
  CHECK((semaphore == 5 && value == 6 && device == nullptr));
  CHECK(places.untouched());
}

TEST_CASE("handles: a destroyed context") {
  Places places;
  kvant_context* context = nullptr;
  require_ok(api().context_create(nullptr, &context));
  api().context_destroy(context);
  for (const Call& call : all_calls(places))
    if (call.kind == Kind::context) check_error(call.invoke(context), KVANT_ERROR_NOT_FOUND, call.source, "context (0x");
  CHECK(api().get_extension(context, KVANT_EXT_VULKAN) == nullptr);
  api().context_destroy(context);
  CHECK(places.untouched());
}

TEST_CASE("handles: destroyed and mistyped ones of each kind") {
  Session session;
  if (!session.has_device()) return;
  Places places;
  kvant_cache* cache = make_cache(session, {.kv_heads = 1, .head_dim_k = 32, .head_dim_v = 32});
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  kvant_step* step = open_step(cache, sequence);
  void* live[] = {session.context, session.device, cache, step};
  for (const Call& call : all_calls(places))
    for (int kind = 0; kind < 4; ++kind)
      if (kind != static_cast<int>(call.kind))
        check_error(call.invoke(live[kind]), KVANT_ERROR_NOT_FOUND, call.source,
                    std::string("is a ") + kind_name(static_cast<Kind>(kind)));
  // Mistyped destroys do nothing but complain.
  session.take_blame();
  api().cache_destroy(static_cast<kvant_cache*>(static_cast<void*>(session.device)));
  api().device_close(static_cast<kvant_device*>(static_cast<void*>(cache)));
  api().step_abort(static_cast<kvant_step*>(static_cast<void*>(cache)));
  CHECK(stats_of(cache).sequence_count == 1);
  check_warnings(session, {"cache_destroy: cache (0x", "device_close: device (0x", "step_abort: step (0x"});

  api().step_abort(step);
  for (const Call& call : all_calls(places))
    if (call.kind == Kind::step) check_error(call.invoke(step), KVANT_ERROR_NOT_FOUND, call.source, "step (0x");
  CHECK(session.log.empty());
  api().step_abort(step);
  check_warnings(session, {"step_abort: step (0x"});
  api().cache_destroy(cache);
  for (const Call& call : all_calls(places))
    if (call.kind == Kind::cache) check_error(call.invoke(cache), KVANT_ERROR_NOT_FOUND, call.source, "cache (0x");
  api().cache_destroy(cache);
  kvant_device* device = std::exchange(session.device, nullptr);
  api().device_close(device);
  for (const Call& call : all_calls(places))
    if (call.kind == Kind::device) check_error(call.invoke(device), KVANT_ERROR_NOT_FOUND, call.source, "device (0x");
  api().device_close(device);
  CHECK(places.untouched());
  check_warnings(session, {"cache_destroy: cache (0x", "device_close: device (0x"});
}

TEST_CASE("handles: parents stay while children live") {
  Session session;
  if (!session.has_device()) return;
  kvant_cache* cache = make_cache(session, {});
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  kvant_step* step = open_step(cache, sequence);
  api().cache_destroy(cache);
  api().device_close(session.device);
  api().context_destroy(session.context);
  const std::vector<std::string> blame = session.take_blame();
  REQUIRE(blame.size() == 3);
  CHECK(blame[0].find("cache_destroy") != std::string::npos);
  CHECK(blame[1].find("1 live caches") != std::string::npos);
  CHECK(blame[2].find("still open (1)") != std::string::npos);
  CHECK(stats_of(cache).sequence_count == 1);  // everything still works
  api().step_abort(step);
  api().cache_destroy(cache);
  CHECK(session.take_blame().empty());
}

TEST_CASE("handles: sequences are never reused and belong to one cache") {
  Session session;
  if (!session.has_device()) return;
  kvant_cache* a = make_cache(session, {});
  kvant_cache* b = make_cache(session, {});
  kvant_sequence first = 0, second = 0, of_b = 0, twin = 0;
  require_ok(api().sequence_create(a, &first));
  require_ok(api().sequence_destroy(a, first));
  require_ok(api().sequence_create(a, &second));
  require_ok(api().sequence_create(b, &of_b));
  require_ok(api().sequence_create(b, &twin));  // b's second, as `second` is a's: both are alive
  CHECK(first != second);
  std::uint64_t length = 99;
  for (const kvant_sequence bad : {first, of_b, twin, kvant_sequence{77}, ~kvant_sequence{0}}) {
    check_error(api().sequence_length(a, bad, &length), KVANT_ERROR_NOT_FOUND, "sequence_length", "sequence (0x");
    check_error(api().sequence_destroy(a, bad), KVANT_ERROR_NOT_FOUND, "sequence_destroy", "sequence (0x");
    check_error(api().sequence_truncate(a, bad, 0), KVANT_ERROR_NOT_FOUND, "sequence_truncate", "sequence (0x");
    kvant_sequence child = 42;
    check_error(api().sequence_fork(a, bad, 0, &child), KVANT_ERROR_NOT_FOUND, "sequence_fork", "parent (0x");
    CHECK(child == 42);
  }
  check_error(api().sequence_length(a, 0, &length), KVANT_ERROR_INVALID_ARGUMENT, "sequence_length", "sequence is 0");
  CHECK(length == 99);
  CHECK(stats_of(a).sequence_count == 1);
  CHECK(stats_of(b).sequence_count == 2);
  api().cache_destroy(a);
  api().cache_destroy(b);
}
