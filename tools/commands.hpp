// The subcommands, what they share, and how they end.
#pragma once

#include <CLI/CLI.hpp>

#include <string>

#include "library.hpp"
#include "outcome.hpp"
#include "report_output.hpp"

namespace kvant::tools {

void add_info_command(CLI::App& app);
void add_generate_command(CLI::App& app);
void add_eval_command(CLI::App& app);
void add_bench_command(CLI::App& app);
void add_tune_command(CLI::App& app);
void add_replay_command(CLI::App& app);
void add_top_command(CLI::App& app);
void add_report_command(CLI::App& app);
void add_memory_curve_command(CLI::App& app);
void add_plan_formats_command(CLI::App& app);
void add_cool_curve_command(CLI::App& app);

// Options of every command that opens the library and a device.
struct HostOptions {
  LibraryOptions library;
  DeviceOptions device;
};
void add_library_options(CLI::App& command, LibraryOptions& options);
void add_host_options(CLI::App& command, HostOptions& options);
// Of an option that counts something.
CLI::Validator at_least(uint32_t least);
// The texts of options that several commands have.
inline constexpr const char* kModelHelp = "GGUF file: a path, or a name in the models folder";
inline constexpr const char* kFormatsHelp =
    "comma-separated formats, or pairs K/V; all stands for each format: all, all/q4_0, all/all; "
    "+c behind a name for centred rows, +r for rotated ones, +p for protected tokens; or a preset: accurate, default, small, tiny; or @FILE, a plan of plan-formats";

// Opens both.
Outcome<std::shared_ptr<Device>> open_device(const HostOptions& options);

// The device's name, and for a CPU driver, that it is one: who expected a GPU learns here that none was found.
std::string device_text(const Device& device);

// Whether files can be written there (empty and "-" are fine), known before an hour of measuring and not after.
Outcome<void> check_output(const std::string& path);

// Finds `name` in the models folder: as given, or in models/ under the working folder, beside the program or in
// share/kvant.
std::string find_model_file(const std::string& name);

// Prints the failure, if any, and keeps its exit code for main.
void finish(const Outcome<void>& outcome);
int exit_status();

}  // namespace kvant::tools
