#include "header_structs.hpp"

#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

#include <doctest/doctest.h>

namespace abi_test {
namespace {

std::string text_of(const std::filesystem::path& path) {
  std::ifstream file(path);
  REQUIRE(file.good());
  std::stringstream stream;
  stream << file.rdbuf();
  return std::regex_replace(stream.str(), std::regex(R"(/\*([^*]|\*(?!/))*\*/)"), "");
}

}  // namespace

std::vector<HeaderStruct> header_structs() {
  std::vector<HeaderStruct> structs;
  for (const auto& entry : std::filesystem::directory_iterator(KVANT_SOURCE_DIR "/plugin/include/kvant")) {
    const std::string text = text_of(entry.path());
    const std::regex begin(R"(typedef struct (kvant_\w+) \{)"), slot(R"(\(\*(\w+)\)\()"), last_word(R"((\w+)\s*(\[\w+\])?\s*$)");
    for (std::sregex_iterator it(text.begin(), text.end(), begin), end; it != end; ++it) {
      HeaderStruct found{(*it)[1], {}, false};
      const auto from = static_cast<std::size_t>(it->position() + it->length());
      const std::size_t to = text.find('}', from);
      REQUIRE(to != std::string::npos);
      std::size_t slots = 0;
      std::istringstream declarations(text.substr(from, to - from));
      for (std::string declaration; std::getline(declarations, declaration, ';');) {
        std::smatch name;
        const bool is_slot = std::regex_search(declaration, name, slot);
        if (!is_slot && !std::regex_search(declaration, name, last_word)) continue;
        slots += is_slot ? 1 : 0;
        found.fields.push_back(name[1]);
      }
      found.functions = slots != 0 && found.fields[1] != "next";
      structs.push_back(found);
    }
  }
  return structs;
}

}  // namespace abi_test
