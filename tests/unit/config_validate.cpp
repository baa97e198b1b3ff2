// Rules between keys: each is broken alone, named in the sentence, and satisfied.
#include <doctest/doctest.h>

#include "cache.hpp"
#include "config_apply.hpp"
#include "config_fields.hpp"
#include "geometry.hpp"
#include "monitor.hpp"

namespace kvant {
namespace {

struct Rule {
  std::string_view broken, message, kept;
};

constexpr Rule kRules[] = {
    {R"({"memory_limit_bytes": "1MiB", "preallocate_bytes": "2MiB"})",
     "preallocate_bytes (2097152) is greater than memory_limit_bytes (1048576)",
     R"({"memory_limit_bytes": "2MiB", "preallocate_bytes": "2MiB"})"},
    {R"({"memory_limit_bytes": "1MiB", "slab_bytes": "2MiB"})",
     "slab_bytes (2097152) is greater than memory_limit_bytes (1048576)",
     R"({"memory_limit_bytes": 0, "slab_bytes": "2MiB", "preallocate_bytes": "2MiB"})"},
    {R"({"window_sinks": 4})", "window_sinks (4) needs a window; window is 0", R"({"window_sinks": 4, "window": 64})"},
    {R"({"policy": {"sink_pages": 1, "kind": "adaptive"}, "capacity_tokens": 512})",
     "policy.sink_pages (1) needs policy.kind window; it is adaptive",
     R"({"policy": {"sink_pages": 1, "kind": "window"}})"},
    {R"({"policy": {"kind": "adaptive"}})",
     "policy.kind (adaptive) needs capacity_tokens, which size its queues; capacity_tokens is 0",
     R"({"policy": {"kind": "adaptive"}, "capacity_tokens": 512})"},
    {R"({"prefix_cache": true, "tiers": {"disk_bytes": "1GB"}})",
     "tiers.disk_bytes (1000000000) needs tiers.disk_folder, which is empty",
     R"({"prefix_cache": true, "tiers": {"disk_bytes": "1GB", "disk_folder": "cache"}})"},
    {R"({"preset": "mobile", "tiers": {"disk_bytes": "65MiB"}})",
     "tiers.disk_bytes (68157440) needs tiers.disk_folder, which is empty",
     R"({"preset": "mobile", "tiers": {"disk_bytes": "64MiB"}})"},
    {R"({"tiers": {"host_bytes": 1}})", "tiers.host_bytes (1) needs prefix_cache, which is false: tiers hold its pages",
     R"({"tiers": {"host_bytes": 1}, "prefix_cache": true})"},
    {R"({"tiers": {"disk_folder": "cache"}})",
     "tiers.disk_folder (\"cache\") needs prefix_cache, which is false: tiers hold its pages",
     R"({"tiers": {"disk_folder": "cache"}, "prefix_cache": true})"},
    {R"({"tiers": {"remote_servers": "a:1"}})",
     "tiers.remote_servers (\"a:1\") needs prefix_cache, which is false: tiers hold its pages",
     R"({"tiers": {"remote_servers": "a:1"}, "prefix_cache": true})"},
    {R"({"hybrid": {"cold_format": "q4_0"}})", "hybrid.cold_format (q4_0) needs hybrid.hot_format, which is empty",
     R"({"hybrid": {"cold_format": "q4_0", "hot_format": "f16"}})"},
    {R"({"hybrid": {"hot_format": "q8_0/q4_0"}})",
     "hybrid.hot_format (q8_0/q4_0) needs hybrid.cold_format, which is empty",
     R"({"hybrid": {"hot_format": "q8_0/q4_0", "cold_format": "q4_0"}})"},
    {R"({"hybrid": {"hot_format": "q8_0", "cold_format": "q8_0/q8_0"}})",
     "hybrid.cold_format (q8_0/q8_0) is the same as hybrid.hot_format (q8_0); expected another one", "{}"},
};

TEST_CASE("config: rules between keys") {
  for (const Rule& rule : kRules) {
    const Result<CacheConfig> broken = config_from_json(rule.broken);
    INFO(rule.broken);
    REQUIRE_FALSE(broken.ok());
    CHECK(broken.status().code() == StatusCode::invalid_argument);
    CHECK(broken.status().message() == rule.message);
    const Result<CacheConfig> kept = config_from_json(rule.kept);
    INFO(kept.status().message());
    CHECK(kept.ok());
  }
}

TEST_CASE("config: defaults are valid, and what validation refuses no JSON brings in") {
  CHECK(validate_config(CacheConfig()).ok());
  CacheConfig config;
  config.window_sinks = 4;
  CHECK_FALSE(validate_config(config).ok());
  CHECK_FALSE(config_from_json(config_to_json(config)).ok());
  config.window_sinks = 0;
  config.preset = "nobody's";
  CHECK(validate_config(config).message() == "preset (\"nobody's\") is not one of llm, mobile, research, or empty");
}

TEST_CASE("config: defaults are those of the parts that it feeds") {
  const CacheConfig config;
  CHECK(config.page_tokens == CacheSpec().page_tokens);
  CHECK(config.prefix_cache == CacheSpec().prefix_cache);
  CHECK(config.attention_mass == CacheSpec().attention_mass);
  CHECK(config.policy.kind == PolicySpec().kind);
  CHECK(config.policy.ttl_ms == PolicySpec().ttl_ms);
  CHECK(config.policy.sink_pages == PolicySpec().sink_entries);
  CHECK(config.tiers.disk_bytes == DiskTierSpec().capacity_bytes);
  CHECK(config.tiers.remote_timeout_ms == RemoteTierSpec().timeout_ms);
  CHECK(config.tiers.min_tokens == TierOptions().min_tokens);
  CHECK(config.tiers.store_after_uses == TierOptions().store_after_uses);
  CHECK(config.tiers.compare_recompute == TierOptions().compare_recompute);
  CHECK(config.tiers.queue_bytes == TierOptions().queue_bytes);
  CHECK(config.monitor.history == MonitorOptions().capacity);
  // What the help of slab_bytes says.
  CHECK(kTargetSlabBytes == 256ull << 20);
  CHECK(config_field("slab_bytes")->help.ends_with("0: 256 MiB."));
}

TEST_CASE("config: the section accuracy says how rows lie in all layers, or leaves it to each") {
  CacheSpec given;
  given.layers.resize(2);
  given.layers[1].rotate_v = given.layers[1].centre_k = given.layers[1].centre_v = true;
  given.layers[1].means_k = given.layers[1].means_v = std::vector<float>(64, 1.0f);
  given.protection = {1, 2, true, true, 3};
  CacheSpec spec = given;
  REQUIRE(apply_config(CacheConfig(), spec).ok());
  CHECK(spec.layers == given.layers);
  CHECK(spec.protection.first_tokens == 1);
  CacheConfig config;
  config.accuracy = {"k", "kv", "v", 0, 48};
  REQUIRE(apply_config(config, spec).ok());
  for (const LayerSpec& layer : spec.layers) {
    CHECK(layer.centre_k);
    CHECK_FALSE(layer.centre_v);
    CHECK(layer.rotate_k);
    CHECK(layer.rotate_v);
    CHECK(layer.means_v.empty());
  }
  CHECK(spec.layers[1].means_k.size() == 64);
  CHECK(spec.protection.first_tokens == 0);
  CHECK(spec.protection.newest_tokens == 48);
  CHECK_FALSE(spec.protection.k);
  CHECK(spec.protection.v);
  CHECK(cold_spec([] {
          CacheConfig hybrid;
          hybrid.hybrid.hot_format = "f16";
          hybrid.hybrid.cold_format = "t4";
          return hybrid;
        }(), spec).protection.any() == false);
  spec.external_pages = true;
  const Status external = apply_config(config, spec);
  CHECK(external.message() == "accuracy.protect is \"v\", but the engine keeps the pages of this cache");
  config.accuracy.protect_newest = 0;
  CHECK(validate_config(config).message() == "accuracy.protect (v) needs accuracy.protect_first or accuracy.protect_newest; both are 0");
}

}  // namespace
}  // namespace kvant
