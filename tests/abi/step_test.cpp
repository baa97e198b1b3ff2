// The step protocol: one open step, every layer before commit, abort restores; what is refused leaves everything as it was.
#include <atomic>
#include <cmath>
#include <thread>

#include "cache_state.hpp"

using namespace abi_test;

namespace {

struct Fixture {
  Session& session;
  kvant_cache* cache;
  kvant_sequence sequence = 0;
  StepData data;

  Fixture(Session& s, std::uint32_t layers) : session(s), cache(make_cache(s, {.layers = layers, .capacity = 64})) {
    require_ok(api().sequence_create(cache, &sequence));
    data.q_heads = 2;
    data.k = random_floats(4 * 128, 1);
    data.v = random_floats(4 * 128, 2);
    data.q = random_floats(128, 3);
    data.out.assign(128, 0.0F);
  }
  ~Fixture() { api().cache_destroy(cache); }
  Fixture(const Fixture&) = delete;
  Fixture& operator=(const Fixture&) = delete;

  kvant_error* plan(std::uint32_t append, std::uint32_t queries, kvant_step** step) {
    auto entry = make<kvant_step_entry>();
    entry.sequence = sequence;
    entry.append = append;
    entry.queries = queries;
    auto args = make<kvant_step_args>();
    args.entry_count = 1;
    args.entries = &entry;
    return api().step_plan(cache, &args, step);
  }
  std::uint64_t length() {
    std::uint64_t tokens = ~0ull;
    require_ok(api().sequence_length(cache, sequence, &tokens));
    return tokens;
  }
};

}  // namespace

TEST_CASE("steps: protocol") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  Fixture f(session, 2);
  std::vector<kvant_tensor> tensors;
  const kvant_run_args run = run_args_of(f.data, tensors);
  kvant_step *step = nullptr, *other = nullptr;
  require_ok(f.plan(4, 1, &step));
  check_error(f.plan(4, 1, &other), KVANT_ERROR_FAILED_PRECONDITION, "step_plan", "already open");
  CHECK(other == nullptr);
  check_error(api().sequence_destroy(f.cache, f.sequence), KVANT_ERROR_FAILED_PRECONDITION, "sequence_destroy", "open step");
  check_error(api().sequence_truncate(f.cache, f.sequence, 0), KVANT_ERROR_FAILED_PRECONDITION, "sequence_truncate",
              "open step");
  check_error(api().cache_convert(f.cache, 0, 0, session.format("f16")), KVANT_ERROR_FAILED_PRECONDITION, "cache_convert",
              "step");
  // Other sequences may come and go.
  kvant_sequence second = 0;
  check_ok(api().sequence_create(f.cache, &second));
  check_ok(api().sequence_destroy(f.cache, second));

  check_error(api().step_commit(step), KVANT_ERROR_FAILED_PRECONDITION, "step_commit", "layer 0 of 2");
  require_ok(api().step_run(step, 0, &run));
  check_error(api().step_commit(step), KVANT_ERROR_FAILED_PRECONDITION, "step_commit", "layer 1 of 2");
  CHECK(f.length() == 0);  // not committed yet
  require_ok(api().step_run(step, 1, &run));
  require_ok(api().step_commit(step));
  CHECK(f.length() == 4);
  check_error(api().step_commit(step), KVANT_ERROR_NOT_FOUND, "step_commit", "step (0x");
  check_error(api().step_run(step, 0, &run), KVANT_ERROR_NOT_FOUND, "step_run", "step (0x");
  api().step_abort(step);

  // A step without fresh tokens may ask layers in any order, any number of times, and need not ask all.
  require_ok(f.plan(0, 1, &step));
  kvant_run_args query = run;
  query.k = query.v = nullptr;
  const std::vector<float> first = f.data.out;
  require_ok(api().step_run(step, 1, &query));
  require_ok(api().step_run(step, 1, &query));
  CHECK(f.data.out == first);
  check_error(api().step_run(step, 1, &run), KVANT_ERROR_INVALID_ARGUMENT, "step_run", "args.k is given");
  require_ok(api().step_commit(step));
}

TEST_CASE("steps: abort leaves the cache as it was") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  Fixture f(session, 1);
  run_step(f.cache, 1, f.sequence, 4, 1, f.data);
  const CacheState before = state_of(f.cache, {f.sequence}, 2, 64);
  std::vector<kvant_tensor> tensors;
  f.data.k = random_floats(20 * 128, 8);
  f.data.v = random_floats(20 * 128, 9);
  const kvant_run_args run = run_args_of(f.data, tensors);
  kvant_step* step = nullptr;
  require_ok(f.plan(20, 1, &step));
  require_ok(api().step_run(step, 0, &run));
  api().step_abort(step);
  CHECK(state_of(f.cache, {f.sequence}, 2, 64) == before);
  // More than the pool holds: refused as a whole.
  check_error(f.plan(61, 0, &step), KVANT_ERROR_RESOURCE_EXHAUSTED, "step_plan", "");
  CHECK(state_of(f.cache, {f.sequence}, 2, 64) == before);
}

TEST_CASE("steps: more queries than tokens need positions, or no causal rule") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  Fixture f(session, 1);
  run_step(f.cache, 1, f.sequence, 4, 1, f.data);
  StepData ask;
  ask.q_heads = 2;
  ask.q = random_floats(5 * 128, 4);
  ask.out.assign(5 * 128, 2.0F);
  std::vector<kvant_tensor> tensors;
  kvant_run_args run = run_args_of(ask, tensors);
  kvant_step* step = nullptr;
  require_ok(f.plan(0, 5, &step));
  check_error(api().step_run(step, 0, &run), KVANT_ERROR_INVALID_ARGUMENT, "step_run", "queries (5)");
  CHECK(ask.out == std::vector<float>(5 * 128, 2.0F));
  run.flags = KVANT_RUN_NON_CAUSAL;
  check_ok(api().step_run(step, 0, &run));
  CHECK(ask.out != std::vector<float>(5 * 128, 2.0F));
  api().step_abort(step);
}

TEST_CASE("steps: a fork is independent of its parent") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  Fixture f(session, 1);
  f.data.k = random_floats(20 * 128, 5);
  f.data.v = random_floats(20 * 128, 6);
  run_step(f.cache, 1, f.sequence, 20, 1, f.data);
  kvant_sequence child = 0;
  require_ok(api().sequence_fork(f.cache, f.sequence, 18, &child));
  const CacheState parent = state_of(f.cache, {f.sequence}, 2, 64);
  CHECK(stats_of(f.cache).used_pages == 3);  // one shared page, two open ones
  StepData more;
  more.k = random_floats(128, 15);
  more.v = random_floats(128, 16);
  run_step(f.cache, 1, child, 1, 0, more);
  CacheState after = state_of(f.cache, {f.sequence, child}, 2, 64);
  CHECK(after.keys[0] == parent.keys[0]);
  CHECK(after.lengths[1] == 19);
  for (std::size_t i = 0; i < 18 * 128; ++i) REQUIRE(after.keys[1][i] == parent.keys[0][i]);
  for (std::size_t i = 0; i < 128; ++i) REQUIRE(after.keys[1][18 * 128 + i] == more.k[i]);
  require_ok(api().sequence_destroy(f.cache, f.sequence));
  CHECK(stats_of(f.cache).used_pages == 2);
}

TEST_CASE("steps: strided tensors are read and written where they say") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  Fixture packed(session, 1), strided(session, 1);
  run_step(packed.cache, 1, packed.sequence, 4, 1, packed.data);
  // K lies head-major: [head][token][dim]; OUT has gaps that must stay.
  StepData data = packed.data;
  for (std::size_t t = 0; t < 4; ++t)
    for (std::size_t h = 0; h < 2; ++h)
      for (std::size_t i = 0; i < 64; ++i) data.k[(h * 4 + t) * 64 + i] = packed.data.k[(t * 2 + h) * 64 + i];
  data.out.assign(2 * 80, -3.0F);
  std::vector<kvant_tensor> tensors;
  kvant_run_args run = run_args_of(data, tensors);
  tensors[0].token_stride = 64;
  tensors[0].head_stride = 4 * 64;
  tensors[3].head_stride = 80;
  tensors[3].token_stride = 160;
  kvant_step* step = nullptr;
  require_ok(strided.plan(4, 1, &step));
  require_ok(api().step_run(step, 0, &run));
  require_ok(api().step_commit(step));
  for (std::size_t h = 0; h < 2; ++h) {
    for (std::size_t i = 0; i < 64; ++i) REQUIRE(data.out[h * 80 + i] == packed.data.out[h * 64 + i]);
    for (std::size_t i = 64; i < 80; ++i) REQUIRE(data.out[h * 80 + i] == -3.0F);
  }
}

TEST_CASE("threads: calls on one device wait for each other; a callback may not call back") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  std::vector<std::thread> threads;
  std::atomic<int> failures{0};
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&, i] {
      auto layer = make<kvant_layer_args>();
      layer.kv_heads = 1;
      layer.head_dim_k = 32;
      auto args = make<kvant_cache_args>();
      args.layer_count = 1;
      args.layers = &layer;
      args.capacity_tokens = 64;
      kvant_cache* cache = nullptr;
      if (api().cache_create(session.device, &args, &cache) != nullptr) return void(++failures);
      for (int round = 0; round < 20; ++round) {
        kvant_sequence sequence = 0;
        auto entry = make<kvant_step_entry>();
        auto plan = make<kvant_step_args>();
        StepData data;
        data.k = random_floats(32, static_cast<std::uint32_t>(i));
        data.v = data.k;
        std::vector<kvant_tensor> tensors;
        const kvant_run_args run = run_args_of(data, tensors);
        kvant_step* step = nullptr;
        plan.entry_count = 1;
        plan.entries = &entry;
        entry.append = 1;
        bool good = api().sequence_create(cache, &sequence) == nullptr;
        entry.sequence = sequence;
        good = good && api().step_plan(cache, &plan, &step) == nullptr && api().step_run(step, 0, &run) == nullptr &&
               api().step_commit(step) == nullptr;
        std::vector<float> read(32, 0.0F);
        kvant_tensor out = tensor_of(read);
        good = good && api().sequence_read(cache, sequence, 0, KVANT_SIDE_K, 0, 1, &out) == nullptr && read == data.k;
        if (!good || api().sequence_destroy(cache, sequence) != nullptr) ++failures;
      }
      api().cache_destroy(cache);
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(failures == 0);
}

TEST_CASE("steps: a token that a query may not see does not reach it, be it NaN") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const std::size_t row = 2 * 64, tokens = 16;
  enum class Poison { none, key, value };  // NaN in the last token, one side at a time: a NaN weight would hide V's
  std::vector<float> clean;
  for (const Poison poison : {Poison::none, Poison::key, Poison::value}) {
    kvant_cache* cache = make_cache(session, {});
    kvant_sequence sequence = 0;
    require_ok(api().sequence_create(cache, &sequence));
    StepData data;
    data.q_heads = 2;
    data.k = random_floats(tokens * row, 5);
    data.v = random_floats(tokens * row, 6);
    data.q = random_floats(tokens * row, 7);
    data.out.assign(tokens * row, 0.0F);
    std::vector<float>& side = poison == Poison::key ? data.k : data.v;
    if (poison != Poison::none)
      for (std::size_t i = (tokens - 1) * row; i < tokens * row; ++i) side[i] = std::nanf("");
    run_step(cache, 1, sequence, tokens, tokens, data);
    data.out.resize((tokens - 1) * row);  // the last query sees the last token
    if (poison == Poison::none) clean = data.out;
    CHECK(data.out == clean);
    api().cache_destroy(cache);
  }
}
