// CacheConfig: the cache manager's choices without the model's geometry, as one struct, as JSON and as presets. The
// keys of the JSON are the members' names, "tiers.disk_bytes"; config_fields.def has a row for each. Meanings:
// docs/configuration.md.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "eviction_policy.hpp"
#include "formats.hpp"
#include "status.hpp"

namespace kvant {

struct PolicyConfig {
  PolicyKind kind = PolicyKind::lru;
  std::uint64_t ttl_ms = 0;      // 0 = never
  std::uint32_t sink_pages = 0;  // window: the first pages of a prefix, which leave last
  bool operator==(const PolicyConfig&) const = default;
};

struct TiersConfig {
  std::uint64_t host_bytes = 0;  // 0 = no host tier
  std::string disk_folder;       // empty = no disk tier
  std::uint64_t disk_bytes = 0;  // 0 = no limit
  std::string remote_servers;    // "host:port,host:port"; empty = no remote tier
  std::uint32_t remote_timeout_ms = 200;
  std::string format;            // in which tiers keep entries: a format, or K's and V's as "q8_0/q4_0"; empty = as is
  std::uint64_t min_tokens = 0;  // fewer tokens in a row are not worth a load
  std::uint32_t store_after_uses = 0;
  bool compare_recompute = true;  // loads nothing that would be computed quicker
  std::uint64_t queue_bytes = 256ull << 20;
  bool operator==(const TiersConfig&) const = default;
};

struct HybridConfig {
  std::string hot_format, cold_format;  // a format or a pair; both empty = no hybrid
  std::uint32_t promote_uses = 2;       // a cold prefix used so often becomes a hot one
  bool operator==(const HybridConfig&) const = default;
};

struct MonitorConfig {
  std::uint32_t history = 240;         // intervals kept
  std::uint64_t interval_ms = 10'000;  // 0 = nothing is observed unless asked
  bool operator==(const MonitorConfig&) const = default;
};

// What makes narrow formats err less, in all layers. Sides are "", "k", "v" or "kv"; "" leaves each layer's own.
struct AccuracyConfig {
  std::string centre, rotate;
  std::string protect;  // "": the engine's own
  std::uint32_t protect_first = 4, protect_newest = 64;
  bool operator==(const AccuracyConfig&) const = default;
};

struct CacheConfig {
  std::string preset;                    // that the others began as; empty = the defaults here
  std::uint64_t capacity_tokens = 0;     // 0 = the engine's figure
  std::uint32_t page_tokens = 16;        // 16 or 32
  std::uint64_t memory_limit_bytes = 0;  // 0 = none
  std::uint64_t preallocate_bytes = 0;   // of slabs, at creation; 0 = as pages are first used
  std::uint64_t slab_bytes = 0;          // that a slab aims at; 0 = the planner's own
  std::string format_k, format_v;        // empty = each layer's own
  std::uint32_t window = 0;              // 0 = each layer's own
  std::uint32_t window_sinks = 0;
  bool prefix_cache = false;
  bool attention_mass = false;  // room to count it: 8 bytes per token, layer and KV head
  std::string model_id;  // part of every prefix key
  PolicyConfig policy;
  TiersConfig tiers;
  HybridConfig hybrid;
  MonitorConfig monitor;
  AccuracyConfig accuracy;
  std::uint32_t events = 1024;  // that the event ring holds
  bool operator==(const CacheConfig&) const = default;
};

std::span<const std::string_view> config_preset_names();  // "llm", "mobile", "research"
// Empty: the defaults. Errors: not_found, naming the presets.
Result<CacheConfig> config_preset(std::string_view name);

// "preset" first, then the other keys; what neither says is `base`'s. A preset replaces `base`, but for its model, and its capacity if
// it has one: whoever made `base` knows those better. The result is valid. Errors: invalid_argument, naming the key and what was
// expected.
Result<CacheConfig> config_from_json(std::string_view text, const CacheConfig& base = {});
// Every key, in the order of the table. Of a valid configuration config_from_json makes the same one again.
std::string config_to_json(const CacheConfig& config);
// Each key for itself, then those that depend on each other. Errors: invalid_argument.
Status validate_config(const CacheConfig& config);

// "q8_0" is both sides, "q8_0/q4_0" K and V.
struct FormatPair {
  FormatId k = FormatId::f16, v = FormatId::f16;
  bool operator==(const FormatPair&) const = default;
};
std::optional<FormatPair> format_pair_from_text(std::string_view text);

}  // namespace kvant
