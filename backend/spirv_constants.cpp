// Constants stand before their use in a module, so that one walk evaluates them all. Meanings: SPIR-V specification, section 3.49 (unified1).
#include "spirv_constants.hpp"

#include <array>
#include <optional>

#include "spirv_words.hpp"

namespace kvant {
namespace {

enum : std::uint32_t {
  kOpTypeInt = 21,
  kOpConstantTrue = 41,
  kOpConstantFalse = 42,
  kOpConstant = 43,
  kOpSpecConstantTrue = 48,
  kOpSpecConstantFalse = 49,
  kOpSpecConstant = 50,
  kOpSpecConstantOp = 52,
  kOpDecorate = 71,
  kOpIAdd = 128,
  kOpISub = 130,
  kOpIMul = 132,
  kOpUDiv = 134,
  kOpUMod = 137,
  kOpLogicalEqual = 164,
  kOpLogicalNotEqual = 165,
  kOpLogicalOr = 166,
  kOpLogicalAnd = 167,
  kOpLogicalNot = 168,
  kOpSelect = 169,
  kOpIEqual = 170,
  kOpINotEqual = 171,
  kOpUGreaterThan = 172,
  kOpUGreaterThanEqual = 174,
  kOpULessThan = 176,
  kOpULessThanEqual = 178,
  kOpShiftRightLogical = 194,
  kOpShiftLeftLogical = 196,
  kOpBitwiseOr = 197,
  kOpBitwiseXor = 198,
  kOpBitwiseAnd = 199,
  kDecorationSpecId = 1,
};

std::optional<std::uint32_t> evaluate(std::uint32_t op, std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  switch (op) {
    case kOpIAdd:
      return a + b;
    case kOpISub:
      return a - b;
    case kOpIMul:
      return a * b;
    case kOpUDiv:
      return b == 0 ? std::nullopt : std::optional(a / b);
    case kOpUMod:
      return b == 0 ? std::nullopt : std::optional(a % b);
    case kOpLogicalEqual:
    case kOpIEqual:
      return a == b;
    case kOpLogicalNotEqual:
    case kOpINotEqual:
      return a != b;
    case kOpLogicalOr:
    case kOpBitwiseOr:
      return a | b;
    case kOpLogicalAnd:
    case kOpBitwiseAnd:
      return a & b;
    case kOpBitwiseXor:
      return a ^ b;
    case kOpLogicalNot:
      return a ^ 1;
    case kOpSelect:
      return a != 0 ? b : c;
    case kOpUGreaterThan:
      return a > b;
    case kOpUGreaterThanEqual:
      return a >= b;
    case kOpULessThan:
      return a < b;
    case kOpULessThanEqual:
      return a <= b;
    case kOpShiftRightLogical:
      return b > 31 ? std::nullopt : std::optional(a >> b);
    case kOpShiftLeftLogical:
      return b > 31 ? std::nullopt : std::optional(a << b);
    default:
      return std::nullopt;
  }
}

}  // namespace

std::map<std::uint32_t, std::uint32_t> known_constants(std::span<const std::uint32_t> words, std::span<const std::uint32_t> spec) {
  std::map<std::uint32_t, std::uint32_t> known, spec_ids;
  std::map<std::uint32_t, bool> is_word;  // integer types of 32 bits
  const auto given = [&](std::uint32_t id, std::uint32_t value) {
    const auto spec_id = spec_ids.find(id);
    return spec_id != spec_ids.end() && spec_id->second < spec.size() ? spec[spec_id->second] : value;
  };
  for_each_instruction(words, [&](std::uint32_t op, std::span<const std::uint32_t> word) {
    switch (op) {
      case kOpDecorate:
        if (word[2] == kDecorationSpecId) spec_ids[word[1]] = word[3];
        break;
      case kOpTypeInt:
        is_word[word[1]] = word[2] == 32;
        break;
      case kOpConstantTrue:
      case kOpConstantFalse:
        known[word[2]] = op == kOpConstantTrue;
        break;
      case kOpSpecConstantTrue:
      case kOpSpecConstantFalse:
        known[word[2]] = given(word[2], op == kOpSpecConstantTrue) != 0;
        break;
      case kOpConstant:
        if (is_word[word[1]]) known[word[2]] = word[3];
        break;
      case kOpSpecConstant:
        if (is_word[word[1]]) known[word[2]] = given(word[2], word[3]);
        break;
      case kOpSpecConstantOp: {
        std::array<std::uint32_t, 3> operand{};
        if (word.size() > 4 + operand.size()) break;
        for (std::size_t i = 4; i < word.size(); ++i) {
          const auto value = known.find(word[i]);
          if (value == known.end()) return;
          operand[i - 4] = value->second;
        }
        if (const auto value = evaluate(word[3], operand[0], operand[1], operand[2])) known[word[2]] = *value;
        break;
      }
      default:
        break;
    }
  });
  return known;
}

}  // namespace kvant
