// The case list itself: enough cases, unique names, every axis present, and none vanished since mustpass.txt was written.
#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "attend_configs.hpp"
#include "cases.hpp"
#include "support.hpp"

using namespace kvant;
using namespace kvant::conformance;

TEST_CASE("mustpass.txt holds exactly the names of the case list") {
  std::ifstream file(std::string(KVANT_SOURCE_DIR) + "/tests/conformance/mustpass.txt");
  REQUIRE(file);
  std::set<std::string> listed, present;
  for (std::string line; std::getline(file, line);)
    if (!line.empty()) listed.insert(line);
  for (const Case& c : all_cases()) present.insert(c.name);
  for (const std::string& name : listed) CHECK_MESSAGE(present.contains(name), "vanished: ", name);
  for (const std::string& name : present)
    CHECK_MESSAGE(listed.contains(name), "not in mustpass.txt (write it anew: kvant conform --list > tests/conformance/mustpass.txt): ", name);
}

TEST_CASE("the list is large, and names are unique") {
  std::set<std::string> names;
  for (const Case& c : all_cases()) names.insert(c.name);
  CHECK(names.size() == all_cases().size());
  CHECK(names.size() >= 5000);
  CHECK(case_list_hash().size() == 16);
}

TEST_CASE("every pair of formats meets in attention and in append") {
  std::set<std::pair<FormatId, FormatId>> attend, append;
  for (const Case& c : all_cases()) {
    if (c.op == Op::attend) attend.insert({c.format_k, c.format_v});
    if (c.op == Op::append) append.insert({c.format_k, c.format_v});
  }
  const std::size_t pairs = formats().size() * formats().size();
  CHECK(attend.size() == pairs);
  CHECK(append.size() == pairs);
}

TEST_CASE("every format is K and V in a quick case of append and of attention, and is read and quantized in one") {
  std::map<std::string, std::set<FormatId>> quick;
  for (const Case& c : all_cases()) {
    if (c.subset == Subset::full) continue;
    if (c.op == Op::append) quick["append K"].insert(c.format_k), quick["append V"].insert(c.format_v);
    if (c.op == Op::attend) {
      const std::string family = is_prefill(c.config.kernel) ? "prefill" : "decode";
      quick[family + " K"].insert(c.format_k), quick[family + " V"].insert(c.format_v);
    }
    if (c.op == Op::read) quick["read"].insert(c.format_k);
    if (c.op == Op::quantize) quick["quantize"].insert(c.format_k);
  }
  CHECK(quick.size() == 8);
  for (const auto& [use, seen] : quick) {
    CAPTURE(use);
    CHECK(seen.size() == formats().size());
  }
}

TEST_CASE("every kernel of kernels.def is run by some case, every attention module with several configs") {
  std::set<KernelId> kernels;
  std::set<std::pair<KernelId, std::string>> configs;
  for (const Case& c : all_cases()) {
    for (const KernelId id : kernels_of(c)) kernels.insert(id);
    if (c.op == Op::attend) configs.insert({c.config.kernel, config_name(c.config)});
  }
  CHECK(kernels.size() == static_cast<std::size_t>(KernelId::count));
  for (const KernelId module : attend_modules())
    CHECK(std::count_if(configs.begin(), configs.end(), [&](const auto& entry) { return entry.first == module; }) >= 2);
}

TEST_CASE("inputs depend on seed, name and stream alone") {
  const Random a(1, "case", 0), same(1, "case", 0), seed(2, "case", 0), name(1, "other", 0), stream(1, "case", 1);
  CHECK(a.bits(7) == same.bits(7));
  CHECK(a.bits(7) != seed.bits(7));
  CHECK(a.bits(7) != name.bits(7));
  CHECK(a.bits(7) != stream.bits(7));
  double sum = 0.0, squares = 0.0;
  constexpr int kSamples = 20000;
  for (int i = 0; i < kSamples; ++i) {
    const double x = a.normal(static_cast<std::uint64_t>(i));
    sum += x;
    squares += x * x;
  }
  CHECK(sum / kSamples == doctest::Approx(0.0).epsilon(0.03));
  CHECK(squares / kSamples == doctest::Approx(1.0).epsilon(0.05));
  CHECK(std::abs(sum / kSamples) < 0.03);
}
