#include "pipeline_cache.hpp"

#include <algorithm>
#include <chrono>

#include "module_prune.hpp"
#include "rollback.hpp"

namespace kvant {
namespace {

std::string kernel_name(KernelId kernel) { return std::string(kernel_info(kernel).name); }

}  // namespace

Result<std::unique_ptr<PipelineCache>> PipelineCache::create(Device& device, const DevicePlan& plan,
                                                             std::span<const std::byte> initial_data) {
  std::unique_ptr<PipelineCache> cache(new PipelineCache(device, plan));
  const DeviceFunctions& vk = device.vk();

  std::array<VkDescriptorSetLayoutBinding, kMaxBindings> bindings{};
  for (std::uint32_t i = 0; i < kMaxBindings; ++i)
    bindings[i] = {i, VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 1, VK_SHADER_STAGE_COMPUTE_BIT, nullptr};
  VkDescriptorSetLayoutCreateInfo set_info{};
  set_info.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO;
  set_info.bindingCount = kMaxBindings;
  set_info.pBindings = bindings.data();
  VkResult result = vk.vkCreateDescriptorSetLayout(device.handle(), &set_info, nullptr, &cache->set_layout_);
  if (result != VK_SUCCESS) return vk_status(device.note(result), "creating the descriptor set layout");

  const VkPushConstantRange push{VK_SHADER_STAGE_COMPUTE_BIT, 0, kMaxPushBytes};
  VkPipelineLayoutCreateInfo layout_info{};
  layout_info.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO;
  layout_info.setLayoutCount = 1;
  layout_info.pSetLayouts = &cache->set_layout_;
  layout_info.pushConstantRangeCount = 1;
  layout_info.pPushConstantRanges = &push;
  result = vk.vkCreatePipelineLayout(device.handle(), &layout_info, nullptr, &cache->layout_);
  if (result != VK_SUCCESS) return vk_status(device.note(result), "creating the pipeline layout");

  VkPipelineCacheCreateInfo cache_info{};
  cache_info.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO;
  cache_info.initialDataSize = initial_data.size();
  cache_info.pInitialData = initial_data.data();
  result = vk.vkCreatePipelineCache(device.handle(), &cache_info, nullptr, &cache->cache_);
  if (result != VK_SUCCESS) return vk_status(device.note(result), "creating the pipeline cache");
  return cache;
}

PipelineCache::~PipelineCache() {
  const DeviceFunctions& vk = device_.vk();
  for (const auto& [key, place] : pipelines_) vk.vkDestroyPipeline(device_.handle(), place.pipeline, nullptr);
  vk.vkDestroyPipelineCache(device_.handle(), cache_, nullptr);
  vk.vkDestroyPipelineLayout(device_.handle(), layout_, nullptr);
  vk.vkDestroyDescriptorSetLayout(device_.handle(), set_layout_, nullptr);
}

Status PipelineCache::check(const PipelineKey& key) const {
  const KernelInfo& info = kernel_info(key.kernel);
  if (info.spirv.empty())
    return {StatusCode::unimplemented, "kernel " + std::string(info.name) + " is not part of this build"};
  if (!kernel_available(key.kernel, plan_))
    return {StatusCode::unimplemented,
            "kernel " + std::string(info.name) + " needs capabilities that the device lacks"};
  const std::uint32_t local_size = key.spec[KVANT_SPEC_LOCAL_SIZE];
  const std::uint32_t most = std::min(plan_.snapshot.max_invocations, plan_.snapshot.max_local_size[0]);
  if ((info.spec_mask & 1U << KVANT_SPEC_LOCAL_SIZE) != 0 && (local_size == 0 || local_size > most)) {
    return {StatusCode::invalid_argument, "local size (" + std::to_string(local_size) + ") of kernel " +
                                              std::string(info.name) + " is not between 1 and " + std::to_string(most)};
  }
  if (key.subgroup_size != 0 &&
      (key.subgroup_size < plan_.snapshot.subgroup_min_size || key.subgroup_size > plan_.snapshot.subgroup_max_size)) {
    return {StatusCode::invalid_argument, "subgroup size (" + std::to_string(key.subgroup_size) + ") of kernel " +
                                              std::string(info.name) + " is not between " +
                                              std::to_string(plan_.snapshot.subgroup_min_size) + " and " +
                                              std::to_string(plan_.snapshot.subgroup_max_size)};
  }
  return {};
}

// Of this pipeline alone: without what its constants rule out.
Result<VkShaderModule> PipelineCache::make_module(const PipelineKey& key) const {
  const KernelInfo& info = kernel_info(key.kernel);
  const std::vector<std::uint32_t> words = prune_module(info.spirv, key.spec);
  VkShaderModuleCreateInfo module_info{};
  module_info.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO;
  module_info.codeSize = words.size() * sizeof(std::uint32_t);
  module_info.pCode = words.data();
  VkShaderModule created = VK_NULL_HANDLE;
  const VkResult result =
      device_.note(device_.vk().vkCreateShaderModule(device_.handle(), &module_info, nullptr, &created));
  if (result != VK_SUCCESS) return vk_status(result, "creating the shader module of kernel " + kernel_name(key.kernel));
  return created;
}

Result<VkPipeline> PipelineCache::compile(const PipelineKey& key, VkPipelineCreateFlags flags) {
  KVANT_TRY(check(key));
  KVANT_ASSIGN(const VkShaderModule shader, make_module(key));
  const Rollback release([&] { device_.vk().vkDestroyShaderModule(device_.handle(), shader, nullptr); });
  const KernelInfo& info = kernel_info(key.kernel);

  std::array<VkSpecializationMapEntry, KVANT_SPEC_COUNT> entries{};
  std::uint32_t entry_count = 0;
  for (std::uint32_t id = 0; id < KVANT_SPEC_COUNT; ++id) {
    if ((info.spec_mask >> id & 1U) != 0)
      entries[entry_count++] = {id, id * static_cast<std::uint32_t>(sizeof(std::uint32_t)), sizeof(std::uint32_t)};
  }
  const VkSpecializationInfo specialization{entry_count, entries.data(), sizeof(key.spec), key.spec.data()};

  VkComputePipelineCreateInfo create{};
  create.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO;
  create.flags = flags;
  create.layout = layout_;
  create.stage.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO;
  create.stage.stage = VK_SHADER_STAGE_COMPUTE_BIT;
  create.stage.module = shader;
  create.stage.pName = "main";
  create.stage.pSpecializationInfo = &specialization;
  VkPipelineShaderStageRequiredSubgroupSizeCreateInfo required{};
  if (key.subgroup_size != 0) {
    required.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO;
    required.requiredSubgroupSize = key.subgroup_size;
    create.stage.pNext = &required;
    // Without full subgroups some drivers run the last lanes of a workgroup in a partly filled subgroup.
    if (plan_.features.compute_full_subgroups && key.spec[KVANT_SPEC_LOCAL_SIZE] % key.subgroup_size == 0)
      create.stage.flags |= VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT;
  }
  VkPipeline pipeline = VK_NULL_HANDLE;
  const VkResult result =
      device_.note(device_.vk().vkCreateComputePipelines(device_.handle(), cache_, 1, &create, nullptr, &pipeline));
  if (result != VK_SUCCESS) return vk_status(result, "compiling kernel " + std::string(info.name));
  return pipeline;
}

Result<VkPipeline> PipelineCache::fill_place(const PipelineKey& key) {
  VkPipeline pipeline = VK_NULL_HANDLE;
  const Rollback settle([&] {
    const std::scoped_lock lock(mutex_);
    const auto place = pipelines_.find(key);
    if (pipeline != VK_NULL_HANDLE) {
      place->second.pipeline = pipeline;
      ++compiled_;
    } else {
      pipelines_.erase(place);
    }
    done_.notify_all();
  });
  KVANT_ASSIGN(pipeline, compile(key, 0));
  return pipeline;
}

Result<VkPipeline> PipelineCache::get(KernelId kernel, const SpecValues& spec) {
  const PipelineKey key = make_pipeline_key(kernel, spec, plan_.require_subgroup_size);
  const auto begin = std::chrono::steady_clock::now();
  const auto use = [&](Place& place) {
    if (!place.used) used_.push_back(make_pipeline_key(kernel, spec, false));
    place.used = true;
    return place.pipeline;
  };
  {
    std::unique_lock lock(mutex_);
    auto found = pipelines_.find(key);
    while (found != pipelines_.end() && found->second.pipeline == VK_NULL_HANDLE) {
      done_.wait(lock);
      found = pipelines_.find(key);
    }
    if (found != pipelines_.end()) return use(found->second);
    pipelines_.try_emplace(key);
  }
  KVANT_ASSIGN(const VkPipeline pipeline, fill_place(key));
  {
    const std::scoped_lock lock(mutex_);
    use(pipelines_.find(key)->second);
    ++compiled_on_need_;
  }
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin);
  device_.log().write(LogLevel::info,
                      "compiled a pipeline in " + std::to_string(took.count()) + " ms: " + pipeline_key_text(key));
  if (on_compiled_) on_compiled_();
  return pipeline;
}

void PipelineCache::warm(const PipelineKey& listed) {
  const PipelineKey key = make_pipeline_key(listed.kernel, listed.spec, plan_.require_subgroup_size);
  {
    const std::scoped_lock lock(mutex_);
    if (device_.lost() || !pipelines_.try_emplace(key).second) return;
  }
  (void)fill_place(key);
}

std::vector<PipelineKey> PipelineCache::used() const {
  const std::scoped_lock lock(mutex_);
  return used_;
}

Result<std::vector<PipelineStatistic>> PipelineCache::statistics(KernelId kernel, const SpecValues& spec,
                                                                 std::uint32_t subgroup_size) {
  const DeviceFunctions& vk = device_.vk();
  if (!plan_.features.pipeline_statistics || vk.vkGetPipelineExecutablePropertiesKHR == nullptr ||
      vk.vkGetPipelineExecutableStatisticsKHR == nullptr)
    return Status(StatusCode::unimplemented, "the device does not offer VK_KHR_pipeline_executable_properties");
  PipelineKey key = make_pipeline_key(kernel, spec, false);
  if (plan_.require_subgroup_size) key.subgroup_size = subgroup_size;
  KVANT_ASSIGN(const VkPipeline pipeline, compile(key, VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR));

  std::vector<PipelineStatistic> figures;
  VkPipelineInfoKHR info{};
  info.sType = VK_STRUCTURE_TYPE_PIPELINE_INFO_KHR;
  info.pipeline = pipeline;
  std::uint32_t count = 0;
  VkPipelineExecutablePropertiesKHR empty_executable{};
  empty_executable.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_PROPERTIES_KHR;
  vk.vkGetPipelineExecutablePropertiesKHR(device_.handle(), &info, &count, nullptr);
  std::vector<VkPipelineExecutablePropertiesKHR> executables(count, empty_executable);
  vk.vkGetPipelineExecutablePropertiesKHR(device_.handle(), &info, &count, executables.data());
  for (std::uint32_t i = 0; i < count; ++i) {
    VkPipelineExecutableInfoKHR executable{};
    executable.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR;
    executable.pipeline = pipeline;
    executable.executableIndex = i;
    std::uint32_t statistic_count = 0;
    VkPipelineExecutableStatisticKHR empty_statistic{};
    empty_statistic.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR;
    vk.vkGetPipelineExecutableStatisticsKHR(device_.handle(), &executable, &statistic_count, nullptr);
    std::vector<VkPipelineExecutableStatisticKHR> statistics(statistic_count, empty_statistic);
    vk.vkGetPipelineExecutableStatisticsKHR(device_.handle(), &executable, &statistic_count, statistics.data());
    for (const auto& statistic : statistics) {
      PipelineStatistic figure{executables[i].name, statistic.name, 0.0};
      switch (statistic.format) {
        case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_BOOL32_KHR:
          figure.value = statistic.value.b32 != 0 ? 1.0 : 0.0;
          break;
        case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_INT64_KHR:
          figure.value = static_cast<double>(statistic.value.i64);
          break;
        case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_UINT64_KHR:
          figure.value = static_cast<double>(statistic.value.u64);
          break;
        case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_FLOAT64_KHR:
          figure.value = statistic.value.f64;
          break;
        default:
          continue;
      }
      figures.push_back(std::move(figure));
    }
  }
  vk.vkDestroyPipeline(device_.handle(), pipeline, nullptr);
  return figures;
}

Result<std::vector<std::byte>> PipelineCache::data() const {
  std::vector<std::byte> bytes;
  VkResult result = VK_INCOMPLETE;
  // What is compiled meanwhile makes it larger.
  for (int tries = 0; result == VK_INCOMPLETE && tries < 8; ++tries) {
    std::size_t size = 0;
    result = device_.note(device_.vk().vkGetPipelineCacheData(device_.handle(), cache_, &size, nullptr));
    if (result != VK_SUCCESS) break;
    bytes.resize(size);
    result = device_.note(device_.vk().vkGetPipelineCacheData(device_.handle(), cache_, &size, bytes.data()));
    bytes.resize(size);
  }
  if (result != VK_SUCCESS) return vk_status(result, "reading the pipeline cache");
  return bytes;
}

std::uint64_t PipelineCache::compiled() const {
  const std::scoped_lock lock(mutex_);
  return compiled_;
}

std::uint64_t PipelineCache::compiled_on_need() const {
  const std::scoped_lock lock(mutex_);
  return compiled_on_need_;
}

}  // namespace kvant
