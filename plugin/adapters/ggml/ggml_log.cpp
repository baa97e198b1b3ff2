#include "ggml_log.hpp"

#include <cstdio>

namespace kvant::ggml {

void log_info(const std::string& line) { std::fprintf(stderr, "ggml_kvant: %s\n", line.c_str()); }
void log_error(const std::string& line) { std::fprintf(stderr, "ggml_kvant: error: %s\n", line.c_str()); }

}  // namespace kvant::ggml
