// A library named libvulkan.so.1 that stands between kvant and the real loader: it knows the entry points that kvant calls,
// keeps what drivers do out of the counts, makes the n-th call fail when told to, and counts living objects.
#include <dlfcn.h>

#include <atomic>
#include <cstddef>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include "injector.hpp"
#include "vk_api.hpp"

namespace faults {
namespace {

std::atomic<std::int64_t> live_objects{0};

class Driver {
 public:
  Driver() { enter_driver(); }
  ~Driver() { leave_driver(); }
  Driver(const Driver&) = delete;
  Driver& operator=(const Driver&) = delete;
};

// Which devices are lost, and whose queues are whose. Leaked on purpose: drivers may call late.
struct Devices {
  std::mutex mutex;
  std::map<const void*, VkDevice> of_queue;
  std::map<VkDevice, bool> lost;
};
Devices& devices() {
  static auto& place = *new Devices;
  return place;
}

PFN_vkGetInstanceProcAddr real_loader() {
  static const PFN_vkGetInstanceProcAddr found = []() -> PFN_vkGetInstanceProcAddr {
    // By path, since by name this library itself is found.
    void* self = dlopen(nullptr, RTLD_NOW);
    Dl_serinfo head{};
    if (dlinfo(self, RTLD_DI_SERINFOSIZE, &head) != 0) return nullptr;
    std::vector<std::max_align_t> room(head.dls_size / sizeof(std::max_align_t) + 1);
    auto* info = reinterpret_cast<Dl_serinfo*>(room.data());
    if (dlinfo(self, RTLD_DI_SERINFOSIZE, info) != 0 || dlinfo(self, RTLD_DI_SERINFO, info) != 0) return nullptr;
    Dl_info own{};
    dladdr(reinterpret_cast<void*>(&real_loader), &own);
    for (unsigned i = 0; i < info->dls_cnt; ++i) {
      const std::string path = std::string(info->dls_serpath[i].dls_name) + "/libvulkan.so.1";
      if (own.dli_fname != nullptr && path == own.dli_fname) continue;
      void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
      if (library == nullptr) continue;
      const auto get = reinterpret_cast<PFN_vkGetInstanceProcAddr>(dlsym(library, "vkGetInstanceProcAddr"));
      Dl_info theirs{};
      dladdr(reinterpret_cast<void*>(get), &theirs);
      if (get != nullptr && theirs.dli_fbase != own.dli_fbase) return get;
    }
    return nullptr;
  }();
  return found;
}

constexpr bool starts_with(std::string_view text, std::string_view part) { return text.substr(0, part.size()) == part; }

constexpr Kind kind_of(std::string_view name) {
  if (name == "vkAllocateMemory") return Kind::device_allocation;
  if (name == "vkQueueSubmit") return Kind::submit;
  if (name == "vkMapMemory") return Kind::map;
  if (starts_with(name, "vkWait") || name == "vkGetSemaphoreCounterValue" || name == "vkGetFenceStatus") return Kind::wait;
  return Kind::object;
}

constexpr VkResult result_of(Kind kind) {
  if (kind == Kind::device_allocation) return VK_ERROR_OUT_OF_DEVICE_MEMORY;
  return kind == Kind::map ? VK_ERROR_MEMORY_MAP_FAILED : VK_ERROR_OUT_OF_HOST_MEMORY;
}

VkDevice device_of(const void* dispatchable) {
  const std::lock_guard lock(devices().mutex);
  const auto found = devices().of_queue.find(dispatchable);
  return found != devices().of_queue.end() ? found->second : static_cast<VkDevice>(const_cast<void*>(dispatchable));
}

// A lost device here finishes its work first: the driver below does not know that its memory may be freed.
bool is_lost(VkInstance instance, const void* dispatchable) {
  const VkDevice device = device_of(dispatchable);
  {
    const std::lock_guard lock(devices().mutex);
    if (devices().lost[device]) return true;
  }
  leave_driver();
  const bool lose = event(Kind::lost);
  enter_driver();
  if (!lose) return false;
  const auto wait_idle = reinterpret_cast<PFN_vkDeviceWaitIdle>(real_loader()(instance, "vkDeviceWaitIdle"));
  if (wait_idle != nullptr) wait_idle(device);
  const std::lock_guard lock(devices().mutex);
  devices().lost[device] = true;
  return true;
}

std::atomic<VkInstance> last_instance{VK_NULL_HANDLE};

template <typename Tag, typename Function = typename Tag::Function>
struct Hook;

template <typename Tag, typename R, typename... Args>
struct Hook<Tag, R(VKAPI_PTR*)(Args...)> {
  static inline std::atomic<typename Tag::Function> real{nullptr};

  static R VKAPI_CALL call(Args... args) {
    constexpr std::string_view name = Tag::name;
    constexpr Kind kind = kind_of(name);
    if constexpr (std::is_same_v<R, VkResult>) {
      if (event(kind)) {
        // Whose end failed is not being recorded any more.
        if constexpr (name == "vkEndCommandBuffer") real.load()(args...);
        return result_of(kind);
      }
    }
    const Driver driver;
    const auto all = std::tie(args...);
    if constexpr (kind == Kind::submit || kind == Kind::wait) {
      if (is_lost(last_instance.load(), std::get<0>(all))) return VK_ERROR_DEVICE_LOST;
    }
    if constexpr (name == "vkFreeMemory" || (starts_with(name, "vkDestroy") && sizeof...(Args) == 3)) {
      if (std::get<1>(all) != VK_NULL_HANDLE) --live_objects;
    } else if constexpr (starts_with(name, "vkDestroy")) {
      if (std::get<0>(all) != VK_NULL_HANDLE) --live_objects;
    }
    if constexpr (std::is_same_v<R, VkResult>) {
      const VkResult result = real.load()(args...);
      if constexpr (starts_with(name, "vkCreate") || name == "vkAllocateMemory") {
        if (result == VK_SUCCESS) ++live_objects;
      }
      if constexpr (name == "vkCreateInstance") {
        if (result == VK_SUCCESS) last_instance = *std::get<2>(all);
      }
      if constexpr (name == "vkCreateDevice") {
        const std::lock_guard lock(devices().mutex);
        if (result == VK_SUCCESS) devices().lost[*std::get<3>(all)] = false;
      }
      return result;
    } else if constexpr (std::is_pointer_v<R>) {
      return real.load()(args...);
    } else {
      real.load()(args...);
      if constexpr (name == "vkGetDeviceQueue") {
        const std::lock_guard lock(devices().mutex);
        devices().of_queue[*std::get<3>(all)] = std::get<0>(all);
      }
    }
  }
};

#define KVANT_VK_TAG(function)                       \
  struct Tag_##function {                            \
    static constexpr const char* name = #function;   \
    using Function = PFN_##function;                 \
  };
#define KVANT_VK_GLOBAL(function) KVANT_VK_TAG(function)
#define KVANT_VK_INSTANCE(function, alias) KVANT_VK_TAG(function)
#define KVANT_VK_INSTANCE_OPTIONAL(function, alias) KVANT_VK_TAG(function)
#define KVANT_VK_DEVICE(function, alias) KVANT_VK_TAG(function)
#define KVANT_VK_DEVICE_OPTIONAL(function, alias) KVANT_VK_TAG(function)
#include "vk_functions.def"
#undef KVANT_VK_TAG

template <typename Tag>
PFN_vkVoidFunction hook(PFN_vkVoidFunction real) {
  Hook<Tag>::real = reinterpret_cast<typename Tag::Function>(real);
  return reinterpret_cast<PFN_vkVoidFunction>(&Hook<Tag>::call);
}

PFN_vkVoidFunction VKAPI_CALL get_device(VkDevice device, const char* name);

PFN_vkVoidFunction wrap(const char* name, PFN_vkVoidFunction real) {
  if (real == nullptr) return nullptr;
  const std::string_view wanted = name;
  if (wanted == "vkGetDeviceProcAddr") {
    Hook<Tag_vkGetDeviceProcAddr>::real = reinterpret_cast<PFN_vkGetDeviceProcAddr>(real);
    return reinterpret_cast<PFN_vkVoidFunction>(&get_device);
  }
#define KVANT_VK_WRAP(function, alias) \
  if (wanted == #function || wanted == #alias) return hook<Tag_##function>(real);
#define KVANT_VK_GLOBAL(function) KVANT_VK_WRAP(function, function)
#define KVANT_VK_INSTANCE(function, alias) KVANT_VK_WRAP(function, alias)
#define KVANT_VK_INSTANCE_OPTIONAL(function, alias) KVANT_VK_WRAP(function, alias)
#define KVANT_VK_DEVICE(function, alias) KVANT_VK_WRAP(function, alias)
#define KVANT_VK_DEVICE_OPTIONAL(function, alias) KVANT_VK_WRAP(function, alias)
#include "vk_functions.def"
#undef KVANT_VK_WRAP
  return real;
}

// The loader's own entry points serve every device; a device's would serve only that one.
PFN_vkVoidFunction VKAPI_CALL get_device(VkDevice device, const char* name) {
  const Driver driver;
  const PFN_vkVoidFunction own = Hook<Tag_vkGetDeviceProcAddr>::real.load()(device, name);
  if (own == nullptr) return nullptr;
  const PFN_vkVoidFunction shared = real_loader()(last_instance.load(), name);
  return wrap(name, shared != nullptr ? shared : own);
}

}  // namespace

std::int64_t live_vulkan_objects() { return live_objects; }

}  // namespace faults

extern "C" KVANT_FAULTS_API PFN_vkVoidFunction vkGetInstanceProcAddr(VkInstance instance, const char* name) {
  const faults::Driver driver;
  const PFN_vkGetInstanceProcAddr real = faults::real_loader();
  if (real == nullptr) return nullptr;
  return faults::wrap(name, real(instance, name));
}
