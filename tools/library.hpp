// The plugin as the tools use it: libkvant.so opened at run time, its errors as readable failures, its handles as
// owners.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <kvant/kvant.h>
#include <kvant/kvant_ext_manager.h>

#include "outcome.hpp"

namespace kvant::tools {

struct LibraryOptions {
  std::string path;         // of libkvant.so; empty: search
  bool verbose = false;     // the library's information messages too
  bool validation = false;  // Vulkan validation layers
};

struct DeviceOptions {
  int index = -1;  // as `kvant info` numbers them; -1: the best
  bool profiling = false;
  std::string capabilities;  // JSON that narrows the device
  std::string quirks;
  std::string pipeline_cache_folder;
};

struct FormatFacts {
  uint32_t id = 0;
  std::string name;
  uint32_t block_elements = 0;
  uint32_t block_bytes = 0;
  double bits_per_element = 0;
};

struct DeviceFacts {
  std::string name;
  std::string driver;
  uint32_t type = 0;
  uint32_t api_version = 0;
  uint64_t memory_size = 0;
  uint32_t tier = 0;
  bool usable = false;
  std::string reasons;
  std::string json;
};

// The loaded library with its context. Objects made from it keep it alive.
class Library {
 public:
  static Outcome<std::shared_ptr<Library>> open(const LibraryOptions& options);
  ~Library();
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  const kvant_api& api() const { return *api_; }
  // The manager extension; null where the library has none.
  const kvant_ext_manager* manager() const { return manager_; }
  kvant_context* context() const { return context_; }
  const std::string& path() const { return path_; }
  // The commit that the library was built from; figures name it.
  const std::string& commit() const { return commit_; }

  // Consumes the error.
  Outcome<void> check(kvant_error* error) const;

  const std::vector<FormatFacts>& formats() const { return formats_; }
  Outcome<FormatFacts> format(const std::string& name) const;
  Outcome<uint32_t> device_count() const;
  Outcome<DeviceFacts> device_info(uint32_t index) const;
  // Messages by which the library blamed itself or the Vulkan layers blamed it.
  uint64_t misbehaviour_count() const { return misbehaviours_; }

 private:
  Library() = default;
  static void on_log(void* user_data, uint32_t level, const char* message, size_t size);

  const kvant_api* api_ = nullptr;
  const kvant_ext_manager* manager_ = nullptr;
  kvant_context* context_ = nullptr;
  std::string path_;
  std::string commit_;
  std::vector<FormatFacts> formats_;
  uint64_t misbehaviours_ = 0;
};

struct ProfileEntry {
  std::string label;
  uint64_t count = 0;
  double microseconds = 0;
};

class Device {
 public:
  static Outcome<std::shared_ptr<Device>> open(std::shared_ptr<Library> library, const DeviceOptions& options);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  kvant_device* handle() const { return handle_; }
  const std::shared_ptr<Library>& library() const { return library_; }
  const kvant_api& api() const { return library_->api(); }
  Outcome<void> check(kvant_error* error) const { return library_->check(error); }
  const DeviceFacts& facts() const { return facts_; }

  // Device time by label since the last call; empty where the device was opened without profiling.
  std::vector<ProfileEntry> take_profile();
  Outcome<double> measure_copy(uint64_t size);

 private:
  Device() = default;
  std::shared_ptr<Library> library_;
  kvant_device* handle_ = nullptr;
  DeviceFacts facts_;
  bool profiling_ = false;
};

// One layer's formats and how rows lie in pages (KVANT_TRANSFORM_*), and how much its sides mind being narrowed (memory_weight).
struct LayerFormats {
  uint32_t format_k = 0;
  uint32_t format_v = 0;
  uint32_t transform_k = 0;
  uint32_t transform_v = 0;
  double weight_k = 1;
  double weight_v = 1;
};

struct CacheShape {
  uint32_t layers = 1;
  uint32_t kv_heads = 1;
  uint32_t head_dim = 64;
  uint32_t format_k = 0;
  uint32_t format_v = 0;
  uint64_t capacity_tokens = 0;
  uint32_t page_tokens = 0;   // 0: the library's choice
  uint64_t slab_bytes = 0;    // likewise
  bool prefixes = false;      // with a prefix cache,
  std::string model_id = {};  // whose keys name the model
  bool mass = false;          // with room for attention mass
  uint32_t transform_k = 0;   // KVANT_TRANSFORM_*: how rows lie in pages
  uint32_t transform_v = 0;
  uint32_t protect = 0;       // KVANT_PROTECT_*: sides whose first and newest tokens are f16
  std::vector<LayerFormats> by_layer = {};  // instead of these, if not empty: one a layer
};

// Tokens that a protected side keeps in f16 here (docs/protection.md).
inline constexpr uint32_t kProtectFirst = 4;
inline constexpr uint32_t kProtectNewest = 64;

// What a memory limit may do.
struct MemoryRules {
  std::vector<uint32_t> formats;  // that sides may become, from wide to narrow; empty: the library's own
  bool prune = false;             // sequences may lose tokens, but for
  uint32_t sinks = 0;             // their first and
  uint32_t recent = 0;            // last ones; 0: the library's choice
};

struct MemoryPlan {
  bool possible = false;
  std::string text;  // the plan, or why the limit cannot be met
};

class Cache {
 public:
  static Outcome<std::shared_ptr<Cache>> create(std::shared_ptr<Device> device, const CacheShape& shape);
  ~Cache();
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;

  kvant_cache* handle() const { return handle_; }
  const std::shared_ptr<Device>& device() const { return device_; }
  const kvant_api& api() const { return device_->api(); }
  Outcome<void> check(kvant_error* error) const { return device_->check(error); }
  const CacheShape& shape() const { return shape_; }

  Outcome<kvant_sequence> create_sequence();
  Outcome<kvant_cache_stats> stats();
  Outcome<kvant_prefix_stats> prefix_stats();

  // Lets go what no sequence holds.
  Outcome<void> clear_prefixes();

  // The manager extension, as long as this program needs it.
  Outcome<const kvant_ext_manager*> manager() const;
  // Through it: what a limit would do, and doing it.
  Outcome<MemoryPlan> memory_plan(uint64_t limit_bytes, const MemoryRules& rules);
  Outcome<void> memory_limit(uint64_t limit_bytes, const MemoryRules& rules);
  Outcome<void> memory_weight(uint32_t layer, uint32_t side, double weight);
  // V of the lightest pages becomes these formats until the cache takes at most `target_bytes`: how many pages, or nothing where that
  // cannot be met.
  Outcome<std::optional<uint64_t>> cool(uint64_t target_bytes, const std::vector<uint32_t>& formats);

 private:
  Cache() = default;
  std::shared_ptr<Device> device_;
  kvant_cache* handle_ = nullptr;
  CacheShape shape_;
};

// A host tensor of floats for one call.
kvant_tensor float_tensor(const float* data, uint64_t elements);

}  // namespace kvant::tools
