// CacheImpl: planning a step over sequences, and its end. Everything that can fail comes before anything that changes.
#include <algorithm>
#include <limits>

#include "cache_impl.hpp"
#include "checked.hpp"
#include "rollback.hpp"

namespace kvant {
namespace {

// Positions and slots are signed 32-bit integers in the kernels.
constexpr std::uint64_t kMostTokens = std::numeric_limits<std::int32_t>::max();

}  // namespace

Status CacheImpl::check_mask(const StepEntry& entry, std::uint64_t kv_len) const {
  if (entry.mask == nullptr || entry.queries == 0) return {};
  if (entry.mask_kv_begin > kv_len)
    return {StatusCode::invalid_argument, "mask_kv_begin (" + std::to_string(entry.mask_kv_begin) + ") is behind the " +
                                              std::to_string(kv_len) + " keys of " + sequence_text(entry.sequence)};
  if (std::uint64_t{entry.mask_row_words} * 32 < kv_len - entry.mask_kv_begin)
    return {StatusCode::invalid_argument, "mask_row_words (" + std::to_string(entry.mask_row_words) + ") cover " +
                                              std::to_string(std::uint64_t{entry.mask_row_words} * 32) + " keys, " +
                                              sequence_text(entry.sequence) + " has " +
                                              std::to_string(kv_len - entry.mask_kv_begin) + " from mask_kv_begin on"};
  return {};
}

// Resolves the entries into step_.sequences.
Status CacheImpl::check_entries(std::span<const StepEntry> entries) {
  std::uint64_t fresh = 0, queries = 0;
  for (const StepEntry& entry : entries) {
    KVANT_ASSIGN(Sequence* const sequence, find(entry.sequence));
    for (const StepSequence& other : step_.sequences)
      if (other.sequence == sequence)
        return {StatusCode::invalid_argument, sequence_text(entry.sequence) + " appears twice in the step"};
    const std::uint64_t kv_len = sequence->length + entry.append;
    if (kv_len > kMostTokens)
      return {StatusCode::invalid_argument, sequence_text(entry.sequence) + " would grow to " + std::to_string(kv_len) +
                                                " tokens, at most " + std::to_string(kMostTokens) + " are possible"};
    KVANT_TRY(check_mask(entry, kv_len));
    if (sequence->pruned && entry.explicit_positions && std::int64_t{entry.q_pos_begin} + entry.queries > static_cast<std::int64_t>(kv_len))
      return {StatusCode::invalid_argument, "query_position (" + std::to_string(entry.q_pos_begin) + ") of " +
                                                sequence_text(entry.sequence) + " with " + std::to_string(entry.queries) +
                                                " queries is behind its " + std::to_string(kv_len) +
                                                " tokens: after pruning it counts the tokens that are left, not positions"};
    fresh += entry.append;
    queries += entry.queries;
    step_.sequences.push_back({sequence, sequence->length, entry.append, step_.tokens.size(),
                               entry.tokens != nullptr ? std::size_t{entry.append} : 0});
    if (entry.tokens != nullptr) step_.tokens.insert(step_.tokens.end(), entry.tokens, entry.tokens + entry.append);
  }
  if (fresh > kMostTokens || queries > kMostTokens)
    return {StatusCode::invalid_argument, "the step has " + std::to_string(fresh) + " fresh tokens and " +
                                              std::to_string(queries) + " queries, at most " +
                                              std::to_string(kMostTokens) + " of each are possible"};
  step_.fresh_tokens = static_cast<std::uint32_t>(fresh);
  step_.queries = static_cast<std::uint32_t>(queries);
  return {};
}

// Takes the pages of the fresh tokens; an open page that is shared or cooled is replaced by a private copy (made by prepare_pages).
Status CacheImpl::take_pages() {
  const std::uint32_t page_tokens = geometry_.page_tokens;
  auto copies_open_page = [&](const StepSequence& entry, std::uint32_t g) {
    if (entry.append == 0 || entry.old_length % page_tokens == 0) return false;
    const std::int32_t open = entry.sequence->tables[g].last();
    return pools_[g].references(static_cast<std::uint32_t>(open)) > 1 || cooled(g, open);
  };
  auto pages_after = [&](const StepSequence& entry) {
    return static_cast<std::uint32_t>(divide_up(entry.old_length + entry.append, page_tokens));
  };
  std::uint64_t pages = 0;
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    std::uint64_t needed = 0;
    for (const StepSequence& entry : step_.sequences)
      needed += pages_after(entry) - entry.sequence->tables[g].size() + (copies_open_page(entry, g) ? 1 : 0);
    pages += needed;
    KVANT_TRY(make_room(g, needed));
  }
  step_.taken.reserve(pages);  // what is taken from here on is known to release_taken
  for (std::uint32_t e = 0; e < step_.sequences.size(); ++e) {
    const StepSequence& entry = step_.sequences[e];
    for (std::uint32_t g = 0; g < pools_.size(); ++g) {
      const PageTable& table = entry.sequence->tables[g];
      std::int32_t neighbour = table.last();
      if (copies_open_page(entry, g)) {
        const std::int32_t page = pools_[g].take(neighbour);
        step_.taken.push_back({e, g, table.size() - 1, page, neighbour});
        neighbour = page;
      }
      for (std::uint32_t index = table.size(); index < pages_after(entry); ++index) {
        neighbour = pools_[g].take(neighbour);
        step_.taken.push_back({e, g, index, neighbour, kNoPage});
      }
    }
  }
  return {};
}

// Memory behind pages that were taken, which the test aid poisons.
Status CacheImpl::ready_pages(std::span<const TakenPage> pages) {
  slab_scratch_.clear();
  for (const TakenPage& taken : pages) {
    const SlabId id{taken.group, geometry_.groups[taken.group].slab_of(static_cast<std::uint32_t>(taken.page))};
    if (slab_scratch_.empty() || !(slab_scratch_.back() == id)) slab_scratch_.push_back(id);
  }
  std::vector<SlabId> created;
  KVANT_TRY(slabs_.ensure(slab_scratch_, &created));
  return poison_pages(created, pages);
}

// And the copies of open pages.
Status CacheImpl::prepare_pages() {
  KVANT_TRY(ready_pages(step_.taken));
  std::vector<PagePair> copies;
  for (const TakenPage& taken : step_.taken)
    if (taken.replaced != kNoPage)
      copies.push_back(
          {taken.group, static_cast<std::uint32_t>(taken.replaced), static_cast<std::uint32_t>(taken.page)});
  return device_copy_pages(copies);
}

void CacheImpl::release_taken() {
  for (auto taken = step_.taken.rbegin(); taken != step_.taken.rend(); ++taken)
    pools_[taken->group].release(static_cast<std::uint32_t>(taken->page));
  step_.taken.clear();
  release_copies();
}

void CacheImpl::build_tables(std::span<const StepEntry> entries) {
  const std::uint32_t page_tokens = geometry_.page_tokens;
  meta_.clear();
  std::vector<std::uint32_t>& mask_offsets = step_.mask_offsets;
  mask_offsets.assign(entries.size(), 0);
  for (std::size_t e = 0; e < entries.size(); ++e) {
    if (entries[e].mask == nullptr || entries[e].queries == 0) continue;
    step_.masked = true;
    mask_offsets[e] = meta_.append(
        std::span<const std::uint32_t>(entries[e].mask, std::size_t{entries[e].queries} * entries[e].mask_row_words));
  }

  for (std::uint32_t g = 0; g < step_.groups.size(); ++g) {
    GroupTables& tables = step_.groups[g];
    GroupBatch& batch = tables.batch;
    auto taken = step_.taken.begin();
    std::uint32_t q_begin = 0;
    for (std::uint32_t e = 0; e < entries.size(); ++e) {
      const StepEntry& entry = entries[e];
      const StepSequence& known = step_.sequences[e];
      const auto page_begin = static_cast<std::uint32_t>(batch.pages.size());
      const std::span<const std::int32_t> held = known.sequence->tables[g].pages();
      batch.pages.insert(batch.pages.end(), held.begin(), held.end());
      for (; taken != step_.taken.end() && taken->entry == e; ++taken) {
        if (taken->group != g) continue;
        if (taken->replaced != kNoPage) {
          batch.pages[page_begin + taken->index] = taken->page;
        } else {
          batch.pages.push_back(taken->page);
        }
      }
      const std::uint64_t kv_len = known.old_length + entry.append;
      for (std::uint64_t token = known.old_length; token < kv_len; ++token)
        batch.slots.push_back(batch.pages[page_begin + token / page_tokens] * static_cast<std::int32_t>(page_tokens) +
                              static_cast<std::int32_t>(token % page_tokens));
      if (entry.queries == 0) {
        batch.pages.resize(page_begin);
        continue;
      }
      params::AttendSeq seq{};
      seq.kv_len = static_cast<std::uint32_t>(kv_len);
      seq.page_begin = page_begin;
      seq.q_begin = q_begin;
      seq.q_len = entry.queries;
      seq.q_pos_begin = entry.explicit_positions
                            ? entry.q_pos_begin
                            : static_cast<std::int32_t>(static_cast<std::int64_t>(kv_len) - entry.queries);
      seq.mask_kv_begin = entry.mask != nullptr ? static_cast<std::uint32_t>(entry.mask_kv_begin) : seq.kv_len;
      seq.mask_row_words = entry.mask != nullptr ? entry.mask_row_words : 0;
      seq.mask_offset = mask_offsets[e];
      batch.seqs.push_back(seq);
      batch.page_counts.push_back(static_cast<std::uint32_t>(batch.pages.size()) - page_begin);
      q_begin += entry.queries;
    }
    find_append_spans(batch, geometry_.groups[g], page_tokens);
    find_common_pages(batch);
    tables.slots_offset = meta_.append(std::span<const std::int32_t>(batch.slots));
    tables.seqs_offset = meta_.append(std::span<const params::AttendSeq>(batch.seqs));
    tables.pages_offset = meta_.append(std::span<const std::int32_t>(batch.pages));
  }
}

std::unique_ptr<Step> CacheImpl::open_step() {
  std::unique_ptr<Step> step = spare_step_ != nullptr ? std::move(spare_step_) : std::make_unique<Step>(*this);
  step->cache_ = this;
  open_step_ = step.get();
  return step;
}

Result<std::unique_ptr<Step>> CacheImpl::plan(std::span<const StepEntry> entries) {
  if (spec_.external_pages)
    return Status(StatusCode::failed_precondition,
                  "the engine keeps the pages of this cache: plan with its page tables");
  if (open_step_ != nullptr)
    return Status(StatusCode::failed_precondition, "a step is open already; commit or abort it first");
  const CacheJournal::Timer timer(journal_, Operation::plan);
  for (BufferId buffer : retired_) executor_.destroy_buffer(buffer);
  retired_.clear();
  step_.clear();
  expire_prefixes();
  if (means_.waiting() && std::all_of(pools_.begin(), pools_.end(), [](const PagePool& pool) { return pool.used_pages() == 0; })) means_.reopen();
  Rollback undo([this] {
    release_taken();
    step_.clear();
  });
  KVANT_TRY(check_entries(entries));
  KVANT_TRY(take_pages());
  if (const Status prepared = prepare_pages(); !prepared.ok()) {
    if (prepared.code() != StatusCode::resource_exhausted) return prepared;
    release_taken();  // they are taken again, as cold pages that they take the place of may have other ids by then
    const bool reclaimed = reclaim_cold();
    if (!give_up_copies() && !reclaimed) return prepared;
    KVANT_TRY(take_pages());
    KVANT_TRY(prepare_pages());
  }
  build_tables(entries);
  if (wide_ != nullptr) build_wide_tables(entries);
  reserve_commit();
  planned_at_ = std::chrono::steady_clock::now();
  std::unique_ptr<Step> step = open_step();
  step_.sampled_token = journal_.choose_sample(step_.fresh_tokens);
  undo.complete();
  return step;
}

// Room for what a commit writes into the sequences: it then cannot fail for want of memory.
void CacheImpl::reserve_commit() {
  for (const TakenPage& taken : step_.taken) {
    const StepSequence& entry = step_.sequences[taken.entry];
    entry.sequence->tables[taken.group].reserve(taken.index + 1);
  }
  for (const StepSequence& entry : step_.sequences) {
    if (prefixes_ == nullptr || entry.token_count == 0) continue;
    std::vector<std::int32_t>& tokens = entry.sequence->tokens;
    const std::size_t wanted = entry.old_length + entry.token_count;
    if (wanted > tokens.capacity()) tokens.reserve(std::max(wanted, tokens.capacity() * 2));
  }
}

// How long the engine takes for a prompt's token, its own work included: what a tier must beat.
void CacheImpl::measure_prompt() {
  if (step_.fresh_tokens < geometry_.page_tokens) return;
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - planned_at_;
  const double per_token = taken.count() / step_.fresh_tokens;
  constexpr double kNewest = 0.25;
  seconds_per_token_ = seconds_per_token_ == 0 ? per_token : (1 - kNewest) * seconds_per_token_ + kNewest * per_token;
}

Status CacheImpl::commit(std::unique_ptr<Step>&& step) {
  if (step == nullptr || step->cache_ != this || open_step_ != step.get())
    return {StatusCode::failed_precondition, "the step is not the open step of this cache"};
  if (step_.fresh_tokens != 0) {
    const auto missing = std::find(step_.appended.begin(), step_.appended.end(), false);
    if (missing != step_.appended.end())
      return {StatusCode::failed_precondition, "layer " + std::to_string(missing - step_.appended.begin()) + " of " +
                                                   std::to_string(step_.appended.size()) + " was not run, and the step appends " +
                                                   std::to_string(step_.fresh_tokens) + " tokens"};
  }
  const CacheJournal::Timer timer(journal_, Operation::commit);
  for (const TakenPage& taken : step_.taken) {
    PageTable& table = step_.sequences[taken.entry].sequence->tables[taken.group];
    if (taken.replaced != kNoPage) {
      pools_[taken.group].release(static_cast<std::uint32_t>(taken.replaced));
      table.set(taken.index, taken.page);
    } else {
      table.push(taken.page);
    }
  }
  step_.taken.clear();  // they belong to the sequences now
  measure_prompt();
  for (std::uint32_t e = 0; e < step_.sequences.size(); ++e) {
    const StepSequence& entry = step_.sequences[e];
    entry.sequence->length = entry.old_length + entry.append;
    if (wide_ != nullptr) commit_copies(entry, e);
    learn_tokens(entry);
    publish(*entry.sequence);
    drop_past_window(*entry.sequence, geometry_.groups, pools_, entry.old_length, geometry_.page_tokens);
    if (wide_ != nullptr) wide_->age(*entry.sequence, entry.old_length);
  }
  step_.wide_taken.clear();
  end_step();
  spare_step_ = std::move(step);
  return {};
}

void CacheImpl::abort(std::unique_ptr<Step> step) { step.reset(); }

void CacheImpl::end_step() {
  release_taken();
  step_.clear();
  open_step_->cache_ = nullptr;
  open_step_ = nullptr;
}

}  // namespace kvant
