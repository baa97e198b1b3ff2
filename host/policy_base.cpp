// Pins, TTL and ranks of the eviction policies.
#include "policy_base.hpp"

#include <algorithm>
#include <bit>

#include "rollback.hpp"

namespace kvant {

std::uint32_t RankSet::lowest() const {
  for (std::uint32_t word = 0; word < words_.size(); ++word)
    if (words_[word] != 0) return word * 64 + static_cast<std::uint32_t>(std::countr_zero(words_[word]));
  return kNone;
}

PolicyEntry* RankedLists::pop() {
  for (std::uint32_t rank = ranks_.lowest(); rank != RankSet::kNone; rank = ranks_.lowest()) {
    while (PolicyEntry* entry = lists_[rank].front()) {
      lists_[rank].remove(*entry);
      if (entry->pins == 0) return entry;
      entry->parked = true;
    }
    ranks_.remove(rank);
  }
  return nullptr;
}

PolicyEntry& PolicyBase::at(EntryId id) {
  const auto found = entries_.find(static_cast<std::uint64_t>(id));
  assert(found != entries_.end());
  return found->second;
}

// A pinned entry needs no timer: letting go of the last pin starts it again.
void PolicyBase::start_timer(PolicyEntry& entry) {
  if (entry.has_ttl() && entry.pins == 0 && !entry.timed) wheel_.schedule(entry, entry.deadline_ms());
}

void PolicyBase::insert(EntryId id, const EntryFacts& facts, std::uint64_t now_ms) {
  assert(facts.priority < kPriorities);
  const auto [place, is_new] = entries_.try_emplace(static_cast<std::uint64_t>(id));
  assert(is_new);
  PolicyEntry& entry = place->second;
  entry.id = id;
  entry.facts = facts;
  if (facts.ttl_ms == 0) entry.facts.ttl_ms = spec_.ttl_ms;
  entry.last_use_ms = now_ms;
  entry.rank = std::min(facts.priority, kPriorities - 1);
  Rollback undo([&] { forget(entry); });
  wheel_.advance(now_ms);
  start_timer(entry);
  add(entry);
  undo.complete();
}

// The timer keeps its old deadline and is set anew when that has passed: a hit costs the wheel nothing.
void PolicyBase::touch(EntryId id, std::uint64_t now_ms) {
  PolicyEntry& entry = at(id);
  entry.last_use_ms = std::max(entry.last_use_ms, now_ms);
  use(entry);
}

void PolicyBase::pin(EntryId id) { ++at(id).pins; }

void PolicyBase::unpin(EntryId id, std::uint64_t now_ms) {
  PolicyEntry& entry = at(id);
  assert(entry.pins > 0);
  if (--entry.pins > 0) return;
  wheel_.advance(now_ms);
  start_timer(entry);
  if (!entry.parked) return;
  entry.parked = false;
  come_back(entry);
}

void PolicyBase::erase(EntryId id) {
  PolicyEntry& entry = at(id);
  take_out(entry);
  forget(entry);
}

void PolicyBase::take_out(PolicyEntry& entry) {
  if (!entry.parked) remove(entry);
}

EntryId PolicyBase::forget(PolicyEntry& entry) {
  const EntryId id = entry.id;
  wheel_.cancel(entry);
  entries_.erase(static_cast<std::uint64_t>(id));
  return id;
}

PolicyEntry* PolicyBase::take_expired(std::uint64_t now_ms) {
  wheel_.advance(now_ms);
  while (PolicyEntry* entry = wheel_.pop_due()) {
    if (entry->pins > 0) continue;
    if (entry->expired(now_ms)) {
      take_out(*entry);
      return entry;
    }
    start_timer(*entry);
  }
  return nullptr;
}

std::optional<EntryId> PolicyBase::evict(std::uint64_t now_ms) {
  if (spec_.kind == PolicyKind::none) return std::nullopt;
  PolicyEntry* entry = take_expired(now_ms);
  if (entry == nullptr) entry = choose();
  if (entry == nullptr) return std::nullopt;
  return forget(*entry);
}

void PolicyBase::expire(std::uint64_t now_ms, std::vector<EntryId>& out) {
  while (true) {
    if (out.size() == out.capacity()) out.reserve(std::max<std::size_t>(16, out.size() * 2));  // before one is taken out
    PolicyEntry* const entry = take_expired(now_ms);
    if (entry == nullptr) return;
    out.push_back(forget(*entry));
  }
}

}  // namespace kvant
