// CacheImpl: protected tokens. Copies are taken for fresh pages of a step, written beside them by append, read instead of them by attention, and let
// go as their tokens grow old. Nothing here makes a call fail for want of room or device memory: tokens are read as they were quantized.
#include <algorithm>
#include <numeric>
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
  return run.read_wide ? static_cast<const GroupTables&>(step_.wide[run.group]) : step_.groups[run.group];
}

void CacheImpl::release_copies() {
  for (const TakenPage& taken : step_.wide_taken) wide_->pool(taken.group).release(static_cast<std::uint32_t>(taken.page));
  step_.wide_taken.clear();
  std::fill(step_.wide_begin.begin(), step_.wide_begin.end(), 0U);
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

std::span<const TakenPage> CacheImpl::taken_copies(std::uint32_t entry, std::uint32_t group) const {
  if (step_.wide_taken.empty()) return {};
  const std::size_t at = std::size_t{entry} * pools_.size() + group;
  return std::span(step_.wide_taken).subspan(step_.wide_begin[at], step_.wide_begin[at + 1] - step_.wide_begin[at]);
}

// For pages whose tokens are all fresh; the newest first, so that they have copies where there is no room for all.
void CacheImpl::take_copies(std::span<const StepEntry> entries) {
  const std::uint32_t page_tokens = geometry_.page_tokens;
  bool asked = false;  // the prefix cache, which had nothing that nobody uses
  for (std::uint32_t e = 0; e < entries.size(); ++e) {
    const StepSequence& entry = step_.sequences[e];
    const std::uint64_t length = entry.old_length + entry.append;
    const auto first = static_cast<std::uint32_t>(divide_up(entry.old_length, page_tokens));
    const auto end = static_cast<std::uint32_t>(divide_up(length, page_tokens));
    for (std::uint32_t g = 0; g < pools_.size(); ++g) {
      const std::size_t begin = step_.wide_taken.size();
      step_.wide_begin.push_back(static_cast<std::uint32_t>(begin));
      if (first >= end || !wide_->protects(g)) continue;
      std::int32_t neighbour = kNoPage;
      const auto take = [&](std::uint32_t index) {
        if (wide_->pool(g).free_pages() == 0 && !asked) asked = !drop_idle_copies(g);
        if (step_.wide_taken.size() == step_.wide_taken.capacity()) step_.wide_taken.reserve(std::max<std::size_t>(64, 2 * step_.wide_taken.size()));
        const std::int32_t page = wide_->pool(g).take(neighbour);
        if (page == kNoPage) return;
        step_.wide_taken.push_back({e, g, index, page, kNoPage});
        neighbour = page;
      };
      for (std::uint32_t index = end; index-- > first && wide_->wants(index, entry.old_length, length);) take(index);
      const auto known = [&](std::uint32_t index) {
        return std::any_of(step_.wide_taken.begin() + static_cast<std::ptrdiff_t>(begin), step_.wide_taken.end(),
                           [index](const TakenPage& taken) { return taken.index == index; });
      };
      for (std::uint32_t index = first; index < end && wide_->wants(index, length, length); ++index)
        if (!known(index)) take(index);
    }
  }
  step_.wide_begin.push_back(static_cast<std::uint32_t>(step_.wide_taken.size()));
}

// Memory behind them, and room in the tables that commit writes. Copies in slabs that are refused are given up.
Status CacheImpl::prepare_copies() {
  const auto slab_of = [this](const TakenPage& taken) {
    return SlabId{taken.group, wide_->geometry().groups[taken.group].slab_of(static_cast<std::uint32_t>(taken.page))};
  };
  std::vector<SlabId> refused, created;
  const auto is_refused = [&](const TakenPage& taken) { return std::find(refused.begin(), refused.end(), slab_of(taken)) != refused.end(); };
  for (const TakenPage& taken : step_.wide_taken) {
    const SlabId id = slab_of(taken);
    if (is_refused(taken)) continue;
    const Status status = wide_->slabs().ensure({&id, 1}, &created);
    if (status.ok()) continue;
    refused.push_back(id);
    if (!std::exchange(copies_refused_, true))
      log_.write(LogLevel::warning, "fresh tokens are not protected, and this is not said again: " + status.message());
  }
  if (!refused.empty()) {
    std::vector<std::uint32_t> counts(step_.wide_begin.size(), 0);
    for (const TakenPage& taken : step_.wide_taken) {
      if (is_refused(taken))
        wide_->pool(taken.group).release(static_cast<std::uint32_t>(taken.page));
      else
        ++counts[taken.entry * pools_.size() + taken.group];
    }
    std::erase_if(step_.wide_taken, is_refused);
    std::exclusive_scan(counts.begin(), counts.end(), step_.wide_begin.begin(), 0U);
  }
  for (const TakenPage& taken : step_.wide_taken) {
    Sequence& sequence = *step_.sequences[taken.entry].sequence;
    sequence.wide.resize(pools_.size());
    sequence.wide[taken.group].reserve(taken.index + 1);
  }
  return poison_copies(created);
}

// After build_tables: the same tables, with copies.
void CacheImpl::build_wide_tables(std::span<const StepEntry> entries) {
  find_stale_copies();
  take_copies(entries);
  if (!within_memory([this] { return prepare_copies(); }).ok()) release_copies();  // without host memory
  const std::uint32_t page_tokens = geometry_.page_tokens;
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    if (!wide_->protects(g)) continue;
    WideTables& tables = step_.wide[g];
    GroupBatch& batch = tables.batch;
    const GroupBatch& own = step_.groups[g].batch;
    const auto behind = static_cast<std::int32_t>(geometry_.groups[g].page_ids());
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
        for (const TakenPage& taken : taken_copies(e, g))
          if (taken.index == index) return taken.page;
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
      for (const TakenPage& taken : taken_copies(e, g)) use(taken.index, taken.page);
    }
    if (!tables.any) continue;
    find_append_spans(batch, wide_->geometry().groups[g], page_tokens);
    find_common_pages(batch);
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
  for (std::uint32_t g = 0; g < pools_.size(); ++g)
    for (const TakenPage& taken : taken_copies(index, g)) {
      PageTable& table = sequence.wide[g];
      while (table.size() <= taken.index) table.push(kNoPage);
      table.set(taken.index, taken.page);
    }
  if (std::find(step_.imported.begin(), step_.imported.end(), true) != step_.imported.end()) wide_->drop(sequence, open);
}

void CacheImpl::drop_copies(Sequence& sequence, std::uint64_t first_token) {
  if (wide_ != nullptr) wide_->drop(sequence, static_cast<std::uint32_t>(std::min<std::uint64_t>(first_token / geometry_.page_tokens, UINT32_MAX)));
}

// Of the prefix cache, the copies of a page that no sequence has, used longest ago; false: there are none.
bool CacheImpl::drop_idle_copies(std::uint32_t g) {
  if (prefixes_ == nullptr) return false;
  PrefixNode* oldest = nullptr;
  prefixes_->each([&](PrefixNode& node) {
    if (node.copies == nullptr || node.copies->shared() || node.copies->pages[g] == kNoPage) return;
    if (oldest == nullptr || node.last_use_ms < oldest->last_use_ms) oldest = &node;
  });
  if (oldest != nullptr) oldest->copies.reset();
  return oldest != nullptr;
}

void CacheImpl::drop_prefix_copies() {
  if (prefixes_ != nullptr) prefixes_->each([](PrefixNode& node) { node.copies.reset(); });
}

// A layer has become what the spec says.
void CacheImpl::convert_copies(std::uint32_t layer) {
  if (wide_->changes(layer, spec_.layers[layer])) {
    drop_prefix_copies();
    for (auto& [id, sequence] : sequences_) wide_->drop_group(sequence, geometry_.layers[layer].group);
  }
  wide_->set_layer(layer, spec_.layers[layer]);
  if (limit_bytes_ != 0) limit_copies(limit_bytes_);
}

void CacheImpl::limit_copies(std::uint64_t limit_bytes) {
  const std::uint64_t budget = limit_bytes == 0 ? UINT64_MAX : limit_bytes / 8;
  if (!wide_->fits(budget)) drop_all_copies();
  wide_->set_limit(budget);
}

// Gives all that copies take back for what cannot be done without.
bool CacheImpl::give_up_copies() {
  if (wide_ == nullptr || wide_->allocated_bytes() == 0) return false;
  drop_all_copies();
  wide_->give_back();
  return true;
}

void CacheImpl::drop_all_copies() {
  drop_prefix_copies();
  for (auto& [id, sequence] : sequences_) drop_copies(sequence, 0);
}

// A limit is for all slabs; copies get whole slabs of an eighth of it.
std::uint64_t CacheImpl::copies_share(std::uint64_t limit_bytes) const { return wide_ == nullptr ? 0 : wide_->bytes_under(limit_bytes / 8); }

}  // namespace kvant
