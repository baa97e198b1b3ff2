// VulkanExecutor on a device: fill, copy, upload, readback, dispatch and their order.
#include <array>

#include "backend_device.hpp"

using namespace kvant;
using namespace kvant::test;

namespace {

// Everything an engine does in one run; used on each way of tracking submits.
void exercise(TestDevice& device) {
  Executor& executor = device.executor();
  const std::uint32_t pages = 64;
  const auto words = counted_words(pages * 4);
  const BufferId source = device.upload(words);
  const BufferId pairs = device.upload(identity_pairs(pages));
  const BufferId middle = executor.create_buffer(pages * 16, BufferKind::device).value();
  const BufferId last = executor.create_buffer(pages * 16, BufferKind::device).value();
  REQUIRE(device.download(source, words.size()) == words);

  CommandList list;
  list.add_fill({{middle, 0, pages * 16}, 0xDEADBEEF}, "fill", false);
  add_page_copy(list, source, middle, pairs, pages, true);
  add_page_copy(list, middle, last, pairs, pages, true);
  list.add_fill({{last, 16, 16}, 7}, "fill", true);
  device.run(list);
  auto expected = words;
  std::fill(expected.begin() + 4, expected.begin() + 8, 7U);
  CHECK(device.download(last, words.size()) == expected);
  CHECK(device.download(middle, words.size()) == words);

  // Consecutive lists are ordered without a wait between them.
  for (std::uint32_t round = 1; round <= 20; ++round) {
    CommandList step;
    step.add_fill({{source, 0, pages * 16}, round}, "fill", false);
    REQUIRE(executor.submit(step).ok());
    CommandList move;
    add_page_copy(move, source, last, pairs, pages, false);
    REQUIRE(executor.submit(move).ok());
  }
  CHECK(device.download(last, words.size()) == std::vector<std::uint32_t>(words.size(), 20));
  for (const BufferId buffer : {source, pairs, middle, last}) executor.destroy_buffer(buffer);
}

}  // namespace

TEST_SUITE("backend device") {
  TEST_CASE("commands run in order, by timeline semaphore") {
    KVANT_TEST_DEVICE(device, {});
    if (!device->context->plan().caps.timeline) {
      MESSAGE("skipped: the device has no timeline semaphores");
      return;
    }
    CHECK(device->context->timeline().semaphore != 0);
    exercise(*device);
    CHECK(device->context->timeline().value > 40);
  }

  TEST_CASE("commands run in order, by fences") {
    SUBCASE("quirk") {
      KVANT_TEST_DEVICE(device, with_quirks("+no_timeline"));
      CHECK(device->context->active_quirks().back() == "no_timeline");
      CHECK(device->context->timeline().semaphore == 0);
      exercise(*device);
    }
    SUBCASE("override") {
      KVANT_TEST_DEVICE(device, with_capabilities(R"({"timeline": false, "subgroup_ops": 0, "fp16": false})"));
      CHECK(device->context->timeline().semaphore == 0);
      CHECK(device->context->plan().tier == 0);
      exercise(*device);
    }
  }

  TEST_CASE("a long list recycles its descriptor sets and command buffers") {
    KVANT_TEST_DEVICE(device, {});
    Executor& executor = device->executor();
    const std::uint32_t pages = 16;
    const BufferId a = device->upload(counted_words(pages * 4));
    const BufferId b = device->upload(std::vector<std::uint32_t>(pages * 4, 0));
    const BufferId pairs = device->upload(identity_pairs(pages));
    CommandList list;
    for (int step = 0; step < 40; ++step) {
      list.clear();
      for (int i = 0; i < 20; ++i) {
        add_page_copy(list, a, b, pairs, pages, true);
        list.add_fill({{a, 0, pages * 16}, static_cast<std::uint32_t>(step)}, "fill", true);
        add_page_copy(list, b, a, pairs, pages, true);
      }
      REQUIRE(executor.submit(list).ok());
    }
    CHECK(device->download(a, pages * 4) == counted_words(pages * 4));
    CHECK(device->context->plan().usable());
  }

  TEST_CASE("absent bindings, empty commands and an empty list") {
    KVANT_TEST_DEVICE(device, {});
    const BufferId pairs = device->upload(identity_pairs(4));
    CommandList list;
    Dispatch& dispatch = add_page_copy(list, BufferId::none, BufferId::none, pairs, 4, false);
    std::memset(dispatch.push.data(), 0, dispatch.push.size());  // no pairs: the kernel touches nothing
    add_page_copy(list, pairs, pairs, pairs, 4, false).groups = {0, 1, 1};
    list.add_fill({{pairs, 0, 0}, 1}, "nothing", true);
    list.add_copy({pairs, 0, pairs, 16, 0}, "nothing", false);
    device->run(list);
    device->run(CommandList());
    CHECK(device->download(pairs, 8) == identity_pairs(4));
  }

  TEST_CASE("a bad list is refused whole") {
    KVANT_TEST_DEVICE(device, {});
    Executor& executor = device->executor();
    const BufferId buffer = device->upload(counted_words(256));
    const BufferId pairs = device->upload(identity_pairs(4));
    const auto refused = [&](const char* part, auto&& spoil) {
      CommandList list;
      list.add_fill({{buffer, 0, 1024}, 0}, "must not happen", false);
      Dispatch& dispatch = add_page_copy(list, buffer, buffer, pairs, 4, true);
      dispatch.bindings[1].offset = 512;
      spoil(list, dispatch);
      const auto ticket = executor.submit(list);
      REQUIRE_FALSE(ticket.ok());
      CAPTURE(ticket.status().message());
      CHECK(ticket.status().message().find(part) != std::string::npos);
    };
    refused("12345", [](auto&, Dispatch& d) { d.bindings[0].buffer = static_cast<BufferId>(12345); });
    refused("1024", [](auto&, Dispatch& d) { d.bindings[0].size = 2048; });
    refused("multiple of", [](auto&, Dispatch& d) { d.bindings[1].offset = 3; });
    refused("above", [&](auto&, Dispatch& d) { d.groups[2] = executor.limits().max_groups[2] + 1; });
    refused("local size", [](auto&, Dispatch& d) { d.spec[KVANT_SPEC_LOCAL_SIZE] = 0; });
    refused("local size", [](auto&, Dispatch& d) { d.spec[KVANT_SPEC_LOCAL_SIZE] = 1 << 20; });
    refused("not a multiple of 4", [&](CommandList& l, auto&) { l.add_fill({{buffer, 0, 6}, 0}, "odd", false); });
    refused("leaves its buffer", [&](CommandList& l, auto&) {
      l.add_copy({buffer, 1000, pairs, 0, 25}, "far", false);
    });
    CHECK(device->download(buffer, 256) == counted_words(256));
  }

  TEST_CASE("a module whose needs are not met is refused") {
    KVANT_TEST_DEVICE(device, with_capabilities(R"({"subgroup_ops": 0})"));
    CommandList list;
    list.add_dispatch(KernelId::attend_decode_sg, "attend", false).spec[KVANT_SPEC_LOCAL_SIZE] = 32;
    const auto ticket = device->executor().submit(list);
    REQUIRE_FALSE(ticket.ok());
    CHECK(ticket.status().code() == StatusCode::unimplemented);
    CHECK(ticket.status().message().find("attend_decode_sg") != std::string::npos);
  }

  TEST_CASE("the validation layer sees a missing barrier") {
    KVANT_TEST_DEVICE(device, {});
    if (!device->validated) {
      MESSAGE("skipped: the validation layer is not installed");
      return;
    }
    const BufferId buffer = device->upload(counted_words(64));
    CHECK(device->messages.empty());
    CommandList list;
    list.add_fill({{buffer, 0, 256}, 1}, "fill", false);
    list.add_fill({{buffer, 0, 256}, 2}, "fill", false);
    device->run(list);
    CHECK_FALSE(device->messages.empty());
    device->messages.clear();
  }

  TEST_CASE("recycled descriptor sets name no destroyed buffer") {
    // Some drivers touch every buffer of a bound set, whether or not the kernel declares the binding.
    KVANT_TEST_DEVICE(device, {});
    Executor& executor = device->executor();
    const BufferId target = device->upload(counted_words(128));
    const BufferId pairs = device->upload(identity_pairs(8));
    for (int round = 0; round < 200; ++round) {
      std::array<BufferId, 5> passing{};
      CommandList wide;
      Dispatch& append = wide.add_dispatch(KernelId::append, "append nothing", false);
      append.spec[KVANT_SPEC_LOCAL_SIZE] = 32;
      append.spec[KVANT_SPEC_HEAD_DIM_K] = append.spec[KVANT_SPEC_HEAD_DIM_V] = 32;
      append.spec[KVANT_SPEC_PAGE_TOKENS] = 16;
      for (std::size_t i = 0; i < passing.size(); ++i) {
        passing[i] = executor.create_buffer(4096, BufferKind::device).value();
        append.bindings[i] = {passing[i], 0, 4096};
      }
      device->run(wide);
      for (const BufferId buffer : passing) executor.destroy_buffer(buffer);
      CommandList narrow;
      add_page_copy(narrow, target, target, pairs, 8, false).bindings[1] = {target, 256, 128};
      device->run(narrow);
    }
    CHECK(device->download(target, 32, 256) == counted_words(32));
  }
}
