// Numbers as people read them in sentences; the same whatever the process's locale is.
#pragma once

#include <cstdint>
#include <string>

namespace kvant {

std::string count_text(std::uint64_t count);  // 1,930
std::string decimal_text(double value);       // about three digits: 0.0123, 1.23, 12.3, 1,230; 1.2e-09 below 10^-4
std::string percent_text(double share);       // 41 %; one decimal below 10 %
std::string bytes_text(std::uint64_t bytes);  // 1.50 GiB
std::string duration_text(double seconds);    // 10 minutes, 45 s, 3.10 ms

}  // namespace kvant
