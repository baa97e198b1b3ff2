// Lines to stderr, as ggml's own backends write them.
#pragma once

#include <string>

namespace kvant::ggml {

void log_info(const std::string& line);
void log_error(const std::string& line);

}  // namespace kvant::ggml
