// Shared options and the end of a command.
#include "commands.hpp"

#include <cstdio>
#include <filesystem>

namespace kvant::tools {

namespace {

int g_exit_status = 0;  // of this process: one command runs in it

}  // namespace

void add_library_options(CLI::App& command, LibraryOptions& options) {
  command.add_option("--library", options.path, "libkvant.so to open (else KVANT_LIBRARY, then beside this program)");
  command.add_flag("--verbose", options.verbose, "print the library's debug messages");
  command.add_flag("--validation", options.validation, "switch the Vulkan validation layers on");
}

void add_host_options(CLI::App& command, HostOptions& options) {
  add_library_options(command, options.library);
  command.add_option("--device", options.device.index, "device number as `kvant info` lists it (default: the best)");
  command.add_option("--capabilities", options.device.capabilities, "JSON that narrows the device");
  command.add_option("--quirks", options.device.quirks, "force quirks on or off: +name,-name");
  command.add_option("--pipeline-cache", options.device.pipeline_cache_folder, "folder for the pipeline cache");
}

Outcome<std::shared_ptr<Device>> open_device(const HostOptions& options) {
  auto library = Library::open(options.library);
  if (!library.ok()) {
    return library.failure();
  }
  return Device::open(*library, options.device);
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
