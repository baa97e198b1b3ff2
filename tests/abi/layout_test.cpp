// The layout of the public structs: the same in C99, C++17, C++20 and in every frozen header; and what the library exports.
#include <cstdio>
#include <sstream>
#include <string_view>

#include "layout_table.h"
#include "library.hpp"

using namespace abi_test;

namespace {

std::size_t find_value(const abi_layout_row* table, std::string_view type, std::string_view field) {
  for (; table->type != nullptr; ++table)
    if (table->type == type && table->field == field) return table->value;
  return ~std::size_t{0};
}

// A frozen struct's fields stay where they were; a struct may have grown since.
void check_same(const abi_layout_row* frozen, bool may_grow) {
  std::size_t rows = 0;
  for (; frozen->type != nullptr; ++frozen, ++rows) {
    CAPTURE(frozen->type);
    CAPTURE(frozen->field);
    const std::size_t now = find_value(abi_layout_present, frozen->type, frozen->field);
    REQUIRE(now != ~std::size_t{0});
    if (may_grow && std::string_view(frozen->field) == "sizeof") {
      CHECK(now >= frozen->value);
    } else {
      CHECK(now == frozen->value);
    }
  }
  CHECK(rows > 100);
}

}  // namespace

TEST_CASE("layout: C99, C++17 and C++20 agree") {
  check_same(abi_layout_cpp17, false);
  check_same(abi_layout_cpp20, false);
}

TEST_CASE("layout: nothing of version 1.0 has moved") { check_same(abi_layout_1_0, true); }

TEST_CASE("layout: a host compiled against 1.0 runs") {
  const int result = abi_frozen_host(library_path().c_str());
  if (result == 77) {
    CHECK_FALSE(Session({.open_device = false}).has_device());
  } else {
    CHECK(result == 0);
  }
}

TEST_CASE("exports: exactly one symbol") {
  const std::string command = "nm -D --defined-only '" + library_path() + "'";
  FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string output;
  char buffer[512];
  while (std::fgets(buffer, sizeof buffer, pipe) != nullptr) output += buffer;
  REQUIRE(pclose(pipe) == 0);
  std::istringstream lines(output);
  std::vector<std::string> names;
  for (std::string address, kind, name; lines >> address >> kind >> name;) names.push_back(name);
  CAPTURE(output);
  REQUIRE(names.size() == 1);
  CHECK(names[0].substr(0, names[0].find('@')) == "kvant_get_api");
}
