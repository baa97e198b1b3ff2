// Shared options and the end of a command.
#include "commands.hpp"

#include <charconv>
#include <cstdio>
#include <filesystem>
#include <limits>

namespace kvant::tools {

namespace {

int g_exit_status = 0;  // of this process: one command runs in it

}  // namespace

CLI::Validator at_least(uint32_t least) {
  const auto check = [least](std::string& text) -> std::string {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool whole = error == std::errc() && end == text.data() + text.size();
    if (whole && value >= int64_t{least} && value <= std::numeric_limits<int32_t>::max()) {
      return {};
    }
    return "(" + text + ") is not a whole number from " + std::to_string(least) + " to " +
           std::to_string(std::numeric_limits<int32_t>::max());
  };
  return CLI::Validator(check, "");
}

void add_library_options(CLI::App& command, LibraryOptions& options) {
  command.add_option("--library", options.path,
                     "libkvant.so to open (default: KVANT_LIBRARY of the environment, else beside this program)");
  command.add_flag("--verbose", options.verbose, "print the library's debug messages");
  command.add_flag("--validation", options.validation, "switch the Vulkan validation layers on");
}

void add_host_options(CLI::App& command, HostOptions& options) {
  add_library_options(command, options.library);
  command.add_option("--device", options.device.index, "device number as `kvant info` lists it (default: the best)")
      ->check(at_least(0));
  command.add_option("--capabilities", options.device.capabilities,
                     "JSON, or a file of it, that narrows the device (default: KVANT_CAPABILITIES of the environment)");
  command.add_option("--quirks", options.device.quirks,
                     "force quirks on or off by name, as +name,-name (default: KVANT_QUIRKS of the environment)");
  command.add_option("--pipeline-cache", options.device.pipeline_cache_folder,
                     "folder that keeps compiled pipelines (default: none)");
}

Outcome<std::shared_ptr<Device>> open_device(const HostOptions& options) {
  auto library = Library::open(options.library);
  if (!library.ok()) {
    return library.failure();
  }
  return Device::open(*library, options.device);
}

std::string device_text(const Device& device) {
  if (device.facts().type != KVANT_DEVICE_CPU) {
    return device.facts().name;
  }
  const Library& library = *device.library();
  const auto count = library.device_count();
  bool usable_gpu = false;
  bool any_gpu = false;
  for (uint32_t index = 0; count.ok() && index < *count; ++index) {
    const auto facts = library.device_info(index);
    const bool gpu = facts.ok() && facts->type != KVANT_DEVICE_CPU;
    any_gpu = any_gpu || gpu;
    usable_gpu = usable_gpu || (gpu && facts->usable);
  }
  const char* const why = usable_gpu ? "" : any_gpu ? ", no usable GPU found" : ", no GPU found";
  return device.facts().name + " (CPU driver" + why + ")";
}

Outcome<void> check_output(const std::string& path) {
  if (path.empty() || path == "-") {
    return {};
  }
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return Failure{path + ": is a directory, not a file that can be written", Exit::kUsage};
  }
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (!folder.empty() && !std::filesystem::is_directory(folder, error)) {
    return Failure{path + ": its folder (" + folder.string() + ") does not exist", Exit::kUsage};
  }
  return {};
}

std::string find_model_file(const std::string& name) {
  std::error_code error;
  const std::filesystem::path given(name);
  if (std::filesystem::exists(given, error)) {
    return name;
  }
  std::vector<std::filesystem::path> folders = {"models"};
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) {
    for (const char* folder : {"../share/kvant/models", "../models", "../../models", "../../../models"}) {
      folders.push_back((program.parent_path() / folder).lexically_normal());
    }
  }
  for (const auto& folder : folders) {
    if (std::filesystem::exists(folder / given, error)) {
      return (folder / given).string();
    }
  }
  return name;
}

void finish(const Outcome<void>& outcome) {
  if (!outcome.ok()) {
    std::fflush(stdout);
    std::fprintf(stderr, "kvant: %s\n", outcome.failure().message.c_str());
    g_exit_status = static_cast<int>(outcome.failure().exit);
  }
}

int exit_status() { return g_exit_status; }

}  // namespace kvant::tools
