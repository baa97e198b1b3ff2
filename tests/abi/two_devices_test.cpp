// Two devices in one process: layers of a model split over both, states and pages that go from one to the other, calls that take
// turns and calls at once, and every order of destruction. Run by ctest as abi.two-devices, with two drivers in view.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "two_devices.hpp"

using namespace abi_test;

namespace {

constexpr std::uint32_t kHalf = 2;  // layers of each half

// Where a step of the whole model goes: the cache that has the layer, and its number there.
struct Place {
  kvant_step* step;
  std::uint32_t layer;
};

// Every layer's queries are its own plus what the layer before gave, as in a model. Gives each layer's output.
std::vector<std::vector<float>> run_layers(const std::vector<Place>& places, std::uint64_t begin, std::uint32_t append,
                                           std::uint32_t queries) {
  std::vector<std::vector<float>> outputs;
  std::vector<float> stream(queries * kSplitQueryRow, 0.0F);
  for (std::uint32_t layer = 0; layer < places.size(); ++layer) {
    StepData data = step_data(layer, begin, append, queries);
    for (std::size_t i = 0; i < stream.size(); ++i) data.q[i] += stream[i];
    std::vector<kvant_tensor> tensors;
    const kvant_run_args run = run_args_of(data, tensors);
    require_ok(api().step_run(places[layer].step, places[layer].layer, &run));
    stream = data.out;
    outputs.push_back(std::move(data.out));
  }
  return outputs;
}

// A prompt and some single tokens.
constexpr std::uint32_t kSteps[][2] = {{37, 5}, {1, 1}, {1, 1}, {13, 2}, {1, 1}};

// One device's half of a model, and what its steps gave; used by one thread at a time.
struct Half {
  kvant_cache* cache = nullptr;
  kvant_sequence sequence = 0;
  Half(const TwoDevices& two, kvant_device* device, const FormatPair& formats, std::uint32_t layers = kHalf)
      : cache(make_cache_on(two, device, {.layers = layers, .formats = formats})) {
    require_ok(api().sequence_create(cache, &sequence));
  }
  ~Half() { api().cache_destroy(cache); }
  Half(const Half&) = delete;
  Half& operator=(const Half&) = delete;
};

// Bytes that one thread writes and another reads.
struct Pipe {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<char> bytes;
  bool ended = false;
  std::size_t passed = 0;

  kvant_state_stream stream() {
    auto made = make<kvant_state_stream>();
    made.user_data = this;
    made.write = [](void* self, const void* data, std::uint64_t size) {
      auto& pipe = *static_cast<Pipe*>(self);
      const std::lock_guard lock(pipe.mutex);
      const char* from = static_cast<const char*>(data);
      pipe.bytes.insert(pipe.bytes.end(), from, from + size);
      pipe.passed += size;
      pipe.changed.notify_all();
      return std::uint32_t{1};
    };
    made.read = [](void* self, void* out, std::uint64_t size) {
      auto& pipe = *static_cast<Pipe*>(self);
      std::unique_lock lock(pipe.mutex);
      pipe.changed.wait(lock, [&] { return pipe.ended || !pipe.bytes.empty(); });
      const auto count = static_cast<std::ptrdiff_t>(std::min<std::uint64_t>(size, pipe.bytes.size()));
      std::copy_n(pipe.bytes.begin(), count, static_cast<char*>(out));
      pipe.bytes.erase(pipe.bytes.begin(), pipe.bytes.begin() + count);
      return static_cast<std::uint64_t>(count);
    };
    return made;
  }
  void end() {
    const std::lock_guard lock(mutex);
    ended = true;
    changed.notify_all();
  }
};

// The engine's own tier, for the caches of both devices at once.
struct SharedTier {
  std::mutex mutex;
  std::map<std::string, std::string> entries;
  std::size_t given = 0;

  kvant_tier_functions functions() {
    auto made = make<kvant_tier_functions>();
    made.user_data = this;
    made.put = [](void* self, const std::uint8_t* key, const void* value, std::uint64_t size) {
      auto& tier = *static_cast<SharedTier*>(self);
      const std::lock_guard lock(tier.mutex);
      tier.entries.insert_or_assign(std::string(reinterpret_cast<const char*>(key), 32),
                                    std::string(static_cast<const char*>(value), size));
      return std::uint32_t{1};
    };
    made.get = [](void* self, const std::uint8_t* key, void* out, std::uint64_t size) {
      auto& tier = *static_cast<SharedTier*>(self);
      const std::lock_guard lock(tier.mutex);
      const auto it = tier.entries.find(std::string(reinterpret_cast<const char*>(key), 32));
      if (it == tier.entries.end()) return std::uint64_t{0};
      if (size >= it->second.size()) {
        std::memcpy(out, it->second.data(), it->second.size());
        ++tier.given;
      }
      return std::uint64_t{it->second.size()};
    };
    return made;
  }
};

void set_tier(const TwoDevices& two, kvant_cache* cache, const kvant_tier_functions& functions) {
  auto tier = make<kvant_tier_args>();
  tier.kind = KVANT_TIER_CUSTOM;
  tier.functions = &functions;
  auto tiers = make<kvant_tiers_args>();
  tiers.tier_count = 1;
  tiers.tiers = &tier;
  tiers.flags = KVANT_TIERS_ALWAYS_LOAD;
  require_ok(two.manager->tiers_set(cache, &tiers));
}

kvant_sequence load_only(const TwoDevices& two, kvant_cache* cache, const kvant_state_stream& stream) {
  std::uint32_t count = 0;
  std::uint64_t saved = 0;
  kvant_sequence sequence = 0;
  require_ok(two.manager->state_load(cache, &stream, &count));
  REQUIRE(count == 1);
  require_ok(two.manager->state_loaded(cache, 0, &saved, &sequence));
  return sequence;
}

}  // namespace

TEST_SUITE_BEGIN("two devices");

TEST_CASE("two devices: layers split over both give what one device gives") {
  TwoDevices& two = shared_devices();
  if (!two.ready()) return;
  MESSAGE(two.name(0) << " and " << two.name(1));
  CHECK(two.name(0) != two.name(1));
  for (const FormatPair& formats : {kFormatPairs[0], kFormatPairs[1]}) {
    CAPTURE(formats.k);
    CAPTURE(formats.v);
    Half lower(two, two.device(0), formats), upper(two, two.device(1), formats), whole(two, two.device(0), formats, 2 * kHalf);
    std::uint64_t begin = 0;
    for (const auto& [append, queries] : kSteps) {
      kvant_step* low = plan_step(lower.cache, lower.sequence, append, queries);
      kvant_step* high = plan_step(upper.cache, upper.sequence, append, queries);
      const auto split = run_layers({{low, 0}, {low, 1}, {high, 0}, {high, 1}}, begin, append, queries);
      require_ok(api().step_commit(low));
      require_ok(api().step_commit(high));
      kvant_step* all = plan_step(whole.cache, whole.sequence, append, queries);
      const auto one = run_layers({{all, 0}, {all, 1}, {all, 2}, {all, 3}}, begin, append, queries);
      require_ok(api().step_commit(all));
      // The lower half ran on the same device from the same input; the upper one on another, from the same codes.
      for (std::uint32_t layer = 0; layer < kHalf; ++layer) CHECK(split[layer] == one[layer]);
      for (std::uint32_t layer = kHalf; layer < 2 * kHalf; ++layer) {
        CHECK(worst_of(split[layer], one[layer]) < 1e-4);
        CHECK(worst_of(split[layer], split[layer - 1]) > 1e-2);  // no layer echoes its input
      }
      begin += append;
    }
    CHECK(exported(two, lower.cache, lower.sequence, kHalf, formats) + exported(two, upper.cache, upper.sequence, kHalf, formats) ==
          exported(two, whole.cache, whole.sequence, 2 * kHalf, formats));
  }
  CHECK(two.session.take_blame().empty());
}

TEST_CASE("two devices: a state saved on one is loaded on the other, byte for byte, and goes on there") {
  TwoDevices& two = shared_devices();
  if (!two.ready()) return;
  for (const FormatPair& formats : kFormatPairs) {
    CAPTURE(formats.k);
    CAPTURE(formats.v);
    for (const std::size_t from : {std::size_t{0}, std::size_t{1}}) {
      CAPTURE(from);
      Half source(two, two.device(from), formats);
      kvant_step* step = plan_step(source.cache, source.sequence, 37, 0);
      run_layers({{step, 0}, {step, 1}}, 0, 37, 0);
      require_ok(api().step_commit(step));
      const std::string bytes = exported(two, source.cache, source.sequence, kHalf, formats);

      kvant_cache* target = make_cache_on(two, two.device(1 - from), {.formats = formats});
      Pipe there, back;
      auto args = make<kvant_state_args>();
      args.flags = KVANT_STATE_ALL_SEQUENCES;
      const kvant_state_stream out = there.stream();
      require_ok(two.manager->state_save(source.cache, &args, &out));
      there.end();
      const kvant_sequence loaded = load_only(two, target, out);
      CHECK(exported(two, target, loaded, kHalf, formats) == bytes);

      // Both go on alike.
      const std::uint32_t queries = std::string(formats.k) == "nf4_dq" ? 0 : 2;  // no kernels compiled for a third pair
      kvant_step* here_step = plan_step(source.cache, source.sequence, 3, queries);
      kvant_step* there_step = plan_step(target, loaded, 3, queries);
      const auto here_out = run_layers({{here_step, 0}, {here_step, 1}}, 37, 3, queries);
      const auto there_out = run_layers({{there_step, 0}, {there_step, 1}}, 37, 3, queries);
      require_ok(api().step_commit(here_step));
      require_ok(api().step_commit(there_step));
      for (std::uint32_t layer = 0; layer < kHalf; ++layer) CHECK(worst_of(here_out[layer], there_out[layer]) < 1e-4);

      // And back again, into a new cache beside the one that it came from.
      const kvant_state_stream again = back.stream();
      require_ok(two.manager->state_save(target, &args, &again));
      back.end();
      kvant_cache* home = make_cache_on(two, two.device(from), {.formats = formats});
      const kvant_sequence returned = load_only(two, home, again);
      CHECK(exported(two, home, returned, kHalf, formats) == exported(two, source.cache, source.sequence, kHalf, formats));
      api().cache_destroy(home);
      api().cache_destroy(target);
    }
  }
}

TEST_CASE("two devices: a state streams from one to the other while both are at work") {
  TwoDevices& two = shared_devices();
  if (!two.ready()) return;
  const FormatPair formats{"q8_0", "q4_0"};
  Half source(two, two.device(0), formats);
  kvant_step* step = plan_step(source.cache, source.sequence, 200, 0);
  run_layers({{step, 0}, {step, 1}}, 0, 200, 0);
  require_ok(api().step_commit(step));
  kvant_cache* target = make_cache_on(two, two.device(1), {.formats = formats});
  Pipe pipe;
  const kvant_state_stream stream = pipe.stream();
  Outcome saved;
  std::thread saving([&] {
    auto args = make<kvant_state_args>();
    args.flags = KVANT_STATE_ALL_SEQUENCES;
    saved = take(two.manager->state_save(source.cache, &args, &stream));
    pipe.end();
  });
  std::uint32_t count = 0;
  const Outcome loaded = take(two.manager->state_load(target, &stream, &count));
  saving.join();
  CHECK_MESSAGE(saved.code == 0, saved.message);
  REQUIRE_MESSAGE(loaded.code == 0, loaded.message);
  REQUIRE(count == 1);
  CHECK(pipe.passed > exported(two, source.cache, source.sequence, kHalf, formats).size());
  std::uint64_t number = 0;
  kvant_sequence sequence = 0;
  require_ok(two.manager->state_loaded(target, 0, &number, &sequence));
  CHECK(number == source.sequence);
  CHECK(exported(two, target, sequence, kHalf, formats) == exported(two, source.cache, source.sequence, kHalf, formats));
  api().cache_destroy(target);
}

TEST_CASE("two devices: pages that one exports to a tier are imported by the other") {
  TwoDevices& two = shared_devices();
  if (!two.ready()) return;
  std::vector<std::int32_t> tokens(64);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(i * 7 + 1);
  for (const FormatPair& formats : kFormatPairs) {
    CAPTURE(formats.k);
    CAPTURE(formats.v);
    for (const std::size_t from : {std::size_t{0}, std::size_t{1}}) {
      CAPTURE(from);
      SharedTier shared;
      const kvant_tier_functions functions = shared.functions();
      const SplitCacheOptions options{.formats = formats, .flags = KVANT_CACHE_PREFIXES, .model_id = "split"};
      kvant_cache* source = make_cache_on(two, two.device(from), options);
      kvant_cache* target = make_cache_on(two, two.device(1 - from), options);
      set_tier(two, source, functions);
      set_tier(two, target, functions);
      auto open = make<kvant_sequence_args>();
      open.tokens = tokens.data();
      open.token_count = tokens.size();
      kvant_sequence written = 0, found = 0;
      std::uint64_t reused = 9;
      require_ok(api().sequence_open(source, &open, &written, &reused));
      CHECK(reused == 0);
      kvant_step* step = plan_step(source, written, 64, 0);
      run_layers({{step, 0}, {step, 1}}, 0, 64, 0);
      require_ok(api().step_commit(step));
      require_ok(two.manager->tiers_store(source));
      require_ok(two.manager->tiers_wait(source));
      CHECK(shared.entries.size() == 4);
      require_ok(api().sequence_open(target, &open, &found, &reused));
      CHECK(reused == 64);
      CHECK(shared.given >= 4);
      CHECK(exported(two, target, found, kHalf, formats) == exported(two, source, written, kHalf, formats));
      api().cache_destroy(source);
      api().cache_destroy(target);
    }
  }
}

TEST_CASE("two devices: a thread for each, and one that uses both in turns") {
  TwoDevices& two = shared_devices();
  if (!two.ready()) return;
  const FormatPair formats{"q8_0", "q4_0"};
  // Alone first: what each device gives without the other at work.
  const auto work = [&](kvant_device* device, std::vector<std::vector<float>>& outputs, std::string& bytes) {
    Half half(two, device, formats);
    std::uint64_t begin = 0;
    for (int round = 0; round < 3; ++round)
      for (const auto& [append, queries] : kSteps) {
        kvant_step* step = plan_step(half.cache, half.sequence, append, queries);
        for (auto& out : run_layers({{step, 0}, {step, 1}}, begin, append, queries)) outputs.push_back(std::move(out));
        require_ok(api().step_commit(step));
        begin += append;
      }
    bytes = exported(two, half.cache, half.sequence, kHalf, formats);
  };
  std::vector<std::vector<float>> alone[2], threaded[2];
  std::string alone_bytes[2], threaded_bytes[2];
  for (std::size_t i = 0; i < 2; ++i) work(two.device(i), alone[i], alone_bytes[i]);
  CHECK(alone_bytes[0] == alone_bytes[1]);

  std::atomic<bool> stop{false};
  std::atomic<int> turns{0}, wrong{0};
  std::thread between([&] {
    const std::vector<float> x(64, 1.5F);
    while (!stop || turns == 0) {
      for (std::size_t i = 0; i < 2; ++i) {
        std::vector<float> y(64, 0.0F);
        const Outcome outcome = take(api().quantize(two.device(i), 0, 64, 1, x.data(), 256, y.data(), 256));
        if (outcome.code != 0 || x != y) ++wrong;
      }
      ++turns;
    }
  });
  std::thread second([&] { work(two.device(1), threaded[1], threaded_bytes[1]); });
  work(two.device(0), threaded[0], threaded_bytes[0]);
  second.join();
  stop = true;
  between.join();
  CHECK(wrong == 0);
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(threaded[i] == alone[i]);
    CHECK(threaded_bytes[i] == alone_bytes[i]);
  }
}

TEST_CASE("two devices: a callback of one device may use the other, not its own") {
  TwoDevices& two = shared_devices();
  if (!two.ready()) return;
  Half half(two, two.device(0), {"f16", "f16"});
  kvant_step* step = plan_step(half.cache, half.sequence, 20, 0);
  run_layers({{step, 0}, {step, 1}}, 0, 20, 0);
  require_ok(api().step_commit(step));
  struct Probe {
    TwoDevices* two;
    Outcome own, other;
    int calls = 0;
  } probe{&two, {}, {}};
  auto stream = make<kvant_state_stream>();
  stream.user_data = &probe;
  stream.write = [](void* self, const void*, std::uint64_t) {
    auto& p = *static_cast<Probe*>(self);
    auto info = make<kvant_device_info>();
    p.own = take(api().device_describe(p.two->device(0), &info));
    p.other = take(api().device_describe(p.two->device(1), &info));
    ++p.calls;
    return std::uint32_t{1};
  };
  auto args = make<kvant_state_args>();
  args.flags = KVANT_STATE_ALL_SEQUENCES;
  check_ok(two.manager->state_save(half.cache, &args, &stream));
  CHECK(probe.calls > 0);
  CHECK(probe.own.code == KVANT_ERROR_FAILED_PRECONDITION);
  CHECK_MESSAGE(probe.other.code == 0, probe.other.message);
}

TEST_CASE("two devices: objects of one are strangers to the other") {
  TwoDevices two;
  if (!two.ready()) return;
  Half a(two, two.device(0), {"f32", "f32"}), b(two, two.device(1), {"f32", "f32"});
  std::uint64_t length = 77;
  check_error(api().sequence_length(b.cache, a.sequence, &length), KVANT_ERROR_NOT_FOUND, "sequence_length", "sequence (0x");
  check_error(api().sequence_length(a.cache, b.sequence, &length), KVANT_ERROR_NOT_FOUND, "sequence_length", "sequence (0x");
  CHECK(length == 77);
  kvant_step* step = plan_step(a.cache, a.sequence, 1, 0);
  // The step keeps its cache and device; the other device is free to go.
  api().cache_destroy(std::exchange(b.cache, nullptr));
  two.close(1);
  run_layers({{step, 0}, {step, 1}}, 0, 1, 0);
  require_ok(api().step_commit(step));
  check_ok(api().sequence_length(a.cache, a.sequence, &length));
  CHECK(length == 1);
  // A store's cold cache must be of the same device.
  two.reopen(1);
  const SplitCacheOptions options{.flags = KVANT_CACHE_PREFIXES};
  kvant_cache* hot = make_cache_on(two, two.device(0), options);
  auto store = make<kvant_store_options>();
  store.cold_cache = make_cache_on(two, two.device(1), options);
  check_error(two.manager->store_open(hot, &store), KVANT_ERROR_INVALID_ARGUMENT, "store_open", "cold_cache");
  api().cache_destroy(store.cold_cache);
  api().cache_destroy(hot);
  CHECK(two.session.take_blame().empty());
}

TEST_CASE("two devices: closed in either order, opened again, the other goes on") {
  TwoDevices two;
  if (!two.ready()) return;
  const FormatPair formats{"q8_0", "q4_0"};
  const auto append = [&](kvant_cache* cache, kvant_sequence sequence) {
    kvant_step* step = plan_step(cache, sequence, 5, 0);
    run_layers({{step, 0}, {step, 1}}, 0, 5, 0);
    require_ok(api().step_commit(step));
    return exported(two, cache, sequence, kHalf, formats);
  };
  for (const std::size_t first : {std::size_t{0}, std::size_t{1}}) {
    CAPTURE(first);
    Half stays(two, two.device(1 - first), formats);
    kvant_cache* gone = make_cache_on(two, two.device(first), {.formats = formats});
    kvant_sequence sequence = 0;
    require_ok(api().sequence_create(gone, &sequence));
    const std::string expected = append(gone, sequence);
    api().device_close(two.device(first));  // it has a cache: kept, and the host is blamed
    CHECK(two.session.take_blame().size() == 1);
    api().cache_destroy(gone);
    two.close(first);
    CHECK(append(stays.cache, stays.sequence) == expected);
    two.reopen(first);
  }
  api().context_destroy(two.session.context);  // both devices are open: kept
  CHECK(two.session.take_blame().size() == 1);
  std::uint32_t count = 0;
  check_ok(api().device_count(two.session.context, &count));
  CHECK(count >= 2);
}

TEST_SUITE_END();
