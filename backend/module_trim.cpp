// One walk finds the functions, their names and calls; a second one copies what stays.
#include "module_trim.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "spirv_words.hpp"

namespace kvant {
namespace {

// Opcodes of the SPIR-V specification, section 3.49 (unified1).
enum : std::uint32_t {
  kOpNop = 0,
  kOpName = 5,
  kOpMemberName = 6,
  kOpLine = 8,
  kOpEntryPoint = 15,
  kOpTypeVoid = 19,
  kOpFunction = 54,
  kOpFunctionParameter = 55,
  kOpFunctionEnd = 56,
  kOpFunctionCall = 57,
  kOpStore = 62,
  kOpCopyMemory = 63,
  kOpDecorate = 71,
  kOpControlBarrier = 224,
  kOpMemoryBarrier = 225,
  kOpAtomicStore = 228,
  kOpLoopMerge = 246,
  kOpLabel = 248,
  kOpReturn = 253,
  kOpUnreachable = 255,
  kOpNoLine = 317,
};

using Id = std::uint32_t;

// Of an instruction inside of a function; 0: none.
Id result_of(std::uint32_t op, std::span<const std::uint32_t> word) {
  switch (op) {
    case kOpLabel:
      return word[1];
    case kOpNop:
    case kOpLine:
    case kOpNoLine:
    case kOpStore:
    case kOpCopyMemory:
    case kOpControlBarrier:
    case kOpMemoryBarrier:
    case kOpAtomicStore:
      return 0;
    default:
      return (op >= kOpLoopMerge && op <= kOpUnreachable) || word.size() < 3 ? 0 : word[2];
  }
}

// The part of a function's name before its suffix, if it is a format's; kv_... are those of the dispatch.
std::string_view format_of(std::string_view name) {
  name = name.substr(0, name.find('('));
  if (name.starts_with("kv_")) return {};
  for (const std::string_view suffix : {"_encode_block", "_decode_span", "_int8_span"})
    if (name.ends_with(suffix)) return name.substr(0, name.size() - suffix.size());
  return {};
}

// The names that functions of these formats begin with.
std::set<std::string_view> used_names(std::span<const std::uint32_t> formats) {
  std::set<std::string_view> names;
  const auto use = [&](std::uint32_t id, std::string_view name) {
    if (std::find(formats.begin(), formats.end(), id) != formats.end()) names.insert(name);
  };
#define KVANT_FORMAT(symbol, id, block, code_bits, high_bits, scale_bytes, row_pad, int_dot) use(id, #symbol);
#include "formats.def"
#undef KVANT_FORMAT
  return names;
}

struct Function {
  std::string_view format;  // whose it is; empty: not a format's
  bool is_void = false;
  std::set<Id> calls;
};

// The functions whose bodies may go, and those that nobody calls then.
struct Unused {
  std::set<Id> bodies, whole;
};
Unused unused_functions(std::span<const std::uint32_t> words, std::span<const std::uint32_t> formats) {
  std::map<Id, Function> functions;
  std::map<Id, std::string_view> names;
  Id void_type = 0, current = 0;
  std::vector<Id> entries;
  for_each_instruction(words, [&](std::uint32_t op, std::span<const std::uint32_t> word) {
    if (op == kOpName) {
      const char* text = reinterpret_cast<const char*>(&word[2]);
      names[word[1]] = std::string_view(text, strnlen(text, (word.size() - 2) * sizeof(std::uint32_t)));
    } else if (op == kOpEntryPoint) {
      entries.push_back(word[2]);
    } else if (op == kOpTypeVoid) {
      void_type = word[1];
    } else if (op == kOpFunction) {
      current = word[2];
      functions[current] = {format_of(names[current]), word[1] == void_type, {}};
    } else if (op == kOpFunctionCall) {
      functions[current].calls.insert(word[3]);
    }
  });
  const std::set<std::string_view> used = used_names(formats);
  Unused unused;
  // Functions that are called from `open` on, those in unused.bodies included, but not what they would call.
  const auto called = [&](std::vector<Id> open) {
    std::set<Id> seen;
    while (!open.empty()) {
      const Id id = open.back();
      open.pop_back();
      if (!seen.insert(id).second || unused.bodies.contains(id)) continue;
      for (const Id callee : functions[id].calls) open.push_back(callee);
    }
    return seen;
  };
  std::vector<Id> of_used;
  for (const auto& [id, function] : functions)
    if (used.contains(function.format)) of_used.push_back(id);
  const std::set<Id> kept = called(of_used);
  for (const auto& [id, function] : functions)
    if (!function.format.empty() && !used.contains(function.format) && function.is_void && !kept.contains(id)) unused.bodies.insert(id);
  if (unused.bodies.empty()) return unused;
  const std::set<Id> reached = called(entries);
  for (const auto& [id, function] : functions)
    if (!reached.contains(id)) unused.whole.insert(id);
  return unused;
}

}  // namespace

std::vector<std::uint32_t> trim_module(std::span<const std::uint32_t> words, std::span<const std::uint32_t> formats) {
  const Unused unused = unused_functions(words, formats);
  if (unused.bodies.empty()) return {words.begin(), words.end()};
  std::set<Id> gone;  // results of what goes
  bool inside = false, whole = false, first_label = false;
  const auto stays = [&](std::uint32_t op, std::span<const std::uint32_t> word) {
    if (op == kOpFunction) {
      whole = unused.whole.contains(word[2]);
      inside = whole || unused.bodies.contains(word[2]);
      first_label = true;
      return !whole;
    }
    if (!inside) return true;
    if (op == kOpFunctionEnd) {
      inside = false;
      return !whole;
    }
    if (whole) return false;
    if (op == kOpFunctionParameter) return true;
    return op == kOpLabel && std::exchange(first_label, false);
  };
  for_each_instruction(words, [&](std::uint32_t op, std::span<const std::uint32_t> word) {
    if (!stays(op, word)) gone.insert(result_of(op, word));
  });
  gone.erase(0);
  std::vector<std::uint32_t> trimmed(words.begin(), words.begin() + 5);
  trimmed.reserve(words.size());
  inside = false;
  for_each_instruction(words, [&](std::uint32_t op, std::span<const std::uint32_t> word) {
    const bool annotation = op == kOpName || op == kOpMemberName || op == kOpDecorate;
    if ((annotation && gone.contains(word[1])) || !stays(op, word)) return;
    trimmed.insert(trimmed.end(), word.begin(), word.end());
    if (inside && op == kOpLabel) trimmed.push_back(1u << 16 | kOpReturn);
  });
  return trimmed;
}

}  // namespace kvant
