// Checks that all functions of the table share.
#include "boundary.hpp"

namespace kvant::abi {
namespace {

constexpr std::uint32_t kMaxChain = 32;

}  // namespace

Status check_pointer(const void* pointer, std::string_view name, std::string_view expected) {
  if (pointer == nullptr) return invalid(name, " is NULL; expected ", expected);
  return {};
}

Status walk_next(const kvant_next* next, std::string_view name, std::span<KnownNext> known) {
  for (std::uint32_t index = 0; next != nullptr; ++index) {
    if (index == kMaxChain) return invalid(name, ".next: the chain has more than ", kMaxChain, " structs, or a cycle");
    kvant_next node{};
    std::memcpy(&node.struct_size, next, sizeof node.struct_size);
    if (node.struct_size < sizeof(kvant_next))
      return invalid(name, ".next: struct_size (", node.struct_size, ") of struct ", index, " of the chain is less than ",
                     sizeof(kvant_next));
    std::memcpy(&node, next, sizeof node);
    if ((node.flags & ~KVANT_NEXT_OPTIONAL) != 0)
      return invalid(name, ".next: flags (", hex(node.flags), ") of struct ", index, " of the chain have bits beyond ",
                     hex(KVANT_NEXT_OPTIONAL));
    bool found = false;
    for (KnownNext& candidate : known) {
      if (candidate.type != node.type) continue;
      if (candidate.node != nullptr) return invalid(name, ".next: type (", hex(node.type), ") occurs twice in the chain");
      candidate.node = next;
      found = true;
    }
    if (!found && (node.flags & KVANT_NEXT_OPTIONAL) == 0)
      return {StatusCode::unimplemented, text(name, ".next: type (", hex(node.type),
                                              ") is not known here and is not flagged KVANT_NEXT_OPTIONAL")};
    next = node.next;
  }
  return {};
}

}  // namespace kvant::abi
