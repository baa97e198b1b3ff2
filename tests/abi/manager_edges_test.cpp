// The manager extension: tiers emptied, tier functions that call back, batches that do not fit, numbers of policies in events.
#include <kvant/kvant_ext_manager.h>

#include <atomic>
#include <cstring>
#include <map>
#include <mutex>

#include <nlohmann/json.hpp>

#include "library.hpp"

using namespace abi_test;

namespace {

const kvant_ext_manager& manager(const Session& session) {
  const auto* table = static_cast<const kvant_ext_manager*>(api().get_extension(session.context, KVANT_EXT_MANAGER));
  REQUIRE(table != nullptr);
  return *table;
}

kvant_cache* prefix_cache(const Session& session, std::uint64_t capacity) {
  auto layer = make<kvant_layer_args>();
  layer.kv_heads = 1;
  layer.head_dim_k = 32;
  auto args = make<kvant_cache_args>();
  args.layer_count = 1;
  args.layers = &layer;
  args.capacity_tokens = capacity;
  args.flags = KVANT_CACHE_PREFIXES;
  kvant_cache* cache = nullptr;
  require_ok(api().cache_create(session.device, &args, &cache));
  return cache;
}

// Computes what is missing of the prompt; gives what was there.
std::uint64_t prompt(kvant_cache* cache, std::int32_t first, std::size_t count) {
  std::vector<std::int32_t> tokens(count);
  for (std::size_t i = 0; i < count; ++i) tokens[i] = first + static_cast<std::int32_t>(i);
  auto args = make<kvant_sequence_args>();
  args.tokens = tokens.data();
  args.token_count = count;
  kvant_sequence sequence = 0;
  std::uint64_t reused = 0;
  require_ok(api().sequence_open(cache, &args, &sequence, &reused));
  if (reused < count) {
    StepData data;
    data.k = random_floats((count - reused) * 32, 1);
    data.v = random_floats((count - reused) * 32, 2);
    run_step(cache, 1, sequence, static_cast<std::uint32_t>(count - reused), 0, data);
  }
  require_ok(api().sequence_destroy(cache, sequence));
  return reused;
}

// A tier of the engine's that calls back into the library from each of its functions, and keeps what it was told.
struct CallingTier {
  const kvant_ext_manager* manager = nullptr;
  kvant_cache *cache = nullptr, *sibling = nullptr;
  kvant_context* context = nullptr;
  std::mutex mutex;
  std::map<std::string, std::string> entries;
  std::vector<Outcome> outcomes;
  std::atomic<int> free_calls{0};

  void call_back() {
    auto stats = make<kvant_cache_stats>();
    std::vector<Outcome> told;
    told.push_back(take(api().cache_stats(cache, &stats)));
    told.push_back(take(manager->tiers_wait(cache)));
    told.push_back(take(api().cache_stats(sibling, &stats)));  // another cache of the device: the same lock
    api().cache_destroy(cache);                                // ignored
    // What needs no device is free.
    std::uint32_t format = 0;
    if (take(api().format_find(context, "q8_0", &format)).code == 0) ++free_calls;
    const std::lock_guard lock(mutex);
    outcomes.insert(outcomes.end(), told.begin(), told.end());
  }
  static std::string name(const std::uint8_t* key) { return {reinterpret_cast<const char*>(key), 32}; }
  static std::uint32_t put(void* self, const std::uint8_t* key, const void* value, std::uint64_t size) {
    auto& tier = *static_cast<CallingTier*>(self);
    tier.call_back();
    const std::lock_guard lock(tier.mutex);
    tier.entries[name(key)].assign(static_cast<const char*>(value), size);
    return 1;
  }
  static std::uint64_t get(void* self, const std::uint8_t* key, void* out, std::uint64_t size) {
    auto& tier = *static_cast<CallingTier*>(self);
    tier.call_back();
    const std::lock_guard lock(tier.mutex);
    const auto found = tier.entries.find(name(key));
    if (found == tier.entries.end()) return 0;
    if (size >= found->second.size()) std::memcpy(out, found->second.data(), found->second.size());
    return found->second.size();
  }
  static void clear(void* self) {
    auto& tier = *static_cast<CallingTier*>(self);
    tier.call_back();
    const std::lock_guard lock(tier.mutex);
    tier.entries.clear();
  }
};

}  // namespace

TEST_CASE("tiers: functions that call back are refused, on whatever thread they run") {
  Session session;
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  CallingTier own;
  own.manager = &m;
  own.context = session.context;
  own.cache = prefix_cache(session, 64);
  own.sibling = prefix_cache(session, 64);
  auto functions = make<kvant_tier_functions>();
  functions.user_data = &own;
  functions.name = "caller";
  functions.put = CallingTier::put;
  functions.get = CallingTier::get;
  functions.clear = CallingTier::clear;
  auto tier = make<kvant_tier_args>();
  tier.kind = KVANT_TIER_CUSTOM;
  tier.functions = &functions;
  auto tiers = make<kvant_tiers_args>();
  tiers.tier_count = 1;
  tiers.tiers = &tier;
  tiers.flags = KVANT_TIERS_ALWAYS_LOAD;
  require_ok(m.tiers_set(own.cache, &tiers));

  const auto judge = [&] {  // the calls since the last one
    const std::lock_guard lock(own.mutex);
    REQUIRE(own.outcomes.size() % 3 == 0);
    for (std::size_t i = 0; i < own.outcomes.size(); ++i) {
      CAPTURE(i);
      CHECK(own.outcomes[i].code == KVANT_ERROR_FAILED_PRECONDITION);
      CHECK(own.outcomes[i].source == (i % 3 == 1 ? "tiers_wait" : "cache_stats"));
      CHECK(own.outcomes[i].message.find("custom tier \"caller\" of the same device") != std::string::npos);
    }
    const std::size_t calls = own.outcomes.size() / 3;
    own.outcomes.clear();
    CHECK(own.free_calls.exchange(0) == static_cast<int>(calls));
    return calls;
  };
  prompt(own.cache, 0, 48);
  require_ok(m.tiers_store(own.cache));
  require_ok(m.tiers_wait(own.cache));  // waits with the lock held while put runs on the other thread
  CHECK(judge() >= 3);
  CHECK(own.entries.size() == 3);
  std::uint64_t cleared = 0;
  require_ok(api().prefix_clear(own.cache, &cleared));
  CHECK(prompt(own.cache, 0, 48) == 48);  // get runs on this thread
  CHECK(judge() >= 3);
  require_ok(m.tiers_clear(own.cache, 0));
  CHECK(judge() == 1);
  CHECK(own.entries.empty());
  const std::vector<std::string> blame = session.take_blame();
  REQUIRE_FALSE(blame.empty());
  for (const std::string& line : blame) CHECK(line.find("cache_destroy: the call came from") != std::string::npos);
  CHECK(stats_of(own.cache).total_pages == 4);
  api().cache_destroy(own.cache);
  api().cache_destroy(own.sibling);
}

TEST_CASE("tiers: emptied one by one and all at once") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  kvant_cache* cache = prefix_cache(session, 64);
  kvant_tier_args hosts[2] = {make<kvant_tier_args>(), make<kvant_tier_args>()};
  for (kvant_tier_args& tier : hosts) {
    tier.kind = KVANT_TIER_HOST;
    tier.capacity_bytes = 1 << 20;
  }
  auto tiers = make<kvant_tiers_args>();
  tiers.tier_count = 2;
  tiers.tiers = hosts;
  tiers.flags = KVANT_TIERS_ALWAYS_LOAD;
  check_error(m.tiers_clear(cache, KVANT_TIERS_ALL), KVANT_ERROR_FAILED_PRECONDITION, "tiers_clear", "no tiers");
  require_ok(m.tiers_set(cache, &tiers));
  const auto entries = [&](std::size_t tier) {
    const char* text = nullptr;
    require_ok(m.stats_text(cache, KVANT_STATS_JSON, nullptr, &text, nullptr));
    return nlohmann::json::parse(text)["tiers"][tier]["entries"].get<std::uint64_t>();
  };
  const auto fill = [&] {
    prompt(cache, 0, 48);
    require_ok(m.tiers_store(cache));
    require_ok(m.tiers_wait(cache));
    CHECK(entries(0) == 3);
    CHECK(entries(1) == 3);
  };
  std::uint64_t cleared = 0;
  fill();
  require_ok(m.tiers_clear(cache, 0));
  CHECK(entries(0) == 0);
  CHECK(entries(1) == 3);
  CHECK(prompt(cache, 0, 48) == 48);  // the device keeps its pages
  require_ok(api().prefix_clear(cache, &cleared));
  CHECK(prompt(cache, 0, 48) == 48);  // the farther tier had them, and brings them near again
  fill();
  require_ok(m.tiers_store(cache));
  require_ok(m.tiers_clear(cache, KVANT_TIERS_ALL));  // what waits is stored first, so that nothing comes after
  CHECK(entries(0) == 0);
  CHECK(entries(1) == 0);
  require_ok(api().prefix_clear(cache, &cleared));
  CHECK(prompt(cache, 0, 48) == 0);
  check_error(m.tiers_clear(cache, 2), KVANT_ERROR_INVALID_ARGUMENT, "tiers_clear", "tier (2) is not less than the cache's 2 tiers");
  kvant_cache* plain = make_cache(session, {});
  check_error(m.tiers_clear(plain, 0), KVANT_ERROR_FAILED_PRECONDITION, "tiers_clear", "KVANT_CACHE_PREFIXES");
  api().cache_destroy(plain);
  api().cache_destroy(cache);
}

TEST_CASE("events: a policy changed is told by the numbers of KVANT_POLICY_*") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  kvant_cache* cache = prefix_cache(session, 64);
  const std::uint32_t kinds[] = {KVANT_POLICY_NONE, KVANT_POLICY_WINDOW, KVANT_POLICY_ADAPTIVE, KVANT_POLICY_LRU};
  for (const std::uint32_t kind : kinds) {
    auto policy = make<kvant_policy_args>();
    policy.kind = kind;
    require_ok(api().prefix_policy(cache, &policy));
  }
  kvant_event events[8];
  for (kvant_event& event : events) event = make<kvant_event>();
  std::uint32_t count = 0;
  require_ok(m.events_poll(cache, 0, 8, events, &count, nullptr));
  REQUIRE(count == 4);
  std::uint64_t before = KVANT_POLICY_LRU;
  for (std::uint32_t i = 0; i < 4; ++i) {
    CHECK(events[i].kind == KVANT_EVENT_POLICY_CHANGED);
    CHECK(events[i].a == before);
    CHECK(events[i].b == kinds[i]);
    before = kinds[i];
  }
  api().cache_destroy(cache);
}

TEST_CASE("events: as many are held as the configuration's default says") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  auto config = make<kvant_config>();
  require_ok(m.config_default(session.context, nullptr, &config));
  REQUIRE(config.events == 1024);
  kvant_cache* cache = prefix_cache(session, 64);
  kvant_sequence sequence = 0;
  for (std::uint32_t i = 0; i < 600; ++i) {  // two events each
    require_ok(api().sequence_create(cache, &sequence));
    require_ok(api().sequence_destroy(cache, sequence));
  }
  std::vector<kvant_event> events(1200, make<kvant_event>());
  std::uint32_t count = 0;
  std::uint64_t lost = 0;
  require_ok(m.events_poll(cache, 0, 1200, events.data(), &count, &lost));
  CHECK(count == config.events);
  CHECK(lost == 1200 - config.events);
  api().cache_destroy(cache);
}

TEST_CASE("store: a batch is put whole or not at all") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  kvant_cache* cache = prefix_cache(session, 64);
  const auto options = make<kvant_store_options>();
  require_ok(m.store_open(cache, &options));
  std::vector<std::int32_t> tokens(3 * 32);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(i);
  std::vector<float> k = random_floats(3 * 32 * 32, 1), v = random_floats(3 * 32 * 32, 2);
  kvant_tensor tk = tensor_of(k), tv = tensor_of(v);
  auto args = make<kvant_store_args>();
  args.tokens = tokens.data();
  args.token_count = 32;
  args.batch = 3;
  args.k = &tk;
  args.v = &tv;
  check_error(m.store_put(cache, &args), KVANT_ERROR_RESOURCE_EXHAUSTED, "store_put", "the 3 prefixes of the batch do not fit at once");
  auto stats = make<kvant_store_stats>();
  require_ok(m.store_stats(cache, &stats));
  CHECK(stats.prefixes == 0);
  CHECK(stats.puts == 0);
  args.batch = 2;
  require_ok(m.store_put(cache, &args));
  std::uint32_t layers[2] = {};
  args.k = args.v = nullptr;
  require_ok(m.store_find(cache, &args, layers));
  CHECK(layers[0] == 1);
  CHECK(layers[1] == 1);
  api().cache_destroy(cache);
}
