// Files of the pipeline cache: any bytes, or a header with right checksums around fields of the input's choice. Only
// what this device wrote is taken. The payload is read as a list of pipelines too.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <vector>

#include "fuzz_input.hpp"
#include "pipeline_blob.hpp"
#include "pipeline_list.hpp"

namespace {

using namespace kvant;
using Bytes = std::vector<std::byte>;

constexpr std::size_t kHeaderBytes = 72, kPayloadBytesAt = 48, kPayloadHashAt = 56, kHeaderHashAt = 64;

void put(Bytes& file, std::size_t at, std::uint64_t value) {
  for (std::size_t i = 0; i < 8; ++i) file[at + i] = static_cast<std::byte>(value >> (8 * i) & 0xFF);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::FuzzInput in(data, size);
  const std::uint8_t mode = in.u8();
  DeviceSnapshot device;
  device.vendor_id = 0x1234;
  device.driver_version = 7;
  const std::string shaders = "sha256:00";
  Bytes file;
  Bytes payload;
  if ((mode & 1) == 0) {
    const auto raw = fuzz::as_bytes(in.rest());
    file.assign(raw.begin(), raw.end());
  } else {
    const std::size_t spoil = in.u8();
    const std::byte spoilt{in.u8()};
    const std::uint64_t claimed = in.magnitude();
    const auto raw = fuzz::as_bytes(in.rest());
    payload.assign(raw.begin(), raw.end());
    file = encode_blob(device, shaders, payload);
    KVANT_FUZZ_CHECK(file.size() == kHeaderBytes + payload.size());
    if ((mode & 2) != 0) put(file, kPayloadBytesAt, claimed);
    if ((mode & 4) != 0) put(file, kPayloadHashAt, claimed);
    if ((mode & 8) != 0 && spoil < file.size()) file[spoil] = spoilt;
    if ((mode & 16) != 0) put(file, kHeaderHashAt, XXH3_64bits(file.data(), kHeaderHashAt));
    if ((mode & 32) != 0) file.resize(std::min<std::size_t>(file.size(), spoil));
  }
  const BlobLoad load = decode_blob(device, shaders, file);
  KVANT_FUZZ_CHECK(!blob_outcome_name(load.outcome).empty());
  if (load.outcome != BlobOutcome::hit) {
    KVANT_FUZZ_CHECK(load.payload.empty());
  } else {
    KVANT_FUZZ_CHECK(encode_blob(device, shaders, load.payload) == file);
  }
  // A payload that passes as a list says the same when it is written again.
  if (const auto list = decode_pipelines(payload)) {
    KVANT_FUZZ_CHECK(list->keys.size() <= kMostListedPipelines);
    const auto again = decode_pipelines(encode_pipelines(*list));
    KVANT_FUZZ_CHECK(again && again->keys == list->keys && again->driver_data == list->driver_data);
    KVANT_FUZZ_CHECK(merge_keys(list->keys, list->keys).size() <= list->keys.size());
  }
  if (mode == 1) KVANT_FUZZ_CHECK(load.outcome == BlobOutcome::hit && load.payload == payload);
  return 0;
}
