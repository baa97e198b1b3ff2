// The subcommands, what they share, and how they end.
#pragma once

#include <CLI/CLI.hpp>

#include <string>

#include "library.hpp"
#include "outcome.hpp"

namespace kvant::tools {

void add_info_command(CLI::App& app);
void add_generate_command(CLI::App& app);
void add_eval_command(CLI::App& app);
void add_bench_command(CLI::App& app);

// Options of every command that opens the library and a device.
struct HostOptions {
  LibraryOptions library;
  DeviceOptions device;
};
void add_library_options(CLI::App& command, LibraryOptions& options);
void add_host_options(CLI::App& command, HostOptions& options);

// Opens both.
Outcome<std::shared_ptr<Device>> open_device(const HostOptions& options);

// Finds `name` in the models folder: as given, or in models/ under the working folder, beside the program or in
// share/kvant.
std::string find_model_file(const std::string& name);

// Prints the failure, if any, and keeps its exit code for main.
void finish(const Outcome<void>& outcome);
int exit_status();

}  // namespace kvant::tools
