#include "device_context.hpp"

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "quoted_text.hpp"

namespace kvant {
namespace {

// The option, else the environment's; a value that does not begin an object is the path of a file.
Result<std::string> override_text(const std::string& option) {
  std::string text = option;
  if (text.empty()) {
    const char* environment = std::getenv("KVANT_CAPABILITIES");
    if (environment != nullptr) text = environment;
  }
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos || text[first] == '{') return text;
  std::ifstream stream(text);
  std::stringstream content;
  content << stream.rdbuf();
  if (!stream) return Status(StatusCode::not_found, "the capability file (" + quoted_text(text) + ") cannot be read");
  return content.str();
}

std::string joined(const std::vector<std::string>& reasons) {
  std::string text;
  for (const std::string& reason : reasons) text += (text.empty() ? "" : ", ") + reason;
  return text;
}

}  // namespace

Status VulkanContext::plan_device(DeviceSnapshot snapshot, const DeviceOptions& options) {
  KVANT_ASSIGN(const std::string narrowing, override_text(options.capability_override));
  if (!narrowing.empty()) KVANT_TRY(narrow_snapshot(snapshot, narrowing));
  const char* environment = std::getenv("KVANT_QUIRKS");
  const std::string_view forced = !options.quirks.empty() ? std::string_view(options.quirks)
                                                          : std::string_view(environment != nullptr ? environment : "");
  KVANT_ASSIGN(plan_, make_device_plan(snapshot, forced));
  if (!plan_.usable() && !plan_.compile_only)
    return {StatusCode::unavailable, "device " + plan_.snapshot.name + " is not usable: " + joined(plan_.rejected)};
  return {};
}

PipelineList VulkanContext::load_pipelines(const DeviceOptions& options) {
  if (options.pipeline_cache_folder.empty() || !plan_.use_pipeline_blob) return {};
  blob_path_ = blob_path(options.pipeline_cache_folder, plan_.snapshot);
  const BlobLoad blob = load_blob(blob_path_, plan_.snapshot, shader_set_hash());
  blob_outcome_ = blob.outcome;
  std::optional<PipelineList> list;
  if (blob.outcome == BlobOutcome::hit) {
    list = decode_pipelines(blob.payload);
    if (!list) blob_outcome_ = BlobOutcome::corrupt;
  }
  const std::string ahead = list ? ", " + std::to_string(list->keys.size()) + " pipelines to compile ahead" : "";
  device_->log().write(LogLevel::info, "pipeline cache " + quoted_text(blob_path_, kMostPathBytes) + ": " +
                                           std::string(blob_outcome_name(blob_outcome_)) + ahead);
  return list ? std::move(*list) : PipelineList{};
}

Status VulkanContext::start(const DeviceOptions& options) {
  PipelineList list = load_pipelines(options);
  KVANT_ASSIGN(executor_, VulkanExecutor::create(*device_, plan_, options, list.driver_data));
  load_tuned_configs(options);
  if (blob_path_.empty()) return {};
  listed_ = std::move(list.keys);
  // The layer's messages would come on the warmer's thread, where the host expects no callback.
  if (!device_->validates()) warmer_ = std::make_unique<PipelineWarmer>(executor_->pipelines(), listed_);
  // Compiling takes seconds a pipeline on some drivers: a process that is killed must not lose minutes of it.
  blob_time_ = std::chrono::steady_clock::now();
  executor_->pipelines().set_compiled_callback([this, interval = std::chrono::seconds(options.pipeline_save_seconds)] {
    bool due = false;
    {
      const std::scoped_lock lock(blob_mutex_);
      due = std::chrono::steady_clock::now() - blob_time_ >= interval;
    }
    if (due) save_pipelines();
  });
  return {};
}

// Of the file that the environment names, else of the folder of pipelines.
void VulkanContext::load_tuned_configs(const DeviceOptions& options) {
  const char* environment = std::getenv("KVANT_TUNED");
  const std::string named = environment != nullptr ? environment : "";
  if (named == "off" || (named.empty() && options.pipeline_cache_folder.empty())) return;
  const std::string path = named.empty() ? tuned_path(options.pipeline_cache_folder, plan_.snapshot) : named;
  TunedLoad load = load_tuned(path, plan_.snapshot, shader_set_hash());
  const bool expected = named.empty() || load.outcome == BlobOutcome::hit;
  device_->log().write(expected ? LogLevel::info : LogLevel::warning,
                       "tuned configs " + quoted_text(path, kMostPathBytes) + ": " + std::string(blob_outcome_name(load.outcome)));
  executor_->set_tuned(std::move(load.configs));
}

Result<std::unique_ptr<DeviceContext>> VulkanContext::open(std::shared_ptr<InstanceHandle> instance,
                                                           VkPhysicalDevice physical, DeviceSnapshot snapshot,
                                                           const DeviceOptions& options) {
  std::unique_ptr<VulkanContext> context(new VulkanContext);
  KVANT_TRY(context->plan_device(std::move(snapshot), options));
  KVANT_ASSIGN(context->device_, Device::create(std::move(instance), physical, context->plan_));
  KVANT_TRY(context->start(options));
  return std::unique_ptr<DeviceContext>(std::move(context));
}

Result<std::unique_ptr<DeviceContext>> VulkanContext::borrow(std::shared_ptr<InstanceHandle> instance,
                                                             const BorrowedDevice& borrowed, DeviceSnapshot snapshot,
                                                             const DeviceOptions& options) {
  std::unique_ptr<VulkanContext> context(new VulkanContext);
  KVANT_TRY(context->plan_device(std::move(snapshot), options));
  DevicePlan& plan = context->plan_;
  const auto& families = plan.snapshot.queue_families;
  if (borrowed.queue_family >= families.size() || (families[borrowed.queue_family].flags & queue_compute) == 0) {
    return Status(StatusCode::invalid_argument, "queue family (" + std::to_string(borrowed.queue_family) +
                                                    ") of the borrowed device offers no compute");
  }
  plan.queue_family = borrowed.queue_family;
  plan.timestamps = plan.timestamps && families[borrowed.queue_family].timestamp_bits != 0;
  KVANT_ASSIGN(context->device_, Device::borrow(std::move(instance), borrowed));
  KVANT_TRY(context->start(options));
  return std::unique_ptr<DeviceContext>(std::move(context));
}

// Writes the pipelines, if there was need of others than the file lists. Keys alone: a driver that keeps no code gains from them too.
void VulkanContext::save_pipelines() {
  const std::scoped_lock lock(blob_mutex_);
  const PipelineCache& pipelines = executor_->pipelines();
  const std::uint64_t compiled = pipelines.compiled_on_need();
  if (blob_path_.empty() || device_->lost() || compiled == blob_saved_) return;
  Result<std::vector<std::byte>> data = pipelines.data();
  const auto save = [&] {
    const PipelineList list{merge_keys(pipelines.used(), listed_), std::move(data).value()};
    return save_blob(blob_path_, plan_.snapshot, shader_set_hash(), encode_pipelines(list));
  };
  const Status saved = data.ok() ? save() : data.status();
  if (saved.ok())
    blob_saved_ = compiled;
  else
    device_->log().write(LogLevel::warning, saved.message());
  blob_time_ = std::chrono::steady_clock::now();
}

VulkanContext::~VulkanContext() {
  if (!executor_) return;
  warmer_.reset();
  save_pipelines();
  executor_.reset();  // before the device
}

DeviceContext::TimelinePoint VulkanContext::timeline() const {
  return {executor_->timeline().semaphore_handle(), executor_->timeline().last_submitted()};
}

Result<std::vector<PipelineStatistic>> compile_statistics(DeviceContext& context, KernelId kernel,
                                                          const SpecValues& spec, std::uint32_t subgroup_size) {
  // Every DeviceContext that this library makes is a VulkanContext.
  auto* vulkan = dynamic_cast<VulkanContext*>(&context);
  if (vulkan == nullptr) return Status(StatusCode::unimplemented, "the device context does not compile pipelines");
  return vulkan->pipelines().statistics(kernel, spec, subgroup_size);
}

}  // namespace kvant
