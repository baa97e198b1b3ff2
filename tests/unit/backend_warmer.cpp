// Pipelines that are compiled ahead: by whom, which, and who waits for whom.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <thread>

#include "backend_device.hpp"
#include "device_context.hpp"
#include "pipeline_warmer.hpp"

using namespace kvant;
using namespace kvant::test;

namespace {

SpecValues local_size(std::uint32_t size) {
  SpecValues spec{};
  spec[KVANT_SPEC_LOCAL_SIZE] = size;
  return spec;
}

PipelineKey copy_key(std::uint32_t size) { return make_pipeline_key(KernelId::copy, local_size(size), false); }

PipelineCache& pipelines_of(TestDevice& device) { return dynamic_cast<VulkanContext&>(*device.context).pipelines(); }

bool reaches(const PipelineCache& pipelines, std::uint64_t compiled) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (pipelines.compiled() < compiled && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return pipelines.compiled() == compiled;
}

std::size_t compile_messages(const std::vector<std::string>& log) {
  return static_cast<std::size_t>(std::count_if(log.begin(), log.end(), [](const std::string& line) { return line.rfind("compiled a pipeline", 0) == 0; }));
}

}  // namespace

TEST_SUITE("backend warmer") {
  TEST_CASE("what is compiled ahead is not compiled again, and logs nothing") {
    KVANT_TEST_DEVICE(device, {});
    PipelineCache& pipelines = pipelines_of(*device);
    {
      const PipelineWarmer warmer(pipelines, {copy_key(8), copy_key(16), copy_key(8)});
      CHECK(reaches(pipelines, 2));
    }
    CHECK(pipelines.used().empty());
    CHECK(compile_messages(device->log) == 0);
    CHECK(pipelines.get(KernelId::copy, local_size(16)).ok());
    CHECK(pipelines.get(KernelId::copy, local_size(16)).ok());
    CHECK(pipelines.compiled() == 2);
    CHECK(pipelines.compiled_on_need() == 0);
    CHECK(compile_messages(device->log) == 0);
    CHECK(pipelines.get(KernelId::copy, local_size(24)).ok());
    CHECK(pipelines.compiled_on_need() == 1);
    CHECK(compile_messages(device->log) == 1);
    CHECK(pipelines.used() == std::vector<PipelineKey>{copy_key(16), copy_key(24)});
  }

  TEST_CASE("whoever needs a pipeline that is being compiled gets that one") {
    KVANT_TEST_DEVICE(device, {});
    PipelineCache& pipelines = pipelines_of(*device);
    std::vector<PipelineKey> keys;
    for (std::uint32_t size = 1; size <= 24; ++size) keys.push_back(copy_key(size));
    std::atomic<std::uint32_t> failed{0};
    const auto get_all = [&](bool backwards) {
      for (std::uint32_t i = 0; i < 24; ++i)
        if (!pipelines.get(KernelId::copy, local_size(backwards ? 24 - i : i + 1)).ok()) ++failed;
    };
    const PipelineWarmer warmer(pipelines, keys);
    std::thread other(get_all, true);
    get_all(false);
    other.join();
    CHECK(failed == 0);
    CHECK(pipelines.compiled() == 24);
    CHECK(pipelines.used().size() == 24);
  }

  TEST_CASE("what the device cannot compile is passed over, and its error left to who needs it") {
    KVANT_TEST_DEVICE(device, {});
    PipelineCache& pipelines = pipelines_of(*device);
    const std::uint32_t too_large = 1U << 30;
    {
      const PipelineWarmer warmer(pipelines, {copy_key(0), copy_key(too_large), copy_key(8)});
      CHECK(reaches(pipelines, 1));
    }
    const auto refused = pipelines.get(KernelId::copy, local_size(too_large));
    CHECK(refused.status().code() == StatusCode::invalid_argument);
    CHECK(pipelines.used().empty());
    CHECK(pipelines.get(KernelId::copy, local_size(8)).ok());
    CHECK(pipelines.compiled() == 1);
  }

  TEST_CASE("a warmer that ends early leaves the rest") {
    KVANT_TEST_DEVICE(device, {});
    PipelineCache& pipelines = pipelines_of(*device);
    std::vector<PipelineKey> keys;
    for (std::uint32_t size = 1; size <= 64; ++size) keys.push_back(copy_key(size));
    { const PipelineWarmer warmer(pipelines, keys); }
    const std::uint64_t compiled = pipelines.compiled();
    CHECK(compiled <= 64);
    CHECK(pipelines.get(KernelId::copy, local_size(64)).ok());
    CHECK(pipelines.compiled() <= compiled + 1);
  }

  TEST_CASE("a context compiles what the one before it used, but not where the validation layer would speak") {
    const auto folder = std::filesystem::temp_directory_path() / "kvant-warmer-test";
    std::filesystem::remove_all(folder);
    DeviceOptions options;
    options.pipeline_cache_folder = folder.string();
    {
      KVANT_TEST_DEVICE(device, options);
      CHECK(pipelines_of(*device).get(KernelId::copy, local_size(8)).ok());
    }
    {
      KVANT_TEST_DEVICE(device, options);
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      CHECK(pipelines_of(*device).compiled() == 0);
    }
    const auto instance = Instance::create({});
    REQUIRE(instance.ok());
    const auto open = [&] { return instance.value()->open(instance.value()->best_device().value(), options); };
    {
      const auto context = open();
      REQUIRE(context.ok());
      PipelineCache& pipelines = dynamic_cast<VulkanContext&>(*context.value()).pipelines();
      CHECK(reaches(pipelines, 1));
      CHECK(pipelines.get(KernelId::copy, local_size(8)).ok());
      CHECK(pipelines.compiled_on_need() == 0);
      CHECK(pipelines.get(KernelId::copy, local_size(16)).ok());
    }
    const auto context = open();
    REQUIRE(context.ok());
    CHECK(reaches(dynamic_cast<VulkanContext&>(*context.value()).pipelines(), 2));
    std::filesystem::remove_all(folder);
  }
}
