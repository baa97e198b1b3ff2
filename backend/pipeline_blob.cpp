#include "pipeline_blob.hpp"

#include <filesystem>
#include <fstream>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "file_replace.hpp"

namespace kvant {
namespace {

constexpr std::uint32_t kMagic = 0x4250564B;  // "KVPB"
constexpr std::uint32_t kVersion = 2;
constexpr std::size_t kHeaderBytes = 6 * 4 + 16 + 4 * 8;
constexpr std::size_t kMaxFileBytes = 256U << 20;  // a larger file is not ours

class Writer {
 public:
  explicit Writer(std::vector<std::byte>& bytes) : bytes_(bytes) {}
  template <typename T>
  void put(T value) {
    for (std::size_t i = 0; i < sizeof(T); ++i) bytes_.push_back(static_cast<std::byte>(value >> (8 * i) & 0xFF));
  }

 private:
  std::vector<std::byte>& bytes_;
};

// Reads a header that is known to be long enough.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  template <typename T>
  T get() {
    T value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i)
      value = static_cast<T>(value | static_cast<T>(std::to_integer<T>(bytes_[at_ + i]) << (8 * i)));
    at_ += sizeof(T);
    return value;
  }

 private:
  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
};

std::uint64_t hash(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }
std::uint64_t hash(std::string_view text) { return XXH3_64bits(text.data(), text.size()); }

}  // namespace

std::string_view blob_outcome_name(BlobOutcome outcome) {
  switch (outcome) {
    case BlobOutcome::hit:
      return "hit";
    case BlobOutcome::absent:
      return "absent";
    case BlobOutcome::truncated:
      return "truncated";
    case BlobOutcome::not_a_blob:
      return "not a pipeline blob";
    case BlobOutcome::other_version:
      return "another version";
    case BlobOutcome::other_device:
      return "another device or driver";
    case BlobOutcome::other_shaders:
      return "another shader set";
    case BlobOutcome::corrupt:
      return "corrupt";
  }
  return "?";
}

std::vector<std::byte> encode_blob(const DeviceSnapshot& device, std::string_view shader_set,
                                   std::span<const std::byte> payload) {
  std::vector<std::byte> file;
  file.reserve(kHeaderBytes + payload.size());
  Writer writer(file);
  writer.put(kMagic);
  writer.put(kVersion);
  writer.put(device.vendor_id);
  writer.put(device.device_id);
  writer.put(device.driver_id);
  writer.put(device.driver_version);
  for (const std::uint8_t byte : device.pipeline_cache_uuid) writer.put(byte);
  writer.put(hash(shader_set));
  writer.put(static_cast<std::uint64_t>(payload.size()));
  writer.put(hash(payload));
  writer.put(hash(file));
  file.insert(file.end(), payload.begin(), payload.end());
  return file;
}

BlobLoad decode_blob(const DeviceSnapshot& device, std::string_view shader_set, std::span<const std::byte> file) {
  if (file.size() < kHeaderBytes) return {BlobOutcome::truncated, {}};
  Reader reader(file);
  if (reader.get<std::uint32_t>() != kMagic) return {BlobOutcome::not_a_blob, {}};
  if (reader.get<std::uint32_t>() != kVersion) return {BlobOutcome::other_version, {}};
  const std::uint64_t header_hash = Reader(file.subspan(kHeaderBytes - 8)).get<std::uint64_t>();
  if (header_hash != hash(file.first(kHeaderBytes - 8))) return {BlobOutcome::corrupt, {}};
  bool same_device = reader.get<std::uint32_t>() == device.vendor_id;
  same_device = (reader.get<std::uint32_t>() == device.device_id) && same_device;
  same_device = (reader.get<std::uint32_t>() == device.driver_id) && same_device;
  same_device = (reader.get<std::uint32_t>() == device.driver_version) && same_device;
  for (const std::uint8_t byte : device.pipeline_cache_uuid)
    same_device = (reader.get<std::uint8_t>() == byte) && same_device;
  if (!same_device) return {BlobOutcome::other_device, {}};
  if (reader.get<std::uint64_t>() != hash(shader_set)) return {BlobOutcome::other_shaders, {}};
  const auto payload_bytes = reader.get<std::uint64_t>();
  const auto payload_hash = reader.get<std::uint64_t>();
  const auto payload = file.subspan(kHeaderBytes);
  if (payload.size() < payload_bytes) return {BlobOutcome::truncated, {}};
  if (payload.size() != payload_bytes || hash(payload) != payload_hash) return {BlobOutcome::corrupt, {}};
  return {BlobOutcome::hit, {payload.begin(), payload.end()}};
}

std::string blob_path(const std::string& folder, const DeviceSnapshot& device) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string name = "kvant-";
  for (const std::uint8_t byte : device.pipeline_cache_uuid) name += {kDigits[byte >> 4], kDigits[byte & 15]};
  return (std::filesystem::path(folder) / (name + "-" + std::to_string(device.device_id) + ".pipelines")).string();
}

BlobLoad load_blob(const std::string& path, const DeviceSnapshot& device, std::string_view shader_set) {
  std::ifstream stream(path, std::ios::binary | std::ios::ate);
  if (!stream) return {BlobOutcome::absent, {}};
  const auto size = static_cast<std::streamoff>(stream.tellg());
  if (size < 0 || static_cast<std::uint64_t>(size) > kMaxFileBytes) return {BlobOutcome::not_a_blob, {}};
  std::vector<std::byte> file(static_cast<std::size_t>(size));
  stream.seekg(0);
  stream.read(reinterpret_cast<char*>(file.data()), static_cast<std::streamsize>(file.size()));
  if (!stream) return {BlobOutcome::truncated, {}};
  return decode_blob(device, shader_set, file);
}

Status save_blob(const std::string& path, const DeviceSnapshot& device, std::string_view shader_set,
                 std::span<const std::byte> payload) {
  return replace_file(path, encode_blob(device, shader_set, payload), "pipeline cache");
}

}  // namespace kvant
