#include "tuned_configs.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "file_replace.hpp"
#include "json_tree.hpp"
#include "json_writer.hpp"
#include "pipeline_key.hpp"

namespace kvant {
namespace {

constexpr std::uint64_t kVersion = 1;
constexpr std::array<std::string_view, 3> kQueryKinds = {"one", "few", "many"};
constexpr std::size_t kMaxFileBytes = 1U << 20;  // a larger file is not ours

struct FormatName {
  std::uint32_t id;
  std::string_view name;
};
constexpr FormatName kFormats[] = {
#define KVANT_FORMAT(symbol, id, block, code_bits, high_bits, scale_bytes, row_pad, int_dot) {id, #symbol},
#include "formats.def"
#undef KVANT_FORMAT
};

std::string_view format_name(std::uint32_t id) {
  const auto* found = std::find_if(std::begin(kFormats), std::end(kFormats), [&](const FormatName& f) { return f.id == id; });
  return found == std::end(kFormats) ? std::string_view("?") : found->name;
}

std::optional<std::uint32_t> format_id(std::string_view name) {
  const auto* found = std::find_if(std::begin(kFormats), std::end(kFormats), [&](const FormatName& f) { return f.name == name; });
  return found == std::end(kFormats) ? std::nullopt : std::optional(found->id);
}

std::string hex_text(std::span<const std::uint8_t> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : bytes) text += {kDigits[byte >> 4], kDigits[byte & 15]};
  return text;
}

// What the file says of the device: equal texts, same device and driver.
std::string device_text(const DeviceSnapshot& device) {
  return std::to_string(device.vendor_id) + ":" + std::to_string(device.device_id) + ":" + std::to_string(device.driver_id) + ":" +
         std::to_string(device.driver_version) + ":" + hex_text(device.pipeline_cache_uuid);
}

void write_entry(JsonWriter& json, const TuningKey& key, const TunedConfig& tuned) {
  const AttendConfig& config = tuned.config;
  json.begin_object();
  json.member("format_k", format_name(key.format_k));
  json.member("format_v", format_name(key.format_v));
  json.member("head_dim_k", key.head_dim_k);
  json.member("head_dim_v", key.head_dim_v);
  json.member("group", key.group);
  json.member("page_tokens", key.page_tokens);
  json.member("queries", query_kind_name(key.queries));
  json.member("kernel", kernel_info(config.kernel).name);
  json.member("local_size", config.local_size);
  json.member("subgroup_size", config.subgroup_size);
  json.member("heads_per_tile", config.heads_per_tile);
  json.member("queries_per_item", config.queries_per_item);
  json.member("kv_per_item", config.kv_per_item);
  json.key("tune");
  json.begin_array();
  for (const std::uint32_t value : config.tune) json.value(value);
  json.end_array();
  json.member("workgroups", tuned.workgroups);
  json.member("microseconds", tuned.microseconds);
  json.member("default_microseconds", tuned.default_microseconds);
  json.end_object();
}

// Reads members of one object; anything that is not as expected makes it bad for good.
class Fields {
 public:
  explicit Fields(const JsonView& object) : object_(object) {}

  std::uint32_t whole(std::string_view name) {
    const auto value = object_.find(name);
    if (!value || !value->is(JsonView::Kind::whole) || value->node().whole > UINT32_MAX) return bad<std::uint32_t>();
    return static_cast<std::uint32_t>(value->node().whole);
  }
  double number(std::string_view name) {
    const auto value = object_.find(name);
    const auto found = value ? value->number() : std::nullopt;
    return found ? *found : bad<double>();
  }
  template <typename Lookup>
  auto named(std::string_view name, Lookup lookup) {
    const auto value = object_.find(name);
    const auto found = value && value->is(JsonView::Kind::string) ? lookup(value->node().text) : std::nullopt;
    return found ? *found : bad<typename decltype(found)::value_type>();
  }
  void tune(AttendConfig& config) {
    const auto array = object_.find("tune");
    if (!array || !array->is(JsonView::Kind::array) || array->size() != config.tune.size()) return (void)bad<int>();
    auto value = array->first();
    for (std::uint32_t& one : config.tune) {
      if (!value->is(JsonView::Kind::whole) || value->node().whole > UINT32_MAX) return (void)bad<int>();
      one = static_cast<std::uint32_t>(value->node().whole);
      value = value->next(*array);
    }
  }
  bool good() const { return good_; }

 private:
  template <typename T>
  T bad() {
    good_ = false;
    return T{};
  }
  JsonView object_;
  bool good_ = true;
};

std::optional<QueryKind> query_kind_named(std::string_view name) {
  const auto* found = std::find(kQueryKinds.begin(), kQueryKinds.end(), name);
  return found == kQueryKinds.end() ? std::nullopt : std::optional(static_cast<QueryKind>(found - kQueryKinds.begin()));
}

bool read_entry(const JsonView& object, TunedConfigs& configs) {
  if (!object.is(JsonView::Kind::object)) return false;
  Fields fields(object);
  TuningKey key;
  key.format_k = fields.named("format_k", format_id);
  key.format_v = fields.named("format_v", format_id);
  key.head_dim_k = fields.whole("head_dim_k");
  key.head_dim_v = fields.whole("head_dim_v");
  key.group = fields.whole("group");
  key.page_tokens = fields.whole("page_tokens");
  key.queries = fields.named("queries", query_kind_named);
  TunedConfig tuned;
  AttendConfig& config = tuned.config;
  config.kernel = fields.named("kernel", kernel_named);
  config.local_size = fields.whole("local_size");
  config.subgroup_size = fields.whole("subgroup_size");
  config.heads_per_tile = fields.whole("heads_per_tile");
  config.queries_per_item = fields.whole("queries_per_item");
  config.kv_per_item = fields.whole("kv_per_item");
  fields.tune(config);
  tuned.workgroups = fields.whole("workgroups");
  tuned.microseconds = fields.number("microseconds");
  tuned.default_microseconds = fields.number("default_microseconds");
  // cut_items() divides by these.
  if (!fields.good() || tuned.workgroups == 0 || config.heads_per_tile == 0 || config.queries_per_item == 0 || key.page_tokens == 0) return false;
  configs.set(key, tuned);
  return true;
}

}  // namespace

QueryKind query_kind(std::uint32_t max_queries) {
  return max_queries <= 1 ? QueryKind::one : max_queries <= 8 ? QueryKind::few : QueryKind::many;
}

std::string_view query_kind_name(QueryKind kind) { return kQueryKinds[static_cast<std::size_t>(kind)]; }

TuningKey tuning_key(const AttendShape& shape) {
  return {shape.format_k, shape.format_v, shape.head_dim_k, shape.head_dim_v, shape.group, shape.page_tokens, query_kind(shape.max_queries)};
}

std::optional<AttendConfig> TunedConfigs::find(const AttendShape& shape, const DevicePlan& plan) const {
  const auto found = configs_.find(tuning_key(shape));
  if (found == configs_.end()) return std::nullopt;
  AttendConfig config = found->second.config;
  config.queries_per_item = std::min(config.queries_per_item, std::max(shape.max_queries, 1U));
  cut_items(config, shape, found->second.workgroups);
  return attend_config_valid(config, shape, plan) ? std::optional(config) : std::nullopt;
}

std::string encode_tuned(const TunedConfigs& configs, const DeviceSnapshot& device, std::string_view shader_set) {
  std::string text;
  JsonWriter json(text, 1);
  json.begin_object();
  json.member("version", kVersion);
  json.member("device", device_text(device));
  json.member("name", device.name);
  json.member("shader_set", shader_set);
  json.key("configs");
  json.begin_array();
  for (const auto& [key, tuned] : configs.all()) write_entry(json, key, tuned);
  json.end_array();
  json.end_object();
  return text + "\n";
}

TunedLoad decode_tuned(std::string_view text, const DeviceSnapshot& device, std::string_view shader_set) {
  const auto tree = JsonTree::parse(text);
  if (!tree) return {BlobOutcome::corrupt, {}};
  const JsonView root = tree->root();
  const auto version = root.find("version"), of = root.find("device"), shaders = root.find("shader_set"), list = root.find("configs");
  if (!version || !of || !shaders || !list || !list->is(JsonView::Kind::array)) return {BlobOutcome::corrupt, {}};
  if (version->node().whole != kVersion) return {BlobOutcome::other_version, {}};
  if (of->node().text != device_text(device)) return {BlobOutcome::other_device, {}};
  if (shaders->node().text != shader_set) return {BlobOutcome::other_shaders, {}};
  TunedLoad load{BlobOutcome::hit, {}};
  for (auto entry = list->first(); entry; entry = entry->next(*list))
    if (!read_entry(*entry, load.configs)) return {BlobOutcome::corrupt, {}};
  return load;
}

std::string tuned_path(const std::string& folder, const DeviceSnapshot& device) {
  return std::filesystem::path(blob_path(folder, device)).replace_extension(".tuned.json").string();
}

TunedLoad load_tuned(const std::string& path, const DeviceSnapshot& device, std::string_view shader_set) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return {BlobOutcome::absent, {}};  // a pipe would wait for its writer
  std::ifstream stream(path, std::ios::binary | std::ios::ate);
  if (!stream) return {BlobOutcome::absent, {}};
  const auto size = static_cast<std::streamoff>(stream.tellg());
  if (size < 0 || static_cast<std::uint64_t>(size) > kMaxFileBytes) return {BlobOutcome::not_a_blob, {}};
  std::string text(static_cast<std::size_t>(size), '\0');
  stream.seekg(0);
  stream.read(text.data(), size);
  return stream ? decode_tuned(text, device, shader_set) : TunedLoad{BlobOutcome::truncated, {}};
}

Status save_tuned(const std::string& path, const TunedConfigs& configs, const DeviceSnapshot& device, std::string_view shader_set) {
  const std::string text = encode_tuned(configs, device, shader_set);
  return replace_file(path, std::as_bytes(std::span(text)), "tuned config");
}

}  // namespace kvant
