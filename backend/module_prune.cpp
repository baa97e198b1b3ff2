// Functions become lists of blocks; branches on constants that select are rewritten; what is still reached is written out again.
//
// Structured control flow (SPIR-V specification, section 2.11) stays: a selection that is cut makes its blocks part of the construct
// around it, whose exits they may take already. Merge blocks and continue targets that remaining headers name must be there, reached or not.
#include "module_prune.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "spirv_constants.hpp"
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
  kOpFunction = 54,
  kOpFunctionEnd = 56,
  kOpFunctionCall = 57,
  kOpVariable = 59,
  kOpStore = 62,
  kOpCopyMemory = 63,
  kOpDecorate = 71,
  kOpControlBarrier = 224,
  kOpMemoryBarrier = 225,
  kOpAtomicStore = 228,
  kOpPhi = 245,
  kOpLoopMerge = 246,
  kOpSelectionMerge = 247,
  kOpLabel = 248,
  kOpBranch = 249,
  kOpBranchConditional = 250,
  kOpSwitch = 251,
  kOpUnreachable = 255,
  kOpNoLine = 317,
  kOpCooperativeMatrixStore = 4458,
};

constexpr std::size_t kHeaderWords = 5;

using Id = std::uint32_t;
using Words = std::vector<std::uint32_t>;
using Instruction = std::span<const std::uint32_t>;

std::uint32_t opcode(Instruction word) { return word[0] & 0xFFFFu; }
std::uint32_t header(std::uint32_t op, std::size_t count) { return static_cast<std::uint32_t>(count) << 16 | op; }

struct Block {
  Id label = 0;
  std::vector<Instruction> body;  // between the label and the merge instruction or terminator
  Words merge;                    // none: empty
  Words terminator;
};

struct Function {
  Id id = 0;
  std::vector<Instruction> head;  // OpFunction and parameters
  std::vector<Block> blocks;      // the first is the entry
};

// Labels that a block may go to next.
std::vector<Id> successors(const Block& block) {
  const Words& word = block.terminator;
  switch (opcode(word)) {
    case kOpBranch:
      return {word[1]};
    case kOpBranchConditional:
      return {word[2], word[3]};
    case kOpSwitch: {
      std::vector<Id> found{word[2]};
      for (std::size_t i = 4; i < word.size(); i += 2) found.push_back(word[i]);
      return found;
    }
    default:
      return {};
  }
}

void add(Function& function, std::uint32_t op, Instruction word) {
  if (op == kOpLabel) {
    function.blocks.push_back({word[1], {}, {}, {}});
  } else if (function.blocks.empty()) {
    function.head.push_back(word);
  } else if (op == kOpSelectionMerge || op == kOpLoopMerge) {
    function.blocks.back().merge.assign(word.begin(), word.end());
  } else if (op >= kOpBranch && op <= kOpUnreachable) {
    function.blocks.back().terminator.assign(word.begin(), word.end());
  } else {
    function.blocks.back().body.push_back(word);
  }
}

// Selections whose condition is known become branches.
void cut_branches(Function& function, const std::map<Id, std::uint32_t>& known) {
  for (Block& block : function.blocks) {
    if (opcode(block.terminator) != kOpBranchConditional || block.merge.empty() || opcode(block.merge) != kOpSelectionMerge) continue;
    const auto condition = known.find(block.terminator[1]);
    if (condition == known.end()) continue;
    block.terminator = {header(kOpBranch, 2), block.terminator[condition->second != 0 ? 2 : 3]};
    block.merge.clear();
  }
}

// Leaves the blocks that are reached, and those that headers among them name.
void drop_blocks(Function& function) {
  std::map<Id, const Block*> by_label;
  for (const Block& block : function.blocks) by_label[block.label] = &block;
  std::set<Id> reached;
  std::vector<Id> open{function.blocks.front().label};
  while (!open.empty()) {
    const Id label = open.back();
    open.pop_back();
    if (!reached.insert(label).second) continue;
    for (const Id next : successors(*by_label.at(label))) open.push_back(next);
  }
  std::set<Id> merges;
  std::map<Id, Id> headers;  // by continue target
  for (const Id label : reached) {
    const Words& merge = by_label.at(label)->merge;
    if (merge.empty()) continue;
    merges.insert(merge[1]);
    if (opcode(merge) == kOpLoopMerge) headers[merge[2]] = label;
  }
  std::vector<Block> kept;
  for (Block& block : function.blocks) {
    const Id label = block.label;
    const auto loop = headers.find(label);
    if (reached.contains(label))
      kept.push_back(std::move(block));
    else if (loop != headers.end())
      kept.push_back({label, {}, {}, {header(kOpBranch, 2), loop->second}});
    else if (merges.contains(label))
      kept.push_back({label, {}, {}, {header(kOpUnreachable, 1)}});
  }
  function.blocks = std::move(kept);
}

// Local variables that nothing names any more. A literal that looks like one's id keeps it.
std::set<Id> unused_variables(const Function& function) {
  std::set<Id> unused;
  for (const Instruction word : function.blocks.front().body)
    if (opcode(word) == kOpVariable) unused.insert(word[2]);
  for (const Block& block : function.blocks)
    for (const Instruction word : block.body)
      if (opcode(word) != kOpVariable)
        for (const Id id : word.subspan(1)) unused.erase(id);
      else if (word.size() > 4)
        unused.erase(word[4]);
  for (const Block& block : function.blocks)
    for (const Id id : block.terminator) unused.erase(id);
  return unused;
}

void write(Words& out, Instruction word) { out.insert(out.end(), word.begin(), word.end()); }

// Of the pairs of value and block, those whose block still leads here.
void write_phi(Words& out, Instruction word, const std::set<Id>& from) {
  Words phi(word.begin(), word.begin() + 3);
  for (std::size_t i = 3; i < word.size(); i += 2)
    if (from.contains(word[i + 1])) phi.insert(phi.end(), {word[i], word[i + 1]});
  phi[0] = header(kOpPhi, phi.size());
  write(out, phi);
}

void write(Words& out, const Function& function, const std::set<Id>& unused) {
  std::map<Id, std::set<Id>> predecessors;
  for (const Block& block : function.blocks)
    for (const Id next : successors(block)) predecessors[next].insert(block.label);
  for (const Instruction word : function.head) write(out, word);
  for (const Block& block : function.blocks) {
    write(out, Words{header(kOpLabel, 2), block.label});
    for (const Instruction word : block.body) {
      if (opcode(word) == kOpVariable && unused.contains(word[2])) continue;
      if (opcode(word) == kOpPhi)
        write_phi(out, word, predecessors[block.label]);
      else
        write(out, word);
    }
    write(out, block.merge);
    write(out, block.terminator);
  }
  out.push_back(header(kOpFunctionEnd, 1));
}

std::set<Id> called_from(std::vector<Id> open, const std::vector<Function>& functions) {
  std::map<Id, std::set<Id>> calls;
  for (const Function& function : functions)
    for (const Block& block : function.blocks)
      for (const Instruction word : block.body)
        if (opcode(word) == kOpFunctionCall) calls[function.id].insert(word[3]);
  std::set<Id> called;
  while (!open.empty()) {
    const Id id = open.back();
    open.pop_back();
    if (!called.insert(id).second) continue;
    for (const Id callee : calls[id]) open.push_back(callee);
  }
  return called;
}

// Of an instruction inside of a function; 0: none.
Id result_of(std::uint32_t op, Instruction word) {
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
    case kOpCooperativeMatrixStore:
      return 0;
    default:
      return (op >= kOpLoopMerge && op <= kOpUnreachable) || word.size() < 3 ? 0 : word[2];
  }
}

// A module in the parts that are treated differently. `words` must outlive it.
struct Module {
  std::vector<Id> entries;
  std::vector<Instruction> declarations;  // all that stands before the functions
  std::vector<Function> functions;
  std::set<Id> results;  // of the functions' instructions
};

Module read(std::span<const std::uint32_t> words) {
  Module module;
  bool inside = false;
  for_each_instruction(words, [&](std::uint32_t op, Instruction word) {
    if (op == kOpFunction) {
      module.functions.push_back({word[2], {}, {}});
      inside = true;
    }
    if (!inside) {
      if (op == kOpEntryPoint) module.entries.push_back(word[2]);
      module.declarations.push_back(word);
      return;
    }
    inside = op != kOpFunctionEnd;
    if (inside) add(module.functions.back(), op, word);
    module.results.insert(result_of(op, word));
  });
  module.results.erase(0);
  return module;
}

}  // namespace

Words prune_module(std::span<const std::uint32_t> words, std::span<const std::uint32_t> spec) {
  Module module = read(words);
  const std::map<Id, std::uint32_t> known = known_constants(words, spec);
  for (Function& function : module.functions) {
    cut_branches(function, known);
    drop_blocks(function);
  }
  const std::set<Id> called = called_from(module.entries, module.functions);
  Words code(words.begin(), words.begin() + kHeaderWords);  // as a module of its own, for for_each_instruction
  for (const Function& function : module.functions)
    if (called.contains(function.id)) write(code, function, unused_variables(function));
  std::set<Id>& gone = module.results;
  for_each_instruction(code, [&](std::uint32_t op, Instruction word) { gone.erase(result_of(op, word)); });

  Words pruned(words.begin(), words.begin() + kHeaderWords);
  pruned.reserve(words.size());
  for (const Instruction word : module.declarations) {
    const std::uint32_t op = opcode(word);
    const bool annotation = op == kOpName || op == kOpMemberName || op == kOpDecorate;
    if (!annotation || !gone.contains(word[1])) write(pruned, word);
  }
  pruned.insert(pruned.end(), code.begin() + kHeaderWords, code.end());
  return pruned;
}

}  // namespace kvant
