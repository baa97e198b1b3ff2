// The one exported symbol: version negotiation. No side effects; callable before anything else, from any thread.
#ifndef KVANT_BUILDING_LIBRARY
#define KVANT_BUILDING_LIBRARY  // the header then exports the declaration
#endif
#include "api.hpp"

namespace {

constexpr std::uint32_t major_of(std::uint32_t version) { return version >> 16; }

}  // namespace

const kvant_api* kvant_get_api(std::uint32_t host_version, std::uint32_t* out_library_version) {
  if (out_library_version != nullptr) *out_library_version = KVANT_VERSION;
  if (major_of(host_version) != major_of(KVANT_VERSION)) return nullptr;
  // Within a major the newest that both know is the older of the two.
  if (host_version < KVANT_MAKE_VERSION(1, 1)) return &kvant::abi::kApi_1_0;
  return host_version < KVANT_VERSION ? &kvant::abi::kApi_1_1 : &kvant::abi::kApi;
}
