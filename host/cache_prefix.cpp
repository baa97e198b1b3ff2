// CacheImpl: the prefix cache. Full pages of known tokens are published at commit, shared at creation, and leave when the policy
// says so: because their room is needed, or their time has come.
#include <algorithm>
#include <cassert>

#include "cache_impl.hpp"
#include "cache_key.hpp"
#include "checked.hpp"
#include "rollback.hpp"

namespace kvant {

Status CacheImpl::need_prefixes() const {
  if (prefixes_ != nullptr) return {};
  return {StatusCode::failed_precondition, "this cache was created without a prefix cache"};
}

Result<std::unique_ptr<EvictionPolicy>> CacheImpl::make_policy(PolicySpec spec) const {
  if (spec.capacity_entries == 0)
    for (const PagePool& pool : pools_)
      spec.capacity_entries = std::max<std::uint64_t>(spec.capacity_entries, pool.total_pages());
  return EvictionPolicy::create(spec);
}

Status CacheImpl::open_prefixes() {
  if (!spec_.prefix_cache) return {};
  if (spec_.external_pages)
    return {StatusCode::invalid_argument, "the engine keeps the pages of this cache: it cannot have a prefix cache"};
  KVANT_ASSIGN(std::unique_ptr<EvictionPolicy> policy, make_policy(spec_.policy));
  prefixes_ = std::make_unique<PrefixIndex>(cache_content_key(spec_), geometry_.page_tokens, pools_, std::move(policy));
  return {};
}

// Whether every page is there that a continuation at `tokens` may see.
bool CacheImpl::holds_window(const PrefixMatch& match, std::uint64_t tokens) const {
  const auto pages = static_cast<std::uint32_t>(divide_up(tokens, geometry_.page_tokens));
  for (std::size_t g = 0; g < geometry_.groups.size(); ++g) {
    if (geometry_.groups[g].window == 0) continue;
    const PageSpan past = pages_past_window(geometry_.groups[g], tokens, geometry_.page_tokens);
    for (std::uint32_t i = 0; i < pages; ++i)
      if ((i < past.begin || i >= past.end) && match.chain[i]->pages[g] == kNoPage) return false;
  }
  return true;
}

CacheImpl::PrefixMatch CacheImpl::match_prefix(const SequenceSpec& spec) {
  PrefixMatch match;
  if (prefixes_ == nullptr || spec.tokens.size() <= spec.leave_tokens) return match;
  const std::uint32_t page_tokens = geometry_.page_tokens;
  const std::uint64_t wanted = spec.tokens.size() - spec.leave_tokens;
  PrefixNode* node = prefixes_->find_root(spec.salt);
  for (std::uint64_t begin = 0; node != nullptr && begin + page_tokens <= spec.tokens.size() && begin < wanted; begin += page_tokens) {
    node = prefixes_->child(node, spec.tokens.subspan(begin, page_tokens));
    if (node == nullptr) break;
    match.chain.push_back(node);
  }
  match.tokens = std::min<std::uint64_t>(wanted, match.chain.size() * page_tokens);
  while (match.tokens > 0 && !holds_window(match, match.tokens))
    match.tokens = (divide_up(match.tokens, page_tokens) - 1) * page_tokens;
  match.chain.resize(divide_up(match.tokens, page_tokens));
  return match;
}

void CacheImpl::share_prefix(const PrefixMatch& match, Sequence& sequence) {
  const std::uint32_t page_tokens = geometry_.page_tokens;
  sequence.length = match.tokens;
  for (PageTable& table : sequence.tables) table.reserve(static_cast<std::uint32_t>(match.chain.size()));
  for (std::size_t g = 0; g < pools_.size(); ++g) {
    const PageSpan past = pages_past_window(geometry_.groups[g], match.tokens, page_tokens);
    for (std::uint32_t i = 0; i < match.chain.size(); ++i) {
      const std::int32_t page = i >= past.begin && i < past.end ? kNoPage : match.chain[i]->pages[g];
      if (page != kNoPage) pools_[g].add_reference(static_cast<std::uint32_t>(page));
      sequence.tables[g].push(page);
    }
  }
  for (std::uint32_t i = 0; i < match.chain.size(); ++i)
    if (match.chain[i]->copies != nullptr) wide_->adopt(sequence, i, *match.chain[i]->copies);
  // A last page that is not taken whole stays shared until the sequence writes into it; it is not one of its published pages.
  const std::uint64_t full = match.tokens / page_tokens;
  if (full > 0) sequence.node = match.chain[full - 1];
  if (!match.chain.empty()) prefixes_->touch(match.chain.back(), now_ms());
}

Result<SequenceStart> CacheImpl::create_sequence(const SequenceSpec& spec) {
  if (spec_.external_pages)
    return Status(StatusCode::failed_precondition, "the engine keeps the pages of this cache: it has no sequences");
  const CacheJournal::Timer timer(journal_, Operation::lookup);
  Sequence sequence;
  sequence.id = SequenceId{next_sequence_};
  sequence.tables.resize(geometry_.groups.size());
  sequence.publish = {spec.priority, spec.ttl_ms};
  sequence.whole = spec.whole;
  Rollback undo([&] {
    shrink_sequence(sequence, pools_, 0, geometry_.page_tokens);
    drop_copies(sequence, 0);
  });
  if (prefixes_ != nullptr) {
    expire_prefixes();
    sequence.tokens.assign(spec.tokens.begin(), spec.tokens.end());
    if (!spec.tokens.empty()) {
      PrefixMatch match = match_prefix(spec);
      if (tiers_ != nullptr && match.tokens + spec.leave_tokens < spec.tokens.size()) {
        load_from_tiers(spec, match);
        match = match_prefix(spec);
      }
      share_prefix(match, sequence);
      ++prefix_counters_.lookups;
      prefix_counters_.lookup_tokens += spec.tokens.size();
      prefix_counters_.hits += match.tokens > 0 ? 1 : 0;
      prefix_counters_.hit_tokens += match.tokens;
      event(match.tokens > 0 ? EventKind::prefix_hit : EventKind::prefix_miss, spec.tokens.size(), match.tokens, sequence.id);
    }
  }
  const SequenceStart start{sequence.id, sequence.length};
  sequence.reused = sequence.length;
  Sequence& kept = sequences_[next_sequence_];  // an empty one
  Rollback forget([&] { sequences_.erase(next_sequence_); });
  if (prefixes_ != nullptr) {
    if (sequence.node == nullptr) sequence.node = prefixes_->root(spec.salt);
    prefixes_->pin(sequence.node);
  }
  kept = std::move(sequence);
  forget.complete();
  undo.complete();
  event(EventKind::sequence_created, spec.tokens.size(), kept.length, kept.id);
  ++next_sequence_;
  return start;
}

Result<std::uint64_t> CacheImpl::find_prefix(const SequenceSpec& spec) {
  KVANT_TRY(need_prefixes());
  expire_prefixes();
  return match_prefix(spec).tokens;
}

void CacheImpl::move_to_node(Sequence& sequence, PrefixNode* node) {
  prefixes_->pin(node);
  prefixes_->unpin(sequence.node, now_ms());
  sequence.node = node;
}

void CacheImpl::forget_tokens(Sequence& sequence, std::uint64_t tokens) {
  if (sequence.tokens.size() > tokens) sequence.tokens.resize(tokens);
  if (sequence.node == nullptr) return;
  PrefixNode* node = sequence.node;
  while (node->depth > tokens / geometry_.page_tokens) node = node->parent;
  if (node != sequence.node) move_to_node(sequence, node);
}

// Whether the sequence has, of the first index on, pages that it alone holds, or the prefix cache besides, and with those that are
// free or that only the prefix cache holds `wanted` in all.
bool CacheImpl::can_write_pages(const Sequence& sequence, std::uint32_t group, std::uint32_t first, std::uint64_t wanted) const {
  const PagePool& pool = pools_[group];
  const bool evictable = prefixes_ != nullptr && spec_.policy.kind != PolicyKind::none;
  std::uint64_t pages = evictable ? pool.free_after(pool.index_only_pages_of(0), pool.index_only_pages()) : pool.free_pages();
  for (std::uint32_t i = first; i < sequence.tables[group].size(); ++i) {
    const std::int32_t page = sequence.tables[group].at(i);
    if (page == kNoPage || cooled(group, page)) continue;
    const auto id = static_cast<std::uint32_t>(page);
    if (pool.references(id) == (evictable && pool.indexed(id) ? 2U : 1U)) ++pages;
  }
  return pages >= wanted;
}

// As forget_tokens, and what nobody else needs of the pages behind `tokens` leaves the index, so that they are the sequence's alone.
void CacheImpl::unpublish(Sequence& sequence, std::uint64_t tokens) {
  PrefixNode* node = sequence.node;
  forget_tokens(sequence, tokens);
  if (node == nullptr || spec_.policy.kind == PolicyKind::none) return;
  std::vector<SpilledPage> spilled;
  while (node != sequence.node && node->pins == 0) {
    PrefixNode* const parent = node->parent;
    prefixes_->withdraw(node);
    let_go(node, EvictionCause::limit, spilled);
    node = parent;
  }
  finish_spill(spilled);
}

// Ids that follow a gap are of no use: their pages' keys would need those in the gap.
void CacheImpl::learn_tokens(const StepSequence& entry) {
  std::vector<std::int32_t>& known = entry.sequence->tokens;
  if (prefixes_ == nullptr || entry.token_count == 0 || known.size() < entry.old_length) return;
  known.resize(entry.old_length);
  const auto begin = step_.tokens.begin() + static_cast<std::ptrdiff_t>(entry.token_begin);
  known.insert(known.end(), begin, begin + static_cast<std::ptrdiff_t>(entry.token_count));
}

// What cannot be published, also for want of host memory, stays the sequence's own: others do not find it, no more.
void CacheImpl::publish(Sequence& sequence) {
  if (sequence.node == nullptr) return;
  const Status published = within_memory([&]() -> Status {
    publish_pages(sequence);
    return {};
  });
  if (!published.ok()) log_.write(LogLevel::warning, "host memory is exhausted: pages stay out of the prefix cache");
}

void CacheImpl::publish_pages(Sequence& sequence) {
  while (sequence.node != nullptr &&
         (sequence.node->depth + std::uint64_t{1}) * geometry_.page_tokens <= sequence.publishable_tokens()) {
    const PrefixNode* const before = sequence.node;
    publish_page(sequence);
    if (sequence.node == before) return;
  }
}

// The page behind the sequence's last published one. Content that is there already takes the place of the sequence's own. A page stands
// for one beginning of tokens: if a fork that shares it was named otherwise first (identify), it stays that one's.
void CacheImpl::publish_page(Sequence& sequence) {
  const std::uint32_t index = sequence.node->depth, page_tokens = geometry_.page_tokens;
  const auto tokens = std::span<const std::int32_t>(sequence.tokens).subspan(std::size_t{index} * page_tokens, page_tokens);
  PrefixNode* node = prefixes_->child(sequence.node, tokens);
  if (node == nullptr) {
    std::vector<std::int32_t> pages;
    for (std::uint32_t g = 0; g < pools_.size(); ++g) {
      pages.push_back(sequence.tables[g].at(index));
      if (pages[g] != kNoPage && pools_[g].indexed(static_cast<std::uint32_t>(pages[g]))) return;
    }
    node = prefixes_->insert(sequence.node, tokens, pages, sequence.publish, now_ms());
    if (node == nullptr) return;
    ++prefix_counters_.published;
    event(EventKind::page_published, CacheJournal::short_key(node->key), index, sequence.id);
  } else {
    ++prefix_counters_.merged;
    for (std::uint32_t g = 0; g < pools_.size(); ++g) {
      const std::int32_t own = sequence.tables[g].at(index), held = node->pages[g];
      if (own == held || own == kNoPage) continue;
      if (held == kNoPage) {
        if (!pools_[g].indexed(static_cast<std::uint32_t>(own))) prefixes_->complete(*node, g, own);
        continue;
      }
      if (recoded(g, held) && !recoded(g, own) && !pools_[g].indexed(static_cast<std::uint32_t>(own))) {  // what is fresh is not given away
        pools_[g].add_indexed(static_cast<std::uint32_t>(own));
        pools_[g].release_indexed(static_cast<std::uint32_t>(held));
        node->pages[g] = own;
        continue;
      }
      pools_[g].add_reference(static_cast<std::uint32_t>(held));
      pools_[g].release(static_cast<std::uint32_t>(own));
      sequence.tables[g].set(index, held);
    }
    prefixes_->touch(node, now_ms());
  }
  if (wide_ != nullptr && node->copies == nullptr) node->copies = wide_->hold(sequence, index);
  move_to_node(sequence, node);
}

void CacheImpl::evicted(const PrefixNode& node, EvictionCause cause) {
  event(EventKind::page_evicted, CacheJournal::short_key(node.key), static_cast<std::uint64_t>(cause));
}

void CacheImpl::expire_prefixes() {
  if (prefixes_ == nullptr) return;
  while (PrefixNode* node = prefixes_->choose_expired(now_ms())) {
    evicted(*node, EvictionCause::expired);
    prefixes_->remove(node, now_ms());
    ++prefix_counters_.evicted_expired;
  }
}

// Takes a victim out of the index. With tiers its pages are held until finish_spill has read them, all in one go.
bool CacheImpl::let_go(PrefixNode* victim, EvictionCause cause, std::vector<SpilledPage>& spilled) {
  bool held = tiers_ != nullptr && victim->uses >= tier_options_.store_after_uses && !any_recoded(victim->pages);
  // The victim has left the policy and must go; without host memory it goes for good.
  held = held && within_memory([&]() -> Status {
                   spilled.push_back({victim->key, victim->pages});
                   return {};
                 }).ok();
  if (held) {
    for (std::uint32_t g = 0; g < pools_.size(); ++g)
      if (victim->pages[g] != kNoPage) pools_[g].add_reference(static_cast<std::uint32_t>(victim->pages[g]));
  }
  evicted(*victim, cause);
  prefixes_->remove(victim, now_ms());
  ++(cause == EvictionCause::limit ? prefix_counters_.evicted_limit : prefix_counters_.evicted_capacity);
  return held;
}

void CacheImpl::finish_spill(std::span<const SpilledPage> spilled) {
  if (spilled.empty()) return;
  (void)within_memory([&]() -> Status {
    spill(spilled);
    return {};
  });
  prefix_counters_.spilled += spilled.size();
  for (const SpilledPage& entry : spilled)
    for (std::uint32_t g = 0; g < pools_.size(); ++g)
      if (entry.pages[g] != kNoPage) pools_[g].release(static_cast<std::uint32_t>(entry.pages[g]));
}

void CacheImpl::evict_for(std::uint32_t group, std::uint64_t needed) {
  std::vector<SpilledPage> spilled;
  std::uint64_t gained = 0;  // that are held until they have been spilled: of grade 0, let_go holds no others
  while (pools_[group].free_after(gained, gained) < needed) {
    PrefixNode* const victim = prefixes_->choose_victim(now_ms());
    if (victim == nullptr) break;
    const std::int32_t page = victim->pages[group];
    const bool held = let_go(victim, EvictionCause::capacity, spilled);
    if (held && page != kNoPage && pools_[group].references(static_cast<std::uint32_t>(page)) == 1) ++gained;
  }
  finish_spill(spilled);
}

// Lets published pages go until `needed` are free. What cannot succeed costs no page.
Status CacheImpl::make_room(std::uint32_t group, std::uint64_t needed) {
  const PagePool& pool = pools_[group];
  if (needed <= pool.free_pages()) return {};
  if (reclaim_cold() && needed <= pool.free_pages()) return {};
  if (prefixes_ == nullptr || needed > pool.free_after(pool.index_only_pages_of(0), pool.index_only_pages())) return no_pages(group, needed);
  evict_for(group, needed);
  if (pool.free_pages() < needed && spec_.policy.kind != PolicyKind::none && geometry_.groups[group].window != 0)
    prefixes_->shed_group(group, needed - pool.free_pages());
  return needed <= pool.free_pages() ? Status() : no_pages(group, needed);
}

Status CacheImpl::set_policy(const PolicySpec& policy) {
  KVANT_TRY(need_prefixes());
  KVANT_ASSIGN(std::unique_ptr<EvictionPolicy> made, make_policy(policy));
  prefixes_->set_policy(std::move(made));
  event(EventKind::policy_changed, static_cast<std::uint64_t>(spec_.policy.kind), static_cast<std::uint64_t>(policy.kind));
  spec_.policy = policy;
  return {};
}

Result<std::uint64_t> CacheImpl::clear_prefixes() {
  KVANT_TRY(need_prefixes());
  const std::uint64_t cleared =
      prefixes_->clear(now_ms(), [this](const PrefixNode& node) { evicted(node, EvictionCause::cleared); });
  prefix_counters_.evicted_cleared += cleared;
  return cleared;
}

Result<PrefixCounters> CacheImpl::prefix_counters() const {
  KVANT_TRY(need_prefixes());
  PrefixCounters counters = prefix_counters_;
  counters.pages = prefixes_->size();
  for (const PagePool& pool : pools_) counters.unshared_pages += pool.index_only_pages();
  return counters;
}

}  // namespace kvant
