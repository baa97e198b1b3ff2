#include "prefix_args.hpp"

#include <algorithm>
#include <iterator>

#include "boundary.hpp"
#include "checks.hpp"

namespace kvant::abi {
namespace {

constexpr std::uint64_t kMaxSalt = 4096;
constexpr std::uint32_t kMaxPriority = 100;
constexpr PolicyKind kKinds[] = {PolicyKind::lru, PolicyKind::none, PolicyKind::window, PolicyKind::adaptive};
static_assert(kKinds[KVANT_POLICY_LRU] == PolicyKind::lru && kKinds[KVANT_POLICY_NONE] == PolicyKind::none &&
              kKinds[KVANT_POLICY_WINDOW] == PolicyKind::window && kKinds[KVANT_POLICY_ADAPTIVE] == PolicyKind::adaptive);

}  // namespace

Result<PolicySpec> read_policy(const kvant_policy_args* args, std::string_view name) {
  kvant_policy_args values{};
  KVANT_TRY(read_args(args, name, values));
  if (values.kind >= std::size(kKinds))
    return invalid(name, ".kind (", values.kind, ") is not one of KVANT_POLICY_*, 0 to ", std::size(kKinds) - 1);
  PolicySpec policy;
  policy.kind = kKinds[values.kind];
  if (policy.kind != PolicyKind::window && values.sink_pages != 0)
    return invalid(name, ".sink_pages (", values.sink_pages, ") is not 0 although ", name, ".kind is not KVANT_POLICY_WINDOW");
  policy.sink_entries = values.sink_pages;
  policy.ttl_ms = values.ttl_ms;
  return policy;
}

std::uint32_t policy_number(PolicyKind kind) {
  return static_cast<std::uint32_t>(std::find(std::begin(kKinds), std::end(kKinds), kind) - std::begin(kKinds));
}

Result<std::string_view> read_salt(const void* salt, std::uint64_t size) {
  if (size > kMaxSalt) return invalid("args.salt_size (", size, ") is greater than ", kMaxSalt);
  if (size == 0) return std::string_view();
  KVANT_TRY(check_pointer(salt, "args.salt", text(size, " bytes")));
  return std::string_view(static_cast<const char*>(salt), size);
}

Result<SequenceSpec> read_sequence_args(const kvant_sequence_args* args) {
  kvant_sequence_args values{};
  KVANT_TRY(read_args(args, "args", values));
  if (values.token_count > kMaxTokens) return invalid("args.token_count (", values.token_count, ") is greater than ", kMaxTokens);
  if (values.token_count != 0)
    KVANT_TRY(check_pointer(values.tokens, "args.tokens", text(values.token_count, " token ids")));
  if (values.priority > kMaxPriority) return invalid("args.priority (", values.priority, ") is greater than ", kMaxPriority);
  if ((values.flags & ~KVANT_SEQUENCE_NEAR_TIERS) != 0)
    return invalid("args.flags (", hex(values.flags), ") have bits beyond ", hex(KVANT_SEQUENCE_NEAR_TIERS));
  SequenceSpec spec;
  if (values.token_count != 0) spec.tokens = {values.tokens, values.token_count};
  KVANT_ASSIGN(spec.salt, read_salt(values.salt, values.salt_size));
  spec.leave_tokens = values.leave_tokens;
  spec.ttl_ms = values.ttl_ms;
  spec.priority = values.priority;
  spec.near_tiers_only = (values.flags & KVANT_SEQUENCE_NEAR_TIERS) != 0;
  return spec;
}

}  // namespace kvant::abi
