#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "executor.hpp"
#include "formats.hpp"
#include "kernel_table.hpp"
#include "module_prune.hpp"
#include "spirv_words.hpp"

using namespace kvant;

namespace {

using Words = std::vector<std::uint32_t>;

// Instructions of each function by name, up to the parenthesis.
std::map<std::string, std::size_t> function_sizes(const Words& words) {
  std::map<std::uint32_t, std::string> names;
  std::map<std::string, std::size_t> sizes;
  std::string current;
  std::size_t read = 5;
  for_each_instruction(words, [&](std::uint32_t op, std::span<const std::uint32_t> word) {
    read += word.size();
    if (op == 5) {
      const std::string_view text(reinterpret_cast<const char*>(&word[2]));
      names[word[1]] = text.substr(0, text.find('('));
    }
    if (op == 54) current = names[word[2]];
    if (!current.empty()) ++sizes[current];
    if (op == 56) current.clear();
  });
  REQUIRE(read == words.size());
  return sizes;
}

SpecValues spec_of(std::uint32_t format_k, std::uint32_t format_v, std::uint32_t flags) {
  SpecValues spec{};
  spec[KVANT_SPEC_LOCAL_SIZE] = 64;
  spec[KVANT_SPEC_FORMAT_K] = format_k;
  spec[KVANT_SPEC_FORMAT_V] = format_v;
  spec[KVANT_SPEC_HEAD_DIM_K] = spec[KVANT_SPEC_HEAD_DIM_V] = 64;
  spec[KVANT_SPEC_PAGE_TOKENS] = 16;
  spec[KVANT_SPEC_FLAGS] = flags;
  return spec;
}

Words pruned(KernelId kernel, FormatId k, FormatId v, std::uint32_t flags = 0) {
  return prune_module(kernel_info(kernel).spirv, spec_of(static_cast<std::uint32_t>(k), static_cast<std::uint32_t>(v), flags));
}

// Every label that is named is a block of the same function, every block ends once, values of a phi come from the blocks that lead there, and
// every function that is called is there. Instructions that name no ids of blocks or functions are left to spirv-val.
void check_structure(const Words& words) {
  std::set<std::uint32_t> functions, called, labels, named;
  std::map<std::uint32_t, std::set<std::uint32_t>> leading, phis;
  std::uint32_t block = 0;
  for_each_instruction(words, [&](std::uint32_t op, std::span<const std::uint32_t> word) {
    const auto lead = [&](std::uint32_t to) {
      named.insert(to);
      leading[to].insert(block);
    };
    if (op == 54) functions.insert(word[2]);
    if (op == 57) called.insert(word[3]);
    if (op == 248) {
      CHECK(block == 0);
      CHECK(labels.insert(block = word[1]).second);
    }
    if (op == 245)
      for (std::size_t i = 4; i < word.size(); i += 2) phis[block].insert(word[i]);
    if (op == 246) named.insert({word[1], word[2]});
    if (op == 247) named.insert(word[1]);
    if (op == 249) lead(word[1]);
    if (op == 250) lead(word[2]), lead(word[3]);
    if (op >= 249 && op <= 255) {
      CHECK(block != 0);
      block = 0;
    }
    if (op == 56) CHECK(block == 0);
  });
  CHECK(std::includes(labels.begin(), labels.end(), named.begin(), named.end()));
  CHECK(std::includes(functions.begin(), functions.end(), called.begin(), called.end()));
  for (const auto& [at, from] : phis) CHECK(from == leading[at]);
}

// A module of one function, id 1, out of instructions given as opcode and operands. %2 void, %3 its function type, %4 bool, %5 uint,
// %6 the specialization constant 7 with the value 9, %7 = (%6 != 0), %8 an unknown condition.
Words module_of(std::initializer_list<Words> code) {
  Words words{0x07230203, 0x00010300, 0, 100, 0};
  const auto add = [&](const Words& one) {
    words.push_back(static_cast<std::uint32_t>(one.size()) << 16 | one[0]);
    words.insert(words.end(), one.begin() + 1, one.end());
  };
  const std::initializer_list<Words> head{{15, 5, 1, 0x6E69616D, 0}, {71, 6, 1, 7},  {19, 2},          {33, 3, 2},         {20, 4},        {21, 5, 32, 0},
                                          {50, 5, 6, 9},             {43, 5, 9, 0}, {52, 4, 7, 171, 6, 9}, {1, 4, 8}, {54, 2, 1, 0, 3}};
  for (const Words& one : head) add(one);
  for (const Words& one : code) add(one);
  add({56});
  return words;
}

// Opcodes of the function, without OpFunction and OpFunctionEnd, and the labels that are left.
struct Left {
  std::vector<std::uint32_t> ops, labels;
};
Left left_of(const Words& words, std::uint32_t value) {
  std::array<std::uint32_t, 8> spec{};
  spec[7] = value;
  const Words made = prune_module(words, spec);
  check_structure(made);
  Left left;
  bool inside = false;
  for_each_instruction(made, [&](std::uint32_t op, std::span<const std::uint32_t> word) {
    if (op == 56) inside = false;
    if (inside) left.ops.push_back(op);
    if (inside && op == 248) left.labels.push_back(word[1]);
    if (op == 54) inside = true;
  });
  return left;
}

}  // namespace

TEST_CASE("module_prune: every module for every format and many features keeps its structure, and pruned twice is pruned once") {
  for (std::uint16_t id = 0; id < static_cast<std::uint16_t>(KernelId::count); ++id) {
    const auto kernel = static_cast<KernelId>(id);
    if (kernel_info(kernel).spirv.empty()) continue;
    CAPTURE(kernel_info(kernel).name);
    for (const FormatInfo& format : formats())
      for (const std::uint32_t flags : {0U, 0x41U, 0x55555555U, 0xFFFFFFFFU}) {
        const auto symbol = static_cast<std::uint32_t>(format.id);
        const SpecValues spec = spec_of(symbol, (symbol * 7 + 3) % static_cast<std::uint32_t>(formats().size()), flags);
        const Words once = prune_module(kernel_info(kernel).spirv, spec);
        check_structure(once);
        CHECK(prune_module(once, spec) == once);
      }
  }
}

TEST_CASE("module_prune: code of other formats goes, what a used one calls stays") {
  const auto q4 = function_sizes(pruned(KernelId::append, FormatId::q4_0, FormatId::q8h));
  CHECK(q4.at("q4_0_encode_block") > 20);
  CHECK(q4.at("q8h_encode_block") > 20);
  CHECK_FALSE(q4.contains("q8_0_encode_block"));  // q8h packs as q8_0 does, but does not call its encoder
  CHECK_FALSE(q4.contains("t4_encode_block"));
  CHECK_FALSE(q4.contains("trellis_distances"));
  CHECK(function_sizes(pruned(KernelId::append, FormatId::t4, FormatId::q4_0)).contains("trellis_distances"));
  const auto reading = function_sizes(pruned(KernelId::read, FormatId::q8h, FormatId::f32));
  CHECK(reading.contains("q8_0_decode_span"));  // called
  CHECK_FALSE(reading.contains("q4_0_decode_span"));
}

TEST_CASE("module_prune: a pair of formats is a fraction of the module, and features that are off are gone") {
  const auto part = [](KernelId kernel) {
    return static_cast<double>(pruned(kernel, FormatId::q8_0, FormatId::q4_0).size()) / static_cast<double>(kernel_info(kernel).spirv.size());
  };
  for (const KernelId kernel : {KernelId::append, KernelId::convert, KernelId::read}) CHECK(part(kernel) < 0.5);
  CHECK(part(KernelId::attend_prefill) < 0.67);
  CHECK(pruned(KernelId::append, FormatId::q8_0, FormatId::q4_0).size() <
        pruned(KernelId::append, FormatId::q8_0, FormatId::q4_0, KVANT_ROTATE_K).size());
}

TEST_CASE("module_prune: a selection by a constant becomes a branch, and a phi keeps the blocks that lead to it") {
  const Words words = module_of({{248, 10}, {247, 12, 0}, {250, 7, 11, 12}, {248, 11}, {249, 12}, {248, 12}, {245, 4, 13, 7, 10, 8, 11}, {253}});
  CHECK(left_of(words, 1).labels == Words{10, 11, 12});
  CHECK(left_of(words, 1).ops == Words{248, 249, 248, 249, 248, 245, 253});
  CHECK(left_of(words, 0).labels == Words{10, 12});
  CHECK(left_of(words, 0).ops == Words{248, 249, 248, 245, 253});
  const Words with_default = prune_module(words, {});
  std::array<std::uint32_t, 8> nine{};
  nine[7] = 9;
  CHECK(with_default == prune_module(words, nine));
}

TEST_CASE("module_prune: an unknown condition stays, and its merge block though nothing leads there") {
  const Words words = module_of({{248, 10}, {247, 13, 0}, {250, 8, 11, 12}, {248, 11}, {253}, {248, 12}, {253}, {248, 13}, {253}});
  const Left left = left_of(words, 1);
  CHECK(left.labels == Words{10, 11, 12, 13});
  CHECK(left.ops == Words{248, 247, 250, 248, 253, 248, 253, 248, 255});
}

TEST_CASE("module_prune: a loop that is left at once keeps its continue target and merge block") {
  // while (true) { if (constant) return; if (unknown) break; }
  const Words words = module_of({{248, 10}, {249, 11}, {248, 11}, {246, 17, 16, 0}, {249, 12}, {248, 12}, {247, 14, 0}, {250, 7, 13, 14}, {248, 13}, {253},
                                 {248, 14}, {247, 15, 0}, {250, 8, 17, 15}, {248, 15}, {249, 16}, {248, 16}, {249, 11}, {248, 17}, {253}});
  const Left returns = left_of(words, 1);
  CHECK(returns.labels == Words{10, 11, 12, 13, 16, 17});
  CHECK(returns.ops == Words{248, 249, 248, 246, 249, 248, 249, 248, 253, 248, 249, 248, 255});
  CHECK(left_of(words, 0).labels == Words{10, 11, 12, 14, 15, 16, 17});
}

TEST_CASE("module_prune: local variables that nothing names go, with what annotates them") {
  Words words = module_of({{248, 10}, {59, 14, 20, 7}, {59, 14, 21, 7}, {62, 20, 9}, {253}});
  const Words name{5U | 3U << 16, 21, 0x78};  // OpName %21 "x"
  words.insert(words.begin() + 5, name.begin(), name.end());
  const Words made = prune_module(words, {});
  CHECK(made.size() == words.size() - 4 - 3);
  CHECK(std::count(made.begin(), made.end(), 20U) == 2);
  CHECK(std::count(made.begin(), made.end(), 21U) == 0);
}
