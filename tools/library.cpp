// Search, dlopen and negotiation; one wrapper a call that the tools need.
#include "library.hpp"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

namespace kvant::tools {

namespace {

// Where an installed or a freshly built tree keeps the library, seen from the folder of this program.
std::vector<std::string> search_paths(const LibraryOptions& options) {
  if (!options.path.empty()) {
    return {options.path};
  }
  std::vector<std::string> paths;
  if (const char* from_environment = std::getenv("KVANT_LIBRARY")) {
    return {from_environment};
  }
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) {
    for (const char* folder : {".", "../lib", "../lib/x86_64-linux-gnu", "../lib64", "../plugin"}) {
      paths.push_back((program.parent_path() / folder / "libkvant.so").lexically_normal().string());
    }
  }
  paths.push_back("libkvant.so");
  return paths;
}

const char* text_or_empty(const char* text) { return text != nullptr ? text : ""; }

DeviceFacts to_facts(const kvant_device_info& info) {
  return {text_or_empty(info.name),
          text_or_empty(info.driver),
          info.type,
          info.api_version,
          info.memory_size,
          info.tier,
          info.usable != 0,
          text_or_empty(info.reasons),
          text_or_empty(info.json)};
}

}  // namespace

Outcome<std::shared_ptr<Library>> Library::open(const LibraryOptions& options) {
  void* module = nullptr;
  std::string tried;
  std::shared_ptr<Library> library(new Library);
  for (const std::string& path : search_paths(options)) {
    module = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (module != nullptr) {
      library->path_ = path;
      break;
    }
    const char* why = dlerror();
    tried += "\n  " + std::string(why != nullptr ? why : path.c_str());
  }
  if (module == nullptr) {
    return Failure{"libkvant.so cannot be opened (name it with --library or KVANT_LIBRARY):" + tried, Exit::kNoLibrary};
  }
  // The library stays loaded for the life of the process: nothing is gained by closing it.
  const auto get_api = reinterpret_cast<kvant_get_api_fn>(dlsym(module, "kvant_get_api"));
  if (get_api == nullptr) {
    return Failure{library->path_ + " does not export kvant_get_api", Exit::kNoLibrary};
  }
  uint32_t library_version = 0;
  library->api_ = get_api(KVANT_VERSION, &library_version);
  if (library->api_ == nullptr || library->api_->struct_size < sizeof(kvant_api)) {
    return Failure{library->path_ + " speaks version " + std::to_string(library_version >> 16) + "." +
                       std::to_string(library_version & 0xFFFF) + ", this program needs " +
                       std::to_string(KVANT_VERSION >> 16) + "." + std::to_string(KVANT_VERSION & 0xFFFF),
                   Exit::kNoLibrary};
  }
  kvant_context_args args{};
  args.struct_size = sizeof(args);
  args.user_data = library.get();
  args.log = &Library::on_log;
  args.log_level = options.verbose ? KVANT_LOG_DEBUG : KVANT_LOG_WARNING;
  args.enable_validation = options.validation ? 1 : 0;
  KVANT_TRY(library->check(library->api_->context_create(&args, &library->context_)));

  library->manager_ =
      static_cast<const kvant_ext_manager*>(library->api_->get_extension(library->context_, KVANT_EXT_MANAGER));

  kvant_build_info build{};
  build.struct_size = sizeof(build);
  KVANT_TRY(library->check(library->api_->get_build_info(&build)));
  library->commit_ = text_or_empty(build.commit);
  uint32_t count = 0;
  KVANT_TRY(library->check(library->api_->format_count(library->context_, &count)));
  for (uint32_t id = 0; id < count; ++id) {
    kvant_format_info info{};
    info.struct_size = sizeof(info);
    KVANT_TRY(library->check(library->api_->format_info(library->context_, id, &info)));
    library->formats_.push_back({id, info.name, info.block_elements, info.block_bytes, info.bits_per_element});
  }
  return library;
}

Library::~Library() {
  if (context_ != nullptr) {
    api_->context_destroy(context_);
  }
}

void Library::on_log(void* user_data, uint32_t level, const char* message, size_t size) {
  static const char* const kLevels[] = {"debug", "info", "warning", "error", "host misbehaving", "plugin misbehaving"};
  if (level >= KVANT_LOG_HOST_MISBEHAVING) {
    ++static_cast<Library*>(user_data)->misbehaviours_;
  }
  std::fprintf(stderr, "kvant %s: %.*s\n", level <= 5 ? kLevels[level] : "log", static_cast<int>(size), message);
}

Outcome<void> Library::check(kvant_error* error) const {
  if (error == nullptr) {
    return {};
  }
  Failure failure{std::string(api_->error_source(error)) + ": " + api_->error_message(error), Exit::kFailed};
  api_->error_free(error);
  return failure;
}

Outcome<FormatFacts> Library::format(const std::string& name) const {
  std::string known;
  for (const FormatFacts& facts : formats_) {
    if (facts.name == name) {
      return facts;
    }
    known += (known.empty() ? "" : ", ") + facts.name;
  }
  return Failure{"the format (" + name + ") is none of " + known, Exit::kUsage};
}

Outcome<uint32_t> Library::device_count() const {
  uint32_t count = 0;
  KVANT_TRY(check(api_->device_count(context_, &count)));
  return count;
}

Outcome<DeviceFacts> Library::device_info(uint32_t index) const {
  kvant_device_info info{};
  info.struct_size = sizeof(info);
  KVANT_TRY(check(api_->device_info(context_, index, &info)));
  return to_facts(info);
}

Outcome<std::shared_ptr<Device>> Device::open(std::shared_ptr<Library> library, const DeviceOptions& options) {
  const auto no_device = [](Failure failure) {
    failure.exit = Exit::kNoDevice;
    return failure;
  };
  std::shared_ptr<Device> device(new Device);
  device->library_ = std::move(library);
  kvant_device_args args{};
  args.struct_size = sizeof(args);
  args.device_index = options.index < 0 ? KVANT_DEVICE_BEST : static_cast<uint32_t>(options.index);
  args.enable_profiling = options.profiling ? 1 : 0;
  args.capability_override = options.capabilities.empty() ? nullptr : options.capabilities.c_str();
  args.quirks = options.quirks.empty() ? nullptr : options.quirks.c_str();
  args.pipeline_cache_folder = options.pipeline_cache_folder.empty() ? nullptr : options.pipeline_cache_folder.c_str();
  const Library& lib = *device->library_;
  if (auto opened = lib.check(lib.api().device_open(lib.context(), &args, &device->handle_)); !opened.ok()) {
    return no_device(opened.failure());
  }
  device->profiling_ = options.profiling;
  kvant_device_info info{};
  info.struct_size = sizeof(info);
  KVANT_TRY(lib.check(lib.api().device_describe(device->handle_, &info)));
  device->facts_ = to_facts(info);
  return device;
}

Device::~Device() {
  if (handle_ != nullptr) {
    api().device_close(handle_);
  }
}

std::vector<ProfileEntry> Device::take_profile() {
  std::vector<ProfileEntry> result;
  uint32_t count = 0;
  if (!profiling_ || !check(api().device_profile(handle_, &count)).ok()) {
    return result;
  }
  for (uint32_t index = 0; index < count; ++index) {
    kvant_profile_entry entry{};
    entry.struct_size = sizeof(entry);
    if (check(api().device_profile_entry(handle_, index, &entry)).ok()) {
      result.push_back({entry.label, entry.count, entry.microseconds});
    }
  }
  return result;
}

Outcome<double> Device::measure_copy(uint64_t size) {
  double bytes_per_second = 0;
  KVANT_TRY(check(api().device_measure_copy(handle_, size, &bytes_per_second)));
  return bytes_per_second;
}

Outcome<std::shared_ptr<Cache>> Cache::create(std::shared_ptr<Device> device, const CacheShape& shape) {
  std::shared_ptr<Cache> cache(new Cache);
  cache->device_ = std::move(device);
  cache->shape_ = shape;
  kvant_layer_args layer{};
  layer.struct_size = sizeof(layer);
  layer.kv_heads = shape.kv_heads;
  layer.head_dim_k = shape.head_dim;
  layer.format_k = shape.format_k;
  layer.transform_k = shape.transform_k;
  layer.transform_v = shape.transform_v;
  layer.format_v = shape.format_v;
  std::vector<kvant_layer_args> layers(shape.layers, layer);
  if (!shape.by_layer.empty() && shape.by_layer.size() != shape.layers) {
    return Failure{"a plan for " + std::to_string(shape.by_layer.size()) + " layers does not fit a model of " + std::to_string(shape.layers),
                   Exit::kUsage};
  }
  for (size_t i = 0; i < shape.by_layer.size(); ++i) {
    layers[i].format_k = shape.by_layer[i].format_k;
    layers[i].format_v = shape.by_layer[i].format_v;
    layers[i].transform_k = shape.by_layer[i].transform_k;
    layers[i].transform_v = shape.by_layer[i].transform_v;
  }
  kvant_cache_args args{};
  args.struct_size = sizeof(args);
  args.layer_count = shape.layers;
  args.layers = layers.data();
  args.capacity_tokens = shape.capacity_tokens;
  args.page_tokens = shape.page_tokens;
  args.slab_bytes = shape.slab_bytes;
  if (shape.prefixes) {
    args.flags |= KVANT_CACHE_PREFIXES;
    args.model_id = shape.model_id.c_str();
  }
  if (shape.mass) {
    args.flags |= KVANT_CACHE_MASS;
  }
  if (shape.protect != 0) {
    args.protect_sides = shape.protect;
    args.protect_first = kProtectFirst;
    args.protect_newest = kProtectNewest;
    args.protect_tokens = shape.capacity_tokens;
  }
  KVANT_TRY(cache->check(cache->api().cache_create(cache->device_->handle(), &args, &cache->handle_)));
  for (uint32_t i = 0; i < shape.by_layer.size(); ++i) {
    KVANT_TRY(cache->memory_weight(i, KVANT_SIDE_K, shape.by_layer[i].weight_k));
    KVANT_TRY(cache->memory_weight(i, KVANT_SIDE_V, shape.by_layer[i].weight_v));
  }
  return cache;
}

Cache::~Cache() {
  if (handle_ != nullptr) {
    api().cache_destroy(handle_);
  }
}

Outcome<kvant_sequence> Cache::create_sequence() {
  kvant_sequence sequence = 0;
  KVANT_TRY(check(api().sequence_create(handle_, &sequence)));
  return sequence;
}

Outcome<kvant_cache_stats> Cache::stats() {
  kvant_cache_stats stats{};
  stats.struct_size = sizeof(stats);
  KVANT_TRY(check(api().cache_stats(handle_, &stats)));
  return stats;
}

Outcome<kvant_prefix_stats> Cache::prefix_stats() {
  kvant_prefix_stats stats{};
  stats.struct_size = sizeof(stats);
  KVANT_TRY(check(api().prefix_stats(handle_, &stats)));
  return stats;
}

Outcome<void> Cache::clear_prefixes() {
  uint64_t pages = 0;
  return check(api().prefix_clear(handle_, &pages));
}

Outcome<const kvant_ext_manager*> Cache::manager() const {
  const kvant_ext_manager* const manager = device_->library()->manager();
  if (manager == nullptr || manager->struct_size < sizeof(kvant_ext_manager)) {
    return Failure{device_->library()->path() + " has no " KVANT_EXT_MANAGER " as this program needs it",
                   Exit::kNoLibrary};
  }
  return manager;
}

namespace {

kvant_memory_args memory_args(uint64_t limit_bytes, const MemoryRules& rules) {
  kvant_memory_args args{};
  args.struct_size = sizeof(args);
  args.limit_bytes = limit_bytes;
  args.formats = rules.formats.empty() ? nullptr : rules.formats.data();
  args.format_count = static_cast<uint32_t>(rules.formats.size());
  args.flags = rules.prune ? KVANT_MEMORY_PRUNE : 0;
  args.sinks = rules.sinks;
  args.recent = rules.recent;
  return args;
}

}  // namespace

Outcome<MemoryPlan> Cache::memory_plan(uint64_t limit_bytes, const MemoryRules& rules) {
  const auto extension = manager();
  if (!extension.ok()) {
    return extension.failure();
  }
  const kvant_memory_args args = memory_args(limit_bytes, rules);
  const char* text = nullptr;
  kvant_error* const error = (*extension)->memory_plan(handle_, &args, &text);
  const bool impossible = api().error_code(error) == KVANT_ERROR_RESOURCE_EXHAUSTED;
  if (const auto checked = check(error); impossible) {
    return MemoryPlan{false, checked.failure().message};
  } else if (!checked.ok()) {
    return checked.failure();
  }
  return MemoryPlan{true, text_or_empty(text)};
}

Outcome<void> Cache::memory_limit(uint64_t limit_bytes, const MemoryRules& rules) {
  const auto extension = manager();
  if (!extension.ok()) {
    return extension.failure();
  }
  const kvant_memory_args args = memory_args(limit_bytes, rules);
  return check((*extension)->memory_limit(handle_, &args));
}

Outcome<void> Cache::memory_weight(uint32_t layer, uint32_t side, double weight) {
  const auto extension = manager();
  if (!extension.ok()) {
    return extension.failure();
  }
  return check((*extension)->memory_weight(handle_, layer, side, weight));
}

Outcome<std::optional<uint64_t>> Cache::cool(uint64_t target_bytes, const std::vector<uint32_t>& formats) {
  const auto extension = manager();
  if (!extension.ok()) {
    return extension.failure();
  }
  kvant_cool_args args{};
  args.struct_size = sizeof(args);
  args.target_bytes = target_bytes;
  args.formats = formats.data();
  args.format_count = static_cast<uint32_t>(formats.size());
  uint64_t pages = 0;
  kvant_error* const error = (*extension)->cache_cool(handle_, &args, &pages);
  const bool impossible = api().error_code(error) == KVANT_ERROR_RESOURCE_EXHAUSTED;
  if (const auto checked = check(error); !checked.ok() && !impossible) {
    return checked.failure();
  }
  return impossible ? std::optional<uint64_t>() : std::optional<uint64_t>(pages);
}

kvant_tensor float_tensor(const float* data, uint64_t elements) {
  kvant_tensor tensor{};
  tensor.struct_size = sizeof(tensor);
  // The table's tensors serve for input and output alike, hence not const; inputs are only read.
  tensor.data = const_cast<float*>(data);
  tensor.size = elements * sizeof(float);
  tensor.type = KVANT_TYPE_F32;
  return tensor;
}

}  // namespace kvant::tools
