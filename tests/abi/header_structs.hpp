// The structs of the public headers, read from their text: so that a struct or a field that is added later is missed by no table.
#pragma once

#include <string>
#include <vector>

namespace abi_test {

struct HeaderStruct {
  std::string name;
  std::vector<std::string> fields;
  bool functions = false;  // has slots only, besides its size and version
  bool is_function_table() const { return functions; }
  // Starts with struct_size: crosses the boundary by itself.
  bool is_sized() const { return !fields.empty() && fields.front() == "struct_size"; }
};

std::vector<HeaderStruct> header_structs();

}  // namespace abi_test
