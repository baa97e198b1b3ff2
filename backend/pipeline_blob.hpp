// PipelineBlob: what is kept of pipelines (PipelineList) on disk, behind a header that says whose it is. Whatever does not match or
// is damaged is a miss, never an error: the cache is only a shortcut.
//
// File: magic "KVPB", u32 version, u32 vendor, u32 device, u32 driver id, u32 driver version, u8[16] pipelineCacheUUID,
// u64 hash of the shader set, u64 payload bytes, u64 XXH3 of the payload, u64 XXH3 of the header before it; then the
// payload. All little-endian.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "device_snapshot.hpp"

namespace kvant {

// Why a blob was or was not taken.
enum class BlobOutcome : std::uint8_t {
  hit,
  absent,
  truncated,
  not_a_blob,
  other_version,
  other_device,
  other_shaders,
  corrupt
};
std::string_view blob_outcome_name(BlobOutcome outcome);

struct BlobLoad {
  BlobOutcome outcome = BlobOutcome::absent;
  std::vector<std::byte> payload;  // empty unless hit
};

std::vector<std::byte> encode_blob(const DeviceSnapshot& device, std::string_view shader_set,
                                   std::span<const std::byte> payload);
BlobLoad decode_blob(const DeviceSnapshot& device, std::string_view shader_set, std::span<const std::byte> file);

// The file of this device and driver inside `folder`.
std::string blob_path(const std::string& folder, const DeviceSnapshot& device);
BlobLoad load_blob(const std::string& path, const DeviceSnapshot& device, std::string_view shader_set);
// Writes a temporary file beside `path` and renames it, so that readers see the old blob or the new one. Creates the
// folder.
Status save_blob(const std::string& path, const DeviceSnapshot& device, std::string_view shader_set,
                 std::span<const std::byte> payload);

}  // namespace kvant
