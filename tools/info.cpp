// kvant info: every Vulkan device with its facts, tier, modules and quirks; the library's build; the formats.
#include <nlohmann/json.hpp>

#include <array>
#include <cstdio>

#include "commands.hpp"
#include "table.hpp"

namespace kvant::tools {

namespace {

using Json = nlohmann::ordered_json;

struct InfoOptions {
  LibraryOptions library;
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

// A JSON value in one or few words, for the terminal.
std::string words(const Json& value) {
  if (value.is_string()) {
    return value.get<std::string>();
  }
  if (!value.is_array() && !value.is_object()) {
    return value.dump();
  }
  std::string text;
  for (const auto& [key, item] : value.items()) {
    if (item.is_boolean() && value.is_object()) {  // what holds is named, what does not is left out
      if (item.get<bool>()) {
        text += (text.empty() ? "" : ", ") + key;
      }
      continue;
    }
    std::string one = value.is_array() ? words(item) : key + " " + words(item);
    if (value.is_array() && item.is_object() && item.contains("name")) {
      one = words(item["name"]);
    } else if (value.is_array() && item.is_object() && item.contains("id")) {
      one = words(item["id"]);
    }
    text += (text.empty() ? "" : ", ") + one;
  }
  return text.empty() ? "none" : text;
}

void print_device(uint32_t index, const DeviceFacts& facts, bool all) {
  std::printf("device %u: %s\n", index, facts.name.c_str());
  std::printf("  driver    %s, Vulkan %s\n", facts.driver.c_str(), api_version_text(facts.api_version).c_str());
  std::printf("  type      %s, %s of device-local memory\n", type_name(facts.type),
              bytes_text(static_cast<double>(facts.memory_size)).c_str());
  if (!facts.usable) {
    std::printf("  unusable  %s\n\n", facts.reasons.c_str());
    return;
  }
  std::printf("  tier      %u\n", facts.tier);
  const Json json = facts_json(facts.json);
  if (json.is_object()) {
    for (const auto& [key, value] : json.items()) {
      // The long list of facts is for --all; what the library decided is always shown.
      const bool decision = key == "modules" || key == "quirks" || key == "plan";
      if (decision || all) {
        std::printf("  %-9s %s\n", key.c_str(), words(value).c_str());
      }
    }
  }
  std::printf("\n");
}

Outcome<void> run(const InfoOptions& options) {
  auto opened = Library::open(options.library);
  if (!opened.ok()) {
    return opened.failure();
  }
  const Library& library = **opened;
  kvant_build_info build{};
  build.struct_size = sizeof(build);
  KVANT_TRY(library.check(library.api().get_build_info(&build)));
  const auto count = library.device_count();
  if (!count.ok()) {
    return count.failure();
  }
  std::vector<DeviceFacts> devices;
  for (uint32_t index = 0; index < *count; ++index) {
    auto facts = library.device_info(index);
    if (!facts.ok()) {
      return facts.failure();
    }
    devices.push_back(*facts);
  }

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

  std::printf("kvant %s (%s), %s\n  library   %s\n", build.version, build.commit, build.compiler,
              library.path().c_str());
  if (build.missing_modules[0] != '\0') {
    std::printf("  missing   %s: not compiled in this build\n", build.missing_modules);
  }
  std::printf("\n");
  for (uint32_t index = 0; index < devices.size(); ++index) {
    print_device(index, devices[index], options.all);
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
  CLI::App* command = app.add_subcommand("info", "every Vulkan device: facts, tier, modules chosen, quirks");
  add_library_options(*command, options->library);
  command->add_flag("--json", options->json, "print JSON");
  command->add_flag("--all", options->all, "print every fact of each device");
  command->callback([options] { finish(run(*options)); });
}

}  // namespace kvant::tools
