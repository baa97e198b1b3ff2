// window: the oldest insertion leaves first, hits or not; the first entries of a prefix (its sinks) leave after all
// others.
#include "policy_base.hpp"

namespace kvant {

namespace {

class WindowPolicy final : public PolicyBase {
 public:
  using PolicyBase::PolicyBase;

 private:
  void add(PolicyEntry& entry) override {
    if (entry.facts.depth < spec().sink_entries) entry.rank += kPriorities;
    lists_.push_back(entry);
  }
  void use(PolicyEntry&) override {}
  void come_back(PolicyEntry& entry) override { lists_.push_front(entry); }
  void remove(PolicyEntry& entry) override { lists_.remove(entry); }
  PolicyEntry* choose() override { return lists_.pop(); }

  RankedLists lists_;
};

}  // namespace

std::unique_ptr<EvictionPolicy> make_window_policy(const PolicySpec& spec) {
  return std::make_unique<WindowPolicy>(spec);
}

}  // namespace kvant
