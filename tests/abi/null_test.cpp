// NULL for every pointer argument of every function, and for every pointer inside the argument structs.
#include <functional>

#include "cache_state.hpp"

using namespace abi_test;

namespace {

struct NullCall {
  const char* source;
  const char* argument;  // must be named in the message
  std::function<kvant_error*()> invoke;
};

void refuse_all(const std::vector<NullCall>& calls) {
  for (const NullCall& call : calls)
    check_error(call.invoke(), KVANT_ERROR_INVALID_ARGUMENT, call.source, std::string(call.argument) + " is NULL");
}

}  // namespace

TEST_CASE("NULL: calls that need no device") {
  Session session({.open_device = false});
  kvant_context* c = session.context;
  std::uint32_t id = 7;
  refuse_all({
      {"get_build_info", "info", [] { return api().get_build_info(nullptr); }},
      {"context_create", "out_context", [] { return api().context_create(nullptr, nullptr); }},
      {"format_count", "out_count", [&] { return api().format_count(c, nullptr); }},
      {"format_info", "info", [&] { return api().format_info(c, 0, nullptr); }},
      {"format_find", "name", [&] { return api().format_find(c, nullptr, &id); }},
      {"format_find", "out_format", [&] { return api().format_find(c, "f16", nullptr); }},
      {"device_count", "out_count", [&] { return api().device_count(c, nullptr); }},
      {"device_info", "info", [&] { return api().device_info(c, 0, nullptr); }},
      {"device_open", "out_device", [&] { return api().device_open(c, nullptr, nullptr); }},
      {"row_bytes", "out_bytes", [&] { return api().row_bytes(c, 0, 64, nullptr); }},
  });
  CHECK(id == 7);
  kvant_context* none = nullptr;
  check_ok(api().context_create(nullptr, &none));  // args may be NULL
  api().context_destroy(none);
}

TEST_CASE("NULL: device, cache and sequence calls") {
  Session session({.profiling = true});
  if (!session.has_device()) return;
  kvant_device* d = session.device;
  kvant_cache* cache = make_cache(session, {});
  kvant_cache* paged = make_cache(session, {.external = true});
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  StepData data;
  data.k = random_floats(3 * 128, 1);
  data.v = random_floats(3 * 128, 2);
  run_step(cache, 1, sequence, 3, 0, data);
  const CacheState before = state_of(cache, {sequence}, 2, 64);

  float floats[64] = {};
  const std::int64_t slot = 0;
  const std::int32_t page = 0;
  std::vector<float> read(128, 3.0F);
  kvant_tensor out = tensor_of(read);
  auto cache_args = make<kvant_cache_args>();
  cache_args.layer_count = 1;
  cache_args.capacity_tokens = 16;
  kvant_cache* no_cache = nullptr;
  kvant_step* no_step = nullptr;
  auto step_args = make<kvant_step_args>();
  step_args.entry_count = 1;
  auto paged_args = make<kvant_paged_args>();
  paged_args.token_count = 1;
  refuse_all({
      {"device_describe", "info", [&] { return api().device_describe(d, nullptr); }},
      {"device_profile", "out_count", [&] { return api().device_profile(d, nullptr); }},
      {"device_profile_entry", "entry", [&] { return api().device_profile_entry(d, 0, nullptr); }},
      {"device_measure_copy", "out_bytes_per_second", [&] { return api().device_measure_copy(d, 4096, nullptr); }},
      {"quantize", "input", [&] { return api().quantize(d, 0, 32, 1, nullptr, 128, floats, 128); }},
      {"quantize", "output", [&] { return api().quantize(d, 0, 32, 1, floats, 128, nullptr, 128); }},
      {"dequantize", "input", [&] { return api().dequantize(d, 0, 32, 1, nullptr, 128, floats, 128); }},
      {"dequantize", "output", [&] { return api().dequantize(d, 0, 32, 1, floats, 128, nullptr, 128); }},
      {"cache_create", "args", [&] { return api().cache_create(d, nullptr, &no_cache); }},
      {"cache_create", "args.layers", [&] { return api().cache_create(d, &cache_args, &no_cache); }},
      {"cache_create", "out_cache", [&] { return api().cache_create(d, &cache_args, nullptr); }},
      {"cache_stats", "stats", [&] { return api().cache_stats(cache, nullptr); }},
      {"cache_means", "out", [&] { return api().cache_means(cache, 0, 0, nullptr, 1); }},
      {"sequence_create", "out_sequence", [&] { return api().sequence_create(cache, nullptr); }},
      {"sequence_fork", "out_child", [&] { return api().sequence_fork(cache, sequence, 0, nullptr); }},
      {"sequence_length", "out_tokens", [&] { return api().sequence_length(cache, sequence, nullptr); }},
      {"sequence_read", "out", [&] { return api().sequence_read(cache, sequence, 0, 0, 0, 1, nullptr); }},
      {"sequence_export", "out", [&] { return api().sequence_export(cache, sequence, 0, 0, 0, 1, nullptr, 512); }},
      {"step_plan", "args", [&] { return api().step_plan(cache, nullptr, &no_step); }},
      {"step_plan", "args.entries", [&] { return api().step_plan(cache, &step_args, &no_step); }},
      {"step_plan", "out_step", [&] { return api().step_plan(cache, &step_args, nullptr); }},
      {"paged_plan", "args", [&] { return api().paged_plan(paged, nullptr, &no_step); }},
      {"paged_plan", "args.slot_mapping", [&] { return api().paged_plan(paged, &paged_args, &no_step); }},
      {"paged_plan", "out_step", [&] { return api().paged_plan(paged, &paged_args, nullptr); }},
      {"paged_read", "slots", [&] { return api().paged_read(paged, 0, 0, 1, nullptr, &out); }},
      {"paged_read", "out", [&] { return api().paged_read(paged, 0, 0, 1, &slot, nullptr); }},
      {"paged_copy", "source_pages", [&] { return api().paged_copy(paged, 1, nullptr, &page); }},
      {"paged_copy", "destination_pages", [&] { return api().paged_copy(paged, 1, &page, nullptr); }},
  });

  // Arrays of the paged attention.
  const std::int32_t zero_one[2] = {0, 1}, one = 1;
  paged_args.slot_mapping = &slot;
  paged_args.batch = 1;
  paged_args.qo_indptr = zero_one;
  const auto plan = [&] { return api().paged_plan(paged, &paged_args, &no_step); };
  refuse_all({{"paged_plan", "args.kv_indptr", plan}});
  paged_args.kv_indptr = zero_one;
  refuse_all({{"paged_plan", "args.kv_last_page_len", plan}});
  paged_args.kv_last_page_len = &one;
  refuse_all({{"paged_plan", "args.kv_indices", plan}});
  paged_args.qo_indptr = nullptr;
  refuse_all({{"paged_plan", "args.qo_indptr", plan}});

  CHECK((no_cache == nullptr && no_step == nullptr));
  CHECK(read == std::vector<float>(128, 3.0F));
  CHECK(state_of(cache, {sequence}, 2, 64) == before);
  api().cache_destroy(cache);
  api().cache_destroy(paged);
}

TEST_CASE("NULL: tensors of a run") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  kvant_cache* cache = make_cache(session, {});
  auto entry = make<kvant_step_entry>();
  require_ok(api().sequence_create(cache, &entry.sequence));
  entry.append = 2;
  entry.queries = 1;
  auto step_args = make<kvant_step_args>();
  step_args.entry_count = 1;
  step_args.entries = &entry;
  kvant_step* step = nullptr;
  require_ok(api().step_plan(cache, &step_args, &step));
  StepData data;
  data.k = random_floats(256, 1);
  data.v = random_floats(256, 2);
  data.q = random_floats(128, 3);
  data.out.assign(128, 9.0F);
  data.q_heads = 2;
  std::vector<kvant_tensor> tensors;
  const kvant_run_args good = run_args_of(data, tensors);
  kvant_run_args bad = good;
  const auto run = [&] { return api().step_run(step, 0, &bad); };
  refuse_all({{"step_run", "args", [&] { return api().step_run(step, 0, nullptr); }}});
  bad.k = nullptr;
  refuse_all({{"step_run", "args.k", run}});
  bad = good, bad.v = nullptr;
  refuse_all({{"step_run", "args.v", run}});
  bad = good, bad.q = nullptr;
  refuse_all({{"step_run", "args.q", run}});
  bad = good, bad.out = nullptr;
  refuse_all({{"step_run", "args.out", run}});
  bad = good;
  kvant_tensor empty = *good.k;
  empty.data = nullptr;
  bad.k = &empty;
  refuse_all({{"step_run", "args.k.data", run}});
  CHECK(data.out == std::vector<float>(128, 9.0F));
  check_error(api().step_commit(step), KVANT_ERROR_FAILED_PRECONDITION, "step_commit", "layer 0 of 1");
  api().step_abort(step);
  std::uint64_t length = 9;
  check_ok(api().sequence_length(cache, entry.sequence, &length));
  CHECK(length == 0);
  api().cache_destroy(cache);
}
