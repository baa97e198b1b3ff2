#include "ggml_log.hpp"

#include <cstdio>

#include "interface.hpp"

// Exported by libggml-base, declared in none of its public headers.
#pragma weak ggml_log_internal
extern "C" void ggml_log_internal(ggml_log_level level, const char* format, ...);

namespace kvant::ggml {

void log_info(const std::string& line) { std::fprintf(stderr, "ggml_kvant: %s\n", line.c_str()); }
void log_error(const std::string& line) { std::fprintf(stderr, "ggml_kvant: error: %s\n", line.c_str()); }

void log_debug(const std::string& line) {
  if (&ggml_log_internal != nullptr) ggml_log_internal(GGML_LOG_LEVEL_DEBUG, "ggml_kvant: %s\n", line.c_str());
}

}  // namespace kvant::ggml
