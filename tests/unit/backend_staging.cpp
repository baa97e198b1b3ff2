// Staging, deferred destruction, memory limits and errors of the executor, on a device.
#include <chrono>
#include <cstring>
#include <thread>

#include "backend_device.hpp"
#include "memory.hpp"

using namespace kvant;
using namespace kvant::test;

TEST_SUITE("backend device") {
  TEST_CASE("the upload ring wraps without harming what is in flight") {
    KVANT_TEST_DEVICE(device, {});
    Executor& executor = device->executor();
    // Many times the ring's bytes, checked at the end by the sum of what arrived.
    const std::size_t words = 300 * 1000;
    const BufferId target = executor.create_buffer(words * 4 * 2, BufferKind::device).value();
    const std::uint64_t held_before = device->context->device_bytes();
    std::uint64_t held_most = 0;
    for (std::uint32_t round = 0; round < 60; ++round) {
      const auto staging = executor.stage(words * 4, BufferKind::upload);
      REQUIRE(staging.ok());
      auto* data = reinterpret_cast<std::uint32_t*>(staging.value().data);
      for (std::uint32_t i = 0; i < words; ++i) data[i] = round * 7 + i;
      CommandList list;
      list.add_copy(
          {staging.value().range.buffer, staging.value().range.offset, target, (round % 2) * words * 4, words * 4},
          "up", false);
      REQUIRE(executor.submit(list).ok());
      held_most = std::max(held_most, device->context->device_bytes());
    }
    CHECK(device->download(target, words) == counted_words(words, 58 * 7));
    CHECK(device->download(target, words, words * 4) == counted_words(words, 59 * 7));
    CHECK(held_most - held_before <= 17U << 20);  // one ring, nothing beside it
  }

  TEST_CASE("pieces too large for the ring get a buffer of their own, for as long as they live") {
    KVANT_TEST_DEVICE(device, {});
    Executor& executor = device->executor();
    const std::size_t words = 6 << 20;
    const auto large = counted_words(words);
    const BufferId buffer = device->upload(large);
    const std::uint64_t held = device->context->device_bytes();
    CHECK(device->download(buffer, words) == large);
    CHECK(device->context->device_bytes() > held);  // the last piece stays readable until the next is asked for
    REQUIRE(executor.stage(4, BufferKind::readback).ok());
    REQUIRE(executor.stage(4, BufferKind::upload).ok());
    CHECK(device->context->device_bytes() <= words * 4 + (33U << 20));
  }

  TEST_CASE("several pieces of one submit") {
    KVANT_TEST_DEVICE(device, {});
    Executor& executor = device->executor();
    const BufferId buffer = executor.create_buffer(64 * 16, BufferKind::device).value();
    CommandList list;
    std::vector<Staging> back;
    for (std::uint32_t i = 0; i < 64; ++i) {
      const Staging up = executor.stage(16, BufferKind::upload).value();
      CHECK(up.range.offset % 256 == 0);
      std::fill_n(reinterpret_cast<std::uint32_t*>(up.data), 4, i);
      list.add_copy({up.range.buffer, up.range.offset, buffer, i * 16, 16}, "up", false);
    }
    for (std::uint32_t i = 0; i < 64; ++i) {
      back.push_back(executor.stage(16, BufferKind::readback).value());
      list.add_copy({buffer, i * 16, back[i].range.buffer, back[i].range.offset, 16}, "down", i == 0);
    }
    device->run(list);
    for (std::uint32_t i = 0; i < 64; ++i) CHECK(*reinterpret_cast<const std::uint32_t*>(back[i].data) == i);
  }

  TEST_CASE("readback is kept until it was waited for") {
    KVANT_TEST_DEVICE(device, {});
    Executor& executor = device->executor();
    const BufferId buffer = device->upload(counted_words(1 << 20));
    std::vector<Staging> pieces;
    Ticket last{};
    for (int i = 0; i < 12; ++i) {  // together well above the ring
      pieces.push_back(executor.stage(4 << 20, BufferKind::readback).value());
      CommandList list;
      list.add_fill({{buffer, 0, 4 << 20}, static_cast<std::uint32_t>(i)}, "fill", false);
      list.add_copy({buffer, 0, pieces.back().range.buffer, pieces.back().range.offset, 4 << 20}, "down", true);
      last = executor.submit(list).value();
      // Time for the device to finish: what is done but was not waited for must stay nevertheless.
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    REQUIRE(executor.wait(last).ok());
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      std::uint32_t first = 0, end = 0;
      std::memcpy(&first, pieces[i].data, 4);
      std::memcpy(&end, pieces[i].data + (4 << 20) - 4, 4);
      CHECK(first == i);
      CHECK(end == i);
    }
  }

  TEST_CASE("a destroyed buffer lives until the device is done, and its id never returns") {
    KVANT_TEST_DEVICE(device, {});
    Executor& executor = device->executor();
    const BufferId kept = executor.create_buffer(1 << 20, BufferKind::device).value();
    std::uint64_t last_id = static_cast<std::uint64_t>(kept);
    for (std::uint32_t round = 0; round < 50; ++round) {
      const BufferId passing = executor.create_buffer(1 << 20, BufferKind::device).value();
      CHECK(static_cast<std::uint64_t>(passing) > last_id);
      last_id = static_cast<std::uint64_t>(passing);
      CommandList list;
      list.add_fill({{passing, 0, 1 << 20}, round}, "fill", false);
      list.add_copy({passing, 0, kept, 0, 1 << 20}, "copy", true);
      REQUIRE(executor.submit(list).ok());
      executor.destroy_buffer(passing);  // still in flight
      CommandList stale;
      stale.add_fill({{passing, 0, 4}, 0}, "stale", false);
      CHECK(executor.submit(stale).status().code() == StatusCode::internal);
    }
    CHECK(device->download(kept, 1 << 18) == std::vector<std::uint32_t>(1 << 18, 49));
    executor.destroy_buffer(BufferId::none);
    executor.destroy_buffer(static_cast<BufferId>(987654321));
    CHECK(device->context->device_bytes() < 40U << 20);
  }

  TEST_CASE("a memory limit is kept, and a failed allocation changes nothing") {
    DeviceOptions options;
    options.memory_limit = 8 << 20;
    KVANT_TEST_DEVICE(device, options);
    Executor& executor = device->executor();
    const BufferId first = executor.create_buffer(5 << 20, BufferKind::device).value();
    const std::uint64_t held = device->context->device_bytes();
    const auto refused = executor.create_buffer(4 << 20, BufferKind::device);
    REQUIRE_FALSE(refused.ok());
    CHECK(refused.status().code() == StatusCode::resource_exhausted);
    CHECK(refused.status().message().find("4194304") != std::string::npos);
    CHECK(refused.status().message().find("8388608") != std::string::npos);
    CHECK(device->context->device_bytes() == held);
    // Destroying makes room even while the device still works on the buffer.
    CommandList list;
    list.add_fill({{first, 0, 5 << 20}, 1}, "fill", false);
    REQUIRE(executor.submit(list).ok());
    executor.destroy_buffer(first);
    CHECK(executor.create_buffer(4 << 20, BufferKind::device).ok());
    CHECK(device->context->device_bytes() <= options.memory_limit);
    REQUIRE(executor.stage(1000, BufferKind::upload).ok());
  }

  TEST_CASE("a shared buffer is read and written in place by both sides") {
    KVANT_TEST_DEVICE(device, {});
    Executor& executor = device->executor();
    auto shared = executor.create_buffer(4096, BufferKind::shared);
    if (!shared.ok()) {
      CHECK(shared.status().code() == StatusCode::unimplemented);
      return;
    }
    std::byte* bytes = executor.mapped(shared.value());
    REQUIRE(bytes != nullptr);
    const BufferId other = executor.create_buffer(4096, BufferKind::device).value();
    CHECK(executor.mapped(other) == nullptr);
    CHECK(executor.mapped(static_cast<BufferId>(987654321)) == nullptr);
    std::memset(bytes, 0x5A, 4096);
    CommandList list;
    list.add_copy({shared.value(), 0, other, 0, 4096}, "out", false);
    list.add_fill({{shared.value(), 2048, 1024}, 0x01010101}, "fill", true);
    const Ticket ticket = executor.submit(list).value();
    REQUIRE(executor.wait(ticket).ok());
    CHECK(bytes[2047] == std::byte{0x5A});
    CHECK(bytes[2048] == std::byte{1});
    CHECK(bytes[3071] == std::byte{1});
    CHECK(bytes[3072] == std::byte{0x5A});
    CHECK(device->download(other, 1024) == std::vector<std::uint32_t>(1024, 0x5A5A5A5A));
    CHECK(executor.stage(4, BufferKind::shared).status().code() == StatusCode::invalid_argument);
    executor.destroy_buffer(shared.value());
    CHECK(executor.mapped(shared.value()) == nullptr);
  }

  TEST_CASE("a unified buffer is device memory, and mapped where that is coherent and cached for the host") {
    KVANT_TEST_DEVICE(device, {});
    Executor& executor = device->executor();
    const BufferId unified = executor.create_buffer(4096, BufferKind::unified).value();
    const auto& types = device->context->plan().snapshot.memory_types;
    const std::uint32_t flags = types[*choose_memory_type(types, ~0U, BufferKind::device)].flags;
    constexpr std::uint32_t kHost = memory_host_visible | memory_host_coherent | memory_host_cached;
    std::byte* bytes = executor.mapped(unified);
    CHECK((bytes != nullptr) == ((flags & kHost) == kHost));
    if (bytes == nullptr) return;
    std::memset(bytes, 0x5A, 4096);
    const BufferId other = executor.create_buffer(4096, BufferKind::device).value();
    CommandList list;
    list.add_copy({unified, 0, other, 0, 4096}, "out", false);
    list.add_fill({{unified, 1024, 1024}, 0x01010101}, "fill", true);
    REQUIRE(executor.wait(executor.submit(list).value()).ok());
    CHECK(bytes[1023] == std::byte{0x5A});
    CHECK(bytes[1024] == std::byte{1});
    CHECK(device->download(other, 1024) == std::vector<std::uint32_t>(1024, 0x5A5A5A5A));
    executor.destroy_buffer(unified);
    CHECK(executor.mapped(unified) == nullptr);
  }

  TEST_CASE("wrong sizes are refused by value") {
    KVANT_TEST_DEVICE(device, with_capabilities(R"({"max_allocation_bytes": 4194304, "max_binding_bytes": 1048576})"));
    Executor& executor = device->executor();
    CHECK(executor.limits().max_slab_bytes == 4 << 20);
    CHECK(executor.limits().max_binding_bytes == 1 << 20);
    const auto above = executor.create_buffer((4 << 20) + 1, BufferKind::device);
    CHECK(above.status().code() == StatusCode::invalid_argument);
    CHECK(above.status().message().find("4194305") != std::string::npos);
    CHECK(executor.create_buffer(0, BufferKind::device).status().code() == StatusCode::invalid_argument);
    CHECK(executor.stage(0, BufferKind::upload).status().code() == StatusCode::invalid_argument);
    CHECK(executor.stage(4, BufferKind::device).status().code() == StatusCode::invalid_argument);
    CHECK(executor.stage((4ULL << 20) + 1, BufferKind::upload).status().code() == StatusCode::invalid_argument);
    CHECK(executor.import_buffer(0, 16).status().code() == StatusCode::invalid_argument);
    CHECK(executor.wait(static_cast<Ticket>(99)).code() == StatusCode::internal);
    CHECK(executor.wait(Ticket::none).ok());
  }
}
