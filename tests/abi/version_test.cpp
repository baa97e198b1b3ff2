// Negotiation of versions, build facts and extensions.
#include <dlfcn.h>

#include <algorithm>
#include <string_view>

#include <kvant/kvant_ext_vulkan.h>

#include "library.hpp"

using namespace abi_test;

TEST_CASE("version: same, newer and older minors are served, other majors are not") {
  void* library = dlopen(library_path().c_str(), RTLD_NOW | RTLD_LOCAL);
  REQUIRE(library != nullptr);
  const auto get_api = reinterpret_cast<kvant_get_api_fn>(dlsym(library, "kvant_get_api"));
  REQUIRE((get_api != nullptr));
  for (const std::uint32_t host : {KVANT_MAKE_VERSION(1, 0), KVANT_MAKE_VERSION(1, 1), KVANT_MAKE_VERSION(1, 2), KVANT_MAKE_VERSION(1, 65535)}) {
    std::uint32_t version = 0;
    const kvant_api* table = get_api(host, &version);
    REQUIRE(table != nullptr);
    CHECK(version == KVANT_VERSION);
    CHECK(table->version <= host);
    CHECK(table->version <= KVANT_VERSION);
    CHECK(table->version == std::min(host, KVANT_VERSION));
    CHECK((table->struct_size < sizeof(kvant_api)) == (host < KVANT_VERSION));
    CHECK(table->reserved == 0);
    CHECK(table == get_api(host, nullptr));
  }
  for (const std::uint32_t host :
       {0u, KVANT_MAKE_VERSION(0, 9), KVANT_MAKE_VERSION(2, 0), KVANT_MAKE_VERSION(65535, 0), 0xFFFFFFFFu}) {
    std::uint32_t version = 0;
    CHECK(get_api(host, &version) == nullptr);
    CHECK(version == KVANT_VERSION);
  }
  dlclose(library);
}

TEST_CASE("version: the table is complete") {
  CHECK(api().struct_size >= sizeof(kvant_api));
  const auto* slots = reinterpret_cast<void* const*>(&api().error_code);
  const std::size_t count = (sizeof(kvant_api) - offsetof(kvant_api, error_code)) / sizeof(void*);
  for (std::size_t i = 0; i < count; ++i) {
    CAPTURE(i);
    CHECK(slots[i] != nullptr);
  }
}

TEST_CASE("version: build facts") {
  auto info = make<kvant_build_info>();
  require_ok(api().get_build_info(&info));
  for (const char* text : {info.version, info.commit, info.compiler, info.sanitizers, info.shader_set, info.missing_modules})
    REQUIRE(text != nullptr);
  CHECK(std::string_view(info.version).find('.') != std::string_view::npos);
  CHECK(std::string_view(info.compiler) != "");
  CHECK(std::string_view(info.shader_set).substr(0, 7) == "sha256:");
  CHECK(std::string_view(info.shader_set).size() == 7 + 64);
}

TEST_CASE("version: extensions") {
  Session session({.open_device = false});
  const void* table = api().get_extension(session.context, KVANT_EXT_VULKAN);
  REQUIRE(table != nullptr);
  CHECK(static_cast<const kvant_ext_vulkan*>(table)->struct_size == sizeof(kvant_ext_vulkan));
  CHECK(table == api().get_extension(session.context, "kvant.vulkan/1"));
  for (const char* unknown : {"kvant.vulkan/2", "kvant.vulkan", "", "x"})
    CHECK(api().get_extension(session.context, unknown) == nullptr);
  CHECK(api().get_extension(session.context, nullptr) == nullptr);
  CHECK(api().get_extension(nullptr, KVANT_EXT_VULKAN) == nullptr);
}

TEST_CASE("errors: NULL is success everywhere") {
  CHECK(api().error_code(nullptr) == 0);
  CHECK(std::string_view(api().error_message(nullptr)).empty());
  CHECK(std::string_view(api().error_source(nullptr)).empty());
  api().error_free(nullptr);
}
