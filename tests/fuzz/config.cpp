// Configurations as JSON: the host's parser, config_parse over the C ABI, and the JSON that narrows a device. What is
// taken becomes the same JSON and the same struct again.
#include <kvant/kvant_ext_manager.h>

#include <cstring>
#include <string>
#include <string_view>

#include "config.hpp"
#include "device_snapshot.hpp"
#include "fuzz_input.hpp"

namespace {

using namespace kvant;

// The library without any device: a configuration needs none.
struct Library {
  const kvant_api* api = kvant_get_api(KVANT_VERSION, nullptr);
  kvant_context* context = nullptr;
  const kvant_ext_manager* manager = nullptr;

  Library() {
    KVANT_FUZZ_CHECK(api != nullptr && api->context_create(nullptr, &context) == nullptr);
    manager = static_cast<const kvant_ext_manager*>(api->get_extension(context, KVANT_EXT_MANAGER));
    KVANT_FUZZ_CHECK(manager != nullptr);
  }
  ~Library() { api->context_destroy(context); }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  // Whether the call was taken; an error has all that an error must have.
  bool take(kvant_error* error, std::string_view source) const {
    if (error == nullptr) return true;
    KVANT_FUZZ_CHECK(api->error_source(error) == source && api->error_message(error)[0] != '\0');
    KVANT_FUZZ_CHECK(
        api->error_code(error) == KVANT_ERROR_INVALID_ARGUMENT || api->error_code(error) == KVANT_ERROR_NOT_FOUND,
        api->error_message(error));
    api->error_free(error);
    return false;
  }
};

void through_host(const std::string& text) {
  const auto config = config_from_json(text);
  if (!config.ok()) {
    KVANT_FUZZ_CHECK(config.status().code() != StatusCode::internal && !config.status().message().empty());
    return;
  }
  KVANT_FUZZ_CHECK(validate_config(config.value()).ok());
  const std::string written = config_to_json(config.value());
  const auto again = config_from_json(written);
  KVANT_FUZZ_CHECK(again.ok() && again.value() == config.value(), written);
}

// The context keeps every text that it was given, so it is made anew now and then.
void through_library(const std::string& text) {
  static Library* library = nullptr;
  static int uses = 0;
  if (library == nullptr) library = new Library;
  kvant_config config;
  std::memset(&config, 0, sizeof config);
  config.struct_size = sizeof config;
  const kvant_config empty = config;
  if (library->take(library->manager->config_parse(library->context, text.c_str(), &config), "config_parse")) {
    const char* json = nullptr;
    KVANT_FUZZ_CHECK(library->take(library->manager->config_write(library->context, &config, &json), "config_write"));
    kvant_config second = empty;
    KVANT_FUZZ_CHECK(library->take(library->manager->config_parse(library->context, json, &second), "config_parse"),
                     json);
    const char* json_again = nullptr;
    KVANT_FUZZ_CHECK(
        library->take(library->manager->config_write(library->context, &second, &json_again), "config_write"));
    KVANT_FUZZ_CHECK(std::string_view(json) == json_again);
  } else {
    KVANT_FUZZ_CHECK(std::memcmp(&config, &empty, sizeof config) == 0);
  }
  if (++uses % 256 == 0) {
    delete library;
    library = nullptr;
  }
}

void through_snapshot(const std::string& text) {
  DeviceSnapshot device;
  device.heaps = {{std::uint64_t{1} << 30, true}};
  device.max_binding_bytes = device.max_buffer_bytes = device.max_allocation_bytes = std::uint64_t{1} << 30;
  const DeviceSnapshot before = device;
  if (!narrow_snapshot(device, text).ok()) KVANT_FUZZ_CHECK(device == before);
  const auto read = snapshot_from_json(text);
  if (!read.ok()) return;
  const auto again = snapshot_from_json(snapshot_to_json(read.value()));
  KVANT_FUZZ_CHECK(again.ok(), again.status().message());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::FuzzInput in(data, size);
  const std::uint8_t mode = in.u8();
  const std::string text = in.text(in.left());
  if (mode == 's') {
    through_snapshot(text);
    return 0;
  }
  through_host(text);
  through_library(text);
  return 0;
}
