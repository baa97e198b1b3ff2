// replace_file: files that readers see whole, the old one or the new one.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "status.hpp"

namespace kvant {

// Writes a temporary file beside `path` and renames it. Creates the folder. `what`: the file in messages, "pipeline cache". Errors:
// unavailable, naming the file.
Status replace_file(const std::string& path, std::span<const std::byte> bytes, std::string_view what);

}  // namespace kvant
