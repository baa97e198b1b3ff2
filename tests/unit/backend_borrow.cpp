// Inside an engine's VkDevice: borrowing, importing buffers, recording into its command buffer; and, because the
// engine's loader function is handed in, faults of the driver on demand: lost devices and failing calls.
#include <algorithm>
#include <atomic>
#include <functional>

#include "backend_device.hpp"
#include "device_probe.hpp"
#include "feature_chain.hpp"
#include "vk_loader.hpp"

using namespace kvant;
using namespace kvant::test;

namespace {

// What the wrapped driver does wrong. Plain globals: Vulkan's entry points carry no context.
struct Faults {
  PFN_vkGetInstanceProcAddr get_instance = nullptr;
  PFN_vkGetDeviceProcAddr get_device = nullptr;
  PFN_vkQueueSubmit submit = nullptr;
  PFN_vkAllocateMemory allocate = nullptr;
  PFN_vkCreateComputePipelines pipelines = nullptr;
  PFN_vkWaitSemaphores wait = nullptr;
  std::vector<std::uint64_t> signalled, waited;  // values of kvant's timeline
  VkResult wait_result = VK_SUCCESS;
  VkResult submit_result = VK_SUCCESS;
  int allocations_until_failure = -1;
  VkResult pipeline_result = VK_SUCCESS;
  std::atomic<int> locked{0}, locks{0};
  bool submitted_unlocked = false;
};
Faults faults;

VKAPI_ATTR VkResult VKAPI_CALL faulty_submit(VkQueue queue, std::uint32_t count, const VkSubmitInfo* infos,
                                             VkFence fence) {
  faults.submitted_unlocked = faults.submitted_unlocked || faults.locked != 1;
  if (faults.submit_result != VK_SUCCESS) return faults.submit_result;
  for (auto* next = static_cast<const VkBaseInStructure*>(infos->pNext); next != nullptr; next = next->pNext)
    if (next->sType == VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO)
      faults.signalled.push_back(*reinterpret_cast<const VkTimelineSemaphoreSubmitInfo*>(next)->pSignalSemaphoreValues);
  return faults.submit(queue, count, infos, fence);
}
VKAPI_ATTR VkResult VKAPI_CALL faulty_wait(VkDevice device, const VkSemaphoreWaitInfo* info, std::uint64_t nanoseconds) {
  if (faults.wait_result != VK_SUCCESS) return faults.wait_result;
  faults.waited.push_back(*info->pValues);
  return faults.wait(device, info, nanoseconds);
}
VKAPI_ATTR VkResult VKAPI_CALL faulty_allocate(VkDevice device, const VkMemoryAllocateInfo* info,
                                               const VkAllocationCallbacks* with, VkDeviceMemory* memory) {
  if (faults.allocations_until_failure == 0) return VK_ERROR_OUT_OF_DEVICE_MEMORY;
  if (faults.allocations_until_failure > 0) --faults.allocations_until_failure;
  return faults.allocate(device, info, with, memory);
}
VKAPI_ATTR VkResult VKAPI_CALL faulty_pipelines(VkDevice device, VkPipelineCache cache, std::uint32_t count,
                                                const VkComputePipelineCreateInfo* infos,
                                                const VkAllocationCallbacks* with, VkPipeline* out) {
  if (faults.pipeline_result != VK_SUCCESS) return faults.pipeline_result;
  return faults.pipelines(device, cache, count, infos, with, out);
}
VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL faulty_get_device(VkDevice device, const char* name) {
  const PFN_vkVoidFunction real = faults.get_device(device, name);
  if (std::strcmp(name, "vkQueueSubmit") == 0) {
    faults.submit = reinterpret_cast<PFN_vkQueueSubmit>(real);
    return reinterpret_cast<PFN_vkVoidFunction>(faulty_submit);
  }
  if (std::strcmp(name, "vkAllocateMemory") == 0) {
    faults.allocate = reinterpret_cast<PFN_vkAllocateMemory>(real);
    return reinterpret_cast<PFN_vkVoidFunction>(faulty_allocate);
  }
  if (std::strcmp(name, "vkCreateComputePipelines") == 0) {
    faults.pipelines = reinterpret_cast<PFN_vkCreateComputePipelines>(real);
    return reinterpret_cast<PFN_vkVoidFunction>(faulty_pipelines);
  }
  if (std::strcmp(name, "vkWaitSemaphores") == 0 && real != nullptr) {
    faults.wait = reinterpret_cast<PFN_vkWaitSemaphores>(real);
    return reinterpret_cast<PFN_vkVoidFunction>(faulty_wait);
  }
  return real;
}
VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL faulty_get_instance(VkInstance instance, const char* name) {
  const PFN_vkVoidFunction real = faults.get_instance(instance, name);
  if (std::strcmp(name, "vkGetDeviceProcAddr") != 0) return real;
  faults.get_device = reinterpret_cast<PFN_vkGetDeviceProcAddr>(real);
  return reinterpret_cast<PFN_vkVoidFunction>(faulty_get_device);
}

// The engine: an instance, a device with what kvant recommends for it, a queue, a command pool.
class Engine {
 public:
  static std::unique_ptr<Engine> create(bool with_features) {
    auto engine = std::make_unique<Engine>();
    auto library = VulkanLibrary::open();
    if (!library.ok()) return nullptr;
    engine->library_ = std::move(library).value();
    faults.get_instance = engine->library_.get_instance_proc_addr();
    const GlobalFunctions global = GlobalFunctions::load(faults.get_instance).value();
    VkApplicationInfo application{};
    application.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO;
    application.apiVersion = VK_API_VERSION_1_3;
    VkInstanceCreateInfo info{};
    info.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
    info.pApplicationInfo = &application;
    if (global.vkCreateInstance(&info, nullptr, &engine->instance) != VK_SUCCESS) return nullptr;
    engine->instance_vk = InstanceFunctions::load(faults.get_instance, engine->instance).value();
    std::uint32_t count = 1;
    engine->instance_vk.vkEnumeratePhysicalDevices(engine->instance, &count, &engine->physical);
    if (count == 0) return nullptr;
    engine->plan_ =
        make_device_plan(probe_device(engine->instance_vk, engine->physical, VK_API_VERSION_1_3), "").value();
    if (!engine->plan_.usable()) return nullptr;

    const float priority = 1.0F;
    VkDeviceQueueCreateInfo queue{};
    queue.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO;
    queue.queueFamilyIndex = engine->plan_.queue_family;
    queue.queueCount = 1;
    queue.pQueuePriorities = &priority;
    if (with_features) FeatureChain::link_for_creation(engine->features_, engine->plan_);
    VkDeviceCreateInfo device_info{};
    device_info.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO;
    device_info.pNext = &engine->features_.root;
    device_info.queueCreateInfoCount = 1;
    device_info.pQueueCreateInfos = &queue;
    REQUIRE(engine->instance_vk.vkCreateDevice(engine->physical, &device_info, nullptr, &engine->device) == VK_SUCCESS);
    engine->vk = DeviceFunctions::load(engine->instance_vk.vkGetDeviceProcAddr, engine->device).value();
    engine->vk.vkGetDeviceQueue(engine->device, engine->plan_.queue_family, 0, &engine->queue);
    return engine;
  }
  ~Engine() {
    wait_idle();
    if (pool_ != VK_NULL_HANDLE) vk.vkDestroyCommandPool(device, pool_, nullptr);
    if (device != VK_NULL_HANDLE) vk.vkDestroyDevice(device, nullptr);
    if (instance != VK_NULL_HANDLE) instance_vk.vkDestroyInstance(instance, nullptr);
  }

  void wait_idle() {
    if (device == VK_NULL_HANDLE) return;
    const auto wait = reinterpret_cast<PFN_vkDeviceWaitIdle>(instance_vk.vkGetDeviceProcAddr(device, "vkDeviceWaitIdle"));
    REQUIRE(wait(device) == VK_SUCCESS);
  }

  BorrowedDevice borrowed() const {
    BorrowedDevice b;
    b.get_instance_proc_addr = reinterpret_cast<void*>(faulty_get_instance);
    b.instance = instance;
    b.physical_device = physical;
    b.device = device;
    b.queue_family = plan_.queue_family;
    b.enabled_features = &features_.root;
    b.lock_queue = [](void*, std::uint32_t, std::uint32_t) { ++faults.locked, ++faults.locks; };
    b.unlock_queue = [](void*, std::uint32_t, std::uint32_t) { --faults.locked; };
    return b;
  }

  VkCommandBuffer begin() {
    VkCommandPoolCreateInfo pool_info{};
    pool_info.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO;
    pool_info.queueFamilyIndex = plan_.queue_family;
    if (pool_ == VK_NULL_HANDLE) REQUIRE(vk.vkCreateCommandPool(device, &pool_info, nullptr, &pool_) == VK_SUCCESS);
    VkCommandBufferAllocateInfo info{};
    info.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO;
    info.commandPool = pool_;
    info.commandBufferCount = 1;
    VkCommandBuffer commands = VK_NULL_HANDLE;
    REQUIRE(vk.vkAllocateCommandBuffers(device, &info, &commands) == VK_SUCCESS);
    VkCommandBufferBeginInfo begin_info{};
    begin_info.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO;
    REQUIRE(vk.vkBeginCommandBuffer(commands, &begin_info) == VK_SUCCESS);
    return commands;
  }
  void submit(VkCommandBuffer commands) {
    REQUIRE(vk.vkEndCommandBuffer(commands) == VK_SUCCESS);
    VkSubmitInfo info{};
    info.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO;
    info.commandBufferCount = 1;
    info.pCommandBuffers = &commands;
    REQUIRE(vk.vkQueueSubmit(queue, 1, &info, VK_NULL_HANDLE) == VK_SUCCESS);
  }

  VkInstance instance = VK_NULL_HANDLE;
  VkPhysicalDevice physical = VK_NULL_HANDLE;
  VkDevice device = VK_NULL_HANDLE;
  VkQueue queue = VK_NULL_HANDLE;
  InstanceFunctions instance_vk;
  DeviceFunctions vk;

 private:
  VulkanLibrary library_;
  DevicePlan plan_;
  FeatureChain features_;
  VkCommandPool pool_ = VK_NULL_HANDLE;
};

// The engine and kvant's context in its device.
struct Guest {
  std::unique_ptr<Engine> engine;
  std::unique_ptr<DeviceContext> context;

  Executor& executor() { return context->executor(); }
  ~Guest() {
    context.reset();
    engine.reset();
  }
  static std::unique_ptr<Guest> create(bool with_features, const DeviceOptions& options = {}) {
    faults.submit_result = faults.pipeline_result = faults.wait_result = VK_SUCCESS;
    faults.signalled.clear();
    faults.waited.clear();
    faults.allocations_until_failure = -1;
    faults.locked = faults.locks = 0;
    faults.submitted_unlocked = false;
    auto guest = std::make_unique<Guest>();
    guest->engine = Engine::create(with_features);
    if (!guest->engine) {
      REQUIRE_MESSAGE(std::getenv("KVANT_REQUIRE_DEVICE") == nullptr, "no Vulkan device");
      MESSAGE("skipped: no Vulkan device");
      return nullptr;
    }
    auto context = borrow_device(guest->engine->borrowed(), options, {});
    REQUIRE_MESSAGE(context.ok(), context.status().message());
    guest->context = std::move(context).value();
    return guest;
  }
};

std::uint32_t first_word(const Staging& staging) { return *reinterpret_cast<const std::uint32_t*>(staging.data); }

}  // namespace

TEST_SUITE("backend device") {
  TEST_CASE("in a borrowed device only what the engine enabled is used") {
    const auto bare = Guest::create(false);
    if (!bare) return;
    const DevicePlan& plan = bare->context->plan();
    CHECK(plan.tier == 0);
    CHECK_FALSE(plan.caps.timeline);
    CHECK_FALSE(plan.require_subgroup_size);
    CHECK(bare->context->snapshot().extensions.empty());
    const auto full = Guest::create(true);
    CHECK(full->context->plan().caps.timeline);
    CHECK(full->context->timeline().semaphore != 0);
  }

  TEST_CASE("recording into the engine's command buffer") {
    const auto guest = Guest::create(true);
    if (!guest) return;
    Executor& executor = guest->executor();
    const BufferId buffer = executor.create_buffer(4096, BufferKind::device).value();
    for (std::uint32_t step = 1; step <= 5; ++step) {
      VkCommandBuffer commands = guest->engine->begin();
      const Staging up = executor.stage(4096, BufferKind::upload).value();
      std::fill_n(reinterpret_cast<std::uint32_t*>(up.data), 1024, step);
      CommandList list;
      list.add_copy({up.range.buffer, up.range.offset, buffer, 0, 4096}, "up", false);
      REQUIRE(executor.record(list, commands).ok());
      CommandList second;  // ordered after the first, in the same command buffer
      second.add_fill({{buffer, 0, 4}, step * 100}, "fill", false);
      const Staging down = executor.stage(8, BufferKind::readback).value();
      second.add_copy({buffer, 0, down.range.buffer, down.range.offset, 8}, "down", true);
      const Ticket ticket = executor.record(second, commands).value();
      guest->engine->submit(commands);
      REQUIRE(executor.wait(ticket).ok());
      CHECK(first_word(down) == step * 100);
      CHECK(reinterpret_cast<const std::uint32_t*>(down.data)[1] == step);
    }
    CHECK(faults.locks > 0);
    CHECK(faults.locked == 0);
    CHECK_FALSE(faults.submitted_unlocked);
    CHECK(guest->context->wait_all().ok());
  }

  TEST_CASE("no value is waited for but those that a submit signals") {
    const auto guest = Guest::create(true);
    if (!guest) return;
    Executor& executor = guest->executor();
    const BufferId buffer = executor.create_buffer(64, BufferKind::device).value();
    const auto fill = [&](std::uint32_t value) {
      CommandList list;
      list.add_fill({{buffer, 0, 64}, value}, "fill", false);
      return list;
    };
    const auto record = [&](std::uint32_t value) {
      VkCommandBuffer commands = guest->engine->begin();
      const Ticket ticket = executor.record(fill(value), commands).value();
      guest->engine->submit(commands);
      return ticket;
    };
    const auto check_waits = [&] {
      CHECK_FALSE(faults.waited.empty());
      for (const std::uint64_t value : faults.waited)
        CHECK(std::find(faults.signalled.begin(), faults.signalled.end(), value) != faults.signalled.end());
      CHECK(std::adjacent_find(faults.signalled.begin(), faults.signalled.end(), std::greater_equal<>()) ==
            faults.signalled.end());
      CHECK(guest->context->timeline().value == faults.signalled.back());
      faults.waited.clear();
    };
    // Recorded first of all, and with nothing after it.
    record(1);
    CHECK(faults.signalled.empty());
    REQUIRE(guest->context->wait_all().ok());
    check_waits();
    // Several, waited for one by one.
    const Ticket first = record(2), second = record(3);
    REQUIRE(executor.wait(first).ok());
    REQUIRE(executor.wait(second).ok());
    check_waits();
    // With a submit of kvant's own before and after; what failed signals nothing.
    REQUIRE(executor.submit(fill(4)).ok());
    const Ticket between = record(5);
    faults.submit_result = VK_ERROR_OUT_OF_HOST_MEMORY;
    CHECK_FALSE(executor.wait(between).ok());
    CHECK_FALSE(executor.submit(fill(6)).ok());
    faults.submit_result = VK_SUCCESS;
    const Staging down = executor.stage(4, BufferKind::readback).value();
    CommandList read;
    read.add_copy({buffer, 0, down.range.buffer, down.range.offset, 4}, "read", false);
    const Ticket last = executor.submit(read).value();
    REQUIRE(executor.wait(between).ok());
    check_waits();
    REQUIRE(executor.wait(last).ok());
    CHECK(first_word(down) == 5);
    CHECK(executor.wait(static_cast<Ticket>(static_cast<std::uint64_t>(last) + 1)).code() == StatusCode::internal);
  }

  TEST_CASE("a wait that fails between the parts of a list leaves the timeline rising") {
    DeviceOptions options;
    options.profiling = true;
    options.quirks = "+no_timestamps";  // each command is then a part of its own
    const auto guest = Guest::create(true, options);
    if (!guest) return;
    Executor& executor = guest->executor();
    const BufferId buffer = executor.create_buffer(64, BufferKind::device).value();
    CommandList list;
    list.add_fill({{buffer, 0, 64}, 8}, "first", false);
    list.add_fill({{buffer, 0, 64}, 9}, "second", true);
    faults.wait_result = VK_ERROR_OUT_OF_HOST_MEMORY;
    CHECK(executor.submit(list).status().code() == StatusCode::resource_exhausted);
    faults.wait_result = VK_SUCCESS;
    const Staging down = executor.stage(4, BufferKind::readback).value();
    list.add_copy({buffer, 0, down.range.buffer, down.range.offset, 4}, "read", true);
    REQUIRE(executor.wait(executor.submit(list).value()).ok());
    CHECK(first_word(down) == 9);
    CHECK(faults.signalled.size() == 5);
    CHECK(std::adjacent_find(faults.signalled.begin(), faults.signalled.end(), std::greater_equal<>()) ==
          faults.signalled.end());
  }

  TEST_CASE("an imported buffer is used and left alone") {
    const auto guest = Guest::create(true);
    if (!guest) return;
    auto other = borrow_device(guest->engine->borrowed(), {}, {});
    REQUIRE(other.ok());
    // The engine's buffer: here one that a second context in the same device made by hand.
    VkBuffer handle = VK_NULL_HANDLE;
    VkBufferCreateInfo info{};
    info.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO;
    info.size = 1024;
    info.usage =
        VK_BUFFER_USAGE_TRANSFER_DST_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_STORAGE_BUFFER_BIT;
    const DeviceFunctions& vk = guest->engine->vk;
    REQUIRE(vk.vkCreateBuffer(guest->engine->device, &info, nullptr, &handle) == VK_SUCCESS);
    VkMemoryRequirements needs{};
    vk.vkGetBufferMemoryRequirements(guest->engine->device, handle, &needs);
    VkMemoryAllocateInfo allocate{};
    allocate.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO;
    allocate.allocationSize = needs.size;
    while ((needs.memoryTypeBits >> allocate.memoryTypeIndex & 1U) == 0) ++allocate.memoryTypeIndex;
    VkDeviceMemory memory = VK_NULL_HANDLE;
    REQUIRE(vk.vkAllocateMemory(guest->engine->device, &allocate, nullptr, &memory) == VK_SUCCESS);
    REQUIRE(vk.vkBindBufferMemory(guest->engine->device, handle, memory, 0) == VK_SUCCESS);

    Executor& executor = guest->executor();
    const std::uint64_t held = guest->context->device_bytes();
    const BufferId imported = executor.import_buffer(reinterpret_cast<std::uint64_t>(handle), 1024).value();
    CHECK(guest->context->device_bytes() == held);
    CommandList list;
    list.add_fill({{imported, 0, 1024}, 77}, "fill", false);
    const Staging down = executor.stage(4, BufferKind::readback).value();
    list.add_copy({imported, 1020, down.range.buffer, down.range.offset, 4}, "down", true);
    REQUIRE(executor.wait(executor.submit(list).value()).ok());
    CHECK(first_word(down) == 77);
    executor.destroy_buffer(imported);
    // Still the engine's: another context reads it after ours has let go.
    Executor& second = other.value()->executor();
    const BufferId again = second.import_buffer(reinterpret_cast<std::uint64_t>(handle), 1024).value();
    const Staging down2 = second.stage(4, BufferKind::readback).value();
    CommandList read;
    read.add_copy({again, 0, down2.range.buffer, down2.range.offset, 4}, "down", false);
    REQUIRE(second.wait(second.submit(read).value()).ok());
    CHECK(first_word(down2) == 77);
    other.value().reset();
    vk.vkDestroyBuffer(guest->engine->device, handle, nullptr);
    vk.vkFreeMemory(guest->engine->device, memory, nullptr);
  }

  TEST_CASE("a lost device is data loss, once and for all") {
    for (const bool timeline : {true, false}) {
      const auto guest = Guest::create(timeline);
      if (!guest) return;
      Executor& executor = guest->executor();
      const BufferId buffer = executor.create_buffer(1024, BufferKind::device).value();
      CommandList list;
      list.add_fill({{buffer, 0, 1024}, 1}, "fill", false);
      const Ticket before = executor.submit(list).value();
      faults.submit_result = VK_ERROR_DEVICE_LOST;
      CHECK(executor.submit(list).status().code() == StatusCode::data_loss);
      CHECK(guest->context->lost());
      faults.submit_result = VK_SUCCESS;
      CHECK(executor.submit(list).status().code() == StatusCode::data_loss);
      CHECK(executor.stage(4, BufferKind::upload).status().code() == StatusCode::data_loss);
      CHECK(executor.create_buffer(4, BufferKind::device).status().code() == StatusCode::data_loss);
      CHECK(executor.wait(before).code() == StatusCode::data_loss);
      CHECK(guest->context->take_profile().empty());
      guest->engine->wait_idle();  // the device is in truth alive, and may still fill what a lost device lets go at once
      executor.destroy_buffer(buffer);
    }
  }

  TEST_CASE("failing calls are named errors, and the executor goes on afterwards") {
    const auto guest = Guest::create(true);
    if (!guest) return;
    Executor& executor = guest->executor();
    const BufferId buffer = executor.create_buffer(1024, BufferKind::device).value();
    CommandList list;
    list.add_fill({{buffer, 0, 1024}, 5}, "fill", false);

    faults.submit_result = VK_ERROR_OUT_OF_HOST_MEMORY;
    const auto submitted = executor.submit(list);
    CHECK(submitted.status().code() == StatusCode::resource_exhausted);
    CHECK(submitted.status().message().find("VK_ERROR_OUT_OF_HOST_MEMORY") != std::string::npos);
    faults.submit_result = VK_SUCCESS;
    CHECK_FALSE(guest->context->lost());

    const std::uint64_t held = guest->context->device_bytes();
    faults.allocations_until_failure = 0;
    const auto refused = executor.create_buffer(4096, BufferKind::device);
    CHECK(refused.status().code() == StatusCode::resource_exhausted);
    CHECK(refused.status().message().find("4096 bytes from heap") != std::string::npos);
    CHECK(executor.stage(64, BufferKind::upload).status().code() == StatusCode::resource_exhausted);
    CHECK(guest->context->device_bytes() == held);
    faults.allocations_until_failure = -1;

    faults.pipeline_result = VK_ERROR_UNKNOWN;
    CommandList dispatch;
    add_page_copy(dispatch, buffer, buffer, buffer, 1, false).bindings[1].offset = 512;
    const auto compiled = executor.submit(dispatch);
    CHECK(compiled.status().code() == StatusCode::internal);
    CHECK(compiled.status().message().find("kernel copy failed: VK_ERROR_UNKNOWN") != std::string::npos);
    faults.pipeline_result = VK_SUCCESS;

    const Staging down = executor.stage(4, BufferKind::readback).value();
    list.add_copy({buffer, 0, down.range.buffer, down.range.offset, 4}, "down", true);
    REQUIRE(executor.wait(executor.submit(list).value()).ok());
    CHECK(first_word(down) == 5);
  }

  TEST_CASE("borrowing needs its handles and a compute queue") {
    CHECK(borrow_device({}, {}, {}).status().code() == StatusCode::invalid_argument);
    const auto guest = Guest::create(true);
    if (!guest) return;
    BorrowedDevice wrong = guest->engine->borrowed();
    wrong.queue_family = 77;
    CHECK(borrow_device(wrong, {}, {}).status().message().find("(77)") != std::string::npos);
  }
}
