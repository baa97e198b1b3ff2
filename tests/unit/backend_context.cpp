// DeviceContext on a device: options and environment, two at once, profiling, the blob on disk, statistics.
#include <filesystem>
#include <fstream>
#include <thread>

#include "backend_device.hpp"
#include "device_context.hpp"

using namespace kvant;
using namespace kvant::test;

namespace {

// Sets an environment variable for a scope.
class Environment {
 public:
  Environment(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name); old != nullptr) old_ = old;
    setenv(name, value.c_str(), 1);
  }
  ~Environment() { old_.empty() ? unsetenv(name_) : setenv(name_, old_.c_str(), 1); }

 private:
  const char* name_;
  std::string old_;
};

void churn(TestDevice& device, std::uint32_t seed) {
  for (std::uint32_t round = 0; round < 25; ++round) {
    const auto words = counted_words(1024, seed + round);
    const BufferId source = device.upload(words);
    const BufferId target = device.upload(std::vector<std::uint32_t>(1024, 0));
    const BufferId pairs = device.upload(identity_pairs(256));
    CommandList list;
    add_page_copy(list, source, target, pairs, 256, false);
    device.run(list);
    CHECK(device.download(target, 1024) == words);
    for (const BufferId buffer : {source, target, pairs}) device.executor().destroy_buffer(buffer);
  }
}

double total_microseconds(const std::vector<ProfileEntry>& profile, const std::string& label, std::uint64_t count) {
  for (const ProfileEntry& entry : profile) {
    if (entry.label == label && entry.count == count) return entry.microseconds;
  }
  return -1.0;
}

}  // namespace

TEST_SUITE("backend device") {
  TEST_CASE("two devices at once") {
    KVANT_TEST_DEVICE(first, {});
    KVANT_TEST_DEVICE(second, with_quirks("+no_timeline"));
    const BufferId a = first->upload(counted_words(16, 100));
    const BufferId b = second->upload(counted_words(16, 200));
    std::thread other([&second] { churn(*second, 5000); });
    churn(*first, 1000);
    other.join();
    CHECK(first->download(a, 16) == counted_words(16, 100));
    CHECK(second->download(b, 16) == counted_words(16, 200));
  }

  TEST_CASE("a context outlives its instance") {
    KVANT_TEST_DEVICE(device, {});
    device->instance.reset();
    CHECK(device->download(device->upload(counted_words(8)), 8) == counted_words(8));
  }

  TEST_CASE("capabilities and quirks from the environment") {
    const auto path = std::filesystem::temp_directory_path() / "kvant-capabilities-test.json";
    std::ofstream(path) << R"({"fp16": false, "max_binding_bytes": 1048576})";
    const Environment capabilities("KVANT_CAPABILITIES", path.string());
    const Environment quirk("KVANT_QUIRKS", "+no_timeline");
    {
      KVANT_TEST_DEVICE(device, {});
      CHECK_FALSE(device->context->snapshot().fp16);
      CHECK(device->context->executor().limits().max_binding_bytes == 1048576);
      CHECK_FALSE(device->context->plan().caps.timeline);
      // Options come before the environment.
      DeviceOptions options;
      options.capability_override = R"({"int16": false})";
      options.quirks = "-no_timeline";
      auto other = device->instance->open(device->index, options);
      REQUIRE(other.ok());
      CHECK_FALSE(other.value()->snapshot().int16);
      CHECK(other.value()->snapshot().max_binding_bytes > 1048576);
      CHECK(other.value()->plan().caps.timeline == device->context->snapshot().timeline);
    }
    std::filesystem::remove(path);
    KVANT_TEST_DEVICE(device, with_capabilities("{}"));
    const auto missing = device->instance->open(device->index, {});
    REQUIRE_FALSE(missing.ok());
    CHECK(missing.status().message().find("kvant-capabilities-test.json") != std::string::npos);
  }

  TEST_CASE("options that no device can meet are errors") {
    KVANT_TEST_DEVICE(device, {});
    CHECK(device->instance->open(99, {}).status().code() == StatusCode::not_found);
    const auto widened = device->instance->open(device->index, with_capabilities(R"({"max_invocations": 1000000})"));
    CHECK(widened.status().code() == StatusCode::invalid_argument);
    const auto below = device->instance->open(device->index, with_capabilities(R"({"max_shared_bytes": 1024})"));
    CHECK(below.status().code() == StatusCode::unavailable);
    CHECK(below.status().message().find("(1024) is below 16384") != std::string::npos);
    CHECK(device->instance->open(device->index, with_quirks("+nonsense")).status().code() ==
          StatusCode::invalid_argument);
  }

  TEST_CASE("profiling by timestamps and by wall time") {
    for (const char* quirk : {"", "+no_timestamps", "+no_timestamps,+no_timeline"}) {
      CAPTURE(quirk);
      DeviceOptions options;
      options.profiling = true;
      options.quirks = quirk;
      KVANT_TEST_DEVICE(device, options);
      const std::uint64_t bytes = 16 << 20;
      const BufferId a = device->executor().create_buffer(bytes, BufferKind::device).value();
      const BufferId b = device->executor().create_buffer(bytes, BufferKind::device).value();
      CommandList list;
      list.add_fill({{a, 0, bytes}, 3}, "fill a", false);
      list.add_copy({a, 0, b, 0, bytes}, "copy large", true);
      list.add_copy({a, 0, b, 0, 64}, "copy small", true);
      list.add_copy({a, 0, b, 0, 0}, "copy nothing", true);
      for (int i = 0; i < 5; ++i) REQUIRE(device->executor().submit(list).ok());
      const Staging back = device->executor().stage(64, BufferKind::readback).value();
      list.add_copy({b, 0, back.range.buffer, back.range.offset, 64}, "read", true);
      device->run(list);
      CHECK(*reinterpret_cast<const std::uint32_t*>(back.data) == 3);
      const auto profile = device->context->take_profile();
      const double large = total_microseconds(profile, "copy large", 6);
      const double small = total_microseconds(profile, "copy small", 6);
      CHECK(profile.size() == 4);
      CHECK(large > 0.0);
      CHECK(small >= 0.0);
      CHECK(large < 60e6);
      CHECK(small < large);
      CHECK(device->context->take_profile().empty());
    }
    KVANT_TEST_DEVICE(plain, {});
    plain->upload(counted_words(4));
    CHECK(plain->context->take_profile().empty());
  }

  TEST_CASE("pipelines are kept on disk between contexts") {
    const auto folder = std::filesystem::temp_directory_path() / "kvant-pipelines-test";
    std::filesystem::remove_all(folder);
    DeviceOptions options;
    options.pipeline_cache_folder = folder.string();
    const auto outcome = [&](auto&& during) {
      auto device = TestDevice::open(options);
      if (!device) return BlobOutcome::absent;
      churn(*device, 1);
      auto& context = dynamic_cast<VulkanContext&>(*device->context);
      CHECK(context.pipelines().compiled() == 1);
      during();
      return context.blob_outcome();
    };
    const auto file = [&folder] { return std::filesystem::directory_iterator(folder)->path(); };
    KVANT_TEST_DEVICE(probe, {});
    CHECK(outcome([] {}) == BlobOutcome::absent);
    CHECK(outcome([] {}) == BlobOutcome::hit);
    std::filesystem::resize_file(file(), std::filesystem::file_size(file()) - 1);
    CHECK(outcome([] {}) == BlobOutcome::truncated);
    CHECK(outcome([] {}) == BlobOutcome::hit);
    std::filesystem::remove_all(folder);
    bool found = false;
    outcome([&] { found = std::filesystem::exists(folder); });
    CHECK_FALSE(found);  // the first write is not due yet
    std::filesystem::remove_all(folder);
    options.pipeline_save_seconds = 0;
    outcome([&] { found = std::filesystem::exists(folder); });
    CHECK(found);  // a process that is killed now keeps what it compiled
    options.quirks = "+no_pipeline_blob";
    std::filesystem::remove_all(folder);
    CHECK(outcome([] {}) == BlobOutcome::absent);
    CHECK_FALSE(std::filesystem::exists(folder));
    std::filesystem::remove_all(folder);
  }

  TEST_CASE("each compile is logged once, with its key and its time") {
    KVANT_TEST_DEVICE(device, {});
    churn(*device, 1);
    std::size_t compiles = 0;
    for (const std::string& line : device->log) {
      if (line.rfind("compiled a pipeline in ", 0) != 0) continue;
      ++compiles;
      CHECK_MESSAGE(line.find(" ms: copy, local size 32") != std::string::npos, line);
    }
    CHECK(compiles == 1);
  }

  TEST_CASE("the executor knows what the device can hold at most") {
    KVANT_TEST_DEVICE(device, {});
    const std::uint64_t most = device->executor().limits().max_device_bytes;
    std::uint64_t heaps = 0;
    for (const MemoryHeap& heap : device->context->plan().snapshot.heaps) heaps += heap.size;
    CHECK(most >= heaps);
    CHECK(most < 1ull << 50);
    DeviceOptions options;
    options.memory_limit = 12345678;
    KVANT_TEST_DEVICE(limited, options);
    CHECK(limited->executor().limits().max_device_bytes == 12345678);
  }

  TEST_CASE("compiler statistics, or the reason why there are none") {
    KVANT_TEST_DEVICE(device, {});
    SpecValues spec{};
    spec[KVANT_SPEC_LOCAL_SIZE] = 64;
    const auto figures = compile_statistics(*device->context, KernelId::copy, spec, 0);
    if (device->context->plan().features.pipeline_statistics) {
      REQUIRE_MESSAGE(figures.ok(), figures.status().message());
      CHECK_FALSE(figures.value().empty());
    } else {
      CHECK(figures.status().code() == StatusCode::unimplemented);
    }
  }
}
