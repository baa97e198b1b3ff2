// Only in builds with sanitizers: keeps the libraries that KVANT_TEST_KEEP_LOADED names (separated by ':') in memory to the end. A
// driver that leaks and is unloaded before the leak check shows up as "<unknown module>", which no suppression can name.
#include <dlfcn.h>

#include <cstdlib>
#include <string>

namespace {

const bool kept = [] {
  const char* names = std::getenv("KVANT_TEST_KEEP_LOADED");
  std::string rest = names != nullptr ? names : "";
  while (!rest.empty()) {
    const std::size_t colon = rest.find(':');
    dlopen(rest.substr(0, colon).c_str(), RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE);
    rest = colon == std::string::npos ? "" : rest.substr(colon + 1);
  }
  return true;
}();

}  // namespace
