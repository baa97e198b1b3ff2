// Lists of K and V formats as the command line spells them.
#pragma once

#include <string>
#include <vector>

#include "library.hpp"

namespace kvant::tools {

struct FormatPair {
  FormatFacts k;
  FormatFacts v;
  std::string name() const { return k.id == v.id ? k.name : k.name + "/" + v.name; }
};

// "q8_0,q8_0/q4_0" -> pairs, duplicates left out; an unknown format is an error that lists the known ones. "all" stands
// for each format: "all" is every format with itself, "all/q4_0" every K beside a V of q4_0, "all/all" every pair.
Outcome<std::vector<FormatPair>> parse_pairs(const Library& library, const std::string& list);

// "128,64" -> numbers.
Outcome<std::vector<uint32_t>> parse_counts(const std::string& what, const std::string& list);

}  // namespace kvant::tools
