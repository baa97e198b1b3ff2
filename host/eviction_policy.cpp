// The names of the eviction policies, the one that never evicts, and the way to make each.
#include "eviction_policy.hpp"

#include <array>

#include "policy_base.hpp"

namespace kvant {

namespace {

struct Row {
  PolicyKind kind;
  std::string_view name;
  std::unique_ptr<EvictionPolicy> (*make)(const PolicySpec& spec);
};

constexpr std::array<Row, 4> kRows = {{{PolicyKind::none, "none", make_none_policy},
                                       {PolicyKind::lru, "lru", make_lru_policy},
                                       {PolicyKind::window, "window", make_window_policy},
                                       {PolicyKind::adaptive, "adaptive", make_adaptive_policy}}};

const Row* row_of(PolicyKind kind) {
  for (const Row& row : kRows)
    if (row.kind == kind) return &row;
  return nullptr;
}

// A full cache stays full, but for what expires.
class NonePolicy final : public PolicyBase {
 public:
  using PolicyBase::PolicyBase;

 private:
  void add(PolicyEntry&) override {}
  void use(PolicyEntry&) override {}
  void come_back(PolicyEntry&) override {}
  void remove(PolicyEntry&) override {}
  PolicyEntry* choose() override { return nullptr; }
};

}  // namespace

std::unique_ptr<EvictionPolicy> make_none_policy(const PolicySpec& spec) { return std::make_unique<NonePolicy>(spec); }

std::string_view policy_name(PolicyKind kind) {
  const Row* row = row_of(kind);
  return row != nullptr ? row->name : "unknown";
}

std::optional<PolicyKind> policy_from_name(std::string_view name) {
  for (const Row& row : kRows)
    if (row.name == name) return row.kind;
  return std::nullopt;
}

Result<std::unique_ptr<EvictionPolicy>> EvictionPolicy::create(const PolicySpec& spec) {
  const Row* row = row_of(spec.kind);
  if (row == nullptr)
    return Status(StatusCode::invalid_argument, "policy kind (" +
                                                    std::to_string(static_cast<std::uint32_t>(spec.kind)) +
                                                    ") is none of 0 (none), 1 (lru), 2 (window) and 3 (adaptive)");
  if (spec.kind == PolicyKind::adaptive && spec.capacity_entries == 0)
    return Status(StatusCode::invalid_argument,
                  "capacity_entries (0) of policy adaptive is not at least 1: its queues are sized by it");
  return row->make(spec);
}

}  // namespace kvant
