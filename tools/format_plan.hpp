// A plan: formats for every side of every layer of a model, as a JSON file. docs/accuracy.md has its fields.
#pragma once

#include <string>

#include "format_pair.hpp"

namespace kvant::tools {

// As a configuration named "@PATH". Errors: a file that cannot be read, is no plan, or names a format that the library has not.
Outcome<FormatPair> read_plan(const Library& library, const std::string& path);

// "t4+cr".
std::string side_name(const Library& library, uint32_t format, uint32_t transform);

// The file's text.
std::string plan_text(const Library& library, const FormatPair& plan, const std::string& model, double bits_per_element);

}  // namespace kvant::tools
