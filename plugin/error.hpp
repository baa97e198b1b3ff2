// Error objects of the ABI. Making one never fails: when memory is out, a static object says so.
#pragma once

#include <string_view>

#include <kvant/kvant.h>

#include "status.hpp"

namespace kvant::abi {

// `source` is the name of the failed function of the table, a static string.
kvant_error* make_error(StatusCode code, std::string_view message, const char* source) noexcept;
kvant_error* out_of_memory_error() noexcept;

}  // namespace kvant::abi
