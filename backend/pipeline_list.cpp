#include "pipeline_list.hpp"

#include <algorithm>

namespace kvant {
namespace {

void put_u32(std::vector<std::byte>& bytes, std::uint32_t value) {
  for (std::uint32_t shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<std::byte>(value >> shift & 0xFF));
}

// Takes from the front of what is left; nothing once there is too little.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : left_(bytes) {}

  std::optional<std::span<const std::byte>> take(std::size_t count) {
    if (count > left_.size()) return std::nullopt;
    const auto taken = left_.first(count);
    left_ = left_.subspan(count);
    return taken;
  }
  std::optional<std::uint32_t> u32() {
    const auto bytes = take(4);
    if (!bytes) return std::nullopt;
    std::uint32_t value = 0;
    for (std::uint32_t i = 0; i < 4; ++i) value |= std::to_integer<std::uint32_t>((*bytes)[i]) << (8 * i);
    return value;
  }
  std::span<const std::byte> rest() const { return left_; }

 private:
  std::span<const std::byte> left_;
};

std::optional<PipelineKey> read_key(Reader& reader) {
  const auto length = reader.take(1);
  const auto name = length ? reader.take(std::to_integer<std::size_t>(length->front())) : std::nullopt;
  if (!name) return std::nullopt;
  const auto kernel = kernel_named({reinterpret_cast<const char*>(name->data()), name->size()});
  SpecValues spec{};
  for (std::uint32_t& value : spec) {
    const auto word = reader.u32();
    if (!word) return std::nullopt;
    value = *word;
  }
  if (!kernel) return std::nullopt;
  return make_pipeline_key(*kernel, spec, false);
}

}  // namespace

std::vector<std::byte> encode_pipelines(const PipelineList& list) {
  std::vector<std::byte> bytes;
  put_u32(bytes, static_cast<std::uint32_t>(list.keys.size()));
  for (const PipelineKey& key : list.keys) {
    const std::string_view name = kernel_info(key.kernel).name;
    bytes.push_back(static_cast<std::byte>(name.size()));
    for (const char c : name) bytes.push_back(static_cast<std::byte>(c));
    for (const std::uint32_t value : key.spec) put_u32(bytes, value);
  }
  bytes.insert(bytes.end(), list.driver_data.begin(), list.driver_data.end());
  return bytes;
}

std::optional<PipelineList> decode_pipelines(std::span<const std::byte> payload) {
  Reader reader(payload);
  const auto count = reader.u32();
  if (!count || *count > kMostListedPipelines) return std::nullopt;
  PipelineList list;
  for (std::uint32_t i = 0; i < *count; ++i) {
    const auto key = read_key(reader);
    if (!key) return std::nullopt;
    list.keys.push_back(*key);
  }
  list.driver_data.assign(reader.rest().begin(), reader.rest().end());
  return list;
}

std::vector<PipelineKey> merge_keys(std::span<const PipelineKey> used, std::span<const PipelineKey> earlier) {
  std::vector<PipelineKey> merged;
  for (const auto keys : {used, earlier}) {
    for (const PipelineKey& key : keys) {
      if (merged.size() == kMostListedPipelines) return merged;
      if (std::find(merged.begin(), merged.end(), key) == merged.end()) merged.push_back(key);
    }
  }
  return merged;
}

}  // namespace kvant
