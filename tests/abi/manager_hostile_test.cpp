// Nonsense for the manager extension and the newer functions of the table: NULLs, stale and foreign handles, absurd counts, small
// structs, overlapping outputs, calls from inside of stream callbacks, open steps, caches of the wrong kind. All is refused with the
// function's name, and nothing changes.
#include <kvant/kvant_ext_manager.h>

#include <functional>
#include <string>
#include <utility>

#include "cache_state.hpp"

using namespace abi_test;

namespace {

const kvant_ext_manager& manager(const Session& session) {
  const auto* table = static_cast<const kvant_ext_manager*>(api().get_extension(session.context, KVANT_EXT_MANAGER));
  REQUIRE(table != nullptr);
  return *table;
}

kvant_cache* prefix_cache(const Session& session, std::uint64_t capacity = 128, const char* format = "f32") {
  auto layer = make<kvant_layer_args>();
  layer.kv_heads = 2;
  layer.head_dim_k = 64;
  layer.format_k = layer.format_v = session.format(format);
  auto args = make<kvant_cache_args>();
  args.layer_count = 1;
  args.layers = &layer;
  args.capacity_tokens = capacity;
  args.flags = KVANT_CACHE_PREFIXES;
  kvant_cache* cache = nullptr;
  require_ok(api().cache_create(session.device, &args, &cache));
  return cache;
}

struct Bytes {
  std::string data;
  std::size_t at = 0;
  std::function<void()> inside;  // called by every read and write

  kvant_state_stream stream() {
    auto made = make<kvant_state_stream>();
    made.user_data = this;
    made.write = [](void* self, const void* from, std::uint64_t size) {
      auto& bytes = *static_cast<Bytes*>(self);
      if (bytes.inside) bytes.inside();
      bytes.data.append(static_cast<const char*>(from), size);
      return std::uint32_t{1};
    };
    made.read = [](void* self, void* out, std::uint64_t size) {
      auto& bytes = *static_cast<Bytes*>(self);
      if (bytes.inside) bytes.inside();
      const std::size_t got = std::min<std::size_t>(size, bytes.data.size() - bytes.at);
      std::memcpy(out, bytes.data.data() + bytes.at, got);
      bytes.at += got;
      return std::uint64_t{got};
    };
    return made;
  }
};

// Arguments of every kind that are right by themselves, and a call of every function with a cache and a sequence of choice.
struct Arguments {
  std::vector<std::int32_t> tokens = std::vector<std::int32_t>(20, 3);
  std::vector<float> k = random_floats(20 * 128, 1), v = random_floats(20 * 128, 2);
  kvant_tensor k_tensor = tensor_of(k), v_tensor = tensor_of(v);
  kvant_sequence_args sequence = make<kvant_sequence_args>();
  kvant_policy_args policy = make<kvant_policy_args>();
  kvant_prefix_stats prefix = make<kvant_prefix_stats>();
  kvant_state_args state = make<kvant_state_args>();
  kvant_store_options options = make<kvant_store_options>();
  kvant_store_args store = make<kvant_store_args>(), find = store;
  kvant_store_stats store_stats = make<kvant_store_stats>();
  kvant_event event = make<kvant_event>();
  Bytes bytes;
  kvant_state_stream stream = bytes.stream();
  kvant_sequence out_sequence = 77;
  std::uint64_t number = 77, lost = 77;
  std::uint32_t count = 77;
  const char* text = "untouched";

  Arguments() {
    sequence.tokens = store.tokens = tokens.data();
    sequence.token_count = store.token_count = tokens.size();
    find = store;
    store.k = &k_tensor;
    store.v = &v_tensor;
    state.flags = KVANT_STATE_ALL_SEQUENCES;
  }
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;
  bool untouched() const {
    return out_sequence == 77 && number == 77 && lost == 77 && count == 77 && std::string(text) == "untouched";
  }

  struct Call {
    const char* name;
    std::function<kvant_error*(kvant_cache*)> invoke;
  };
  std::vector<Call> calls(const kvant_ext_manager& m, kvant_sequence id) {
    return {
        {"sequence_open", [this](kvant_cache* c) { return api().sequence_open(c, &sequence, &out_sequence, &number); }},
        {"prefix_find", [this](kvant_cache* c) { return api().prefix_find(c, &sequence, &number); }},
        {"prefix_clear", [this](kvant_cache* c) { return api().prefix_clear(c, &number); }},
        {"prefix_policy", [this](kvant_cache* c) { return api().prefix_policy(c, &policy); }},
        {"prefix_stats", [this](kvant_cache* c) { return api().prefix_stats(c, &prefix); }},
        {"state_save", [this, &m](kvant_cache* c) { return m.state_save(c, &state, &stream); }},
        {"state_load", [this, &m](kvant_cache* c) { return m.state_load(c, &stream, &count); }},
        {"state_loaded", [this, &m](kvant_cache* c) { return m.state_loaded(c, 0, &number, &out_sequence); }},
        {"state_save_file", [this, &m](kvant_cache* c) { return m.state_save_file(c, &state, "/no/such/folder/x"); }},
        {"state_load_file", [this, &m](kvant_cache* c) { return m.state_load_file(c, "/no/such/file", &count); }},
        {"stats_text", [this, &m](kvant_cache* c) { return m.stats_text(c, 0, nullptr, &text, &number); }},
        {"stats_observe", [&m](kvant_cache* c) { return m.stats_observe(c); }},
        {"stats_sample_errors", [&m](kvant_cache* c) { return m.stats_sample_errors(c, 1); }},
        {"events_poll", [this, &m](kvant_cache* c) { return m.events_poll(c, 0, 1, &event, &count, &lost); }},
        {"store_open", [this, &m](kvant_cache* c) { return m.store_open(c, &options); }},
        {"store_put", [this, &m](kvant_cache* c) { return m.store_put(c, &store); }},
        {"store_get", [this, &m](kvant_cache* c) { return m.store_get(c, &store, &count); }},
        {"store_find", [this, &m](kvant_cache* c) { return m.store_find(c, &find, &count); }},
        {"store_erase", [this, &m](kvant_cache* c) { return m.store_erase(c, &find); }},
        {"store_clear", [&m](kvant_cache* c) { return m.store_clear(c); }},
        {"store_stats", [this, &m](kvant_cache* c) { return m.store_stats(c, &store_stats); }},
        {"sequence_write", [this, &m, id](kvant_cache* c) { return m.sequence_write(c, id, 0, 0, 20, &k_tensor, &v_tensor); }},
        {"clear_all", [this, &m](kvant_cache* c) { return m.clear_all(c, &number); }},
    };
  }
};

kvant_step* open_step(kvant_cache* cache, kvant_sequence sequence, std::uint32_t append) {
  auto entry = make<kvant_step_entry>();
  entry.sequence = sequence;
  entry.append = append;
  auto args = make<kvant_step_args>();
  args.entry_count = 1;
  args.entries = &entry;
  kvant_step* step = nullptr;
  require_ok(api().step_plan(cache, &args, &step));
  return step;
}

}  // namespace

TEST_CASE("hostile: NULL, stale and foreign handles") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  kvant_cache* stale = prefix_cache(session);
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(stale, &sequence));
  api().cache_destroy(stale);
  Arguments a;
  for (const Arguments::Call& call : a.calls(m, sequence)) {
    check_error(call.invoke(nullptr), KVANT_ERROR_INVALID_ARGUMENT, call.name, "cache is NULL");
    check_error(call.invoke(stale), KVANT_ERROR_NOT_FOUND, call.name, "cache (0x");
    check_error(call.invoke(reinterpret_cast<kvant_cache*>(session.device)), KVANT_ERROR_NOT_FOUND, call.name, "cache (0x");
    check_error(call.invoke(reinterpret_cast<kvant_cache*>(std::uintptr_t{1})), KVANT_ERROR_NOT_FOUND, call.name, "cache (0x");
    CHECK(a.untouched());
  }
  kvant_cache* cache = prefix_cache(session);
  // A sequence of a cache that is gone, none, and one that never was.
  check_error(m.sequence_write(cache, sequence, 0, 0, 1, &a.k_tensor, &a.v_tensor), KVANT_ERROR_NOT_FOUND, "sequence_write", "sequence (0x");
  check_error(m.sequence_write(cache, 0, 0, 0, 1, &a.k_tensor, &a.v_tensor), KVANT_ERROR_INVALID_ARGUMENT, "sequence_write", "sequence is 0");
  a.options.cold_cache = stale;
  check_error(m.store_open(cache, &a.options), KVANT_ERROR_NOT_FOUND, "store_open", "options.cold_cache (0x");
  a.state.flags = 0;
  a.state.sequences = &sequence;
  a.state.sequence_count = 1;
  check_error(m.state_save(cache, &a.state, &a.stream), KVANT_ERROR_NOT_FOUND, "state_save", "args.sequences[0]");
  CHECK(a.bytes.data.empty());
  api().cache_destroy(cache);
}

TEST_CASE("hostile: structs that are too small, chains that are unknown") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  kvant_cache* cache = prefix_cache(session);
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  Arguments a;
  auto next = make<kvant_next>();
  next.type = 0xABCD;
  const std::vector<Arguments::Call> calls = a.calls(m, sequence);
  const auto call_of = [&](const char* name) {
    for (const Arguments::Call& call : calls)
      if (std::string(call.name) == name) return call;
    FAIL("no call of that name");
    return calls.front();
  };
  const auto bad = [&](auto& value, const char* name, std::uint32_t code = KVANT_ERROR_INVALID_ARGUMENT) {
    const auto kept = value;
    for (const std::size_t size : {std::size_t{0}, std::size_t{3}, sizeof(std::size_t)}) {
      value.struct_size = size;
      check_error(call_of(name).invoke(cache), code, name, "struct_size (" + std::to_string(size) + ")");
    }
    value = kept;
    value.next = &next;
    check_error(call_of(name).invoke(cache), KVANT_ERROR_UNIMPLEMENTED, name, "type (0xabcd)");
    value = kept;
    CHECK(a.untouched());
  };
  bad(a.sequence, "sequence_open");
  bad(a.sequence, "prefix_find");
  bad(a.policy, "prefix_policy");
  bad(a.prefix, "prefix_stats");
  bad(a.state, "state_save");
  bad(a.stream, "state_save");
  bad(a.stream, "state_load");
  bad(a.event, "events_poll");
  bad(a.options, "store_open");
  a.options.policy = &a.policy;
  bad(a.policy, "store_open");
  a.options.policy = nullptr;
  require_ok(m.store_open(cache, &a.options));
  bad(a.store, "store_put");
  bad(a.k_tensor, "store_put");
  bad(a.v_tensor, "store_get");
  bad(a.find, "store_find");
  bad(a.find, "store_erase");
  bad(a.store_stats, "store_stats");
  bad(a.k_tensor, "sequence_write");
  bad(a.v_tensor, "sequence_write");
  CHECK(stats_of(cache).used_pages == 0);
  api().cache_destroy(cache);
}

TEST_CASE("hostile: absurd counts and outputs that overlap") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  kvant_cache* cache = prefix_cache(session);
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  Arguments a;
  require_ok(m.store_open(cache, &a.options));
  constexpr std::uint64_t kHuge = ~std::uint64_t{0};
  const auto write = [&](std::uint64_t begin, std::uint64_t count, const char* part) {
    check_error(m.sequence_write(cache, sequence, 0, begin, count, &a.k_tensor, &a.v_tensor), KVANT_ERROR_INVALID_ARGUMENT,
                "sequence_write", part);
  };
  write(kHuge, 1, "begin (18446744073709551615)");
  write(0, kHuge, "count (18446744073709551615)");
  write(0, 0x7FFFFFFF, "count (2147483647)");
  check_error(m.sequence_write(cache, sequence, 0xFFFFFFFF, 0, 1, &a.k_tensor, &a.v_tensor), KVANT_ERROR_INVALID_ARGUMENT,
              "sequence_write", "layer (4294967295)");
  a.k_tensor.token_stride = kHuge;
  write(0, 20, "k.token_stride");
  a.k_tensor.token_stride = 0;
  for (const std::uint64_t count : {kHuge, std::uint64_t{1} << 62, std::uint64_t{1} << 31}) {
    a.store.token_count = a.sequence.token_count = count;
    check_error(m.store_put(cache, &a.store), KVANT_ERROR_INVALID_ARGUMENT, "store_put", "token_count (" + std::to_string(count));
    check_error(api().sequence_open(cache, &a.sequence, &a.out_sequence, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "sequence_open",
                "token_count (" + std::to_string(count));
  }
  a.store.token_count = a.sequence.token_count = 20;
  // More to leave than there is: nothing is shared, and nothing underflows.
  a.sequence.leave_tokens = kHuge;
  std::uint64_t reused = 5;
  kvant_sequence opened = 0;
  require_ok(api().sequence_open(cache, &a.sequence, &opened, &reused));
  CHECK(reused == 0);
  require_ok(api().sequence_destroy(cache, opened));
  check_error(m.state_loaded(cache, 0xFFFFFFFF, &a.number, &a.out_sequence), KVANT_ERROR_INVALID_ARGUMENT, "state_loaded",
              "index (4294967295)");
  a.state.flags = 0;
  a.state.sequence_count = 0xFFFFFFFF;
  check_error(m.state_save(cache, &a.state, &a.stream), KVANT_ERROR_INVALID_ARGUMENT, "state_save", "args.sequences is NULL");
  // Events: more room than there are, from beyond the newest.
  kvant_event many[8];
  for (kvant_event& event : many) event = make<kvant_event>();
  std::uint32_t count = 0;
  require_ok(m.events_poll(cache, kHuge, 8, many, &count, nullptr));
  CHECK(count == 0);
  require_ok(m.events_poll(cache, 0, 8, many, &count, nullptr));
  CHECK(count == 4);  // one created; a miss, another one created and destroyed
  many[1].struct_size = 4;
  const std::uint64_t number = many[0].number;
  many[0].number = 0;
  check_error(m.events_poll(cache, 0, 8, many, &count, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "events_poll", "events[1]");
  CHECK(many[0].number == 0);  // all or nothing
  CHECK(number == 1);
  require_ok(m.stats_sample_errors(cache, kHuge));
  require_ok(m.sequence_write(cache, sequence, 0, 0, 20, &a.k_tensor, &a.v_tensor));
  require_ok(m.stats_sample_errors(cache, 0));

  // Outputs: K and V in one place, rows of a batch in one place.
  require_ok(m.store_put(cache, &a.store));
  const std::vector<float> before = a.k;
  a.store.v = &a.k_tensor;
  check_error(m.store_get(cache, &a.store, &a.count), KVANT_ERROR_INVALID_ARGUMENT, "store_get", "overlap");
  std::vector<std::int32_t> two(40, 3);
  a.store.tokens = two.data();
  a.store.batch = 2;
  a.store.v = nullptr;
  std::vector<float> wide(40 * 128, 9.0F);
  kvant_tensor out = tensor_of(wide);
  a.store.k = &out;
  a.store.k_batch_stride = 128;
  std::uint32_t found[2] = {7, 7};
  check_error(m.store_get(cache, &a.store, found), KVANT_ERROR_INVALID_ARGUMENT, "store_get", "overlap");
  a.store.k_batch_stride = kHuge;
  check_error(m.store_get(cache, &a.store, found), KVANT_ERROR_INVALID_ARGUMENT, "store_get", "row 1 of the batch");
  CHECK((found[0] == 7 && found[1] == 7));
  CHECK(a.k == before);
  CHECK(wide == std::vector<float>(40 * 128, 9.0F));
  a.store.k_batch_stride = 20 * 128;
  require_ok(m.store_get(cache, &a.store, found));
  CHECK((found[0] == 1 && found[1] == 1));
  CHECK(std::equal(before.begin(), before.end(), wide.begin() + 20 * 128));
  CHECK(a.untouched());
  api().cache_destroy(cache);
}

TEST_CASE("hostile: calls from inside of a stream are refused, and the stream goes on") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  kvant_cache* cache = prefix_cache(session);
  kvant_cache* other = prefix_cache(session);
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  Arguments a, inner;
  require_ok(m.sequence_write(cache, sequence, 0, 0, 20, &a.k_tensor, &a.v_tensor));
  const std::vector<Arguments::Call> calls = inner.calls(m, sequence);
  session.take_blame();
  int visits = 0;
  a.bytes.inside = [&] {
    if (++visits > 2) return;
    for (kvant_cache* target : {cache, other}) {
      for (const Arguments::Call& call : calls)
        check_error(call.invoke(target), KVANT_ERROR_FAILED_PRECONDITION, call.name, "callback");
      check_error(api().sequence_destroy(target, sequence), KVANT_ERROR_FAILED_PRECONDITION, "sequence_destroy", "callback");
      check_error(api().cache_convert(target, 0, 0, 0), KVANT_ERROR_FAILED_PRECONDITION, "cache_convert", "callback");
      api().cache_destroy(target);  // logged, ignored
    }
    api().device_close(session.device);
    api().context_destroy(session.context);
    std::uint32_t formats = 0;
    check_ok(api().format_count(session.context, &formats));  // of any thread, at any time
  };
  const auto args = a.state;
  require_ok(m.state_save(cache, &args, &a.stream));
  CHECK(visits > 2);
  CHECK(session.take_blame().size() == 8);
  visits = 0;
  std::uint32_t count = 0;
  require_ok(m.state_load(other, &a.stream, &count));
  CHECK(count == 1);
  CHECK(session.take_blame().size() == 8);
  CHECK(inner.untouched());
  std::uint64_t saved = 0;
  kvant_sequence loaded = 0;
  require_ok(m.state_loaded(other, 0, &saved, &loaded));
  CHECK(state_of(other, {loaded}, 2, 64).keys[0] == a.k);
  CHECK(stats_of(cache).sequence_count == 1);
  api().cache_destroy(cache);
  api().cache_destroy(other);
}

TEST_CASE("hostile: while a step is open") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  kvant_cache* cache = prefix_cache(session);
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  Arguments a;
  require_ok(m.store_open(cache, &a.options));
  require_ok(m.sequence_write(cache, sequence, 0, 0, 20, &a.k_tensor, &a.v_tensor));
  kvant_step* step = open_step(cache, sequence, 30);
  const kvant_cache_stats before = stats_of(cache);
  for (const Arguments::Call& call : a.calls(m, sequence)) {
    const std::string name = call.name;
    if (name == "store_put" || name == "store_get" || name == "store_find" || name == "store_erase" || name == "store_clear" ||
        name == "sequence_write" || name == "clear_all")
      check_error(call.invoke(cache), KVANT_ERROR_FAILED_PRECONDITION, name, "step of the cache is open");
  }
  CHECK(a.untouched());
  CHECK(stats_of(cache).used_pages == before.used_pages);
  // What does not touch the step's sequence goes on: saving what is committed, loading, coming and going.
  require_ok(m.state_save(cache, &a.state, &a.stream));
  std::uint32_t count = 0;
  require_ok(m.state_load(cache, &a.stream, &count));
  REQUIRE(count == 1);
  std::uint64_t saved = 0;
  kvant_sequence loaded = 0, fork = 0;
  require_ok(m.state_loaded(cache, 0, &saved, &loaded));
  CHECK(saved == sequence);
  require_ok(api().sequence_fork(cache, sequence, 20, &fork));
  std::uint64_t pages = 0;
  require_ok(api().prefix_clear(cache, &pages));
  require_ok(m.stats_observe(cache));
  // The step is as it was.
  StepData data;
  data.k = random_floats(30 * 128, 5);
  data.v = data.k;
  std::vector<kvant_tensor> tensors;
  const kvant_run_args run = run_args_of(data, tensors);
  require_ok(api().step_run(step, 0, &run));
  require_ok(api().step_commit(step));
  const CacheState state = state_of(cache, {sequence, loaded, fork}, 2, 64);
  CHECK(state.keys[1] == a.k);
  CHECK(state.keys[2] == a.k);
  CHECK(std::equal(a.k.begin(), a.k.end(), state.keys[0].begin()));
  CHECK(std::equal(data.k.begin(), data.k.end(), state.keys[0].begin() + 20 * 128));
  std::uint64_t sequences = 0;
  require_ok(m.clear_all(cache, &sequences));
  CHECK(sequences == 3);
  CHECK(stats_of(cache).used_pages == 0);
  api().cache_destroy(cache);
}

TEST_CASE("hostile: a cache with the engine's pages") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  kvant_cache* paged = make_cache(session, {.external = true});
  Arguments a;
  for (const Arguments::Call& call : a.calls(m, 1)) {
    const std::string name = call.name;
    if (name == "stats_text" || name == "stats_observe" || name == "stats_sample_errors" || name == "events_poll") continue;
    const std::uint32_t code = name == "state_loaded" ? KVANT_ERROR_INVALID_ARGUMENT : KVANT_ERROR_FAILED_PRECONDITION;
    check_error(call.invoke(paged), code, name, "");
  }
  CHECK(a.untouched());
  const char* text = nullptr;
  require_ok(m.stats_text(paged, KVANT_STATS_JSON, nullptr, &text, nullptr));
  require_ok(m.stats_observe(paged));
  api().cache_destroy(paged);
}

TEST_CASE("hostile: a store's own sequences, and caches that are given twice") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  kvant_cache* hot = prefix_cache(session);
  kvant_cache* cold = prefix_cache(session, 128, "f16");
  kvant_cache* third = prefix_cache(session);
  auto options = make<kvant_store_options>();
  options.cold_cache = cold;
  require_ok(m.store_open(hot, &options));
  check_error(m.store_open(third, &options), KVANT_ERROR_FAILED_PRECONDITION, "store_open", "cold cache of another store");
  options.cold_cache = hot;
  check_error(m.store_open(cold, &options), KVANT_ERROR_FAILED_PRECONDITION, "store_open", "cold cache of another store");
  check_error(m.store_open(third, &options), KVANT_ERROR_FAILED_PRECONDITION, "store_open", "has a store of its own");
  Arguments a;
  require_ok(m.store_put(hot, &a.store));
  // Events tell the handle of the sequence that the store keeps the prefix in. An engine that destroys it loses the prefix only.
  require_ok(m.events_poll(hot, 1, 1, &a.event, &a.count, &a.lost));  // the first one is the miss
  REQUIRE(a.event.kind == KVANT_EVENT_SEQUENCE_CREATED);
  CHECK(stats_of(hot).sequence_count == 1);
  require_ok(api().sequence_destroy(hot, a.event.sequence));
  CHECK(stats_of(hot).sequence_count == 0);
  std::uint32_t found = 7;
  take(m.store_get(hot, &a.store, &found));
  CHECK(found != 1);
  require_ok(m.store_clear(hot));
  require_ok(m.store_put(hot, &a.store));
  require_ok(m.store_get(hot, &a.store, &found));
  CHECK(found == 1);
  api().cache_destroy(hot);
  // Free again.
  options.cold_cache = cold;
  require_ok(m.store_open(third, &options));
  api().cache_destroy(cold);
  api().cache_destroy(third);
}
