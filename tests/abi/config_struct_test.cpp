// kvant_config: the struct has the keys of the JSON and no others, the two become each other without loss, what is wrong is named
// by its key, and a cache made from one is the cache made from the other.
#include <kvant/kvant_ext_manager.h>

#include <fstream>
#include <functional>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include <nlohmann/json.hpp>

#include "library.hpp"

using namespace abi_test;

namespace {

using Json = nlohmann::ordered_json;

const kvant_ext_manager& manager(const Session& session) {
  const auto* table = static_cast<const kvant_ext_manager*>(api().get_extension(session.context, KVANT_EXT_MANAGER));
  REQUIRE(table != nullptr);
  return *table;
}

kvant_config preset(const Session& session, const char* name) {
  auto config = make<kvant_config>();
  require_ok(manager(session).config_default(session.context, name, &config));
  return config;
}
kvant_config parse(const Session& session, const std::string& json) {
  auto config = make<kvant_config>();
  require_ok(manager(session).config_parse(session.context, json.c_str(), &config));
  return config;
}
std::string write(const Session& session, const kvant_config& config) {
  const char* json = nullptr;
  require_ok(manager(session).config_write(session.context, &config, &json));
  return json;
}

// "tiers.disk_bytes" -> 0 of every key in the JSON.
std::map<std::string, Json> keys_of(const std::string& text) {
  std::map<std::string, Json> keys;
  const Json json = Json::parse(text);
  for (const auto& [key, value] : json.items()) {
    if (!value.is_object()) keys.emplace(key, value);
    if (value.is_object())
      for (const auto& [name, inner] : value.items()) keys.emplace(key + "." + name, inner);
  }
  return keys;
}

// The members of the structs in the header, but for struct_size, next and what is reserved.
std::set<std::string> members_of_header() {
  std::ifstream file(KVANT_SOURCE_DIR "/plugin/include/kvant/kvant_config.h");
  std::stringstream stream;
  stream << file.rdbuf();
  const std::string header = stream.str();
  std::map<std::string, std::vector<std::pair<std::string, std::string>>> structs;  // name -> (type, member)
  const std::regex one(R"(typedef struct (\w+) \{([^}]*)\})"), member(R"(^\s+(?:const )?(\w+)\*? (\w+)(?:\[\d+\])?;)");
  for (std::sregex_iterator at(header.begin(), header.end(), one), end; at != end; ++at) {
    std::istringstream lines((*at)[2]);
    for (std::string line; std::getline(lines, line);) {
      std::smatch found;
      if (std::regex_search(line, found, member)) structs[(*at)[1]].emplace_back(found[1], found[2]);
    }
  }
  std::set<std::string> members;
  for (const auto& [type, name] : structs["kvant_config"]) {
    if (structs.contains(type))
      for (const auto& [inner_type, inner] : structs[type]) members.insert(name + "." + inner);
    else
      members.insert(name);
  }
  std::erase_if(members, [](const std::string& name) {
    return name == "struct_size" || name == "next" || name.find("reserved") != std::string::npos;
  });
  return members;
}

// Two structs, member by member; texts by what they say.
void check_same(const kvant_config& a, const kvant_config& b) {
  const auto numbers = [](const kvant_config& c) {
    return std::vector<std::uint64_t>{c.capacity_tokens, c.memory_limit_bytes, c.preallocate_bytes, c.slab_bytes, c.page_tokens,
                                      c.window, c.window_sinks, c.prefix_cache, c.attention_mass, c.events, c.policy.ttl_ms, c.policy.sink_pages,
                                      c.tiers.host_bytes, c.tiers.disk_bytes, c.tiers.min_tokens, c.tiers.queue_bytes,
                                      c.tiers.remote_timeout_ms, c.tiers.store_after_uses, c.tiers.compare_recompute,
                                      c.hybrid.promote_uses, c.monitor.history, c.monitor.interval_ms, c.accuracy.protect_first,
                                      c.accuracy.protect_newest};
  };
  const auto texts = [](const kvant_config& c) {
    return std::vector<std::string>{c.preset, c.format_k, c.format_v, c.model_id, c.policy.kind, c.tiers.disk_folder,
                                    c.tiers.remote_servers, c.tiers.format, c.hybrid.hot_format, c.hybrid.cold_format, c.accuracy.centre,
                                    c.accuracy.rotate, c.accuracy.protect};
  };
  CHECK(numbers(a) == numbers(b));
  CHECK(texts(a) == texts(b));
}

struct Layers {
  kvant_layer_args layer = make<kvant_layer_args>();
  kvant_cache_args args = make<kvant_cache_args>();
  Layers() {
    layer.kv_heads = 1;
    layer.head_dim_k = 32;
    args.layer_count = 1;
    args.layers = &layer;
  }
  Layers(const Layers&) = delete;
  Layers& operator=(const Layers&) = delete;
};

}  // namespace

TEST_CASE("config struct: its members are the JSON's keys") {
  Session session({.open_device = false});
  std::set<std::string> keys;
  for (const auto& [key, value] : keys_of(write(session, preset(session, nullptr)))) keys.insert(key);
  CHECK(keys.size() > 30);
  CHECK(members_of_header() == keys);
}

TEST_CASE("config struct: presets go to JSON and back, and a preset is its name in JSON") {
  Session session({.open_device = false});
  for (const char* name : {"llm", "mobile", "research", ""}) {
    CAPTURE(name);
    const kvant_config config = preset(session, name);
    CHECK(std::string(config.preset) == name);
    const std::string text = write(session, config);
    check_same(parse(session, text), config);
    CHECK(write(session, parse(session, text)) == text);
    check_same(parse(session, R"({"preset": ")" + std::string(name) + "\"}"), config);
  }
  check_same(preset(session, nullptr), preset(session, ""));
  const kvant_config llm = preset(session, "llm"), plain = preset(session, nullptr);
  CHECK(llm.capacity_tokens == 131072);
  CHECK(std::string(llm.policy.kind) == "adaptive");
  CHECK(llm.tiers.host_bytes == std::uint64_t{4} << 30);
  CHECK(plain.events == 1024);
  CHECK(plain.monitor.interval_ms == 10000);
  CHECK(plain.tiers.compare_recompute == 1);
}

// Values are drawn per key from what its documentation allows; what the rules between keys refuse is left out by the library's own
// word, so that both sides are asked.
TEST_CASE("config struct: random values go to JSON and back") {
  Session session({.open_device = false});
  const kvant_ext_manager& m = manager(session);
  std::uint64_t state = 5;
  const auto below = [&](std::uint64_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % n;
  };
  const auto pick = [&](std::vector<const char*> texts) { return texts[below(texts.size())]; };
  const std::vector<const char*> formats = {"", "f16", "q8_0", "q4_0", "nf4"}, pairs = {"", "q8_0", "q8_0/q4_0", "f16/nf4"};
  const std::vector<std::function<void(kvant_config&)>> changes = {
      [&](kvant_config& c) { c.capacity_tokens = below(1u << 30); },
      [&](kvant_config& c) { c.memory_limit_bytes = below(3) * (1ull << 40); },
      [&](kvant_config& c) { c.preallocate_bytes = below(1ull << 30); },
      [&](kvant_config& c) { c.slab_bytes = below(2) * ((64u << 10) + below(1u << 30)); },
      [&](kvant_config& c) { c.format_k = pick(formats); },
      [&](kvant_config& c) { c.format_v = pick(formats); },
      [&](kvant_config& c) { c.model_id = pick({"", "tiny.gguf", "a \"quoted\" \\ name", "日本"}); },
      [&](kvant_config& c) { c.page_tokens = 16 + 16 * static_cast<std::uint32_t>(below(2)); },
      [&](kvant_config& c) { c.window = static_cast<std::uint32_t>(below(1u << 30)); },
      [&](kvant_config& c) { c.window_sinks = static_cast<std::uint32_t>(below(3)); },
      [&](kvant_config& c) { c.prefix_cache = static_cast<std::uint32_t>(below(2)); },
      [&](kvant_config& c) { c.attention_mass = static_cast<std::uint32_t>(below(2)); },
      [&](kvant_config& c) { c.events = static_cast<std::uint32_t>(below(1u << 20)); },
      [&](kvant_config& c) { c.policy.kind = pick({"none", "lru", "window", "adaptive"}); },
      [&](kvant_config& c) { c.policy.ttl_ms = below(1ull << 32); },
      [&](kvant_config& c) { c.policy.sink_pages = static_cast<std::uint32_t>(below(3)); },
      [&](kvant_config& c) { c.tiers.host_bytes = below(1ull << 50); },
      [&](kvant_config& c) { c.tiers.disk_folder = pick({"", "kvant-cache", "ä/ö"}); },
      [&](kvant_config& c) { c.tiers.disk_bytes = below(2) * below(1ull << 50); },
      [&](kvant_config& c) { c.tiers.remote_servers = pick({"", "one.local", "one.local:7,two.local:65535"}); },
      [&](kvant_config& c) { c.tiers.remote_timeout_ms = static_cast<std::uint32_t>(1 + below(60000)); },
      [&](kvant_config& c) { c.tiers.format = pick(pairs); },
      [&](kvant_config& c) { c.tiers.min_tokens = below(1u << 30); },
      [&](kvant_config& c) { c.tiers.store_after_uses = static_cast<std::uint32_t>(below(1000001)); },
      [&](kvant_config& c) { c.tiers.compare_recompute = static_cast<std::uint32_t>(below(2)); },
      [&](kvant_config& c) { c.tiers.queue_bytes = (1u << 20) + below(1ull << 50); },
      [&](kvant_config& c) { c.hybrid.hot_format = pick(pairs), c.hybrid.cold_format = pick(pairs); },
      [&](kvant_config& c) { c.hybrid.promote_uses = static_cast<std::uint32_t>(1 + below(1000000)); },
      [&](kvant_config& c) { c.monitor.history = static_cast<std::uint32_t>(16 + below(1009)); },
      [&](kvant_config& c) { c.monitor.interval_ms = below(2) * (100 + below(86399901)); },
      [&](kvant_config& c) { c.accuracy.centre = pick({"", "k", "v", "kv"}), c.accuracy.rotate = pick({"", "k", "v", "kv"}); },
      [&](kvant_config& c) { c.accuracy.protect = pick({"", "k", "v", "kv"}); },
      [&](kvant_config& c) { c.accuracy.protect_first = static_cast<std::uint32_t>(below(65537)); },
      [&](kvant_config& c) { c.accuracy.protect_newest = static_cast<std::uint32_t>(below(65537)); },
  };
  std::map<std::string, std::set<std::string>> seen;
  for (int round = 0; round < 400; ++round) {
    kvant_config config = preset(session, pick({"llm", "mobile", "research", ""}));
    for (int i = 0; i < 12; ++i) {
      kvant_config changed = config;
      changes[below(changes.size())](changed);
      const char* json = nullptr;
      if (take(m.config_write(session.context, &changed, &json)).code == 0) config = changed;
    }
    const std::string text = write(session, config);
    INFO(text);
    check_same(parse(session, text), config);
    for (const auto& [key, value] : keys_of(text)) seen[key].insert(value.dump());
  }
  for (const auto& [key, values] : seen) {
    CAPTURE(key);
    CHECK(values.size() > 1);
  }
}

TEST_CASE("config struct: each member alone is its own key") {
  Session session({.open_device = false});
  const auto defaults = keys_of(write(session, preset(session, nullptr)));
  const std::map<std::string, std::string> others = {
      {"preset", "\"research\""}, {"capacity_tokens", "4096"}, {"page_tokens", "32"}, {"memory_limit_bytes", "1048576"},
      {"preallocate_bytes", "65536"}, {"slab_bytes", "131072"}, {"format_k", "\"q8_0\""}, {"format_v", "\"q4_0\""},
      {"window", "64"}, {"prefix_cache", "true"}, {"attention_mass", "true"}, {"model_id", "\"tiny\""}, {"policy.kind", "\"none\""},
      {"policy.ttl_ms", "5"}, {"tiers.disk_folder", "\"cache\""}, {"tiers.remote_timeout_ms", "7"},
      {"tiers.format", "\"q8_0/q4_0\""}, {"tiers.min_tokens", "3"}, {"tiers.store_after_uses", "2"},
      {"tiers.compare_recompute", "false"}, {"tiers.queue_bytes", "2097152"}, {"hybrid.promote_uses", "5"},
      {"monitor.history", "32"}, {"monitor.interval_ms", "0"}, {"events", "0"}, {"accuracy.centre", "\"k\""},
      {"accuracy.rotate", "\"kv\""}, {"accuracy.protect", "\"v\""}, {"accuracy.protect_first", "7"}, {"accuracy.protect_newest", "0"}};
  for (const auto& [key, value] : others) {
    if (key == "preset" || key == "tiers.disk_folder") continue;  // change others, or need another
    CAPTURE(key);
    auto expected = defaults;
    REQUIRE(expected.contains(key));
    REQUIRE(expected[key].dump() != value);
    expected[key] = Json::parse(value);
    CHECK(keys_of(write(session, parse(session, "{\"" + key + "\": " + value + "}"))) == expected);
  }
}

TEST_CASE("config struct: what is left at zero, and what is wrong") {
  Session session({.open_device = false});
  const kvant_ext_manager& m = manager(session);
  auto config = make<kvant_config>();
  kvant_config expected = preset(session, nullptr);
  expected.tiers.compare_recompute = 0;
  expected.monitor.interval_ms = 0;
  expected.events = 0;
  expected.accuracy.protect_first = expected.accuracy.protect_newest = 0;
  check_same(parse(session, write(session, config)), expected);
  // A host of before the sections.
  auto older = preset(session, "llm");
  older.struct_size = offsetof(kvant_config, policy);
  CHECK(keys_of(write(session, older))["policy.kind"] == "lru");
  CHECK(keys_of(write(session, older))["tiers.queue_bytes"] == 256u << 20);
  CHECK(keys_of(write(session, older))["capacity_tokens"] == 131072);

  const char* json = nullptr;
  const auto refused = [&](const std::function<void(kvant_config&)>& change, const char* message) {
    kvant_config wrong = preset(session, "llm");
    change(wrong);
    check_error(m.config_write(session.context, &wrong, &json), KVANT_ERROR_INVALID_ARGUMENT, "config_write", message);
    CHECK(json == nullptr);
  };
  refused([](kvant_config& c) { c.page_tokens = 24; }, "page_tokens (24) is not 16 or 32");
  refused([](kvant_config& c) { c.prefix_cache = 2; }, "prefix_cache (2) is not 0 or 1");
  refused([](kvant_config& c) { c.tiers.remote_timeout_ms = 60001; }, "tiers.remote_timeout_ms (60001) is not");
  refused([](kvant_config& c) { c.tiers.format = "q8_0/q9"; }, "tiers.format (\"q8_0/q9\") is not one of");
  refused([](kvant_config& c) { c.policy.kind = "mru"; }, "policy.kind (\"mru\") is not one of none, lru, window, adaptive");
  refused([](kvant_config& c) { c.preset = "server"; }, "preset (\"server\")");
  refused([](kvant_config& c) { c.model_id = "\xFF"; }, "model_id");
  refused([](kvant_config& c) { c.capacity_tokens = 0; }, "policy.kind (adaptive) needs capacity_tokens");
  refused([](kvant_config& c) { c.tiers.disk_bytes = 5; }, "tiers.disk_bytes (5) needs tiers.disk_folder");
  refused([](kvant_config& c) { c.attention_mass = 2; }, "attention_mass (2) is not 0 or 1");
  refused([](kvant_config& c) { c.policy.reserved0 = 1; }, "config.policy.reserved0 (1) is not 0");
  refused([](kvant_config& c) { c.tiers.reserved[7] = 9; }, "config.tiers.reserved (9) is not 0");
  refused([](kvant_config& c) { c.monitor.reserved0 = 3; }, "config.monitor.reserved0 (3) is not 0");
  refused([](kvant_config& c) { c.accuracy.reserved[0] = 4; }, "config.accuracy.reserved (4) is not 0");
  refused([](kvant_config& c) { c.accuracy.rotate = "vk"; }, "accuracy.rotate (\"vk\") is not one of");
  refused([](kvant_config& c) { c.accuracy.protect = "k", c.accuracy.protect_first = c.accuracy.protect_newest = 0; },
          "accuracy.protect (k) needs accuracy.protect_first or accuracy.protect_newest");
  refused([](kvant_config& c) { c.struct_size = 8; }, "config.struct_size (8)");

  check_error(m.config_default(session.context, "server", &config), KVANT_ERROR_NOT_FOUND, "config_default",
              "preset (\"server\") is not one of llm, mobile, research");
  check_error(m.config_default(session.context, nullptr, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "config_default", "out_config is NULL");
  check_error(m.config_default(nullptr, nullptr, &config), KVANT_ERROR_INVALID_ARGUMENT, "config_default", "context is NULL");
  check_error(m.config_parse(session.context, nullptr, &config), KVANT_ERROR_INVALID_ARGUMENT, "config_parse", "json is NULL");
  check_error(m.config_parse(session.context, R"({"tiers": {"disk_byte": 1}})", &config), KVANT_ERROR_INVALID_ARGUMENT, "config_parse",
              "tiers.disk_byte is no key; did you mean tiers.disk_bytes?");
  check_error(m.config_write(session.context, &config, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "config_write", "out_json is NULL");
  check_error(m.config_write(session.context, nullptr, &json), KVANT_ERROR_INVALID_ARGUMENT, "config_write", "config is NULL");
  // A shorter output is filled as far as it goes.
  auto part = make<kvant_config>();
  part.struct_size = offsetof(kvant_config, model_id);
  part.model_id = "mine";
  require_ok(m.config_default(session.context, "llm", &part));
  CHECK(std::string(part.format_v) == "q8_0");
  CHECK(std::string(part.model_id) == "mine");
}

TEST_CASE("config struct: a cache made of it is the one made of its JSON") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  Layers base;
  kvant_config config = preset(session, "mobile");
  config.capacity_tokens = 512;
  config.tiers.host_bytes = 1 << 20;
  config.events = 2;
  kvant_cache *one = nullptr, *two = nullptr;
  require_ok(m.config_apply(session.device, &base.args, &config, &one));
  require_ok(m.cache_configure(session.device, &base.args, write(session, config).c_str(), &two));
  const auto text_of = [&](kvant_cache* cache) {
    const char* text = nullptr;
    require_ok(m.config_text(cache, &text));
    return std::string(text);
  };
  const auto stats_text = [&](kvant_cache* cache) {
    const char* text = nullptr;
    require_ok(m.stats_text(cache, KVANT_STATS_JSON, nullptr, &text, nullptr));
    return std::string(text);
  };
  CHECK(text_of(one) == text_of(two));
  CHECK(text_of(one) == write(session, config));
  CHECK(stats_text(one) == stats_text(two));
  CHECK(Json::parse(stats_text(one))["tiers"][0]["name"] == "host");
  api().cache_destroy(one);
  api().cache_destroy(two);

  // The engine's capacity and model where the struct has none.
  config = preset(session, nullptr);
  config.policy.kind = "adaptive";
  config.prefix_cache = 1;
  base.args.capacity_tokens = 256;
  base.args.flags = KVANT_CACHE_PREFIXES;
  base.args.model_id = "the engine's";
  require_ok(m.config_apply(session.device, &base.args, &config, &one));
  CHECK(keys_of(text_of(one))["capacity_tokens"] == 256);
  CHECK(keys_of(text_of(one))["model_id"] == "the engine's");
  CHECK(stats_of(one).total_pages == 16);
  api().cache_destroy(one);

  // Attention mass: as the configuration has it; what the flag says stands where JSON says nothing.
  const auto counts_mass = [&](kvant_cache* cache) {
    kvant_sequence sequence = 0;
    require_ok(api().sequence_create(cache, &sequence));
    const bool counts = take(m.sequence_mass_clear(cache, sequence)).code == 0;
    CHECK(keys_of(text_of(cache))["attention_mass"] == counts);
    api().cache_destroy(cache);
    return counts;
  };
  for (const bool flag : {false, true}) {
    CAPTURE(flag);
    base.args.flags = flag ? KVANT_CACHE_MASS : 0;
    base.args.model_id = nullptr;
    require_ok(m.cache_configure(session.device, &base.args, "{}", &one));
    CHECK(counts_mass(one) == flag);
    for (const bool key : {false, true}) {
      const std::string json = std::string(R"({"attention_mass": )") + (key ? "true}" : "false}");
      require_ok(m.cache_configure(session.device, &base.args, json.c_str(), &one));
      CHECK(counts_mass(one) == key);
      kvant_config choices = preset(session, nullptr);
      choices.attention_mass = key;
      require_ok(m.config_apply(session.device, &base.args, &choices, &one));
      CHECK(counts_mass(one) == key);
    }
  }
  base.args.flags = KVANT_CACHE_EXTERNAL_PAGES;
  one = nullptr;
  check_error(m.cache_configure(session.device, &base.args, R"({"attention_mass": true})", &one), KVANT_ERROR_INVALID_ARGUMENT,
              "cache_configure", "attention_mass is true, but the engine keeps the pages of this cache");

  config.page_tokens = 17;
  check_error(m.config_apply(session.device, &base.args, &config, &one), KVANT_ERROR_INVALID_ARGUMENT, "config_apply", "page_tokens (17)");
  check_error(m.config_apply(session.device, &base.args, nullptr, &one), KVANT_ERROR_INVALID_ARGUMENT, "config_apply", "config is NULL");
  check_error(m.config_apply(session.device, nullptr, &config, &one), KVANT_ERROR_INVALID_ARGUMENT, "config_apply", "args is NULL");
  CHECK(one == nullptr);
}
