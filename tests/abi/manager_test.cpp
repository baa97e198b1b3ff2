// The manager extension: statistics, events, the store, tokens written outside of steps.
#include <kvant/kvant_ext_manager.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include <nlohmann/json.hpp>

#include "cache_state.hpp"

using namespace abi_test;

namespace {

const kvant_ext_manager& manager(const Session& session) {
  const auto* table = static_cast<const kvant_ext_manager*>(api().get_extension(session.context, KVANT_EXT_MANAGER));
  REQUIRE(table != nullptr);
  return *table;
}

kvant_cache* prefix_cache(const Session& session, std::uint32_t layers, std::uint64_t capacity, const char* format) {
  auto layer = make<kvant_layer_args>();
  layer.kv_heads = 2;
  layer.head_dim_k = 32;
  layer.format_k = layer.format_v = session.format(format);
  const std::vector<kvant_layer_args> all(layers, layer);
  auto args = make<kvant_cache_args>();
  args.layer_count = layers;
  args.layers = all.data();
  args.capacity_tokens = capacity;
  args.flags = KVANT_CACHE_PREFIXES;
  kvant_cache* cache = nullptr;
  require_ok(api().cache_create(session.device, &args, &cache));
  return cache;
}

struct Prompt {
  std::vector<std::int32_t> tokens;
  Prompt(std::int32_t seed, std::size_t length) : tokens(length) {
    for (std::size_t i = 0; i < length; ++i) tokens[i] = seed * 1000 + static_cast<std::int32_t>(i);
  }
  std::vector<float> rows(std::uint32_t layer, std::uint32_t side) const {
    return random_floats(tokens.size() * 64, static_cast<std::uint32_t>(tokens[0]) * 64 + layer * 2 + side);
  }
};

// K and V of one layer of a prompt, and the arguments that name them.
struct StoreCall {
  std::vector<std::int32_t> tokens;
  std::vector<float> k, v;
  kvant_tensor k_tensor, v_tensor;
  kvant_store_args args = make<kvant_store_args>();
  StoreCall(const Prompt& prompt, std::uint32_t layer, bool filled)
      : tokens(prompt.tokens),
        k(filled ? prompt.rows(layer, 0) : std::vector<float>(prompt.tokens.size() * 64)),
        v(filled ? prompt.rows(layer, 1) : k),
        k_tensor(tensor_of(k)),
        v_tensor(tensor_of(v)) {
    args.tokens = tokens.data();
    args.token_count = tokens.size();
    args.layer = layer;
    args.k = &k_tensor;
    args.v = &v_tensor;
  }
  StoreCall(const StoreCall&) = delete;
  StoreCall& operator=(const StoreCall&) = delete;
};

void open_store(const kvant_ext_manager& m, kvant_cache* cache) {
  const auto options = make<kvant_store_options>();
  require_ok(m.store_open(cache, &options));
}

}  // namespace

TEST_CASE("manager: fifty requests over five prompts of 32 layers hit after the first of each") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  kvant_cache* cache = prefix_cache(session, 32, 1024, "f32");
  open_store(m, cache);
  int hits = 0, lookups = 0;
  for (int request = 0; request < 50; ++request) {
    const Prompt prompt(request % 5, 20);
    for (std::uint32_t layer = 0; layer < 32; ++layer) {
      StoreCall call(prompt, layer, false);
      std::uint32_t found = 7;
      require_ok(m.store_get(cache, &call.args, &found));
      ++lookups;
      if (found == 1) {
        ++hits;
        CHECK(call.k == prompt.rows(layer, 0));
        CHECK(call.v == prompt.rows(layer, 1));
        continue;
      }
      REQUIRE(found == 0);
      for (std::uint32_t l = 0; l < 32; ++l) {
        StoreCall put(prompt, l, true);
        require_ok(m.store_put(cache, &put.args));
      }
      break;
    }
  }
  CHECK(lookups == 1445);
  CHECK(hits == 1440);
  auto stats = make<kvant_store_stats>();
  require_ok(m.store_stats(cache, &stats));
  CHECK(stats.lookups == 1445);
  CHECK(stats.hits == 1440);
  CHECK(stats.puts == 160);
  CHECK(stats.prefixes == 5);
  std::uint64_t sequences = 0;
  require_ok(m.clear_all(cache, &sequences));
  CHECK(stats_of(cache).used_pages == 0);
  api().cache_destroy(cache);
}

TEST_CASE("manager: a batch in [batch][kv_heads][tokens][head_dim]") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  kvant_cache* cache = prefix_cache(session, 1, 256, "f32");
  open_store(m, cache);
  constexpr std::uint64_t kTokens = 18, kRow = 2 * kTokens * 32;
  std::vector<std::int32_t> tokens;
  for (int row = 0; row < 3; ++row)
    for (std::uint64_t i = 0; i < kTokens; ++i) tokens.push_back(row * 100 + static_cast<std::int32_t>(i));
  std::vector<float> k = random_floats(3 * kRow, 1), v = random_floats(3 * kRow, 2), k_out(3 * kRow), v_out(2 * kRow);
  const auto tensor = [](std::vector<float>& data) {
    kvant_tensor made = tensor_of(data);
    made.token_stride = 32;
    made.head_stride = kTokens * 32;
    return made;
  };
  kvant_tensor k_in = tensor(k), v_in = tensor(v), k_back = tensor(k_out), v_back = tensor(v_out);
  auto args = make<kvant_store_args>();
  args.tokens = tokens.data();
  args.token_count = kTokens;
  args.batch = 3;
  args.k = &k_in;
  args.v = &v_in;
  require_ok(m.store_put(cache, &args));
  args.k = &k_back;
  args.v = nullptr;
  std::uint32_t found[3] = {};
  require_ok(m.store_get(cache, &args, found));
  CHECK(k_out == k);
  args.k = nullptr;
  args.v = &v_back;
  args.batch = 2;
  require_ok(m.store_get(cache, &args, found));
  CHECK(std::equal(v_out.begin(), v_out.end(), v.begin()));
  args.batch = 3;
  check_error(m.store_get(cache, &args, found), KVANT_ERROR_INVALID_ARGUMENT, "store_get", "args.v");
  args.v = nullptr;
  std::uint32_t layers[3] = {};
  require_ok(m.store_find(cache, &args, layers));
  CHECK(layers[2] == 1);
  args.batch = 1;
  require_ok(m.store_erase(cache, &args));
  args.batch = 3;
  require_ok(m.store_find(cache, &args, layers));
  CHECK(layers[0] == 0);
  CHECK(layers[1] == 1);
  require_ok(m.store_clear(cache));
  require_ok(m.store_find(cache, &args, layers));
  CHECK(layers[1] == 0);
  api().cache_destroy(cache);
}

TEST_CASE("manager: a hybrid keeps prefixes narrow that the wide cache has no room for") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  kvant_cache* hot = prefix_cache(session, 2, 64, "f32");
  kvant_cache* cold = prefix_cache(session, 2, 128, "q8_0");
  auto options = make<kvant_store_options>();
  options.cold_cache = cold;
  require_ok(m.store_open(hot, &options));
  for (int i = 0; i < 3; ++i)
    for (std::uint32_t layer = 0; layer < 2; ++layer) {
      StoreCall put(Prompt(i, 32), layer, true);
      require_ok(m.store_put(hot, &put.args));
    }
  auto stats = make<kvant_store_stats>();
  require_ok(m.store_stats(hot, &stats));
  CHECK(stats.prefixes == 3);
  CHECK(stats.cold_prefixes == 1);
  CHECK(stats.demoted == 1);
  const Prompt first(0, 32);
  for (int pass = 0; pass < 3; ++pass)
    for (std::uint32_t layer = 0; layer < 2; ++layer) {
      StoreCall get(first, layer, false);
      std::uint32_t found = 0;
      require_ok(m.store_get(hot, &get.args, &found));
      REQUIRE(found == 1);
      const std::vector<float> exact = first.rows(layer, 0);
      for (std::size_t i = 0; i < exact.size(); ++i) CHECK(std::abs(exact[i] - get.k[i]) <= 0.5F / 127 + 1.0F / 2048 + 1e-6F);
    }
  require_ok(m.store_stats(hot, &stats));
  CHECK(stats.promoted == 1);
  api().cache_destroy(cold);  // the store keeps it
  StoreCall get(Prompt(1, 32), 0, false);
  std::uint32_t found = 0;
  require_ok(m.store_get(hot, &get.args, &found));
  CHECK(found == 1);
  api().cache_destroy(hot);
}

TEST_CASE("manager: texts, events and snapshots") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  kvant_cache* cache = prefix_cache(session, 1, 256, "q4_0");
  require_ok(m.stats_sample_errors(cache, 4));
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  StepData data;
  data.k = random_floats(40 * 64, 1);
  data.v = random_floats(40 * 64, 2);
  run_step(cache, 1, sequence, 40, 0, data);
  require_ok(m.stats_observe(cache));
  const char* text = nullptr;
  std::uint64_t size = 0;
  require_ok(m.stats_text(cache, KVANT_STATS_JSON, nullptr, &text, &size));
  CHECK(std::strlen(text) == size);
  const auto json = nlohmann::json::parse(text);
  CHECK(json.is_object());
  CHECK(json.dump().find("q4_0") != std::string::npos);
  require_ok(m.stats_text(cache, KVANT_STATS_PROMETHEUS, "model=tiny,where=a b", &text, nullptr));
  CHECK(std::string(text).find("kvant_pool_used_pages{model=\"tiny\",where=\"a b\"} 3") != std::string::npos);
  CHECK(std::string(text).find("kvant_quantization_relative_mse") != std::string::npos);
  require_ok(m.stats_text(cache, KVANT_STATS_MONITOR, nullptr, &text, nullptr));
  CHECK(nlohmann::json::parse(text).contains("recommendations"));

  kvant_event events[3];
  for (kvant_event& event : events) event = make<kvant_event>();
  std::uint32_t count = 0;
  std::uint64_t lost = 9;
  require_ok(m.events_poll(cache, 0, 3, events, &count, &lost));
  REQUIRE(count == 1);
  CHECK(lost == 0);
  CHECK(events[0].kind == KVANT_EVENT_SEQUENCE_CREATED);
  CHECK(events[0].number == 1);
  CHECK(events[0].sequence == sequence);
  require_ok(m.events_poll(cache, 1, 0, nullptr, &count, nullptr));
  CHECK(count == 0);

  check_error(m.stats_text(cache, 3, nullptr, &text, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "stats_text", "kind (3)");
  check_error(m.stats_text(cache, 0, "a=b", &text, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "stats_text", "labels are given");
  check_error(m.stats_text(cache, 1, "ab", &text, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "stats_text", "name=value");
  check_error(m.stats_text(cache, 1, "layer=1", &text, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "stats_text", "layer");
  check_error(m.stats_text(cache, 0, nullptr, nullptr, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "stats_text", "out_text is NULL");
  check_error(m.events_poll(cache, 0, 1, nullptr, &count, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "events_poll", "events is NULL");
  check_error(m.events_poll(cache, 0, 1, events, nullptr, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "events_poll", "out_count is NULL");
  events[0].struct_size = 3;
  check_error(m.events_poll(cache, 0, 1, events, &count, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "events_poll", "struct_size (3)");
  api().cache_destroy(cache);
}

TEST_CASE("manager: tokens written outside of steps") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  kvant_cache* cache = make_cache(session, {.layers = 2});
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  std::vector<float> k = random_floats(40 * 128, 1), v = random_floats(40 * 128, 2);
  kvant_tensor k_tensor = tensor_of(k), v_tensor = tensor_of(v);
  for (std::uint32_t layer = 0; layer < 2; ++layer)
    require_ok(m.sequence_write(cache, sequence, layer, 0, 40, &k_tensor, &v_tensor));
  kvant_sequence fork = 0;
  require_ok(api().sequence_fork(cache, sequence, 40, &fork));
  // Over tokens that the fork shares, and past the end.
  std::vector<float> more = random_floats(10 * 128, 3);
  kvant_tensor more_tensor = tensor_of(more);
  require_ok(m.sequence_write(cache, sequence, 0, 35, 10, &more_tensor, &more_tensor));
  const CacheState state = state_of(cache, {sequence, fork}, 2, 64);
  CHECK(state.lengths[0] == 45);
  CHECK(state.lengths[1] == 40);
  CHECK(state.keys[1] == k);
  CHECK(std::equal(k.begin(), k.begin() + 35 * 128, state.keys[0].begin()));
  CHECK(std::equal(more.begin(), more.end(), state.keys[0].begin() + 35 * 128));
  const auto refused = [&](std::uint32_t layer, std::uint64_t begin, std::uint64_t count, const char* part) {
    check_error(m.sequence_write(cache, sequence, layer, begin, count, &k_tensor, &v_tensor), KVANT_ERROR_INVALID_ARGUMENT,
                "sequence_write", part);
  };
  refused(2, 0, 1, "layer (2)");
  refused(0, 46, 1, "begin (46)");
  refused(0, 0, 1ull << 40, "count (1099511627776)");
  refused(0, 0, 41, "k");
  check_error(m.sequence_write(cache, sequence, 0, 45, 40, &k_tensor, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "sequence_write", "v is NULL");
  kvant_sequence big = 0;
  require_ok(api().sequence_create(cache, &big));
  std::vector<float> all = random_floats(250 * 128, 4);
  kvant_tensor all_tensor = tensor_of(all);
  check_error(m.sequence_write(cache, big, 0, 0, 250, &all_tensor, &all_tensor), KVANT_ERROR_RESOURCE_EXHAUSTED, "sequence_write", "pages");
  CHECK((state_of(cache, {sequence, fork}, 2, 64).keys == state.keys));
  std::uint64_t destroyed = 0;
  require_ok(m.clear_all(cache, &destroyed));
  CHECK(destroyed == 3);
  CHECK(stats_of(cache).sequence_count == 0);
  check_error(api().sequence_destroy(cache, sequence), KVANT_ERROR_NOT_FOUND, "sequence_destroy", "sequence");
  check_error(m.clear_all(cache, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "clear_all", "out_sequences is NULL");
  api().cache_destroy(cache);
}

TEST_CASE("manager: the accepted path of a tree stays, and can be shared") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  kvant_cache* cache = prefix_cache(session, 2, 256, "q4_0");
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  StepData data;
  data.k = random_floats(40 * 64, 1);
  data.v = random_floats(40 * 64, 2);
  run_step(cache, 2, sequence, 40, 0, data);
  const CacheState before = state_of(cache, {sequence}, 2, 32);
  std::vector<std::uint64_t> places;
  for (std::uint64_t i = 0; i < 30; ++i) places.push_back(i);
  for (const std::uint64_t place : {31u, 34u, 38u}) places.push_back(place);  // one branch of the tree behind 30 tokens
  require_ok(m.sequence_keep(cache, sequence, places.size(), places.data()));
  const CacheState after = state_of(cache, {sequence}, 2, 32);
  REQUIRE(after.lengths[0] == 33);
  for (std::size_t i = 0; i < places.size(); ++i)
    CHECK(std::equal(after.keys[0].begin() + static_cast<std::ptrdiff_t>(i * 64),
                     after.keys[0].begin() + static_cast<std::ptrdiff_t>((i + 1) * 64),
                     before.keys[0].begin() + static_cast<std::ptrdiff_t>(places[i] * 64)));
  const Prompt prompt(3, 33);
  require_ok(m.sequence_identify(cache, sequence, 33, prompt.tokens.data()));
  auto find = make<kvant_sequence_args>();
  find.tokens = prompt.tokens.data();
  find.token_count = 33;
  std::uint64_t found = 0;
  require_ok(api().prefix_find(cache, &find, &found));
  CHECK(found == 32);
  const std::uint64_t wrong[] = {4, 4};
  check_error(m.sequence_keep(cache, sequence, 2, wrong), KVANT_ERROR_INVALID_ARGUMENT, "sequence_keep", "places[1] (4)");
  const std::uint64_t far = 33;
  check_error(m.sequence_keep(cache, sequence, 1, &far), KVANT_ERROR_INVALID_ARGUMENT, "sequence_keep", "places[0] (33)");
  check_error(m.sequence_keep(cache, sequence, 34, &far), KVANT_ERROR_INVALID_ARGUMENT, "sequence_keep", "count (34)");
  check_error(m.sequence_keep(cache, sequence, 1, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "sequence_keep", "places is NULL");
  check_error(m.sequence_identify(cache, sequence, 34, prompt.tokens.data()), KVANT_ERROR_INVALID_ARGUMENT, "sequence_identify", "count (34)");
  check_error(m.sequence_identify(cache, sequence, 1, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "sequence_identify", "tokens is NULL");
  api().cache_destroy(cache);
}

TEST_CASE("manager: keys turn by positions") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  kvant_cache* cache = prefix_cache(session, 1, 64, "f32");
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  StepData data;
  data.k = random_floats(20 * 64, 1);
  data.v = random_floats(20 * 64, 2);
  run_step(cache, 1, sequence, 20, 0, data);
  const double frequencies[2] = {0.5, 0.25};
  auto rotation = make<kvant_rotation>();
  rotation.frequencies = frequencies;
  rotation.pair_count = 2;
  require_ok(m.sequence_shift(cache, sequence, 5, 10, &rotation, -3));
  const CacheState after = state_of(cache, {sequence}, 2, 32);
  CHECK(after.values[0] == data.v);
  for (std::size_t row = 0; row < 40; ++row)
    for (std::size_t i = 0; i < 32; ++i) {
      const float* const before = data.k.data() + row * 32;
      float expected = before[i];
      if (row >= 10 && row < 30 && i < 4) {
        const double angle = -3.0 * frequencies[i / 2], x = before[i / 2 * 2], y = before[i / 2 * 2 + 1];
        expected = static_cast<float>(i % 2 == 0 ? x * std::cos(angle) - y * std::sin(angle) : x * std::sin(angle) + y * std::cos(angle));
      }
      CHECK(std::abs(after.keys[0][row * 32 + i] - expected) <= 1e-6F);
    }
  const auto refused = [&](auto change, const char* part) {
    kvant_rotation wrong = rotation;
    change(wrong);
    check_error(m.sequence_shift(cache, sequence, 0, 1, &wrong, 1), KVANT_ERROR_INVALID_ARGUMENT, "sequence_shift", part);
  };
  refused([](auto& r) { r.flags = 2; }, "rotation.flags (0x2)");
  refused([](auto& r) { r.pair_count = 0; }, "pair_count (0)");
  refused([](auto& r) { r.pair_count = 17; }, "pair_count (17)");
  refused([](auto& r) { r.frequencies = nullptr; }, "rotation.frequencies is NULL");
  check_error(m.sequence_shift(cache, sequence, 0, 1, nullptr, 1), KVANT_ERROR_INVALID_ARGUMENT, "sequence_shift", "rotation is NULL");
  check_error(m.sequence_shift(cache, sequence, 10, 11, &rotation, 1), KVANT_ERROR_INVALID_ARGUMENT, "sequence_shift", "begin (10)");
  api().cache_destroy(cache);
}

TEST_CASE("manager: the store's refusals") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  kvant_cache* cache = prefix_cache(session, 2, 64, "f16");
  kvant_cache* other = prefix_cache(session, 1, 64, "f16");
  kvant_cache* plain = make_cache(session, {});
  auto options = make<kvant_store_options>();
  const auto refuse_open = [&](kvant_cache* c, std::uint32_t code, const char* part) {
    check_error(m.store_open(c, &options), code, "store_open", part);
  };
  refuse_open(plain, KVANT_ERROR_FAILED_PRECONDITION, "KVANT_CACHE_PREFIXES");
  options.cold_cache = plain;
  refuse_open(cache, KVANT_ERROR_FAILED_PRECONDITION, "options.cold_cache");
  options.cold_cache = other;
  refuse_open(cache, KVANT_ERROR_INVALID_ARGUMENT, "cold cache's layers");
  options.cold_cache = cache;
  refuse_open(cache, KVANT_ERROR_INVALID_ARGUMENT, "cold cache's layers");
  options.cold_cache = nullptr;
  options.reserved = 1;
  refuse_open(cache, KVANT_ERROR_INVALID_ARGUMENT, "reserved (1)");
  options.reserved = 0;
  const Prompt prompt(1, 20);
  StoreCall call(prompt, 0, true);
  std::uint32_t number = 5;
  check_error(m.store_put(cache, &call.args), KVANT_ERROR_FAILED_PRECONDITION, "store_put", "store_open");
  check_error(m.store_clear(cache), KVANT_ERROR_FAILED_PRECONDITION, "store_clear", "store_open");
  require_ok(m.store_open(cache, &options));
  refuse_open(cache, KVANT_ERROR_FAILED_PRECONDITION, "a store already");
  const auto refuse_put = [&](auto change, const char* part) {
    StoreCall changed(prompt, 0, true);
    change(changed);
    check_error(m.store_put(cache, &changed.args), KVANT_ERROR_INVALID_ARGUMENT, "store_put", part);
  };
  refuse_put([](StoreCall& c) { c.args.token_count = 0; }, "token_count (0)");
  refuse_put([](StoreCall& c) { c.args.tokens = nullptr; }, "args.tokens is NULL");
  refuse_put([](StoreCall& c) { c.args.layer = 2; }, "layer (2)");
  refuse_put([](StoreCall& c) { c.args.batch = 65537; }, "batch (65537)");
  refuse_put([](StoreCall& c) { c.args.salt_size = 1; }, "args.salt is NULL");
  refuse_put([](StoreCall& c) { c.args.k = nullptr; }, "args.k is NULL");
  refuse_put([](StoreCall& c) { c.k_tensor.size = 5; }, "args.k");
  refuse_put([](StoreCall& c) { c.args.batch = 2, c.args.k_batch_stride = 1ull << 60; }, "args.k");
  check_error(m.store_find(cache, &call.args, &number), KVANT_ERROR_INVALID_ARGUMENT, "store_find", "takes no tensor");
  check_error(m.store_get(cache, &call.args, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "store_get", "out_found is NULL");
  check_error(m.store_get(cache, nullptr, &number), KVANT_ERROR_INVALID_ARGUMENT, "store_get", "args is NULL");
  StoreCall large(Prompt(2, 65), 0, true);
  check_error(m.store_put(cache, &large.args), KVANT_ERROR_RESOURCE_EXHAUSTED, "store_put", "pages");
  CHECK(number == 5);
  for (kvant_cache* c : {cache, other, plain}) api().cache_destroy(c);
}
