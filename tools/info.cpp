// kvant info: every Vulkan device with its facts, tier, modules and quirks; the library's build; the formats.
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cstdio>
#include <sstream>

#include "commands.hpp"
#include "table.hpp"

namespace kvant::tools {

namespace {

using Json = nlohmann::ordered_json;

struct InfoOptions {
  HostOptions host;
  bool json = false;
  bool all = false;
};

const char* type_name(uint32_t type) {
  static constexpr std::array<const char*, 5> kNames = {"other", "integrated", "discrete", "virtual", "cpu"};
  return type < kNames.size() ? kNames[type] : "other";
}

std::string api_version_text(uint32_t version) {
  return std::to_string((version >> 22) & 0x7F) + "." + std::to_string((version >> 12) & 0x3FF) + "." +
         std::to_string(version & 0xFFF);
}

// The library's own JSON of the device; a text that does not parse is handed on as a string rather than hidden.
Json facts_json(const std::string& text) {
  Json parsed = Json::parse(text, nullptr, false);
  return parsed.is_discarded() ? Json(text) : parsed;
}

constexpr int kNameWidth = 24;

// A JSON value as words for the terminal. Of an object of truths those that hold are named.
std::string words(const Json& value) {
  if (value.is_string()) {
    return value.get<std::string>();
  }
  if (value.is_boolean()) {
    return value.get<bool>() ? "yes" : "no";
  }
  if (!value.is_array() && !value.is_object()) {
    return value.dump();
  }
  std::string text;
  for (const auto& [key, item] : value.items()) {
    if (value.is_object() && item.is_boolean() && !item.get<bool>()) {
      continue;
    }
    const bool key_is_all = value.is_object() && item.is_boolean();
    const std::string one = value.is_array() ? words(item) : key_is_all ? key : key + " " + words(item);
    text += (text.empty() ? "" : ", ") + one;
  }
  return text.empty() ? "none" : text;
}

// A name and its words on as many lines as they need, broken between words.
void print_row(std::string name, const std::string& text) {
  constexpr size_t kTextWidth = 92;
  std::replace(name.begin(), name.end(), '_', ' ');
  std::string line;
  std::istringstream stream(text);
  for (std::string word; stream >> word;) {
    if (!line.empty() && line.size() + 1 + word.size() > kTextWidth) {
      std::printf("  %-*s%s\n", kNameWidth, name.c_str(), line.c_str());
      name.clear();
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
  }
  std::printf("  %-*s%s\n", kNameWidth, name.c_str(), line.c_str());
}

void print_facts(const Json& facts) {
  for (const auto& [key, value] : facts.items()) {
    const bool is_size = key.size() > 6 && key.compare(key.size() - 6, 6, "_bytes") == 0 && value.is_number();
    if (is_size && value.get<double>() >= 1024) {
      print_row(key.substr(0, key.size() - 6), bytes_text(value.get<double>()));
    } else {
      print_row(key, words(value));
    }
  }
}

// The modules of each kernel: those that run here, and why the others do not. A kernel's plain module has its name, the
// others have it and a suffix.
void print_modules(const Json& modules) {
  Table table({"kernel", "modules that run here", "left out"});
  std::vector<std::array<std::string, 3>> kernels;
  for (const Json& module : modules) {
    const std::string name = module.value("name", "");
    auto kernel = std::find_if(kernels.begin(), kernels.end(),
                               [&](const auto& known) { return name.rfind(known[0] + "_", 0) == 0; });
    if (kernel == kernels.end()) {
      kernels.push_back({name, "", ""});
      kernel = std::prev(kernels.end());
    }
    const bool available = module.value("available", false);
    std::string& cell = (*kernel)[available ? 1 : 2];
    cell += (cell.empty() ? "" : ", ") + name + (available ? "" : " (" + module.value("reason", "") + ")");
  }
  for (const auto& [kernel, available, left_out] : kernels) {
    table.add({kernel, available.empty() ? "none" : available, left_out.empty() ? "none" : left_out});
  }
  std::istringstream lines(table.render());
  std::printf("\n");
  for (std::string line; std::getline(lines, line);) {
    std::printf("  %s\n", line.c_str());
  }
}

const char* tier_text(uint32_t tier) {
  static constexpr std::array<const char*, 5> kTexts = {
      "0 (the floor: 32-bit words, fp32)", "1 (fp16 arithmetic)", "2 (and subgroup operations)",
      "3 (and fast integer dot products)", "4 (and cooperative matrices)"};
  return tier < kTexts.size() ? kTexts[tier] : "unknown";
}

void print_device(const std::string& label, const DeviceFacts& facts, bool all) {
  std::printf("%s: %s\n", label.c_str(), facts.name.c_str());
  print_row("driver", facts.driver + ", Vulkan " + api_version_text(facts.api_version));
  print_row("type", std::string(type_name(facts.type)) + ", " + bytes_text(static_cast<double>(facts.memory_size)) +
                        " of device-local memory");
  const Json json = facts_json(facts.json);
  if (!facts.usable) {
    print_row("unusable", facts.reasons);
  } else {
    print_row("tier", tier_text(facts.tier));
  }
  if (facts.usable && json.is_object() && json.contains("plan")) {
    Json plan = json["plan"];
    for (const char* said_above : {"usable", "rejected", "tier"}) {
      plan.erase(said_above);
    }
    print_facts(plan);
    print_row("quirks", json.contains("quirks") ? words(json["quirks"]) : "none");
    if (json.contains("modules")) {
      print_modules(json["modules"]);
    }
  }
  if (all && json.is_object() && json.contains("snapshot")) {
    std::printf("\n  facts, as the driver reports them\n");
    print_facts(json["snapshot"]);
  }
  std::printf("\n");
}

// Whether an option says how to open a device.
bool opened_one(const DeviceOptions& options) {
  return options.index >= 0 || !options.capabilities.empty() || !options.quirks.empty();
}

// Every device as it was found; with such an option that one as it is opened.
Outcome<std::vector<DeviceFacts>> list_devices(const std::shared_ptr<Library>& library, const DeviceOptions& options) {
  if (opened_one(options)) {
    const auto device = Device::open(library, options);
    if (!device.ok()) {
      return device.failure();
    }
    return std::vector<DeviceFacts>{(*device)->facts()};
  }
  const auto count = library->device_count();
  if (!count.ok()) {
    return count.failure();
  }
  std::vector<DeviceFacts> devices;
  for (uint32_t index = 0; index < *count; ++index) {
    auto facts = library->device_info(index);
    if (!facts.ok()) {
      return facts.failure();
    }
    devices.push_back(*facts);
  }
  return devices;
}

Outcome<void> run(const InfoOptions& options) {
  auto opened = Library::open(options.host.library);
  if (!opened.ok()) {
    return opened.failure();
  }
  const Library& library = **opened;
  kvant_build_info build{};
  build.struct_size = sizeof(build);
  KVANT_TRY(library.check(library.api().get_build_info(&build)));
  const auto listed = list_devices(*opened, options.host.device);
  if (!listed.ok()) {
    return listed.failure();
  }
  const std::vector<DeviceFacts>& devices = *listed;

  if (options.json) {
    Json json;
    json["library"] = {{"path", library.path()},
                       {"version", build.version},
                       {"commit", build.commit},
                       {"compiler", build.compiler},
                       {"sanitizers", build.sanitizers},
                       {"shader_set", build.shader_set},
                       {"missing_modules", build.missing_modules}};
    json["devices"] = Json::array();
    for (const DeviceFacts& facts : devices) {
      json["devices"].push_back({{"name", facts.name},
                                 {"driver", facts.driver},
                                 {"type", type_name(facts.type)},
                                 {"api_version", api_version_text(facts.api_version)},
                                 {"memory_size", facts.memory_size},
                                 {"tier", facts.tier},
                                 {"usable", facts.usable},
                                 {"reasons", facts.reasons},
                                 {"facts", facts_json(facts.json)}});
    }
    json["formats"] = Json::array();
    for (const FormatFacts& format : library.formats()) {
      json["formats"].push_back({{"id", format.id},
                                 {"name", format.name},
                                 {"block_elements", format.block_elements},
                                 {"block_bytes", format.block_bytes},
                                 {"bits_per_element", format.bits_per_element}});
    }
    std::printf("%s\n", json.dump(2).c_str());
    return {};
  }

  std::printf("kvant %s (%s), %s\n", build.version, build.commit, build.compiler);
  print_row("library", library.path());
  if (build.missing_modules[0] != '\0') {
    print_row("missing modules", std::string(build.missing_modules) + ": not compiled in this build");
  }
  std::printf("\n");
  for (uint32_t index = 0; index < devices.size(); ++index) {
    const bool best = opened_one(options.host.device) && options.host.device.index < 0;
    const int number = options.host.device.index >= 0 ? options.host.device.index : static_cast<int>(index);
    print_device(best ? "best device" : "device " + std::to_string(number), devices[index], options.all);
  }
  if (devices.empty()) {
    std::printf("no Vulkan device: install a driver (a CPU one is in Debian's mesa-vulkan-drivers)\n\n");
  }
  Table formats({"format", "bits per element", "block", "bytes of a block"});
  for (const FormatFacts& format : library.formats()) {
    formats.add({format.name, fixed(format.bits_per_element, 3), std::to_string(format.block_elements),
                 std::to_string(format.block_bytes)});
  }
  std::printf("%s", formats.render().c_str());
  return {};
}

}  // namespace

void add_info_command(CLI::App& app) {
  auto options = std::make_shared<InfoOptions>();
  CLI::App* command = app.add_subcommand(
      "info", "every Vulkan device (or one, as these options open it): facts, tier, modules, quirks");
  add_host_options(*command, options->host);
  command->add_flag("--json", options->json, "print all of it as JSON");
  command->add_flag("--all", options->all, "print every fact that the driver reports, too");
  command->callback([options] { finish(run(*options)); });
}

}  // namespace kvant::tools
