#include <doctest/doctest.h>

#include <cstring>
#include <map>
#include <string>
#include <string_view>

#include "formats.hpp"
#include "kernel_table.hpp"
#include "module_trim.hpp"

using namespace kvant;

namespace {

// Instructions of each function by name, up to the parenthesis.
std::map<std::string, std::size_t> function_sizes(const std::vector<std::uint32_t>& words) {
  std::map<std::uint32_t, std::string> names;
  std::map<std::string, std::size_t> sizes;
  std::string current;
  std::size_t at = 5;
  while (at < words.size()) {
    const std::uint32_t op = words[at] & 0xFFFFu, count = words[at] >> 16;
    REQUIRE(count != 0);
    REQUIRE(at + count <= words.size());
    if (op == 5) {
      const std::string_view text(reinterpret_cast<const char*>(&words[at + 2]));
      names[words[at + 1]] = text.substr(0, text.find('('));
    }
    if (op == 54) current = names[words[at + 2]];
    if (!current.empty()) ++sizes[current];
    if (op == 56) current.clear();
    at += count;
  }
  REQUIRE(at == words.size());
  return sizes;
}

std::vector<std::uint32_t> trimmed(KernelId kernel, std::vector<FormatId> formats) {
  std::vector<std::uint32_t> ids;
  for (const FormatId format : formats) ids.push_back(static_cast<std::uint32_t>(format));
  return trim_module(kernel_info(kernel).spirv, ids);
}

}  // namespace

TEST_CASE("module_trim: all formats leave a module as it is") {
  std::vector<FormatId> all;
  for (const FormatInfo& format : formats()) all.push_back(format.id);
  for (const KernelId kernel : {KernelId::append, KernelId::read, KernelId::attend_decode, KernelId::copy}) {
    const auto words = trimmed(kernel, all);
    const auto spirv = kernel_info(kernel).spirv;
    CHECK(words == std::vector<std::uint32_t>(spirv.begin(), spirv.end()));
  }
}

TEST_CASE("module_trim: bodies of other formats go, those that a used one calls stay") {
  const auto whole = function_sizes(trimmed(KernelId::append, {}));
  constexpr std::size_t kEmpty = 8;  // function, four parameters, label, return, end
  CHECK(whole.at("q4_0_encode_block") == kEmpty);
  CHECK(whole.at("kv_encode_block") > 100);
  const auto q4 = function_sizes(trimmed(KernelId::append, {FormatId::q4_0, FormatId::q8h}));
  CHECK(q4.at("q4_0_encode_block") > kEmpty);
  CHECK(q4.at("q8h_encode_block") > kEmpty);
  CHECK(q4.at("q8_0_encode_block") == kEmpty);  // q8h packs as q8_0 does, but does not call its encoder
  CHECK(q4.at("t4_encode_block") == kEmpty);
  // What encoders of the trellis formats call goes with them.
  CHECK_FALSE(q4.contains("trellis_distances"));
  CHECK(function_sizes(trimmed(KernelId::append, {FormatId::t4})).at("trellis_distances") > 20);
  const auto reading = function_sizes(trimmed(KernelId::read, {FormatId::q8h}));
  CHECK(reading.at("q8_0_decode_span") > kEmpty);  // called
  CHECK(reading.at("q4_0_decode_span") == kEmpty);
}

TEST_CASE("module_trim: a pair of formats is a fraction of the module") {
  for (const KernelId kernel : {KernelId::append, KernelId::convert, KernelId::attend_prefill}) {
    const std::size_t all = kernel_info(kernel).spirv.size(), two = trimmed(kernel, {FormatId::q8_0, FormatId::q4_0}).size();
    CHECK(two < all);
    if (kernel != KernelId::attend_prefill) CHECK(two < all * 2 / 3);
  }
}
