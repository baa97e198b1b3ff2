// The presets: starting points whose values have reasons. docs/configuration.md shows them side by side.
#include <array>

#include "config_fields.hpp"

namespace kvant {
namespace {

constexpr std::uint64_t kMiB = 1ull << 20, kGiB = 1ull << 30;

// A server of many users whose prompts share beginnings.
CacheConfig llm() {
  CacheConfig config;
  config.preset = "llm";
  config.capacity_tokens = 131'072;  // 32 conversations of 4096 tokens
  config.preallocate_bytes = kGiB;   // a device without room says so at the start, not in the middle of a request
  config.format_k = "q8_0";  // half the bytes of f16; the likeliest token stays the same 998 times of 1000 (quality.md)
  config.format_v = "q8_0";
  config.prefix_cache = true;                 // system prompts and earlier turns are computed once
  config.policy.kind = PolicyKind::adaptive;  // near lru at least, ahead where documents are read once (policies.md)
  config.tiers.host_bytes = 4 * kGiB;         // a conversation that pauses comes back without being computed anew
  config.tiers.min_tokens = 256;              // less is a step's work anyway; beyond it measured rates decide
  config.monitor.interval_ms = 10'000;        // ten minutes are sixty samples: enough for a trend, and no load
  config.events = 8'192;                      // a router that polls each second misses none at 8,000 a second
  return config;
}

// One user, little memory, a battery.
CacheConfig mobile() {
  CacheConfig config;
  config.preset = "mobile";
  config.capacity_tokens = 4'096;          // two windows: the conversation and what it shares with the next one
  config.memory_limit_bytes = 256 * kMiB;  // twice what these tokens take in a model of 3 billion parameters
  config.slab_bytes = 16 * kMiB;           // slabs come as they are needed, so a small one wastes less
  config.format_k = "q4_0";                // a quarter of f16
  config.format_v = "q4_0";
  config.window = 2'048;                 // a length that does not end does not take more memory or time
  config.window_sinks = 4;               // without its first tokens a model loses itself (StreamingLLM's four)
  config.prefix_cache = true;            // the one system prompt
  config.policy.kind = PolicyKind::lru;  // few prefixes: adaptive has nothing to learn from
  config.tiers.disk_bytes = 64 * kMiB;   // once tiers.disk_folder names a folder; without one there is no disk tier
  config.tiers.min_tokens = 64;          // a slow processor: even a short prompt is worth a read
  config.tiers.store_after_uses = 1;     // flash wears: only what was used again is written
  config.tiers.queue_bytes = 8 * kMiB;   // memory that is not the cache's
  config.monitor.history = 60;
  config.monitor.interval_ms = 60'000;  // waking up costs battery
  config.events = 256;
  return config;
}

// Nothing happens by itself, and everything that happens can be seen.
CacheConfig research() {
  CacheConfig config;
  config.preset = "research";
  config.capacity_tokens = 32'768;  // one long document
  config.format_k = "f16";          // what other formats are measured against
  config.format_v = "f16";
  config.prefix_cache = true;              // its counters and events are there
  config.policy.kind = PolicyKind::none;   // a full cache is an error, instead of a figure that nobody can explain
  config.tiers.compare_recompute = false;  // what a tier holds is loaded, however fast the machine is today
  config.monitor.history = 1'024;
  config.monitor.interval_ms = 1'000;  // seventeen minutes second by second before any are merged
  config.events = 65'536;              // a whole experiment without a reader
  return config;
}

struct Preset {
  std::string_view name;
  CacheConfig (*make)();
};
constexpr Preset kPresets[] = {{"llm", llm}, {"mobile", mobile}, {"research", research}};
constexpr std::array<std::string_view, std::size(kPresets)> kNames = [] {
  std::array<std::string_view, std::size(kPresets)> names;
  for (std::size_t i = 0; i < names.size(); ++i) names[i] = kPresets[i].name;
  return names;
}();

}  // namespace

std::span<const std::string_view> config_preset_names() { return kNames; }

Result<CacheConfig> config_preset(std::string_view name) {
  if (name.empty()) return CacheConfig();
  for (const Preset& preset : kPresets)
    if (preset.name == name) return preset.make();
  std::string names;
  for (const Preset& preset : kPresets) names += (names.empty() ? "" : ", ") + std::string(preset.name);
  return Status(StatusCode::not_found, "preset (" + shown_text(name) + ") is not one of " + names + ", or empty");
}

}  // namespace kvant
