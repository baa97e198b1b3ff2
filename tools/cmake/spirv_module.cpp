// Walks the instructions of a SPIR-V module once for declarations and once for barriers.
#include "spirv_module.hpp"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "spirv_words.hpp"

namespace kvant::build {
namespace {

// Opcodes and enumerants of the SPIR-V specification, sections 3.20, 3.7 and 3.49 (unified1).
enum : std::uint32_t {
  kOpCapability = 17,
  kOpTypeInt = 21,
  kOpTypeFloat = 22,
  kOpTypeVector = 23,
  kOpTypeArray = 28,
  kOpTypeStruct = 30,
  kOpTypePointer = 32,
  kOpConstant = 43,
  kOpFunction = 54,
  kOpFunctionEnd = 56,
  kOpFunctionCall = 57,
  kOpVariable = 59,
  kOpDecorate = 71,
  kOpMemberDecorate = 72,
  kOpControlBarrier = 224,
  kOpLoopMerge = 246,
  kOpLabel = 248,
  kDecorationSpecId = 1,
  kDecorationBinding = 33,
  kDecorationDescriptorSet = 34,
  kDecorationOffset = 35,
  kStoragePushConstant = 9,
};

using Id = std::uint32_t;

struct Types {
  std::map<Id, std::uint32_t> scalar_bytes;
  std::map<Id, std::pair<Id, std::uint32_t>> vectors;  // component type, count
  std::map<Id, std::pair<Id, Id>> arrays;              // element type, length constant
  std::map<Id, std::vector<Id>> structs;
  std::map<Id, Id> pointees;
  std::map<Id, std::uint32_t> constants;
  std::map<std::pair<Id, std::uint32_t>, std::uint32_t> member_offsets;

  std::uint32_t bytes(Id type) const {
    if (const auto scalar = scalar_bytes.find(type); scalar != scalar_bytes.end()) return scalar->second;
    if (const auto vector = vectors.find(type); vector != vectors.end())
      return bytes(vector->second.first) * vector->second.second;
    if (const auto array = arrays.find(type); array != arrays.end()) {
      const auto length = constants.find(array->second.second);
      return bytes(array->second.first) * (length == constants.end() ? 0 : length->second);
    }
    std::uint32_t end = 0;
    if (const auto members = structs.find(type); members != structs.end())
      for (std::uint32_t i = 0; i < members->second.size(); ++i) {
        const auto offset = member_offsets.find({type, i});
        const std::uint32_t begin = offset == member_offsets.end() ? end : offset->second;
        end = std::max(end, begin + bytes(members->second[i]));
      }
    return end;
  }
};

struct Function {
  bool barrier = false;
  bool barrier_in_loop = false;
  std::set<Id> calls;
  std::set<Id> calls_in_loops;
};

// A front end writes a loop's blocks between the block of OpLoopMerge and the merge block that it names, in that order.
std::map<Id, Function> find_barriers(std::span<const std::uint32_t> words) {
  std::map<Id, Function> functions;
  std::vector<Id> merge_blocks;
  Id current = 0;
  for_each_instruction(words, [&](std::uint32_t op, std::span<const std::uint32_t> word) {
    const bool in_loop = !merge_blocks.empty();
    switch (op) {
      case kOpFunction:
        current = word[2];
        functions[current];
        break;
      case kOpFunctionEnd:
        merge_blocks.clear();
        break;
      case kOpLoopMerge:
        merge_blocks.push_back(word[1]);
        break;
      case kOpLabel:
        if (in_loop && merge_blocks.back() == word[1]) merge_blocks.pop_back();
        break;
      case kOpControlBarrier:
        functions[current].barrier = true;
        if (in_loop) functions[current].barrier_in_loop = true;
        break;
      case kOpFunctionCall:
        functions[current].calls.insert(word[3]);
        if (in_loop) functions[current].calls_in_loops.insert(word[3]);
        break;
      default:
        break;
    }
  });
  return functions;
}

bool has_barrier_in_loop(std::span<const std::uint32_t> words) {
  std::map<Id, Function> functions = find_barriers(words);
  for (bool changed = true; changed;) {
    changed = false;
    for (auto& [id, function] : functions)
      for (Id callee : function.calls)
        if (functions[callee].barrier && !function.barrier) function.barrier = changed = true;
  }
  return std::any_of(functions.begin(), functions.end(), [&](const auto& entry) {
    const Function& function = entry.second;
    return function.barrier_in_loop || std::any_of(function.calls_in_loops.begin(), function.calls_in_loops.end(),
                                                   [&](Id callee) { return functions[callee].barrier; });
  });
}

}  // namespace

Module reflect(std::span<const std::uint32_t> words) {
  Module module;
  Types types;
  std::vector<Id> push_constant_pointers;
  for_each_instruction(words, [&](std::uint32_t op, std::span<const std::uint32_t> word) {
    switch (op) {
      case kOpCapability:
        module.capabilities.insert(word[1]);
        break;
      case kOpTypeInt:
      case kOpTypeFloat:
        types.scalar_bytes[word[1]] = word[2] / 8;
        break;
      case kOpTypeVector:
        types.vectors[word[1]] = {word[2], word[3]};
        break;
      case kOpTypeArray:
        types.arrays[word[1]] = {word[2], word[3]};
        break;
      case kOpTypeStruct:
        types.structs[word[1]] = std::vector<Id>(word.begin() + 2, word.end());
        break;
      case kOpTypePointer:
        types.pointees[word[1]] = word[3];
        break;
      case kOpConstant:
        types.constants[word[2]] = word[3];
        break;
      case kOpVariable:
        if (word[3] == kStoragePushConstant) push_constant_pointers.push_back(word[1]);
        break;
      case kOpDecorate:
        if (word[2] == kDecorationSpecId) module.spec_ids.insert(word[3]);
        if (word[2] == kDecorationBinding) module.bindings.insert(word[3]);
        if (word[2] == kDecorationDescriptorSet) module.descriptor_sets.insert(word[3]);
        break;
      case kOpMemberDecorate:
        if (word[3] == kDecorationOffset) types.member_offsets[{word[1], word[2]}] = word[4];
        break;
      default:
        break;
    }
  });
  for (Id pointer : push_constant_pointers)
    module.push_constant_bytes = std::max(module.push_constant_bytes, types.bytes(types.pointees[pointer]));
  module.barrier_in_loop = has_barrier_in_loop(words);
  return module;
}

}  // namespace kvant::build
