// Every struct of every header at every size: none, too small, as an older host has it with garbage behind, larger with garbage
// behind. What a call does with a struct cut before a field is what it does with a whole one in which that field and those behind it
// are zero. The headers' own text says which structs there are.
#include <algorithm>
#include <set>

#include "header_structs.hpp"
#include "layout_table.h"
#include "struct_cases.hpp"

using namespace abi_test;

namespace {

using Bytes = std::vector<unsigned char>;
constexpr unsigned char kGarbage = 0xA5;
constexpr std::size_t kHeader = 16, kSlack = 64;

std::vector<std::size_t> field_offsets(const std::string& type) {
  std::vector<std::size_t> offsets;
  for (const abi_layout_row* table : {abi_layout_present, abi_layout_ext_present})
    for (; table->type != nullptr; ++table)
      if (table->type == type && std::string(table->field) != "sizeof" && table->value >= kHeader) offsets.push_back(table->value);
  std::sort(offsets.begin(), offsets.end());
  return offsets;
}

// A block with `size` bytes of the struct, `fill` behind them, and struct_size set.
Bytes block_of(const Bytes& good, std::size_t copied, std::size_t struct_size, unsigned char fill) {
  Bytes block(good.size() + kSlack, fill);
  std::copy_n(good.begin(), std::min(copied, good.size()), block.begin());
  std::memcpy(block.data(), &struct_size, sizeof struct_size);
  return block;
}

void check_sizes(const StructCase& one) {
  const std::size_t whole = one.good.size();
  const auto call = [&](Bytes block) { return one.call(block.data()); };
  Bytes good = block_of(one.good, whole, whole, 0);
  const Outcome right = call(good);
  REQUIRE_MESSAGE(right.code == 0, right.message);
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{8}, one.least - 1}) {
    CAPTURE(size);
    const Outcome refused = call(block_of(one.good, whole, size, kGarbage));
    CHECK(refused.code == KVANT_ERROR_INVALID_ARGUMENT);
    CHECK_MESSAGE(refused.message.find("struct_size (" + std::to_string(size) + ")") != std::string::npos, refused.message);
  }
  for (const std::size_t size : {whole + 8, whole + kSlack}) {
    CAPTURE(size);
    const Outcome larger = call(block_of(one.good, whole, size, kGarbage));
    CHECK_MESSAGE(larger.code == 0, larger.message);
    CHECK(larger.message == right.message);
  }
  const std::vector<std::size_t> offsets = field_offsets(one.type);
  REQUIRE_FALSE(offsets.empty());
  for (const std::size_t offset : offsets)
    for (const std::size_t inside : {std::size_t{0}, std::size_t{2}}) {
      const std::size_t size = offset + inside;
      if (size < one.least) continue;
      CAPTURE(size);
      const Outcome cut = call(block_of(one.good, size, size, kGarbage));
      Bytes zeroed = block_of(one.good, offset, whole, 0);
      const Outcome whole_with_zeros = call(zeroed);
      CHECK(cut.code == whole_with_zeros.code);
      CHECK(cut.source == whole_with_zeros.source);
      CHECK(cut.message == whole_with_zeros.message);
    }
}

// Fields inside struct_size are written, nothing behind is.
void check_output(const StructCase& one) {
  const std::size_t whole = one.good.size();
  std::vector<std::size_t> sizes = field_offsets(one.type);
  sizes.push_back(whole);
  sizes.push_back(whole + 8);
  for (const std::size_t size : sizes) {
    CAPTURE(size);
    Bytes block = block_of(one.good, kHeader, size, kGarbage);
    const Outcome outcome = one.call(block.data());
    REQUIRE_MESSAGE(outcome.code == 0, outcome.message);
    std::size_t kept = 0;
    std::memcpy(&kept, block.data(), sizeof kept);
    CHECK(kept == size);
    const std::size_t end = std::min(size, whole);
    CHECK(std::all_of(block.begin() + static_cast<std::ptrdiff_t>(end), block.end(), [](unsigned char b) { return b == kGarbage; }));
    if (end > kHeader + 8)
      CHECK_FALSE(std::all_of(block.begin() + kHeader, block.begin() + static_cast<std::ptrdiff_t>(end),
                              [](unsigned char b) { return b == kGarbage; }));
  }
}

}  // namespace

TEST_CASE("structs: every one of every header, at every size") {
  const StructCases all;
  std::set<std::string> covered;
  for (const StructCase& one : all.cases()) {
    CAPTURE(one.type);
    covered.insert(one.type);
    check_sizes(one);
    if (one.output) check_output(one);
  }
  if (!all.has_device()) {
    shared_session().has_device();
    CHECK(covered.size() >= 4);
    return;
  }
  for (const HeaderStruct& found : header_structs()) {
    CAPTURE(found.name);
    // Tables of functions go the other way; kvant_next is the head of those that are chained.
    if (found.is_sized() && !found.is_function_table() && found.name != "kvant_next") CHECK(covered.contains(found.name));
  }
}
