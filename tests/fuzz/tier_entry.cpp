// Entries of colder tiers: any bytes, or a value sealed by a header of the input's choice, as a file of the disk tier,
// as what a custom tier gives a cache, and as the pages that a value holds. What is not sound is a miss.
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <vector>

#include "cpu_executor.hpp"
#include "fuzz_input.hpp"
#include "geometry.hpp"
#include "state_records.hpp"
#include "tier_blob.hpp"
#include "tier_entry.hpp"

namespace {

using namespace kvant;
using fuzz::FuzzInput;
using Bytes = std::vector<std::byte>;
namespace fs = std::filesystem;

// One folder a process, which goes away with it.
class Folder {
 public:
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "kvant_fuzz_tier_XXXXXX").string();
    KVANT_FUZZ_CHECK(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  void put(const TierKey& key, const Bytes& bytes) const {
    const std::string text = tier_key_text(key);
    const fs::path part = path_ / text.substr(0, 2);
    fs::create_directories(part);
    std::ofstream file(part / (text + ".kv"), std::ios::binary | std::ios::trunc);
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }
  std::string text() const { return path_.string(); }

 private:
  fs::path path_;
};

// Formats in which the tiers keep K and V, as the input says.
TierFormats formats_of(FuzzInput& in) {
  TierFormats kept;
  if (const auto k = format_from_id(in.u8())) kept.k = *k;
  if (const auto v = format_from_id(in.u8())) kept.v = *v;
  return kept;
}

Geometry geometry_of(const CacheSpec& spec) {
  auto made = make_geometry(spec, reference::CpuExecutor().limits());
  KVANT_FUZZ_CHECK(made.ok(), made.status().message());
  return std::move(made).value();
}

// An entry: as it lies there, or sealed around a value; then perhaps cut or changed in its header.
Bytes entry_of(FuzzInput& in, const TierKey& key, std::uint8_t mode) {
  if ((mode & 1) == 0) {
    const auto raw = fuzz::as_bytes(in.rest());
    return {raw.begin(), raw.end()};
  }
  EntryPart part;
  if ((mode & 2) != 0) {
    part = {in.magnitude32(), in.magnitude32(), in.u64()};
  }
  const std::size_t spoil = (mode & 4) != 0 ? in.u8() : 255;
  const std::byte spoilt{in.u8()};
  Bytes value;
  if ((mode & 8) != 0) {  // of the right size for pages, with the groups that are present, a seed for the rest
    static const Geometry geometry = geometry_of(fuzz::state_spec());
    GroupBlobs blobs(geometry.groups.size());
    for (std::size_t g = 0; g < blobs.size(); ++g) {
      std::uint64_t bytes = 0;
      for (const std::uint32_t layer : geometry.groups[g].layers)
        for (const SideGeometry& side : geometry.layers[layer].sides)
          bytes += canonical_row_bytes(format_info(side.format), side.head_dim) * geometry.groups[g].kv_heads *
                   geometry.page_tokens;
      std::uint8_t seed = in.u8();
      if (seed >= 240) continue;
      blobs[g].resize(bytes);
      for (std::byte& one : blobs[g]) {
        one = std::byte{seed};
        seed = static_cast<std::uint8_t>(seed * 5 + 3);
      }
    }
    value = pack_tier_blob(geometry, formats_of(in), blobs);
  }
  const auto raw = fuzz::as_bytes(in.rest());
  value.insert(value.end(), raw.begin(), raw.end());
  Bytes entry = make_entry(key, value, part);
  if (spoil < kEntryHeaderBytes) entry[spoil] = spoilt;
  return entry;
}

// The engine's own tier, which answers every question with one entry.
struct OneAnswer {
  Bytes bytes;
  static std::uint32_t put(void*, const std::uint8_t*, const void*, std::uint64_t) { return 0; }
  static std::uint64_t get(void* user_data, const std::uint8_t* key, void* out, std::uint64_t out_size) {
    const OneAnswer& self = *static_cast<const OneAnswer*>(user_data);
    Bytes entry = self.bytes;
    // A sealed value of the asked key, that the pages behind the seal are reached.
    TierKey asked;
    std::copy_n(reinterpret_cast<const std::byte*>(key), asked.bytes.size(), asked.bytes.begin());
    if (!entry.empty() && entry[0] != std::byte{0xFF}) entry = make_entry(asked, entry);
    if (out_size >= entry.size()) std::copy(entry.begin(), entry.end(), static_cast<std::byte*>(out));
    return entry.size();
  }
};

void through_cache(const Bytes& value, const TierFormats& kept) {
  OneAnswer answer{value};
  CustomTierFunctions functions;
  functions.user_data = &answer;
  functions.put = &OneAnswer::put;
  functions.get = &OneAnswer::get;
  reference::CpuExecutor executor;
  auto made = Cache::create(executor, fuzz::state_spec(), Log{});
  KVANT_FUZZ_CHECK(made.ok());
  const std::unique_ptr<Cache> cache = std::move(made).value();
  auto tier = make_custom_tier(functions);
  KVANT_FUZZ_CHECK(tier.ok());
  std::vector<std::unique_ptr<Tier>> tiers;
  tiers.push_back(std::move(tier).value());
  TierOptions options;
  options.formats = kept;
  options.compare_recompute = false;
  KVANT_FUZZ_CHECK(cache->set_tiers(std::move(tiers), options).ok());
  const std::vector<std::int32_t> tokens(40, 7);
  SequenceSpec sequence;
  sequence.tokens = tokens;
  const auto start = cache->create_sequence(sequence);
  KVANT_FUZZ_CHECK(start.ok(), start.status().message());
  KVANT_FUZZ_CHECK(start.value().reused_tokens <= tokens.size());
  KVANT_FUZZ_CHECK(cache->extend_sequence(start.value().sequence, 41).ok());
  KVANT_FUZZ_CHECK(cache->destroy_sequence(start.value().sequence).ok());
  KVANT_FUZZ_CHECK(cache->clear_prefixes().ok());
  KVANT_FUZZ_CHECK(cache->memory_use().used_pages == 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Folder folder;
  static const Geometry geometry = geometry_of(fuzz::state_spec());
  FuzzInput in(data, size);
  const std::uint8_t mode = in.u8();
  const TierFormats kept = formats_of(in);
  TierKey key;
  key.bytes.fill(std::byte{0x5A});
  const Bytes entry = entry_of(in, key, mode);

  const auto opened = open_entry(entry, key);
  if (opened.has_value()) {
    KVANT_FUZZ_CHECK(opened->part.number < opened->part.parts && opened->part.parts <= kMaxEntryParts);
    KVANT_FUZZ_CHECK(opened->value.size() + kEntryHeaderBytes == entry.size());
    const auto blobs = unpack_tier_blob(geometry, kept, opened->value);
    if (blobs.has_value()) KVANT_FUZZ_CHECK(blobs->size() == geometry.groups.size());
  }
  // Raw bytes as a value: what stands in front of the seal is somebody else's matter there.
  (void)unpack_tier_blob(geometry, kept, entry);

  if ((mode & 0x10) != 0) {
    folder.put(key, entry);
    auto disk = make_disk_tier({.folder = folder.text(), .capacity_bytes = 0});
    KVANT_FUZZ_CHECK(disk.ok(), disk.status().message());
    const auto values = disk.value()->get({&key, 1});
    const bool sound = opened.has_value() && opened->part == EntryPart{};
    KVANT_FUZZ_CHECK(values.size() == 1 && values[0].empty() == !sound);
    if (sound)
      KVANT_FUZZ_CHECK(std::equal(values[0].begin(), values[0].end(), opened->value.begin(), opened->value.end()));
    disk.value()->erase(key);
  }
  if ((mode & 0x20) != 0)
    through_cache(opened.has_value() ? Bytes(opened->value.begin(), opened->value.end()) : entry, kept);
  return 0;
}
