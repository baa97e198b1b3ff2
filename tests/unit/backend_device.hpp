// A Vulkan device for the backend's own tests: whatever the environment's ICD offers, under the validation layer. A
// test asks for one by KVANT_TEST_DEVICE and skips, saying why, when there is none (KVANT_REQUIRE_DEVICE turns that
// into a failure).
#pragma once

#include <doctest/doctest.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "backend.hpp"
#include "params/pages.h"

namespace kvant::test {

class TestDevice {
 public:
  // Null, with the reason printed, when no device can be opened.
  static std::unique_ptr<TestDevice> open(const DeviceOptions& options) {
    auto device = std::unique_ptr<TestDevice>(new TestDevice);
    InstanceOptions instance_options;
    instance_options.validation = true;
    instance_options.validation_message = [](void* user_data, const char* message) {
      static_cast<TestDevice*>(user_data)->messages.emplace_back(message);
    };
    instance_options.validation_user_data = device.get();
    instance_options.log.user_data = device.get();
    instance_options.log.level = LogLevel::info;
    instance_options.log.callback = [](void* user_data, std::uint32_t, const char* message, std::size_t) {
      static_cast<TestDevice*>(user_data)->log.emplace_back(message);
      if (std::strstr(message, "is not installed") != nullptr) static_cast<TestDevice*>(user_data)->validated = false;
    };
    auto instance = Instance::create(instance_options);
    if (!instance.ok()) return skip(instance.status().message());
    device->instance = std::move(instance).value();
    const auto best = device->instance->best_device();
    if (!best.ok()) return skip(best.status().message());
    device->index = best.value();
    auto context = device->instance->open(device->index, options);
    REQUIRE_MESSAGE(context.ok(), context.status().message());
    device->context = std::move(context).value();
    return device;
  }
  ~TestDevice() {
    context.reset();
    instance.reset();
    for (const std::string& message : messages) FAIL_CHECK(message);
  }

  Executor& executor() { return context->executor(); }

  // A device buffer with these words; waits.
  BufferId upload(const std::vector<std::uint32_t>& words) {
    const std::uint64_t bytes = words.size() * 4;
    auto buffer = executor().create_buffer(bytes, BufferKind::device);
    REQUIRE_MESSAGE(buffer.ok(), buffer.status().message());
    auto staging = executor().stage(bytes, BufferKind::upload);
    REQUIRE_MESSAGE(staging.ok(), staging.status().message());
    std::memcpy(staging->data, words.data(), bytes);
    CommandList list;
    list.add_copy({staging->range.buffer, staging->range.offset, buffer.value(), 0, bytes}, "upload", false);
    run(list);
    return buffer.value();
  }
  std::vector<std::uint32_t> download(BufferId buffer, std::size_t words, std::uint64_t offset = 0) {
    auto staging = executor().stage(words * 4, BufferKind::readback);
    REQUIRE_MESSAGE(staging.ok(), staging.status().message());
    CommandList list;
    list.add_copy({buffer, offset, staging->range.buffer, staging->range.offset, words * 4}, "download", false);
    run(list);
    std::vector<std::uint32_t> out(words);
    std::memcpy(out.data(), staging->data, words * 4);
    return out;
  }
  void run(const CommandList& list) {
    const auto ticket = executor().submit(list);
    REQUIRE_MESSAGE(ticket.ok(), ticket.status().message());
    const Status waited = executor().wait(ticket.value());
    REQUIRE_MESSAGE(waited.ok(), waited.message());
  }

  std::uint32_t index = 0;  // of the device in the instance
  bool validated = true;    // the layer is installed
  std::vector<std::string> messages;  // of the validation layer
  std::vector<std::string> log;
  std::unique_ptr<Instance> instance;
  std::unique_ptr<DeviceContext> context;

 private:
  TestDevice() = default;
  static std::unique_ptr<TestDevice> skip(const std::string& reason) {
    REQUIRE_MESSAGE(std::getenv("KVANT_REQUIRE_DEVICE") == nullptr, reason);
    MESSAGE("skipped: " << reason);
    return nullptr;
  }
};

inline DeviceOptions with_quirks(std::string quirks) {
  DeviceOptions options;
  options.quirks = std::move(quirks);
  return options;
}
inline DeviceOptions with_capabilities(std::string json) {
  DeviceOptions options;
  options.capability_override = std::move(json);
  return options;
}

inline std::vector<std::uint32_t> counted_words(std::size_t count, std::uint32_t first = 1) {
  std::vector<std::uint32_t> words(count);
  std::iota(words.begin(), words.end(), first);
  return words;
}

// The copy kernel moving `pages` pages of 16 bytes: page i of the source to page i of the destination.
inline Dispatch& add_page_copy(CommandList& list, BufferId source, BufferId destination, BufferId pairs,
                               std::uint32_t pages, bool barrier) {
  Dispatch& dispatch = list.add_dispatch(KernelId::copy, "copy kernel", barrier);
  dispatch.spec[KVANT_SPEC_LOCAL_SIZE] = 32;
  const params::CopyParams push{.pairs_offset = 0, .pair_count = pages, .page_words16 = 1};
  std::memcpy(dispatch.push.data(), &push, sizeof(push));
  dispatch.bindings[0] = {source, 0, pages * 16U};
  dispatch.bindings[1] = {destination, 0, pages * 16U};
  dispatch.bindings[2] = {pairs, 0, pages * 8U};
  dispatch.groups = {1, pages, 1};
  return dispatch;
}

inline std::vector<std::uint32_t> identity_pairs(std::uint32_t pages) {
  std::vector<std::uint32_t> pairs;
  for (std::uint32_t i = 0; i < pages; ++i) pairs.insert(pairs.end(), {i, i});
  return pairs;
}

}  // namespace kvant::test

#define KVANT_TEST_DEVICE(name, ...)                        \
  auto name = ::kvant::test::TestDevice::open(__VA_ARGS__); \
  if (!name) return
