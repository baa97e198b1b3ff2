// 100 rounds of load, create, work, destroy, unload: what a process has besides memory is as before, and its memory does not grow
// round by round. Both of the library's copies at once, too, each with its own devices.
#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>

#include <kvant/kvant_ext_manager.h>

#include "library.hpp"

using namespace abi_test;

namespace {

std::size_t entries_of(const char* folder) {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder)) ++count;
  return count;
}

struct Holdings {
  std::size_t descriptors = 0, threads = 0, mappings = 0;
  std::uint64_t resident = 0;  // bytes
};

Holdings holdings() {
  Holdings now;
  now.descriptors = entries_of("/proc/self/fd");
  now.threads = entries_of("/proc/self/task");
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) ++now.mappings;
  std::uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages >> pages;
  now.resident = pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  return now;
}

struct Loaded {
  void* handle = nullptr;
  const kvant_api* table = nullptr;
  explicit Loaded(const std::string& path) : handle(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    REQUIRE_MESSAGE(handle != nullptr, dlerror());
    const auto get_api = reinterpret_cast<kvant_get_api_fn>(dlsym(handle, "kvant_get_api"));
    REQUIRE((get_api != nullptr));
    table = get_api(KVANT_VERSION, nullptr);
    REQUIRE(table != nullptr);
  }
  ~Loaded() { dlclose(handle); }
  Loaded(const Loaded&) = delete;
  Loaded& operator=(const Loaded&) = delete;

  void good(kvant_error* error) const {
    const Outcome outcome = take(error, *table);
    REQUIRE_MESSAGE(outcome.code == 0, outcome.source, ": ", outcome.message);
  }
};

constexpr std::uint32_t kTokens = 32, kDim = 32;

// A saved state and the bytes of its keys. Loading it takes copies only: no round compiles a kernel.
struct Saved {
  std::string state, keys;
  std::size_t at = 0;

  static kvant_state_stream stream(Saved& saved) {
    auto made = make<kvant_state_stream>();
    made.user_data = &saved;
    made.write = [](void* self, const void* data, std::uint64_t size) {
      static_cast<Saved*>(self)->state.append(static_cast<const char*>(data), size);
      return std::uint32_t{1};
    };
    made.read = [](void* self, void* out, std::uint64_t size) {
      auto& from = *static_cast<Saved*>(self);
      const std::uint64_t count = std::min<std::uint64_t>(size, from.state.size() - from.at);
      std::memcpy(out, from.state.data() + from.at, count);
      from.at += count;
      return count;
    };
    return made;
  }
};

const kvant_ext_manager& manager_of(const kvant_api& table, kvant_context* context) {
  const auto* manager = static_cast<const kvant_ext_manager*>(table.get_extension(context, KVANT_EXT_MANAGER));
  REQUIRE(manager != nullptr);
  return *manager;
}

kvant_cache_args cache_args(kvant_layer_args& layer) {
  layer = make<kvant_layer_args>();
  layer.kv_heads = 1;
  layer.head_dim_k = kDim;
  auto args = make<kvant_cache_args>();
  args.layer_count = 1;
  args.layers = &layer;
  args.capacity_tokens = 4096;
  args.flags = KVANT_CACHE_PREFIXES;
  return args;
}

// Empty where there is no device.
Saved make_saved() {
  Saved saved;
  const Session& session = shared_session();
  if (!session.has_device()) return saved;
  kvant_layer_args layer;
  const kvant_cache_args args = cache_args(layer);
  kvant_cache* cache = nullptr;
  require_ok(api().cache_create(session.device, &args, &cache));
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  StepData data;
  data.k = random_floats(kTokens * kDim, 1);
  data.v = random_floats(kTokens * kDim, 2);
  run_step(cache, 1, sequence, kTokens, 0, data);
  saved.keys.resize(kTokens * kDim * sizeof(float));
  require_ok(api().sequence_export(cache, sequence, 0, KVANT_SIDE_K, 0, kTokens, saved.keys.data(), saved.keys.size()));
  auto what = make<kvant_state_args>();
  what.flags = KVANT_STATE_ALL_SEQUENCES;
  const kvant_state_stream stream = Saved::stream(saved);
  require_ok(manager_of(api(), session.context).state_save(cache, &what, &stream));
  api().cache_destroy(cache);
  return saved;
}

// A context, a device, a cache with a tier's thread, a state loaded and read back; all of it destroyed.
void session_of(const Loaded& library, Saved saved) {
  const kvant_api& table = *library.table;
  kvant_context* context = nullptr;
  library.good(table.context_create(nullptr, &context));
  const kvant_ext_manager& manager = manager_of(table, context);
  kvant_device* device = nullptr;
  library.good(table.device_open(context, nullptr, &device));
  kvant_layer_args layer;
  const kvant_cache_args args = cache_args(layer);
  kvant_cache* cache = nullptr;
  library.good(table.cache_create(device, &args, &cache));
  auto tier = make<kvant_tier_args>();
  tier.kind = KVANT_TIER_HOST;
  tier.capacity_bytes = 1u << 20;
  auto tiers = make<kvant_tiers_args>();
  tiers.tier_count = 1;
  tiers.tiers = &tier;
  library.good(manager.tiers_set(cache, &tiers));
  const kvant_state_stream stream = Saved::stream(saved);
  std::uint32_t loaded = 0;
  library.good(manager.state_load(cache, &stream, &loaded));
  REQUIRE(loaded == 1);
  std::uint64_t before = 0;
  kvant_sequence sequence = 0;
  library.good(manager.state_loaded(cache, 0, &before, &sequence));
  std::string keys(saved.keys.size(), 'x');
  library.good(table.sequence_export(cache, sequence, 0, KVANT_SIDE_K, 0, kTokens, keys.data(), keys.size()));
  CHECK(keys == saved.keys);
  table.cache_destroy(cache);
  table.device_close(device);
  table.context_destroy(context);
}

std::string copied_library(const char* name) {
  const auto copy = std::filesystem::temp_directory_path() / (std::string(name) + std::to_string(getpid()) + ".so");
  std::filesystem::copy_file(library_path(), copy, std::filesystem::copy_options::overwrite_existing);
  return copy.string();
}

}  // namespace

TEST_CASE("lifecycle: 100 rounds leave no descriptor, no thread, no mapping, and no memory that grows") {
  auto facts = make<kvant_build_info>();
  require_ok(api().get_build_info(&facts));
  const bool sanitized = std::string(facts.sanitizers) != "";
  const Saved saved = make_saved();
  if (saved.state.empty()) return;
  constexpr int kRounds = 100, kWarm = 20;
  constexpr int kRoundsWithDevice = 10;  // one round in so many
  Holdings before;
  for (int round = 0; round < kWarm + kRounds; ++round) {
    if (round == kWarm) before = holdings();
    const Loaded library(library_path());
    if (round % kRoundsWithDevice == 0) {
      session_of(library, saved);
    } else {
      kvant_context* context = nullptr;
      std::uint32_t count = 0;
      library.good(library.table->context_create(nullptr, &context));
      library.good(library.table->device_count(context, &count));
      library.table->context_destroy(context);
    }
  }
  const Holdings after = holdings();
  CHECK(after.descriptors == before.descriptors);
  CHECK(after.threads == before.threads);
  MESSAGE("mappings " << before.mappings << " -> " << after.mappings << ", resident " << before.resident << " -> " << after.resident);
  // Drivers and allocators keep some; a round's session would be several times that, a hundred of them far beyond it.
  constexpr std::uint64_t kMayKeep = 16u << 20;
  if (!sanitized) CHECK(after.resident < before.resident + kMayKeep);
  if (!sanitized) CHECK(after.mappings < before.mappings + 64);
}

TEST_CASE("lifecycle: two copies at once, sessions on two threads, and the other goes on when one is unloaded") {
  const Saved saved = make_saved();
  if (saved.state.empty()) return;
  const std::string path = copied_library("libkvant_second_");
  {
    const Loaded first(library_path());
    auto second = std::make_unique<Loaded>(path);
    std::filesystem::remove(path);
    CHECK(first.table != second->table);
    std::thread other([&] {
      for (int i = 0; i < 3; ++i) session_of(*second, saved);
    });
    for (int i = 0; i < 3; ++i) session_of(first, saved);
    other.join();
    second.reset();
    session_of(first, saved);
  }
  session_of(Loaded(library_path()), saved);
}

#if defined(__GLIBC__)
// A loader's namespace of its own: nothing of the first copy is seen there, not even the C library.
TEST_CASE("lifecycle: a copy in another linker namespace answers") {
  auto facts = make<kvant_build_info>();
  require_ok(api().get_build_info(&facts));
  if (std::string(facts.sanitizers) != "") return;  // sanitizers' own runtimes do not come twice
  void* handle = dlmopen(LM_ID_NEWLM, library_path().c_str(), RTLD_NOW | RTLD_LOCAL);
  REQUIRE_MESSAGE(handle != nullptr, dlerror());
  const auto get_api = reinterpret_cast<kvant_get_api_fn>(dlsym(handle, "kvant_get_api"));
  REQUIRE((get_api != nullptr));
  std::uint32_t version = 0;
  const kvant_api* table = get_api(KVANT_VERSION, &version);
  REQUIRE(table != nullptr);
  CHECK(table != &api());
  CHECK(version == KVANT_VERSION);
  auto other = make<kvant_build_info>();
  CHECK(table->get_build_info(&other) == nullptr);
  CHECK(std::string(other.shader_set) == facts.shader_set);
  CHECK(other.shader_set != facts.shader_set);  // its own text
  std::uint32_t count = 5;
  kvant_error* error = table->format_count(nullptr, &count);
  CHECK(table->error_code(error) == KVANT_ERROR_INVALID_ARGUMENT);
  table->error_free(error);
  CHECK(count == 5);
}
#endif
