// Pipeline keys, their list, and the blob that keeps both and a VkPipelineCache on disk.
#include <algorithm>
#include <filesystem>
#include <fstream>

#include "backend_snapshots.hpp"
#include "pipeline_blob.hpp"
#include "pipeline_key.hpp"
#include "pipeline_list.hpp"
#include "quoted_text.hpp"

using namespace kvant;
using namespace kvant::test;

namespace {

std::vector<std::byte> bytes_of(std::string_view text) {
  std::vector<std::byte> bytes(text.size());
  std::transform(text.begin(), text.end(), bytes.begin(), [](char c) { return static_cast<std::byte>(c); });
  return bytes;
}

class TemporaryFolder {
 public:
  TemporaryFolder() {
    path_ = std::filesystem::temp_directory_path() / ("kvant-blob-" + std::to_string(std::hash<const void*>()(this)));
    std::filesystem::remove_all(path_);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  std::string path() const { return path_.string(); }
  std::size_t files() const {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(path_)) ++count;
    return count;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace

TEST_SUITE("backend pipeline") {
  TEST_CASE("keys compare by value over what the module declares") {
    SpecValues spec{};
    for (std::uint32_t i = 0; i < spec.size(); ++i) spec[i] = i + 1;
    for (std::uint16_t k = 0; k < static_cast<std::uint16_t>(KernelId::count); ++k) {
      const auto kernel = static_cast<KernelId>(k);
      CAPTURE(kernel_info(kernel).name);
      const PipelineKey key = make_pipeline_key(kernel, spec, true);
      CHECK(key == make_pipeline_key(kernel, spec, true));
      CHECK(PipelineKeyHash()(key) == PipelineKeyHash()(make_pipeline_key(kernel, spec, true)));
      for (std::uint32_t i = 0; i < spec.size(); ++i) {
        SpecValues changed = spec;
        changed[i] += 100;
        const bool declared = (kernel_info(kernel).spec_mask >> i & 1U) != 0;
        CHECK((make_pipeline_key(kernel, changed, true) == key) == !declared);
      }
    }
    const PipelineKey append = make_pipeline_key(KernelId::append, spec, true);
    CHECK_FALSE(append == make_pipeline_key(KernelId::read, spec, true));
    // A subgroup size is required only of modules that have subgroup operations, and where the device can be asked.
    CHECK(append.subgroup_size == 0);
    CHECK(make_pipeline_key(KernelId::append, spec, false).subgroup_size == 0);
    const PipelineKey subgroups = make_pipeline_key(KernelId::attend_decode_sg, spec, true);
    CHECK(subgroups.subgroup_size == spec[KVANT_SPEC_SUBGROUP_SIZE]);
    CHECK(make_pipeline_key(KernelId::attend_decode_sg, spec, false).subgroup_size == 0);
    CHECK_FALSE(make_pipeline_key(KernelId::attend_decode_sg, spec, false) == subgroups);
  }

  TEST_CASE("a key in words names what the module declares") {
    SpecValues spec{};
    spec[KVANT_SPEC_LOCAL_SIZE] = 64;
    spec[KVANT_SPEC_FORMAT_K] = 4;
    spec[KVANT_SPEC_HEAD_DIM_K] = 96;
    spec[KVANT_SPEC_IO_TYPE_IN] = KVANT_IO_BF16;
    const std::string append = pipeline_key_text(make_pipeline_key(KernelId::append, spec, false));
    CHECK_MESSAGE(append.rfind("append, local size 64, format K q4_0, format V f32, head dim K 96", 0) == 0, append);
    CHECK_MESSAGE(append.find("input type bf16") != std::string::npos, append);
    CHECK(append.find("head dim V") == std::string::npos);  // 0 here
    CHECK(pipeline_key_text(make_pipeline_key(KernelId::copy, spec, false)) == "copy, local size 64");
  }

  TEST_CASE("text from outside is quoted up to a limit, between characters") {
    CHECK(quoted_text("short") == "short");
    CHECK(quoted_text(std::string(80, 'x')) == std::string(80, 'x'));
    CHECK(quoted_text(std::string(100000, 'x')) == std::string(80, 'x') + "... of 100000 bytes");
    CHECK(quoted_text(std::string(79, 'x') + "\xC3\xA9" "y") == std::string(79, 'x') + "... of 82 bytes");
  }

  TEST_CASE("a blob comes back as it went") {
    const DeviceSnapshot device = load_snapshot("nvidia_h200");
    for (const std::size_t size : {0UL, 1UL, 7UL, 1000UL}) {
      const std::vector<std::byte> payload(size, std::byte{0x5A});
      const BlobLoad load = decode_blob(device, "sha256:1", encode_blob(device, "sha256:1", payload));
      CHECK(load.outcome == BlobOutcome::hit);
      CHECK(load.payload == payload);
    }
  }

  TEST_CASE("a list of pipelines comes back as it went, and nothing else does") {
    PipelineList list;
    for (std::uint32_t i = 0; i < 3; ++i) {
      SpecValues spec{};
      for (std::uint32_t& value : spec) value = 0x01020304 * i + 5;
      list.keys.push_back(make_pipeline_key(i == 1 ? KernelId::attend_decode_sg : KernelId::append, spec, false));
    }
    list.driver_data = bytes_of("driver");
    const auto payload = encode_pipelines(list);
    const auto read = decode_pipelines(payload);
    REQUIRE(read);
    CHECK(read->keys == list.keys);
    CHECK(read->driver_data == list.driver_data);
    CHECK(decode_pipelines(encode_pipelines({}))->keys.empty());
    for (std::size_t size = 0; size < payload.size() - list.driver_data.size(); ++size)
      CHECK_FALSE(decode_pipelines(std::span(payload).first(size)));
    auto renamed = payload;
    renamed[5] = std::byte{'x'};  // of the first kernel's name
    CHECK_FALSE(decode_pipelines(renamed));
    list.keys.assign(kMostListedPipelines, list.keys[0]);
    CHECK(decode_pipelines(encode_pipelines(list)));
    list.keys.push_back(list.keys[0]);
    CHECK_FALSE(decode_pipelines(encode_pipelines(list)));
  }

  TEST_CASE("what was used comes first, what earlier processes used behind it, each once") {
    std::vector<PipelineKey> keys;
    for (std::uint32_t i = 0; i <= kMostListedPipelines; ++i) {
      SpecValues spec{};
      spec[KVANT_SPEC_LOCAL_SIZE] = i + 1;
      keys.push_back(make_pipeline_key(KernelId::copy, spec, false));
    }
    const std::span all(keys);
    const auto merged = merge_keys(all.subspan(2, 2), all.first(4));
    CHECK(merged == std::vector<PipelineKey>{keys[2], keys[3], keys[0], keys[1]});
    const auto most = merge_keys(all.last(1), all.first(kMostListedPipelines));
    REQUIRE(most.size() == kMostListedPipelines);
    CHECK(most.front() == keys.back());
    CHECK(most.back() == keys[kMostListedPipelines - 2]);
  }

  TEST_CASE("a blob of another device, driver or shader set is a miss") {
    const DeviceSnapshot device = load_snapshot("nvidia_h200");
    const auto file = encode_blob(device, "sha256:1", bytes_of("pipelines"));
    CHECK(decode_blob(device, "sha256:2", file).outcome == BlobOutcome::other_shaders);
    DeviceSnapshot other = device;
    other.driver_version += 1;
    CHECK(decode_blob(other, "sha256:1", file).outcome == BlobOutcome::other_device);
    other = device;
    other.pipeline_cache_uuid[15] ^= 1;
    CHECK(decode_blob(other, "sha256:1", file).outcome == BlobOutcome::other_device);
    other = device;
    other.driver_id += 1;
    CHECK(decode_blob(other, "sha256:1", file).outcome == BlobOutcome::other_device);
    other = device;
    other.vendor_id += 1;
    CHECK(decode_blob(other, "sha256:1", file).outcome == BlobOutcome::other_device);
    other = device;
    other.device_id += 1;
    CHECK(decode_blob(other, "sha256:1", file).outcome == BlobOutcome::other_device);
  }

  TEST_CASE("damage anywhere in a blob is a miss") {
    const DeviceSnapshot device = load_snapshot("rdna3_radv");
    const auto file = encode_blob(device, "sha256:1", bytes_of("some pipelines of a driver"));
    REQUIRE(decode_blob(device, "sha256:1", file).outcome == BlobOutcome::hit);
    for (std::size_t i = 0; i < file.size(); ++i) {
      for (const unsigned flip : {0x01U, 0x80U, 0xFFU}) {
        auto damaged = file;
        damaged[i] ^= static_cast<std::byte>(flip);
        const BlobLoad load = decode_blob(device, "sha256:1", damaged);
        CAPTURE(i);
        CHECK(load.outcome != BlobOutcome::hit);
        CHECK(load.payload.empty());
      }
      CHECK(decode_blob(device, "sha256:1", std::span(file).first(i)).outcome == BlobOutcome::truncated);
    }
    auto longer = file;
    longer.push_back(std::byte{0});
    CHECK(decode_blob(device, "sha256:1", longer).outcome == BlobOutcome::corrupt);
  }

  TEST_CASE("files are replaced whole") {
    const TemporaryFolder folder;
    const DeviceSnapshot device = load_snapshot("lavapipe");
    const std::string path = blob_path(folder.path() + "/deeper", device);
    CHECK(load_blob(path, device, "s").outcome == BlobOutcome::absent);
    REQUIRE(save_blob(path, device, "s", bytes_of("first")).ok());
    REQUIRE(save_blob(path, device, "s", bytes_of("second")).ok());
    CHECK(load_blob(path, device, "s").payload == bytes_of("second"));
    CHECK(folder.files() == 1);
    std::filesystem::resize_file(path, 20);
    CHECK(load_blob(path, device, "s").outcome == BlobOutcome::truncated);
    std::ofstream(path, std::ios::trunc) << std::string(200, 'x');
    CHECK(load_blob(path, device, "s").outcome == BlobOutcome::not_a_blob);
    // A folder that cannot be made is an error to report, and no file is left behind.
    CHECK_FALSE(save_blob(path + "/below/a/file", device, "s", bytes_of("x")).ok());
    CHECK(blob_path(folder.path(), device) != blob_path(folder.path(), load_snapshot("swiftshader")));
  }
}
