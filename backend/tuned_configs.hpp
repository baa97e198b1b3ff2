// TunedConfigs: which config of an attention call measuring found to be the quickest, by kind of call. On disk a JSON file of one device,
// driver and shader set (`kvant tune` writes it). Whatever does not match, is damaged or cannot run on the device is passed over, never an
// error: tuning is only a shortcut.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "pipeline_blob.hpp"
#include "tuning.hpp"

namespace kvant {

enum class QueryKind : std::uint8_t { one, few, many };  // 1; 2 to 7; more
QueryKind query_kind(std::uint32_t max_queries);
std::string_view query_kind_name(QueryKind kind);

// Calls that share a config. The number of keys is no part of it: it changes with every token, and items follow it anyway.
struct TuningKey {
  std::uint32_t format_k = 0, format_v = 0;
  std::uint32_t head_dim_k = 0, head_dim_v = 0;
  std::uint32_t group = 1;
  std::uint32_t page_tokens = 16;
  QueryKind queries = QueryKind::one;

  auto operator<=>(const TuningKey&) const = default;
};
TuningKey tuning_key(const AttendShape& shape);

struct TunedConfig {
  AttendConfig config;             // kv_split is of no account: cut_items() sets it for each call
  std::uint32_t workgroups = 1;    // that the device wants at once
  double microseconds = 0;         // of the call that was measured, and of what tuning would have chosen for it, in the same run
  double default_microseconds = 0;
};

class TunedConfigs {
 public:
  void set(const TuningKey& key, const TunedConfig& tuned) { configs_[key] = tuned; }
  void erase(const TuningKey& key) { configs_.erase(key); }
  std::size_t size() const { return configs_.size(); }
  const std::map<TuningKey, TunedConfig>& all() const { return configs_; }
  // The config for this call; nothing where none was measured or it is not valid here. Allocates nothing.
  std::optional<AttendConfig> find(const AttendShape& shape, const DevicePlan& plan) const;

 private:
  std::map<TuningKey, TunedConfig> configs_;
};

struct TunedLoad {
  BlobOutcome outcome = BlobOutcome::absent;
  TunedConfigs configs;  // empty unless hit
};

std::string encode_tuned(const TunedConfigs& configs, const DeviceSnapshot& device, std::string_view shader_set);
TunedLoad decode_tuned(std::string_view text, const DeviceSnapshot& device, std::string_view shader_set);

// The file of this device inside of `folder`, beside the pipelines.
std::string tuned_path(const std::string& folder, const DeviceSnapshot& device);
TunedLoad load_tuned(const std::string& path, const DeviceSnapshot& device, std::string_view shader_set);
// Readers see the old file or the new one.
Status save_tuned(const std::string& path, const TunedConfigs& configs, const DeviceSnapshot& device, std::string_view shader_set);

}  // namespace kvant
