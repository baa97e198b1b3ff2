// CacheImpl: tokens written out of the order of steps: room for tokens first, then K and V layer by layer, then their ids.
#include <algorithm>

#include "cache_impl.hpp"
#include "checked.hpp"
#include "rollback.hpp"

namespace kvant {

Status CacheImpl::check_no_step(const char* verb) const {
  if (spec_.external_pages)
    return {StatusCode::failed_precondition, "the engine keeps the pages of this cache: it has no sequences"};
  if (open_step_ != nullptr)
    return {StatusCode::failed_precondition, std::string("a step is open; commit or abort it before you ") + verb};
  return {};
}

Status CacheImpl::extend_sequence(SequenceId id, std::uint64_t tokens) {
  KVANT_TRY(check_no_step("extend a sequence"));
  KVANT_ASSIGN(Sequence* const sequence, find(id));
  if (tokens < sequence->length)
    return {StatusCode::invalid_argument, "tokens (" + std::to_string(tokens) + ") is less than the sequence's length, " +
                                              std::to_string(sequence->length)};
  if (tokens == sequence->length) return {};
  if (tokens - sequence->length > UINT32_MAX)
    return {StatusCode::invalid_argument, "tokens (" + std::to_string(tokens) + ") exceed what a sequence can hold"};
  StepEntry entry;
  entry.sequence = id;
  entry.append = static_cast<std::uint32_t>(tokens - sequence->length);
  KVANT_ASSIGN(std::unique_ptr<Step> step, plan({&entry, 1}));
  step_.appended.assign(step_.appended.size(), true);
  step_.imported.assign(step_.imported.size(), true);
  KVANT_TRY(clear_fresh_mass());
  step_.fresh_tokens = 0;  // nothing was computed: no measure of the engine's speed
  forget_tokens(*sequence, sequence->length);  // ids that were told ahead are not those of empty pages
  return commit(std::move(step));
}

// Gives the sequence copies of its own, not cooled, of the pages [first, end) of a group that others hold too or, with `thaw`, that are cooled.
Status CacheImpl::make_private(Sequence& sequence, std::uint32_t group, std::uint32_t first, std::uint32_t end, bool thaw) {
  const PageTable& table = sequence.tables[group];
  std::vector<std::uint32_t> shared;
  for (std::uint32_t i = first; i < end; ++i)
    if (pools_[group].references(static_cast<std::uint32_t>(table.at(i))) > 1 || (thaw && cooled(group, table.at(i)))) shared.push_back(i);
  return replace_pages(sequence, group, shared);
}

Status CacheImpl::replace_pages(Sequence& sequence, std::uint32_t group, std::span<const std::uint32_t> shared) {
  if (shared.empty()) return {};
  PageTable& table = sequence.tables[group];
  PagePool& pool = pools_[group];
  KVANT_TRY(make_room(group, shared.size()));
  std::vector<PagePair> copies;
  std::vector<TakenPage> taken;
  copies.reserve(shared.size());
  taken.reserve(shared.size());
  for (const std::uint32_t i : shared) {
    const std::int32_t page = pool.take(table.at(i));
    copies.push_back({group, static_cast<std::uint32_t>(table.at(i)), static_cast<std::uint32_t>(page)});
    taken.push_back({0, group, i, page, kNoPage});
  }
  const auto copy = [&]() -> Status {
    KVANT_TRY(ready_pages(taken));
    return device_copy_pages(copies);
  };
  if (const Status status = within_memory(copy); !status.ok()) {
    for (const TakenPage& page : taken) pool.release(static_cast<std::uint32_t>(page.page));
    return status;
  }
  for (const TakenPage& page : taken) {
    pool.release(static_cast<std::uint32_t>(table.at(page.index)));
    table.set(page.index, page.page);
  }
  return {};
}

Status CacheImpl::write(SequenceId id, std::uint32_t layer, std::uint64_t begin, std::uint64_t count, const TensorView& k,
                        const TensorView& v) {
  KVANT_TRY(check_no_step("write tokens"));
  KVANT_ASSIGN(Sequence* const sequence, find(id));
  const std::uint64_t length = sequence->length, there = begin <= length ? std::min(count, length - begin) : count;
  KVANT_TRY(check_readable(*sequence, layer, begin, there));
  if (count == there) return count == 0 ? Status() : write_in_place(*sequence, layer, begin, count, k, v);
  const std::optional<std::uint64_t> end = checked_add(begin, count);
  if (!end) return {StatusCode::invalid_argument, "tokens (" + std::to_string(count) + ") exceed what a sequence can hold"};
  std::vector<std::int32_t> told = sequence->tokens;
  const Status status = within_memory([&]() -> Status {
    KVANT_TRY(extend_sequence(id, *end));
    return write_in_place(*sequence, layer, begin, count, k, v);
  });
  if (status.ok()) return {};
  // The sequence had no such tokens before: it has none now, and what was told of its next ones holds still.
  if (sequence->length > length) {
    [[maybe_unused]] const Status cut = truncate_sequence(id, length);
  }
  if (sequence->tokens.size() == std::min<std::uint64_t>(length, told.size())) sequence->tokens = std::move(told);
  return status;
}

Status CacheImpl::write_in_place(Sequence& sequence, std::uint32_t layer, std::uint64_t begin, std::uint64_t count,
                                 const TensorView& k, const TensorView& v) {
  const std::uint32_t g = geometry_.layers[layer].group, page_tokens = geometry_.page_tokens;
  KVANT_TRY(make_private(sequence, g, static_cast<std::uint32_t>(begin / page_tokens),
                         static_cast<std::uint32_t>(divide_up(begin + count, page_tokens))));
  drop_copies(sequence, begin);
  forget_tokens(sequence, begin);  // what is going to be written is not what the ids stand for any more
  step_.clear();
  meta_.clear();
  step_.fresh_tokens = static_cast<std::uint32_t>(count);
  GroupTables& tables = step_.groups[g];
  const PageTable& table = sequence.tables[g];
  for (std::uint64_t token = begin; token < begin + count; ++token)
    tables.batch.slots.push_back(table.at(static_cast<std::uint32_t>(token / page_tokens)) * static_cast<std::int32_t>(page_tokens) +
                                 static_cast<std::int32_t>(token % page_tokens));
  find_append_spans(tables.batch, geometry_.groups[g], page_tokens);
  tables.slots_offset = meta_.append(std::span<const std::int32_t>(tables.batch.slots));
  const std::unique_ptr<Step> step = open_step();
  RunArgs args;
  args.k = k;
  args.v = v;
  return run(*step, layer, args);  // the step ends with its handle; it took nothing
}

Status CacheImpl::identify(SequenceId id, std::span<const std::int32_t> tokens) {
  KVANT_TRY(check_no_step("name a sequence's tokens"));
  KVANT_ASSIGN(Sequence* const sequence, find(id));
  if (tokens.size() > sequence->length)
    return {StatusCode::invalid_argument, "tokens (" + std::to_string(tokens.size()) + ") are more than the sequence's " +
                                              std::to_string(sequence->length)};
  if (sequence->pruned && tokens.size() > sequence->tokens.size())
    return {StatusCode::failed_precondition, sequence_text(id) + " was pruned: its keys behind the first " +
                                                 std::to_string(sequence->tokens.size()) +
                                                 " tokens are not those of these tokens in this order"};
  if (sequence->node == nullptr) return {};
  const auto differs = std::mismatch(tokens.begin(), tokens.end(), sequence->tokens.begin(), sequence->tokens.end()).first;
  std::vector<std::int32_t> known(tokens.begin(), tokens.end());
  forget_tokens(*sequence, static_cast<std::uint64_t>(differs - tokens.begin()));
  sequence->tokens = std::move(known);
  publish(*sequence);
  return {};
}

}  // namespace kvant
