// Loading, unloading, two copies at once, machines without Vulkan, and what a library must leave alone in its process.
#include <dlfcn.h>
#include <unistd.h>

#include <clocale>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "library.hpp"

using namespace abi_test;

namespace {

const kvant_api* open_library(const std::string& path, void** handle) {
  *handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  REQUIRE_MESSAGE(*handle != nullptr, dlerror());
  const auto get_api = reinterpret_cast<kvant_get_api_fn>(dlsym(*handle, "kvant_get_api"));
  REQUIRE((get_api != nullptr));
  return get_api(KVANT_VERSION, nullptr);
}

std::size_t thread_count() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) ++count;
  return count;
}

// Sets variables for a scope.
class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old, had_ = true;
    setenv(name, value, 1);
  }
  ~Environment() { had_ ? setenv(name_, old_.c_str(), 1) : unsetenv(name_); }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  const char* name_;
  std::string old_;
  bool had_ = false;
};

}  // namespace

TEST_CASE("lifecycle: 100 rounds of load, create, destroy, unload") {
  for (int round = 0; round < 100; ++round) {
    void* handle = nullptr;
    const kvant_api* table = open_library(library_path(), &handle);
    REQUIRE(table != nullptr);
    kvant_context* context = nullptr;
    require_ok(table->context_create(nullptr, &context));
    std::uint32_t count = 0;
    require_ok(table->device_count(context, &count));
    if (count != 0 && round % 10 == 0) {
      kvant_device* device = nullptr;
      require_ok(table->device_open(context, nullptr, &device));
      table->device_close(device);
    }
    table->context_destroy(context);
    dlclose(handle);
  }
}

TEST_CASE("lifecycle: two copies under different names do not know each other's handles") {
  const std::filesystem::path copy =
      std::filesystem::temp_directory_path() / ("libkvant_copy_" + std::to_string(getpid()) + ".so");
  std::filesystem::copy_file(library_path(), copy, std::filesystem::copy_options::overwrite_existing);
  void* handle = nullptr;
  const kvant_api* other = open_library(copy.string(), &handle);
  std::filesystem::remove(copy);
  REQUIRE(other != nullptr);
  CHECK(other != &api());
  Session session;
  kvant_context* context = nullptr;
  require_ok(other->context_create(nullptr, &context));
  CHECK(static_cast<void*>(context) != static_cast<void*>(session.context));
  std::uint32_t count = 31;
  check_error(api().format_count(context, &count), KVANT_ERROR_NOT_FOUND, "format_count", "context (0x");
  const Outcome outcome = take(other->format_count(session.context, &count), *other);
  CHECK(outcome.code == KVANT_ERROR_NOT_FOUND);
  CHECK(count == 31);
  api().context_destroy(context);  // not its own: ignored
  check_ok(other->format_count(context, &count));
  if (session.device != nullptr) {  // both work at once
    kvant_device* device = nullptr;
    CHECK(take(other->device_open(context, nullptr, &device), *other).code == 0);
    const float x[32] = {1.0F, -2.0F};
    for (const auto& [table, dev] : {std::pair{&api(), session.device}, std::pair{other, device}}) {
      float y[32] = {};
      CHECK(take(table->quantize(dev, 0, 32, 1, x, sizeof x, y, sizeof y), *table).code == 0);
      CHECK(std::memcmp(x, y, sizeof x) == 0);
    }
    other->device_close(device);
  }
  other->context_destroy(context);
  dlclose(handle);
}

TEST_CASE("lifecycle: without a driver there are no devices, and opening one says why") {
  const Environment a("VK_ICD_FILENAMES", "/nonexistent.json"), b("VK_DRIVER_FILES", "/nonexistent.json");
  kvant_context* context = nullptr;
  require_ok(api().context_create(nullptr, &context));
  std::uint32_t count = 9;
  require_ok(api().device_count(context, &count));
  CHECK(count == 0);
  require_ok(api().format_count(context, &count));
  CHECK(count >= 11);
  auto info = make<kvant_device_info>();
  check_error(api().device_info(context, 0, &info), KVANT_ERROR_INVALID_ARGUMENT, "device_info", "device_index (0)");
  kvant_device* device = nullptr;
  auto args = make<kvant_device_args>();
  for (const std::uint32_t index : {0u, 3u, KVANT_DEVICE_BEST}) {
    args.device_index = index;
    const Outcome outcome = take(api().device_open(context, &args, &device));
    CHECK(outcome.code == KVANT_ERROR_UNAVAILABLE);
    CHECK(outcome.message.size() > 10);
  }
  check_error(api().device_open(context, nullptr, &device), KVANT_ERROR_UNAVAILABLE, "device_open", "");
  CHECK(device == nullptr);
  api().context_destroy(context);
}

TEST_CASE("lifecycle: the process is left as it was") {
  const std::string locale = std::setlocale(LC_ALL, nullptr);
  struct sigaction before[32], after[32];
  for (int s = 1; s < 32; ++s) sigaction(s, nullptr, &before[s]);
  const char* const folder_before = std::getenv("PWD");
  const auto working_folder = std::filesystem::current_path();
  {
    kvant_context* context = nullptr;
    const std::size_t threads = thread_count();
    require_ok(api().context_create(nullptr, &context));
    std::uint32_t count = 0;
    require_ok(api().device_count(context, &count));
    if (count == 0) CHECK(thread_count() == threads);  // with a driver, threads are the driver's
    api().context_destroy(context);
  }
  CHECK(locale == std::setlocale(LC_ALL, nullptr));
  CHECK(folder_before == std::getenv("PWD"));
  CHECK(working_folder == std::filesystem::current_path());
  for (int s = 1; s < 32; ++s) {
    sigaction(s, nullptr, &after[s]);
    CHECK((before[s].sa_handler == after[s].sa_handler));
  }
}

TEST_CASE("lifecycle: a device with hardly any memory") {
  Session session({.memory_limit = 1u << 20});
  if (!session.has_device()) return;
  // A pool that could never fill is refused at once.
  auto layer = make<kvant_layer_args>();
  layer.kv_heads = 2;
  layer.head_dim_k = 64;
  layer.format_k = layer.format_v = session.format("f32");
  auto huge = make<kvant_cache_args>();
  huge.layer_count = 1;
  huge.layers = &layer;
  huge.capacity_tokens = 1u << 20;
  kvant_cache* none = nullptr;
  check_error(api().cache_create(session.device, &huge, &none), KVANT_ERROR_RESOURCE_EXHAUSTED, "cache_create",
              "capacity_tokens (1048576) makes a pool of 1073741824 bytes when it is full, the device may hold at most 1048576");
  CHECK(none == nullptr);

  // One that could, but for what another cache holds, fails when its pages are needed.
  constexpr std::uint32_t kTokens = (1u << 20) / 1024;
  auto entry = make<kvant_step_entry>();
  auto args = make<kvant_step_args>();
  args.entry_count = 1;
  args.entries = &entry;
  kvant_cache* other = make_cache(session, {.capacity = kTokens / 2});
  require_ok(api().sequence_create(other, &entry.sequence));
  entry.append = kTokens / 2;
  kvant_step* held = nullptr;
  require_ok(api().step_plan(other, &args, &held));
  kvant_cache* cache = make_cache(session, {.capacity = kTokens});
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  const kvant_cache_stats before = stats_of(cache);
  entry.sequence = sequence;
  entry.append = kTokens;
  kvant_step* step = nullptr;
  check_error(api().step_plan(cache, &args, &step), KVANT_ERROR_RESOURCE_EXHAUSTED, "step_plan", "");
  CHECK(step == nullptr);
  CHECK(stats_of(cache).used_pages == before.used_pages);
  double rate = 4.0;
  check_error(api().device_measure_copy(session.device, 64u << 20, &rate), KVANT_ERROR_RESOURCE_EXHAUSTED,
              "device_measure_copy", "67108864");
  CHECK(rate == 4.0);
  api().step_abort(held);
  api().cache_destroy(other);
  api().cache_destroy(cache);
}
