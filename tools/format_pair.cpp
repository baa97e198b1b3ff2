// Parsing of comma-separated lists.
#include "format_pair.hpp"

#include <algorithm>
#include <charconv>
#include <sstream>

namespace kvant::tools {

Outcome<std::vector<FormatPair>> parse_pairs(const Library& library, const std::string& list) {
  std::vector<FormatPair> pairs;
  std::istringstream stream(list);
  for (std::string name; std::getline(stream, name, ',');) {
    const size_t slash = name.find('/');
    const auto k = library.format(name.substr(0, slash));
    if (!k.ok()) {
      return k.failure();
    }
    const auto v = slash == std::string::npos ? k : library.format(name.substr(slash + 1));
    if (!v.ok()) {
      return v.failure();
    }
    const bool known = std::any_of(pairs.begin(), pairs.end(),
                                   [&](const FormatPair& pair) { return pair.k.id == k->id && pair.v.id == v->id; });
    if (!known) {
      pairs.push_back({*k, *v});
    }
  }
  if (pairs.empty()) {
    return Failure{"the list of formats is empty", Exit::kUsage};
  }
  return pairs;
}

Outcome<std::vector<uint32_t>> parse_counts(const std::string& what, const std::string& list) {
  std::vector<uint32_t> counts;
  std::istringstream stream(list);
  for (std::string text; std::getline(stream, text, ',');) {
    uint32_t count = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
    if (error != std::errc() || end != text.data() + text.size() || count == 0) {
      return Failure{what + " (" + text + ") is not a positive integer", Exit::kUsage};
    }
    counts.push_back(count);
  }
  if (counts.empty()) {
    return Failure{"the list of " + what + " is empty", Exit::kUsage};
  }
  return counts;
}

}  // namespace kvant::tools
