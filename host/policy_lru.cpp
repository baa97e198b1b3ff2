// lru: the entry whose last hit (or insertion) lies farthest back leaves first.
#include "policy_base.hpp"

namespace kvant {

namespace {

class LruPolicy final : public PolicyBase {
 public:
  using PolicyBase::PolicyBase;

 private:
  void add(PolicyEntry& entry) override { lists_.push_back(entry); }
  void use(PolicyEntry& entry) override {
    if (!entry.parked) lists_.remove(entry);
    entry.parked = false;
    lists_.push_back(entry);
  }
  void come_back(PolicyEntry& entry) override { lists_.push_front(entry); }
  void remove(PolicyEntry& entry) override { lists_.remove(entry); }
  PolicyEntry* choose() override { return lists_.pop(); }

  RankedLists lists_;
};

}  // namespace

std::unique_ptr<EvictionPolicy> make_lru_policy(const PolicySpec& spec) { return std::make_unique<LruPolicy>(spec); }

}  // namespace kvant
