// context_create, context_destroy, get_extension and get_build_info.
#include <cstring>

#include "api.hpp"
#include "boundary.hpp"
#include "build_facts.hpp"
#include "manager_api.hpp"
#include "objects.hpp"

namespace kvant::abi {
namespace {

std::string join_missing_modules() {
  std::string names;
  for (std::uint32_t i = 0; i < static_cast<std::uint32_t>(KernelId::count); ++i) {
    const KernelInfo& info = kernel_info(static_cast<KernelId>(i));
    if (!info.spirv.empty()) continue;
    if (!names.empty()) names += ',';
    names += info.name;
  }
  return names;
}

Status read_context_args(const kvant_context_args* args, ContextObject& context) {
  if (args == nullptr) return {};
  kvant_context_args values{};
  KVANT_TRY(read_args(args, "args", values));
  if (values.log_level > KVANT_LOG_PLUGIN_MISBEHAVING)
    return invalid("args.log_level (", values.log_level, ") is not a level from 0 to ", KVANT_LOG_PLUGIN_MISBEHAVING);
  if (values.enable_validation > 1) return invalid("args.enable_validation (", values.enable_validation, ") is not 0 or 1");
  context.log = Log{values.log, values.user_data, static_cast<LogLevel>(values.log_level)};
  context.validation = values.enable_validation != 0;
  return {};
}

// Devices are described here once, so that device_info is a plain read from any thread.
Status describe_devices(ContextObject& context) {
  for (const DeviceSnapshot& snapshot : context.instance->devices()) {
    KVANT_ASSIGN(const DevicePlan plan, make_device_plan(snapshot, ""));
    context.devices.push_back(describe_plan(plan));
  }
  return {};
}

}  // namespace

kvant_error* get_build_info(kvant_build_info* info) {
  return guard("get_build_info", [&]() -> Status {
    KVANT_TRY(check_output(info, "info"));
    // Never destroyed: the strings live as long as the library.
    static const std::string& missing = *new std::string(join_missing_modules());
    static const std::string& shaders = *new std::string(shader_set_hash());
    kvant_build_info values{};
    values.version = build_facts::kVersion;
    values.commit = build_facts::kCommit;
    values.compiler = build_facts::kCompiler;
    values.sanitizers = build_facts::kSanitizers;
    values.shader_set = shaders.c_str();
    values.missing_modules = missing.c_str();
    write_struct(info, values);
    return {};
  });
}

kvant_error* context_create(const kvant_context_args* args, kvant_context** out_context) {
  return guard("context_create", [&]() -> Status {
    KVANT_TRY(check_pointer(out_context, "out_context", "a place for the context"));
    auto context = std::make_shared<ContextObject>();
    KVANT_TRY(read_context_args(args, *context));
    context->recommended = recommended_features_json();
    auto instance = Instance::create(context->instance_options());
    if (instance.ok()) {
      context->instance = std::move(instance).value();
      KVANT_TRY(describe_devices(*context));
    } else if (instance.status().code() == StatusCode::unavailable) {
      context->instance_status = instance.status();
      context->log.write(LogLevel::info, instance.status().message());
    } else {
      return instance.status();
    }
    KVANT_ASSIGN(*out_context, add(context));
    return {};
  });
}

void context_destroy(kvant_context* context) {
  guard_void([&] { destroy_context(context); });
}

const void* get_extension(kvant_context* context, const char* id) {
  const void* table = nullptr;
  guard_void([&] {
    if (id == nullptr || !find<ContextObject>(context, "context").ok()) return;
    if (std::strcmp(id, KVANT_EXT_VULKAN) == 0) table = &kVulkanApi;
    if (std::strcmp(id, KVANT_EXT_MANAGER) == 0) table = &kManagerApi;
  });
  return table;
}

}  // namespace kvant::abi
