// The manager extension: tiers, memory limits, configuration.
#include <kvant/kvant_ext_manager.h>

#include <stdlib.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>

#include <nlohmann/json.hpp>

#include "cache_state.hpp"

using namespace abi_test;

namespace {

const kvant_ext_manager& manager(const Session& session) {
  const auto* table = static_cast<const kvant_ext_manager*>(api().get_extension(session.context, KVANT_EXT_MANAGER));
  REQUIRE(table != nullptr);
  return *table;
}

struct Folder {
  std::string path = (std::filesystem::temp_directory_path() / "kvant_abi_XXXXXX").string();
  Folder() { REQUIRE(mkdtemp(path.data()) != nullptr); }
  ~Folder() { std::filesystem::remove_all(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
};

// Arguments of a cache of one layer; `layer` lives as long.
struct CacheArgs {
  kvant_layer_args layer = make<kvant_layer_args>();
  kvant_cache_args args = make<kvant_cache_args>();
  explicit CacheArgs(const Session& session, const char* format = "f16", std::uint64_t capacity = 128) {
    layer.kv_heads = 2;
    layer.head_dim_k = 64;
    layer.format_k = layer.format_v = session.format(format);
    args.layer_count = 1;
    args.layers = &layer;
    args.capacity_tokens = capacity;
    args.flags = KVANT_CACHE_PREFIXES;
    args.slab_bytes = 1;  // a slab a page
  }
  CacheArgs(const CacheArgs&) = delete;
  CacheArgs& operator=(const CacheArgs&) = delete;
  kvant_cache* create(const Session& session) const {
    kvant_cache* cache = nullptr;
    require_ok(api().cache_create(session.device, &args, &cache));
    return cache;
  }
};

std::vector<std::int32_t> ids(std::int32_t first, std::size_t count) {
  std::vector<std::int32_t> tokens(count);
  for (std::size_t i = 0; i < count; ++i) tokens[i] = first + static_cast<std::int32_t>(i);
  return tokens;
}

kvant_sequence_args sequence_args(const std::vector<std::int32_t>& tokens) {
  auto args = make<kvant_sequence_args>();
  args.tokens = tokens.data();
  args.token_count = tokens.size();
  return args;
}

// Opens a sequence and computes what is missing of it; gives what was there.
std::uint64_t prompt(kvant_cache* cache, const std::vector<std::int32_t>& tokens, bool keep = false) {
  const auto args = sequence_args(tokens);
  kvant_sequence sequence = 0;
  std::uint64_t reused = 0;
  require_ok(api().sequence_open(cache, &args, &sequence, &reused));
  if (reused < tokens.size()) {
    StepData data;
    data.k = random_floats((tokens.size() - reused) * 128, 1);
    data.v = random_floats((tokens.size() - reused) * 128, 2);
    run_step(cache, 1, sequence, static_cast<std::uint32_t>(tokens.size() - reused), 0, data);
  }
  if (!keep) require_ok(api().sequence_destroy(cache, sequence));
  return reused;
}

nlohmann::json stats(const kvant_ext_manager& m, kvant_cache* cache) {
  const char* text = nullptr;
  require_ok(m.stats_text(cache, KVANT_STATS_JSON, nullptr, &text, nullptr));
  return nlohmann::json::parse(text);
}

struct OwnTier {
  std::mutex mutex;
  std::map<std::string, std::string> entries;
  static std::string name(const std::uint8_t* key) { return {reinterpret_cast<const char*>(key), 32}; }
  static std::uint32_t put(void* self, const std::uint8_t* key, const void* value, std::uint64_t size) {
    auto& tier = *static_cast<OwnTier*>(self);
    const std::lock_guard lock(tier.mutex);
    tier.entries[name(key)].assign(static_cast<const char*>(value), size);
    return 1;
  }
  static std::uint64_t get(void* self, const std::uint8_t* key, void* out, std::uint64_t size) {
    auto& tier = *static_cast<OwnTier*>(self);
    const std::lock_guard lock(tier.mutex);
    const auto found = tier.entries.find(name(key));
    if (found == tier.entries.end()) return 0;
    if (size >= found->second.size()) std::memcpy(out, found->second.data(), found->second.size());
    return found->second.size();
  }
};

}  // namespace

TEST_CASE("tiers: pages that left the device come back from memory, from files and from the engine's own tier") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  Folder folder;
  OwnTier own;
  auto functions = make<kvant_tier_functions>();
  functions.user_data = &own;
  functions.put = OwnTier::put;
  functions.get = OwnTier::get;
  for (const std::uint32_t kind : {KVANT_TIER_HOST, KVANT_TIER_DISK, KVANT_TIER_CUSTOM}) {
    CAPTURE(kind);
    auto tier = make<kvant_tier_args>();
    tier.kind = kind;
    if (kind == KVANT_TIER_HOST) tier.capacity_bytes = 1 << 24;
    if (kind == KVANT_TIER_DISK) tier.location = folder.path.c_str();
    if (kind == KVANT_TIER_CUSTOM) tier.functions = &functions;
    auto tiers = make<kvant_tiers_args>();
    tiers.tier_count = 1;
    tiers.tiers = &tier;
    tiers.flags = KVANT_TIERS_ALWAYS_LOAD;
    CacheArgs args(session);
    kvant_cache* cache = args.create(session);
    require_ok(m.tiers_set(cache, &tiers));
    CHECK(prompt(cache, ids(0, 96)) == 0);
    CHECK(prompt(cache, ids(1000, 96)) == 0);
    require_ok(m.tiers_wait(cache));
    CHECK(prompt(cache, ids(0, 96)) == 96);
    CHECK(stats(m, cache)["tiers"][0].dump().find("\"hits\":4") != std::string::npos);
    // Another cache finds what this one stored, where the tier outlives it.
    require_ok(m.tiers_store(cache));
    api().cache_destroy(cache);
    if (kind == KVANT_TIER_HOST) continue;
    cache = args.create(session);
    require_ok(m.tiers_set(cache, &tiers));
    const std::vector<std::int32_t> tokens = ids(0, 96);
    auto open = sequence_args(tokens);
    require_ok(m.tiers_prefetch(cache, &open));
    require_ok(m.tiers_wait(cache));
    open.flags = KVANT_SEQUENCE_NEAR_TIERS;
    kvant_sequence sequence = 0;
    std::uint64_t reused = 0;
    require_ok(api().sequence_open(cache, &open, &sequence, &reused));
    CHECK(reused == 96);
    tiers.tier_count = 0;
    require_ok(m.tiers_set(cache, &tiers));
    check_error(m.tiers_wait(cache), KVANT_ERROR_FAILED_PRECONDITION, "tiers_wait", "no tiers");
    api().cache_destroy(cache);
  }
}

TEST_CASE("tiers: servers that do not answer are a miss, never an error") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  auto tier = make<kvant_tier_args>();
  tier.kind = KVANT_TIER_REMOTE;
  tier.location = "127.0.0.1:1,127.0.0.1:2";
  tier.timeout_ms = 50;
  auto tiers = make<kvant_tiers_args>();
  tiers.tier_count = 1;
  tiers.tiers = &tier;
  kvant_cache* cache = CacheArgs(session).create(session);
  const Outcome set = take(m.tiers_set(cache, &tiers));
  if (set.code == KVANT_ERROR_UNAVAILABLE) {
    MESSAGE("skipped: " << set.message);
  } else {
    REQUIRE(set.code == 0);
    CHECK(prompt(cache, ids(0, 96)) == 0);
    CHECK(prompt(cache, ids(1000, 96)) == 0);
    require_ok(m.tiers_wait(cache));
    CHECK(prompt(cache, ids(0, 96)) <= 32);  // what is left on the device
    CHECK(stats(m, cache)["tiers"][0]["name"] == "remote");
  }
  api().cache_destroy(cache);
}

TEST_CASE("tiers: refusals") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  kvant_cache* cache = CacheArgs(session).create(session);
  kvant_cache* plain = make_cache(session, {});
  OwnTier own;
  const auto refused = [&](auto change, const char* part) {
    auto functions = make<kvant_tier_functions>();
    functions.put = OwnTier::put;
    functions.get = OwnTier::get;
    auto tier = make<kvant_tier_args>();
    tier.kind = KVANT_TIER_CUSTOM;
    tier.functions = &functions;
    auto tiers = make<kvant_tiers_args>();
    tiers.tier_count = 1;
    tiers.tiers = &tier;
    change(tiers, tier, functions);
    check_error(m.tiers_set(cache, &tiers), KVANT_ERROR_INVALID_ARGUMENT, "tiers_set", part);
  };
  refused([](auto& a, auto&, auto&) { a.tier_count = 17; }, "tier_count (17)");
  refused([](auto& a, auto&, auto&) { a.tiers = nullptr; }, "args.tiers is NULL");
  refused([](auto& a, auto&, auto&) { a.flags = 2; }, "flags (0x2)");
  refused([](auto& a, auto&, auto&) { a.format_k = "q9"; }, "args.format_k (\"q9\")");
  refused([](auto&, auto& t, auto&) { t.kind = 0; }, "args.tiers[0].kind (0)");
  refused([](auto&, auto& t, auto&) { t.kind = 5; }, "args.tiers[0].kind (5)");
  refused([](auto&, auto& t, auto&) { t.location = "x"; }, "location");
  refused([](auto&, auto& t, auto&) { t.timeout_ms = 1; }, "timeout_ms (1)");
  refused([](auto&, auto& t, auto&) { t.capacity_bytes = 1; }, "capacity_bytes (1)");
  refused([](auto&, auto& t, auto&) { t.functions = nullptr; }, "functions is NULL");
  refused([](auto&, auto&, auto& f) { f.put = nullptr; }, "functions.put is NULL");
  refused([](auto&, auto&, auto& f) { f.get = nullptr; }, "functions.get is NULL");
  refused([](auto&, auto& t, auto&) { t.kind = KVANT_TIER_HOST; }, "functions are given");
  refused([](auto&, auto& t, auto&) { t.kind = KVANT_TIER_HOST, t.functions = nullptr; }, "capacity_bytes (0)");
  refused([](auto&, auto& t, auto&) { t.kind = KVANT_TIER_DISK, t.functions = nullptr; }, "location is NULL");
  refused([](auto&, auto& t, auto&) { t.kind = KVANT_TIER_REMOTE, t.functions = nullptr, t.location = ","; }, "");
  auto disk = make<kvant_tier_args>();
  disk.kind = KVANT_TIER_DISK;
  disk.location = "/dev/null/folder";
  auto tiers = make<kvant_tiers_args>();
  tiers.tier_count = 1;
  tiers.tiers = &disk;
  check_error(m.tiers_set(cache, &tiers), KVANT_ERROR_UNAVAILABLE, "tiers_set", "/dev/null/folder");
  check_error(m.tiers_set(plain, &tiers), KVANT_ERROR_FAILED_PRECONDITION, "tiers_set", "KVANT_CACHE_PREFIXES");
  check_error(m.tiers_set(cache, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "tiers_set", "args is NULL");
  check_error(m.tiers_store(cache), KVANT_ERROR_FAILED_PRECONDITION, "tiers_store", "no tiers");
  check_error(m.tiers_prefetch(cache, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "tiers_prefetch", "args is NULL");
  api().cache_destroy(plain);
  api().cache_destroy(cache);
}

TEST_CASE("memory: plans say what limits do") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  kvant_cache* cache = CacheArgs(session, "f16", 256).create(session);
  prompt(cache, ids(0, 64), true);
  prompt(cache, ids(1000, 128));
  const std::uint64_t full = stats_of(cache).pool_bytes;
  auto args = make<kvant_memory_args>();
  const char* text = nullptr;
  for (const std::uint64_t percent : {80, 36}) {
    args.limit_bytes = full * percent / 100;
    require_ok(m.memory_plan(cache, &args, &text));
    const std::string plan = text;
    CHECK(plan.find("limit " + std::to_string(args.limit_bytes)) == 0);
    CHECK((plan.find("convert") != std::string::npos) == (percent < 50));
    const std::uint64_t before = stats_of(cache).pool_bytes;
    require_ok(m.memory_plan(cache, &args, &text));
    CHECK(stats_of(cache).pool_bytes == before);
    require_ok(m.memory_limit(cache, &args));
    CHECK(stats_of(cache).pool_bytes <= args.limit_bytes);
    CHECK(stats_of(cache).sequence_tokens == 64);
  }
  args.limit_bytes = 1;
  check_error(m.memory_limit(cache, &args), KVANT_ERROR_RESOURCE_EXHAUSTED, "memory_limit", "a limit of 1 bytes cannot be met");
  check_error(m.memory_plan(cache, &args, &text), KVANT_ERROR_RESOURCE_EXHAUSTED, "memory_plan", "cannot be met");
  check_error(m.memory_plan(cache, &args, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "memory_plan", "out_text is NULL");
  args.flags = 2;
  check_error(m.memory_limit(cache, &args), KVANT_ERROR_INVALID_ARGUMENT, "memory_limit", "flags (0x2)");
  args.flags = KVANT_MEMORY_PRUNE;
  check_error(m.memory_limit(cache, &args), KVANT_ERROR_FAILED_PRECONDITION, "memory_limit", "KVANT_CACHE_MASS");
  args.flags = 0;
  args.format_count = 1;
  check_error(m.memory_limit(cache, &args), KVANT_ERROR_INVALID_ARGUMENT, "memory_limit", "args.formats is NULL");
  const std::uint32_t wrong = 99;
  args.formats = &wrong;
  check_error(m.memory_limit(cache, &args), KVANT_ERROR_INVALID_ARGUMENT, "memory_limit", "args.formats[0] (99)");
  check_error(m.memory_weight(cache, 0, 0, 1.0 / 0.0), KVANT_ERROR_INVALID_ARGUMENT, "memory_weight", "weight");
  check_error(m.memory_weight(cache, 1, 0, 1.0), KVANT_ERROR_INVALID_ARGUMENT, "memory_weight", "layer (1)");
  check_error(m.memory_weight(cache, 0, 2, 1.0), KVANT_ERROR_INVALID_ARGUMENT, "memory_weight", "side (2)");
  require_ok(m.memory_weight(cache, 0, 1, -1.0));
  args = make<kvant_memory_args>();
  require_ok(m.memory_limit(cache, &args));
  require_ok(m.cache_quantize(cache, session.format("q5_0"), session.format("q5_1")));
  CHECK(stats(m, cache)["layers"][0]["format_v"] == "q5_1");
  check_error(m.cache_quantize(cache, 99, 0), KVANT_ERROR_INVALID_ARGUMENT, "cache_quantize", "format_k (99)");
  api().cache_destroy(cache);
}

TEST_CASE("configuration: JSON says what the cache is") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  Folder folder;
  CacheArgs base(session);
  base.args.flags = 0;
  base.args.capacity_tokens = 0;
  kvant_cache* cache = nullptr;
  const std::string json = R"({"preset": "mobile", "capacity_tokens": 512, "format_k": "q8_0", "page_tokens": 32,
    "tiers": {"disk_folder": ")" + folder.path + R"(", "disk_bytes": "1MiB"}, "prefix_cache": true, "memory_limit_bytes": "32MiB"})";
  require_ok(m.cache_configure(session.device, &base.args, json.c_str(), &cache));
  const char* text = nullptr;
  require_ok(m.config_text(cache, &text));
  const auto config = nlohmann::json::parse(text);
  CHECK(config["preset"] == "mobile");
  CHECK(config["capacity_tokens"] == 512);
  CHECK(config["memory_limit_bytes"] == 32 << 20);
  const auto numbers = stats(m, cache);
  CHECK(numbers["layers"][0]["format_k"] == "q8_0");
  CHECK(numbers["layers"][0]["format_v"] == "q4_0");
  CHECK(numbers["tiers"][0]["name"] == "disk");
  CHECK(stats_of(cache).total_pages <= 512 / 32);
  CHECK(prompt(cache, ids(0, 70)) == 0);
  CHECK(prompt(cache, ids(0, 70)) == 64);
  require_ok(m.tiers_store(cache));
  api().cache_destroy(cache);
  CHECK(std::filesystem::exists(folder.path));

  require_ok(m.cache_configure(session.device, &base.args,
                               R"({"preset": "llm", "capacity_tokens": 256, "hybrid": {"hot_format": "f16", "cold_format": "q4_0"}})",
                               &cache));
  auto store = make<kvant_store_stats>();
  require_ok(m.store_stats(cache, &store));
  api().cache_destroy(cache);

  cache = nullptr;
  const auto refused = [&](const char* wrong, const char* part) {
    check_error(m.cache_configure(session.device, &base.args, wrong, &cache), KVANT_ERROR_INVALID_ARGUMENT, "cache_configure", part);
    CHECK(cache == nullptr);
  };
  refused("{", "");
  refused(R"({"capacity_tokens": 64, "tier": 1})", "tier");
  refused(R"({"capacity_tokens": 64, "page_tokens": 17})", "page_tokens");
  refused(R"({"capacity_tokens": 64, "format_k": "q9_9"})", "format_k");
  refused("{}", "capacity_tokens (0)");
  check_error(m.cache_configure(session.device, &base.args, nullptr, &cache), KVANT_ERROR_INVALID_ARGUMENT, "cache_configure", "json is NULL");
  check_error(m.cache_configure(session.device, nullptr, "{}", &cache), KVANT_ERROR_INVALID_ARGUMENT, "cache_configure", "args is NULL");
  kvant_cache* plain = make_cache(session, {});
  check_error(m.config_text(plain, &text), KVANT_ERROR_FAILED_PRECONDITION, "config_text", "cache_create");
  api().cache_destroy(plain);
}
