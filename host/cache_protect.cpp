// CacheImpl: protected tokens. Copies are taken for fresh pages of a step, written beside them by append, read instead of them by attention, and let
// go as their tokens grow old. Nothing here can make a call fail: without memory tokens are read as they were quantized.
#include <algorithm>
#include <utility>

#include "checked.hpp"
#include "layer_run.hpp"
#include "rollback.hpp"

namespace kvant {

Status CacheImpl::open_protection() {
  KVANT_ASSIGN(wide_, WidePages::create(executor_, spec_, geometry_));
  if (wide_ != nullptr) step_.wide.resize(geometry_.groups.size());
  return {};
}

const GroupTables& CacheImpl::tables_of(const LayerRun& run) const {
  return run.wide ? static_cast<const GroupTables&>(step_.wide[run.group]) : step_.groups[run.group];
}

void CacheImpl::release_copies() {
  for (const TakenPage& taken : step_.wide_taken) wide_->pool(taken.group).release(static_cast<std::uint32_t>(taken.page));
  step_.wide_taken.clear();
}

// Fresh tokens that begin in a page whose copy others hold as well: it is not written, and of no use once there are more tokens.
void CacheImpl::find_stale_copies() {
  for (std::uint32_t e = 0; e < step_.sequences.size(); ++e) {
    const StepSequence& entry = step_.sequences[e];
    const auto open = static_cast<std::uint32_t>(entry.old_length / geometry_.page_tokens);
    if (entry.append == 0 || entry.old_length % geometry_.page_tokens == 0) continue;
    for (std::uint32_t g = 0; g < entry.sequence->wide.size(); ++g) {
      const PageTable& table = entry.sequence->wide[g];
      if (open >= table.size() || table.at(open) == kNoPage) continue;
      if (wide_->pool(g).references(static_cast<std::uint32_t>(table.at(open))) > 1) step_.stale_copies.push_back({e, g, open, table.at(open), kNoPage});
    }
  }
}

// For pages whose tokens are all fresh; the newest first, so that they have copies where there is no room for all.
void CacheImpl::take_copies(std::span<const StepEntry> entries) {
  const std::uint32_t page_tokens = geometry_.page_tokens;
  bool asked = false;  // the prefix cache, for what nobody uses
  for (std::uint32_t e = 0; e < entries.size(); ++e) {
    const StepSequence& entry = step_.sequences[e];
    const std::uint64_t length = entry.old_length + entry.append;
    const auto first = static_cast<std::uint32_t>(divide_up(entry.old_length, page_tokens));
    const auto end = static_cast<std::uint32_t>(divide_up(length, page_tokens));
    for (std::uint32_t g = 0; g < pools_.size() && first < end; ++g) {
      if (!wide_->protects(g)) continue;
      std::int32_t neighbour = kNoPage;
      const auto take = [&](std::uint32_t index) {
        if (wide_->pool(g).free_pages() == 0 && !std::exchange(asked, true)) drop_prefix_copies(false);
        const std::int32_t page = wide_->pool(g).take(neighbour);
        if (page == kNoPage) return;
        step_.wide_taken.push_back({e, g, index, page, kNoPage});
        neighbour = page;
      };
      for (std::uint32_t index = end; index-- > first && wide_->wants(index, entry.old_length, length);) take(index);
      for (std::uint32_t index = first; index < end && wide_->wants(index, length, length); ++index)
        if (std::none_of(step_.wide_taken.begin(), step_.wide_taken.end(),
                         [&](const TakenPage& t) { return t.entry == e && t.group == g && t.index == index; }))
          take(index);
    }
  }
}

// Memory behind them, and room in the tables that commit writes.
Status CacheImpl::prepare_copies() {
  std::vector<SlabId> slabs, created;
  for (const TakenPage& taken : step_.wide_taken)
    slabs.push_back({taken.group, wide_->geometry().groups[taken.group].slab_of(static_cast<std::uint32_t>(taken.page))});
  KVANT_TRY(wide_->slabs().ensure(slabs, &created));
  if (poison_) {
    list_.clear();
    for (const SlabId& id : created)
      for (const std::uint32_t layer : geometry_.groups[id.group].layers)
        list_.add_fill({{wide_->slabs().buffer(layer, id.slab), 0, wide_->slabs().layout(layer, id.slab).total_bytes}, *poison_}, "poison", false);
    if (!list_.commands.empty()) KVANT_TRY(executor_.submit(list_).status());
  }
  for (const TakenPage& taken : step_.wide_taken) {
    Sequence& sequence = *step_.sequences[taken.entry].sequence;
    sequence.wide.resize(pools_.size());
    sequence.wide[taken.group].reserve(taken.index + 1);
  }
  return {};
}

// After build_tables: the same tables, with copies.
void CacheImpl::build_wide_tables(std::span<const StepEntry> entries) {
  find_stale_copies();
  take_copies(entries);
  if (const Status status = within_memory([this] { return prepare_copies(); }); !status.ok()) {
    log_.write(LogLevel::warning, "fresh tokens are not protected: " + status.message());
    release_copies();
  }
  const std::uint32_t page_tokens = geometry_.page_tokens;
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    if (!wide_->protects(g)) continue;
    WideTables& tables = step_.wide[g];
    GroupBatch& batch = tables.batch;
    const GroupBatch& own = step_.groups[g].batch;
    const auto behind = static_cast<std::int32_t>(geometry_.groups[g].total_pages);
    batch.slots.assign(own.slots.size(), -1);
    batch.seqs = own.seqs;
    batch.pages = own.pages;
    batch.page_counts = own.page_counts;
    std::size_t slot = 0, asking = 0;
    for (std::uint32_t e = 0; e < entries.size(); ++e) {
      const StepSequence& entry = step_.sequences[e];
      const PageTable* const held = g < entry.sequence->wide.size() ? &entry.sequence->wide[g] : nullptr;
      const auto open = static_cast<std::uint32_t>(entry.old_length / page_tokens);
      const auto copy_of = [&](std::uint32_t index) {
        for (const TakenPage& taken : step_.wide_taken)
          if (taken.entry == e && taken.group == g && taken.index == index) return taken.page;
        for (const TakenPage& stale : step_.stale_copies)
          if (stale.entry == e && stale.group == g && stale.index == index) return kNoPage;
        return held != nullptr && index < held->size() ? held->at(index) : kNoPage;
      };
      std::int32_t page = kNoPage;
      for (std::uint64_t token = entry.old_length; token < entry.old_length + entry.append; ++token, ++slot) {
        const auto offset = static_cast<std::int32_t>(token % page_tokens);
        if (offset == 0 || token == entry.old_length) page = copy_of(static_cast<std::uint32_t>(token / page_tokens));
        if (page != kNoPage) batch.slots[slot] = page * static_cast<std::int32_t>(page_tokens) + offset;
        tables.any = tables.any || page != kNoPage;
      }
      if (entries[e].queries == 0) continue;
      const std::span<std::int32_t> pages = std::span(batch.pages).subspan(batch.seqs[asking].page_begin, batch.page_counts[asking]);
      ++asking;
      const auto use = [&](std::uint32_t index, std::int32_t copy) {
        if (copy == kNoPage) return;
        pages[index] = behind + copy;
        tables.any = true;
      };
      const std::uint32_t old_pages = held != nullptr ? std::min(held->size(), static_cast<std::uint32_t>(pages.size())) : 0;
      for (std::uint32_t i = 0; i < old_pages; ++i) use(i, i == open ? copy_of(i) : held->at(i));
      for (const TakenPage& taken : step_.wide_taken)
        if (taken.entry == e && taken.group == g) use(taken.index, taken.page);
    }
    if (!tables.any) continue;
    find_append_spans(batch, wide_->geometry().groups[g], page_tokens);
    tables.slots_offset = meta_.append(std::span<const std::int32_t>(batch.slots));
    tables.seqs_offset = step_.groups[g].seqs_offset;
    tables.pages_offset = meta_.append(std::span<const std::int32_t>(batch.pages));
  }
}

// The copies of a committed step's entry `index` are its sequence's.
void CacheImpl::commit_copies(const StepSequence& entry, std::uint32_t index) {
  Sequence& sequence = *entry.sequence;
  const auto open = static_cast<std::uint32_t>(entry.old_length / geometry_.page_tokens);
  for (const TakenPage& stale : step_.stale_copies)
    if (stale.entry == index) sequence.wide[stale.group].punch(stale.index, stale.index + 1, wide_->pool(stale.group));
  for (const TakenPage& taken : step_.wide_taken) {
    if (taken.entry != index) continue;
    PageTable& table = sequence.wide[taken.group];
    while (table.size() <= taken.index) table.push(kNoPage);
    table.set(taken.index, taken.page);
  }
  if (std::find(step_.imported.begin(), step_.imported.end(), true) != step_.imported.end()) wide_->drop(sequence, open);
  wide_->age(sequence, entry.old_length);
}

void CacheImpl::drop_copies(Sequence& sequence, std::uint64_t first_token) {
  if (wide_ != nullptr) wide_->drop(sequence, static_cast<std::uint32_t>(std::min<std::uint64_t>(first_token / geometry_.page_tokens, UINT32_MAX)));
}

// Those that the prefix cache holds; without `all` those that no sequence has.
void CacheImpl::drop_prefix_copies(bool all) {
  if (prefixes_ == nullptr) return;
  prefixes_->each([all](PrefixNode& node) {
    if (node.copies != nullptr && (all || !node.copies->shared())) node.copies.reset();
  });
}

void CacheImpl::drop_all_copies() {
  drop_prefix_copies(true);
  for (auto& [id, sequence] : sequences_) drop_copies(sequence, 0);
}

// A limit is for all slabs; copies get what they take when all are there, an eighth of it at most.
std::uint64_t CacheImpl::copies_share(std::uint64_t limit_bytes) const {
  return wide_ == nullptr ? 0 : std::min(wide_->most_bytes(), limit_bytes / 8);
}

}  // namespace kvant
