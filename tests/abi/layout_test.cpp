// The layout of the public structs: the same in C99, C++17, C++20 and in every frozen header; and what the library exports.
#include <cstdio>
#include <set>
#include <sstream>
#include <string_view>

#include "header_structs.hpp"

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
void check_same(const abi_layout_row* frozen, const abi_layout_row* present, bool may_grow) {
  std::size_t rows = 0;
  for (; frozen->type != nullptr; ++frozen, ++rows) {
    CAPTURE(frozen->type);
    CAPTURE(frozen->field);
    const std::size_t now = find_value(present, frozen->type, frozen->field);
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
  check_same(abi_layout_cpp17, abi_layout_present, false);
  check_same(abi_layout_cpp20, abi_layout_present, false);
  check_same(abi_layout_ext_cpp17, abi_layout_ext_present, false);
  check_same(abi_layout_ext_cpp20, abi_layout_ext_present, false);
}

// Without a row a struct's layout would be free to change.
TEST_CASE("layout: every struct and field of the headers is in the tables") {
  std::set<std::string> known;
  for (const abi_layout_row* table : {abi_layout_present, abi_layout_ext_present})
    for (; table->type != nullptr; ++table) known.insert(std::string(table->type) + "." + table->field);
  // Structs inside of others, without a size of their own: the outer one's rows and size hold them.
  const std::set<std::string> inner = {"kvant_config_policy", "kvant_config_tiers", "kvant_config_hybrid", "kvant_config_monitor",
                                       "kvant_config_accuracy"};
  const std::vector<HeaderStruct> structs = header_structs();
  CHECK(structs.size() > 35);
  for (const HeaderStruct& found : structs) {
    CAPTURE(found.name);
    if (!found.is_function_table()) CHECK(known.contains(found.name + ".sizeof"));
    if (inner.contains(found.name)) CHECK_FALSE(found.is_sized());
    for (const std::string& field : found.fields) {
      CAPTURE(field);
      if (field != "struct_size" && field != "next" && field != "reserved") CHECK(known.contains(found.name + "." + field));
    }
  }
}

TEST_CASE("layout: nothing of version 1.0 has moved") { check_same(abi_layout_1_0, abi_layout_present, true); }

TEST_CASE("layout: nothing of version 1.1 has moved") {
  check_same(abi_layout_1_1, abi_layout_present, true);
  check_same(abi_layout_ext_1_1, abi_layout_ext_present, true);
}

TEST_CASE("layout: hosts compiled against 1.0 and 1.1 run") {
  for (const auto host : {abi_frozen_host, abi_frozen_host_1_1}) {
    const int result = host(library_path().c_str());
    if (result == 77) {
      CHECK_FALSE(Session({.open_device = false}).has_device());
    } else {
      CHECK(result == 0);
    }
  }
}

namespace {

std::string output_of(const std::string& command) {
  FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string output;
  char buffer[512];
  while (std::fgets(buffer, sizeof buffer, pipe) != nullptr) output += buffer;
  REQUIRE(pclose(pipe) == 0);
  return output;
}

}  // namespace

TEST_CASE("exports: exactly one symbol") {
  const std::string output = output_of("nm -D --defined-only '" + library_path() + "'");
  std::istringstream lines(output);
  std::vector<std::string> names;
  for (std::string address, kind, name; lines >> address >> kind >> name;) names.push_back(name);
  CAPTURE(output);
  REQUIRE(names.size() == 1);
  CHECK(names[0].substr(0, names[0].find('@')) == "kvant_get_api");
}

// Whatever is not imported is not called: nothing ends the process, changes its state, writes to its streams, or waits for its end.
TEST_CASE("exports: nothing is imported that a guest has no use for, and nothing runs at load") {
  auto facts = make<kvant_build_info>();
  require_ok(api().get_build_info(&facts));
  if (std::string(facts.sanitizers) != "") return;  // sanitizers bring their own
  std::istringstream lines(output_of("nm -D --undefined-only '" + library_path() + "'"));
  std::set<std::string> imports;
  for (std::string kind, name; lines >> kind >> name;) imports.insert(name.substr(0, name.find('@')));
  CHECK(imports.size() > 20);
  for (const char* name :
       {"exit", "_exit", "_Exit", "quick_exit", "atexit", "at_quick_exit", "__cxa_atexit", "__cxa_thread_atexit", "__cxa_thread_atexit_impl",
        "setlocale", "setenv", "putenv", "unsetenv", "clearenv", "signal", "sigaction", "sigprocmask", "pthread_sigmask", "fesetround",
        "fesetenv", "chdir", "umask", "srand", "printf", "puts", "putchar", "stdout", "_ZSt4cout", "fork", "system", "popen"}) {
    CAPTURE(name);
    CHECK_FALSE(imports.contains(name));
  }
  // The compiler's own start-up code is the one entry.
  std::istringstream sections(output_of("readelf -S -W '" + library_path() + "' | grep -E ' \\.(init|fini)_array ' | wc -l"));
  std::istringstream sizes(output_of("readelf -S -W '" + library_path() +
                                     "' | sed -n 's/.* \\.init_array *INIT_ARRAY *[0-9a-f]* [0-9a-f]* \\([0-9a-f]*\\).*/\\1/p'"));
  int found = 0;
  std::string size;
  sections >> found;
  sizes >> size;
  CHECK(found == 2);
  CHECK(std::stoul(size, nullptr, 16) == sizeof(void*));
}
