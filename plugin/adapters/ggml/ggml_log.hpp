// Lines to stderr, as ggml's own backends write them.
#pragma once

#include <string>

namespace kvant::ggml {

void log_info(const std::string& line);
void log_error(const std::string& line);
void log_debug(const std::string& line);  // to ggml's log, which shows it where asked to

}  // namespace kvant::ggml
