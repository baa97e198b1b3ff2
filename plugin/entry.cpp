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
  // Within a major the newest that both know is the older of the two, and version 1.0 is the only one made so far: an older
  // minor cannot exist, and a newer host is served what this library has.
  if (major_of(host_version) != major_of(KVANT_VERSION)) return nullptr;
  return &kvant::abi::kApi;
}
