// Every number out of its range: the message holds the value, outputs and cache stay as they were.
#include <cmath>
#include <functional>
#include <limits>

#include "cache_state.hpp"

using namespace abi_test;

namespace {

constexpr std::uint32_t kInvalid = KVANT_ERROR_INVALID_ARGUMENT;

// Sets one field of a copy of `good` and expects the call to refuse it with `part` in the message.
template <typename T>
class Mutator {
 public:
  Mutator(const T& good, std::string source, std::function<kvant_error*(const T*)> call)
      : good_(good), source_(std::move(source)), call_(std::move(call)) {}

  template <typename Field, typename Value>
  void refuse(Field T::*field, Value value, const std::string& part, std::uint32_t code = kInvalid) {
    T bad = good_;
    bad.*field = static_cast<Field>(value);
    check_error(call_(&bad), code, source_, part);
  }
  void accept() { check_ok(call_(&good_)); }

 private:
  T good_;
  std::string source_;
  std::function<kvant_error*(const T*)> call_;
};

}  // namespace

TEST_CASE("ranges: context, formats and devices") {
  Session session({.open_device = false});
  kvant_context* c = session.context;
  auto args = make<kvant_context_args>();
  kvant_context* none = nullptr;
  args.log_level = 6;
  check_error(api().context_create(&args, &none), kInvalid, "context_create", "log_level (6)");
  args.log_level = 0;
  args.enable_validation = 2;
  check_error(api().context_create(&args, &none), kInvalid, "context_create", "enable_validation (2)");
  CHECK(none == nullptr);

  std::uint32_t count = 0, id = 99;
  require_ok(api().format_count(c, &count));
  CHECK(count >= 11);
  auto format = make<kvant_format_info>();
  check_error(api().format_info(c, count, &format), kInvalid, "format_info", "format (" + std::to_string(count) + ")");
  check_error(api().format_info(c, ~0u, &format), kInvalid, "format_info", "format (4294967295)");
  CHECK(format.name == nullptr);
  check_error(api().format_find(c, "q4_7", &id), KVANT_ERROR_NOT_FOUND, "format_find", "\"q4_7\"");
  const std::string long_name(100000, 'q');
  const Outcome cut = take(api().format_find(c, long_name.c_str(), &id));
  CHECK(cut.code == KVANT_ERROR_NOT_FOUND);
  CHECK(cut.message.size() < 1000);
  CHECK(cut.message.find("... of 100000 bytes") != std::string::npos);
  check_error(api().format_find(c, "", &id), KVANT_ERROR_NOT_FOUND, "format_find", "\"\"");
  CHECK(id == 99);
  std::uint64_t bytes = 5;
  check_error(api().row_bytes(c, 1000, 64, &bytes), kInvalid, "row_bytes", "format (1000)");
  for (const std::uint32_t dim : {0u, 8u, 31u, 33u, 577u, 584u, ~0u})
    check_error(api().row_bytes(c, 0, dim, &bytes), kInvalid, "row_bytes", "head_dim (" + std::to_string(dim) + ")");
  for (const std::uint32_t dim : {0u, 64u, 255u, 257u, 384u, (1u << 20) + 256, ~0u - 255})
    check_error(api().row_bytes(c, session.format("q3_k"), dim, &bytes), kInvalid, "row_bytes",
                "head_dim (" + std::to_string(dim) + ") is not a multiple of 256 up to 1048576, as rows of q3_k are");
  const std::uint32_t beyond = session.format("q2_k") + 1;
  check_error(api().row_bytes(c, beyond, 256, &bytes), kInvalid, "row_bytes", "(q5_k, q3_k, q2_k)");
  check_error(api().format_info(c, beyond, &format), kInvalid, "format_info", "format (" + std::to_string(beyond) + ")");
  CHECK(bytes == 5);

  std::uint32_t devices = 0;
  require_ok(api().device_count(c, &devices));
  auto info = make<kvant_device_info>();
  check_error(api().device_info(c, devices, &info), kInvalid, "device_info", "device_index (" + std::to_string(devices) + ")");
  CHECK(info.name == nullptr);
  auto device_args = make<kvant_device_args>();
  kvant_device* device = nullptr;
  device_args.enable_profiling = 3;
  check_error(api().device_open(c, &device_args, &device), kInvalid, "device_open", "enable_profiling (3)");
  if (devices == 0) return;
  device_args = make<kvant_device_args>();
  device_args.device_index = devices;
  check_error(api().device_open(c, &device_args, &device), kInvalid, "device_open",
              "device_index (" + std::to_string(devices) + ")");
  device_args.device_index = 0;
  device_args.quirks = "+no_such_quirk";
  check_error(api().device_open(c, &device_args, &device), kInvalid, "device_open", "no_such_quirk");
  device_args.quirks = nullptr;
  device_args.capability_override = "{\"no_such_key\": 1}";
  check_error(api().device_open(c, &device_args, &device), kInvalid, "device_open", "no_such_key");
  device_args.capability_override = "{broken";
  check_error(api().device_open(c, &device_args, &device), kInvalid, "device_open", "");
  CHECK(device == nullptr);
}

TEST_CASE("ranges: cache and layer arguments") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  auto layer = make<kvant_layer_args>();
  layer.kv_heads = 2;
  layer.head_dim_k = 64;
  auto args = make<kvant_cache_args>();
  args.layer_count = 1;
  args.layers = &layer;
  args.capacity_tokens = 64;
  const auto create = [&](const kvant_cache_args* a) {
    kvant_cache* cache = nullptr;
    kvant_error* error = api().cache_create(session.device, a, &cache);
    CHECK((error == nullptr) == (cache != nullptr));
    api().cache_destroy(cache);
    return error;
  };
  Mutator<kvant_cache_args> cache(args, "cache_create", create);
  cache.accept();
  cache.refuse(&kvant_cache_args::layer_count, 0, "layer_count (0)");
  cache.refuse(&kvant_cache_args::layer_count, 4097, "layer_count (4097)");
  cache.refuse(&kvant_cache_args::capacity_tokens, 0, "capacity_tokens (0)");
  cache.refuse(&kvant_cache_args::capacity_tokens, 1ull << 31, "capacity_tokens (2147483648)");
  cache.refuse(&kvant_cache_args::capacity_tokens, ~0ull, "capacity_tokens (18446744073709551615)");
  for (const std::uint32_t page : {1u, 8u, 17u, 64u})
    cache.refuse(&kvant_cache_args::page_tokens, page, "page_tokens (" + std::to_string(page) + ")");
  cache.refuse(&kvant_cache_args::flags, 8, "flags (0x8)");
  cache.refuse(&kvant_cache_args::layer_stride, 4, "layer_stride (4)");
  cache.refuse(&kvant_cache_args::protect_sides, 4, "protect_sides (0x4)");
  cache.refuse(&kvant_cache_args::protect_sides, KVANT_PROTECT_K, "protect_sides (0x1) is not 0 although");
  cache.refuse(&kvant_cache_args::protect_first, 1, "protect_first (1) is not 0 although");
  cache.refuse(&kvant_cache_args::protect_newest, 65537, "protect_newest (65537)");
  cache.refuse(&kvant_cache_args::protect_tokens, 16, "protect_tokens (16) is not 0 although");
  cache.refuse(&kvant_cache_args::reserved, 1, "args.reserved (1)");
  {
    kvant_cache_args shielded = args;
    shielded.protect_sides = KVANT_PROTECT_V;
    shielded.protect_newest = 1;
    shielded.protect_tokens = UINT64_MAX;
    check_error(create(&shielded), kInvalid, "cache_create", "protect_tokens (18446744073709551615)");
    shielded.protect_tokens = 0;
    shielded.flags = KVANT_CACHE_EXTERNAL_PAGES;
    check_error(create(&shielded), kInvalid, "cache_create", "protect_sides (0x2) is not 0 with KVANT_CACHE_EXTERNAL_PAGES");
    shielded.flags = 0;
    check_ok(create(&shielded));
  }

  Mutator<kvant_layer_args> layers(layer, "cache_create", [&](const kvant_layer_args* l) {
    args.layers = l;
    return create(&args);
  });
  layers.accept();
  layers.refuse(&kvant_layer_args::kv_heads, 0, "layers[0].kv_heads (0)");
  layers.refuse(&kvant_layer_args::kv_heads, 1025, "kv_heads (1025)");
  for (const std::uint32_t dim : {0u, 24u, 60u, 580u, 584u})
    layers.refuse(&kvant_layer_args::head_dim_k, dim, "head_dim_k (" + std::to_string(dim) + ")");
  for (const std::uint32_t dim : {24u, 60u, 584u})
    layers.refuse(&kvant_layer_args::head_dim_v, dim, "head_dim_v (" + std::to_string(dim) + ")");
  layers.refuse(&kvant_layer_args::format_k, 1000, "format_k (1000)");
  layers.refuse(&kvant_layer_args::format_v, 1001, "format_v (1001)");
  layers.refuse(&kvant_layer_args::window, 0x80000000u, "window (2147483648)");
  layers.refuse(&kvant_layer_args::window_sinks, 4, "window_sinks (4)");
  layers.refuse(&kvant_layer_args::transform_k, 4, "layers[0].transform_k (0x4)");
  float means[1024] = {};  // as many as the layer's rows have, or more
  REQUIRE(layer.kv_heads * layer.head_dim_k <= 1024);
  layers.refuse(&kvant_layer_args::means_k, static_cast<const float*>(means), "layers[0].means_k is not NULL without KVANT_TRANSFORM_CENTRE");
  kvant_layer_args centred = layer;
  centred.transform_k = KVANT_TRANSFORM_CENTRE;
  centred.means_k = means;
  means[3] = HUGE_VALF;
  kvant_cache_args with_means = args;
  with_means.layers = &centred;
  kvant_cache* none = nullptr;
  check_error(api().cache_create(session.device, &with_means, &none), kInvalid, "cache_create", "layers[0].means_k[3] (inf) is not finite");
  CHECK(none == nullptr);
  layers.refuse(&kvant_layer_args::transform_v, 0x80000001u, "layers[0].transform_v (0x80000001)");

  kvant_layer_args two[2] = {layer, layer};
  two[1].head_dim_k = 128;
  args.layers = two;
  args.layer_count = 2;
  check_ok(create(&args));
  args.flags = KVANT_CACHE_EXTERNAL_PAGES;
  check_error(create(&args), kInvalid, "cache_create", "layers[1] (2 heads of 128");
}

TEST_CASE("ranges: conversion and measurement") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  kvant_device* d = session.device;
  std::vector<float> in(64, 1.0F), out(64, 5.0F);
  const auto quantize = [&](std::uint32_t format, std::uint32_t dim, std::uint64_t rows, std::uint64_t in_size,
                            std::uint64_t out_size) {
    return api().quantize(d, format, dim, rows, in.data(), in_size, out.data(), out_size);
  };
  check_error(quantize(50, 64, 1, 256, 256), kInvalid, "quantize", "format (50)");
  check_error(quantize(0, 65, 1, 260, 260), kInvalid, "quantize", "head_dim (65)");
  check_error(quantize(0, 64, 1, 255, 256), kInvalid, "quantize", "input_size (255)");
  check_error(quantize(0, 64, 1, 256, 257), kInvalid, "quantize", "output_size (257)");
  check_error(quantize(0, 64, ~0ull, 256, 256), kInvalid, "quantize", "rows (18446744073709551615)");
  check_error(quantize(0, 64, 1ull << 62, 0, 0), kInvalid, "quantize", "rows (4611686018427387904)");
  check_error(api().quantize(d, 0, 64, 1, in.data(), 256, in.data(), 256), kInvalid, "quantize", "overlap");
  check_error(api().dequantize(d, 50, 64, 1, in.data(), 256, out.data(), 256), kInvalid, "dequantize", "format (50)");
  check_error(api().dequantize(d, 0, 64, 1, in.data(), 252, out.data(), 256), kInvalid, "dequantize", "input_size (252)");
  check_error(api().dequantize(d, 0, 64, 1, in.data(), 256, out.data(), 0), kInvalid, "dequantize", "output_size (0)");
  const auto* odd = reinterpret_cast<const float*>(reinterpret_cast<const char*>(in.data()) + 1);
  check_error(api().quantize(d, 0, 32, 1, odd, 128, out.data(), 128), kInvalid, "quantize", "not aligned");
  check_ok(api().quantize(d, 0, 64, 0, nullptr, 0, nullptr, 0));
  CHECK(out == std::vector<float>(64, 5.0F));

  const std::uint32_t q5_k = session.format("q5_k");
  check_error(quantize(q5_k, 64, 1, 256, 44), kInvalid, "quantize", "head_dim (64)");
  check_error(quantize(q5_k, 256, 1, 256, 176), kInvalid, "quantize", "input_size (256) is not the 1024 bytes");
  check_error(quantize(q5_k, 256, 1, 1024, 175), kInvalid, "quantize", "output_size (175) is not the 176 bytes");
  check_error(quantize(q5_k, 1u << 20, 1ull << 43, 0, 0), kInvalid, "quantize", "rows (8796093022208) of head_dim (1048576)");
  check_error(api().dequantize(d, q5_k, 256, 1, in.data(), 177, out.data(), 1024), kInvalid, "dequantize", "input_size (177)");
  check_error(api().dequantize(d, q5_k, 256, 1, in.data(), 176, in.data(), 1024), kInvalid, "dequantize", "overlap");
  check_ok(api().quantize(d, q5_k, 256, 0, nullptr, 0, nullptr, 0));
  CHECK(out == std::vector<float>(64, 5.0F));

  double rate = -2.0;
  check_error(api().device_measure_copy(d, 0, &rate), kInvalid, "device_measure_copy", "size (0)");
  check_error(api().device_measure_copy(d, 4098, &rate), kInvalid, "device_measure_copy", "size (4098)");
  check_error(api().device_measure_copy(d, ~3ull, &rate), kInvalid, "device_measure_copy", "size (18446744073709551612)");
  CHECK(rate == -2.0);
  std::uint32_t count = 3;
  check_error(api().device_profile(d, &count), KVANT_ERROR_FAILED_PRECONDITION, "device_profile", "enable_profiling");
  CHECK(count == 3);
}

TEST_CASE("ranges: sequences and entries") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  kvant_cache* cache = make_cache(session, {.layers = 1, .capacity = 64});
  kvant_sequence a = 0, b = 0;
  require_ok(api().sequence_create(cache, &a));
  require_ok(api().sequence_create(cache, &b));
  StepData data;
  data.k = random_floats(5 * 128, 1);
  data.v = random_floats(5 * 128, 2);
  run_step(cache, 1, a, 5, 0, data);
  const CacheState before = state_of(cache, {a, b}, 2, 64);

  kvant_sequence child = 8;
  check_error(api().sequence_fork(cache, a, 6, &child), kInvalid, "sequence_fork", "tokens (6)");
  check_error(api().sequence_truncate(cache, a, ~0ull), kInvalid, "sequence_truncate", "tokens (18446744073709551615)");
  CHECK(child == 8);
  std::vector<float> read(5 * 128, 4.0F);
  kvant_tensor out = tensor_of(read);
  check_error(api().sequence_read(cache, a, 1, 0, 0, 5, &out), kInvalid, "sequence_read", "layer (1)");
  check_error(api().sequence_read(cache, a, 0, 2, 0, 5, &out), kInvalid, "sequence_read", "side (2)");
  check_error(api().sequence_read(cache, a, 0, 0, 6, 0, &out), kInvalid, "sequence_read", "begin (6)");
  check_error(api().sequence_read(cache, a, 0, 0, 1, 5, &out), kInvalid, "sequence_read", "count (5)");
  check_error(api().sequence_read(cache, a, 0, 0, 1, ~0ull, &out), kInvalid, "sequence_read", "count (18446744073709551615)");
  check_error(api().sequence_export(cache, a, 0, 0, 0, 5, read.data(), 2559), kInvalid, "sequence_export", "out_size (2559)");
  CHECK(read == std::vector<float>(5 * 128, 4.0F));
  check_error(api().cache_convert(cache, 1, 0, 0), kInvalid, "cache_convert", "layer (1)");
  check_error(api().cache_convert(cache, 0, 9, 0), kInvalid, "cache_convert", "side (9)");
  check_error(api().cache_convert(cache, 0, 0, 77), kInvalid, "cache_convert", "format (77)");

  const std::uint32_t mask[2] = {0xFF, 0xFF};
  auto good = make<kvant_step_entry>();
  good.sequence = a;
  good.append = 1;
  good.queries = 1;
  const auto plan_args = [&](const kvant_step_args* args) {
    kvant_step* step = nullptr;
    kvant_error* error = api().step_plan(cache, args, &step);
    CHECK((error == nullptr) == (step != nullptr));
    api().step_abort(step);
    return error;
  };
  auto args = make<kvant_step_args>();
  args.entry_count = 1;
  args.entries = &good;
  Mutator<kvant_step_args> plans(args, "step_plan", plan_args);
  plans.accept();
  plans.refuse(&kvant_step_args::entry_count, 0, "entry_count (0)");
  plans.refuse(&kvant_step_args::entry_stride, 20, "entry_stride (20)");
  Mutator<kvant_step_entry> entries(good, "step_plan", [&](const kvant_step_entry* entry) {
    args.entries = entry;
    return plan_args(&args);
  });
  entries.refuse(&kvant_step_entry::append, 0x80000000u, "append (2147483648)");
  entries.refuse(&kvant_step_entry::queries, ~0u, "queries (4294967295)");
  entries.refuse(&kvant_step_entry::flags, 6, "flags (0x6)");
  entries.refuse(&kvant_step_entry::reserved, 1, "reserved (1)");
  entries.refuse(&kvant_step_entry::query_position, 3, "query_position (3)");
  entries.refuse(&kvant_step_entry::mask_begin, 3, "mask_begin (3)");
  entries.refuse(&kvant_step_entry::mask_row_words, 3, "mask_row_words (3)");
  entries.refuse(&kvant_step_entry::mask, mask, "mask_row_words (0)");
  entries.refuse(&kvant_step_entry::sequence, 0, "sequence is 0");
  entries.refuse(&kvant_step_entry::append, 100, "", KVANT_ERROR_RESOURCE_EXHAUSTED);

  kvant_step_entry bad = good;
  bad.append = bad.queries = 0;
  args.entries = &bad;
  check_error(plan_args(&args), kInvalid, "step_plan", "neither appends nor queries");
  bad = good;
  bad.flags = KVANT_ENTRY_QUERY_POSITION;
  bad.query_position = -4;
  check_error(plan_args(&args), kInvalid, "step_plan", "query_position (-4)");
  bad = good;
  bad.mask = mask;
  bad.mask_row_words = 1;
  bad.mask_begin = 7;
  check_error(plan_args(&args), kInvalid, "step_plan", "mask_begin (7)");
  kvant_step_entry twice[2] = {good, good};
  args.entries = twice;
  args.entry_count = 2;
  check_error(plan_args(&args), kInvalid, "step_plan", "entries[1].sequence (0x");
  CHECK(state_of(cache, {a, b}, 2, 64) == before);
  api().cache_destroy(cache);
}

TEST_CASE("ranges: more queries than tokens go only without the causal rule, and the run names the plan's entry") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  kvant_cache* cache = make_cache(session, {});
  kvant_step_entry entries[2] = {make<kvant_step_entry>(), make<kvant_step_entry>()};
  for (kvant_step_entry& entry : entries) {
    require_ok(api().sequence_create(cache, &entry.sequence));
    entry.append = entry.queries = 1;
  }
  entries[1].queries = 5;
  auto args = make<kvant_step_args>();
  args.entry_count = 2;
  args.entries = entries;
  kvant_step* step = nullptr;
  require_ok(api().step_plan(cache, &args, &step));
  StepData data;
  data.q_heads = 2;
  data.k = data.v = random_floats(2 * 128, 1);
  data.q = random_floats(6 * 128, 2);
  data.out.assign(6 * 128, 6.0F);
  std::vector<kvant_tensor> tensors;
  kvant_run_args run = run_args_of(data, tensors);
  check_error(api().step_run(step, 0, &run), kInvalid, "step_run",
              "entries[1] of the plan: queries (5) is greater than the sequence's 1 tokens");
  CHECK(data.out == std::vector<float>(6 * 128, 6.0F));
  run.flags = KVANT_RUN_NON_CAUSAL;
  check_ok(api().step_run(step, 0, &run));
  CHECK(data.out[5 * 128] == doctest::Approx(data.v[128]));  // the one key's value
  api().step_abort(step);
  api().cache_destroy(cache);
}

TEST_CASE("ranges: runs and tensors") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  kvant_cache* cache = make_cache(session, {.layers = 2, .capacity = 64});
  auto entry = make<kvant_step_entry>();
  require_ok(api().sequence_create(cache, &entry.sequence));
  entry.append = 3;
  entry.queries = 2;
  auto step_args = make<kvant_step_args>();
  step_args.entry_count = 1;
  step_args.entries = &entry;
  kvant_step* step = nullptr;
  require_ok(api().step_plan(cache, &step_args, &step));
  StepData data;
  data.q_heads = 4;
  data.k = random_floats(3 * 128, 1);
  data.v = random_floats(3 * 128, 2);
  data.q = random_floats(2 * 256, 3);
  data.out.assign(2 * 256, 6.0F);
  data.lse.assign(8, 6.0F);
  data.sinks.assign(4, 0.0F);
  data.slopes.assign(4, 0.0F);
  std::vector<kvant_tensor> tensors;
  const kvant_run_args good = run_args_of(data, tensors);
  const auto run = [&](const kvant_run_args* args) { return api().step_run(step, 1, args); };
  check_error(api().step_run(step, 2, &good), kInvalid, "step_run", "layer (2)");
  Mutator<kvant_run_args> runs(good, "step_run", run);
  for (const std::uint32_t heads : {0u, 3u, 16386u, ~0u})
    runs.refuse(&kvant_run_args::q_heads, heads, "q_heads (" + std::to_string(heads) + ")");
  runs.refuse(&kvant_run_args::flags, 8, "flags (0x8)");
  const float nan = std::nanf(""), infinity = std::numeric_limits<float>::infinity();
  runs.refuse(&kvant_run_args::scale, -0.5F, "scale (-0.5)");
  runs.refuse(&kvant_run_args::scale, nan, "scale (nan)");
  runs.refuse(&kvant_run_args::scale, infinity, "scale (inf)");
  runs.refuse(&kvant_run_args::soft_cap, -30.0F, "soft_cap (-30)");
  runs.refuse(&kvant_run_args::soft_cap, nan, "soft_cap (nan)");
  for (const float bad : {nan, infinity}) {
    data.sinks[2] = bad;
    check_error(run(&good), kInvalid, "step_run", "sinks[2] (");
    data.sinks[2] = 0.0F;
    data.slopes[3] = bad;
    check_error(run(&good), kInvalid, "step_run", "alibi_slopes[3] (");
    data.slopes[3] = 0.0F;
  }

  const auto mutate = [&](const kvant_tensor* kvant_run_args::*which, const kvant_tensor& good_tensor) {
    return Mutator<kvant_tensor>(good_tensor, "step_run", [=, &good](const kvant_tensor* tensor) {
      kvant_run_args args = good;
      args.*which = tensor;
      return run(&args);
    });
  };
  auto k = mutate(&kvant_run_args::k, *good.k);
  k.refuse(&kvant_tensor::size, 3 * 128 * 4 - 1, "args.k.size (1535)");
  k.refuse(&kvant_tensor::type, 3, "args.k.type (3)");
  k.refuse(&kvant_tensor::type, KVANT_TYPE_F16, "args.v.type (0) is not args.k.type (1)");
  k.refuse(&kvant_tensor::reserved, 9, "args.k.reserved (9)");
  k.refuse(&kvant_tensor::offset, 4, "args.k.offset (4)");
  k.refuse(&kvant_tensor::buffer, 0x55, "args.k.buffer (0x55)");
  k.refuse(&kvant_tensor::data, reinterpret_cast<char*>(data.k.data()) + 2, "not aligned");
  k.refuse(&kvant_tensor::token_stride, ~0ull, "token_stride (18446744073709551615)");
  k.refuse(&kvant_tensor::token_stride, 1ull << 62, "token_stride (4611686018427387904)");
  k.refuse(&kvant_tensor::head_stride, ~0ull / 2, "head_stride (9223372036854775807)");
  k.refuse(&kvant_tensor::token_stride, 129, "args.k.size (1536)");
  kvant_tensor no_host = *good.k;
  no_host.data = nullptr;
  mutate(&kvant_run_args::k, no_host).refuse(&kvant_tensor::buffer, 0x55, "was not imported");
  auto out = mutate(&kvant_run_args::out, *good.out);
  out.refuse(&kvant_tensor::token_stride, 64, "overlap");
  out.refuse(&kvant_tensor::head_stride, 32, "overlap");
  out.refuse(&kvant_tensor::data, data.q.data(), "overlap");
  auto lse = mutate(&kvant_run_args::lse, *good.lse);
  lse.refuse(&kvant_tensor::type, KVANT_TYPE_F16, "args.lse.type (1)");
  lse.refuse(&kvant_tensor::token_stride, 5, "args.lse.token_stride (5)");
  lse.refuse(&kvant_tensor::size, 31, "args.lse.size (31)");

  CHECK(data.out == std::vector<float>(2 * 256, 6.0F));
  CHECK(data.lse == std::vector<float>(8, 6.0F));
  api().step_abort(step);
  CHECK(stats_of(cache).used_pages == 0);
  api().cache_destroy(cache);
}
