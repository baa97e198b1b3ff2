// CacheImpl: steps over the engine's own page tables, and the two calls that name slots and pages directly.
#include <algorithm>
#include <limits>

#include "cache_impl.hpp"
#include "rollback.hpp"

namespace kvant {
namespace {

std::string text(std::int64_t value) { return std::to_string(value); }

Status not_external() {
  return {StatusCode::failed_precondition, "the cache keeps its own pages: it was not created for external pages"};
}

}  // namespace

Status CacheImpl::check_page(std::int64_t page) const {
  const std::uint32_t total = geometry_.groups[0].total_pages;
  if (page >= 0 && page < total) return {};
  return {StatusCode::invalid_argument, "page " + text(page) + " is not below the cache's " + text(total) + " pages"};
}

Status CacheImpl::check_slots(std::span<const std::int64_t> slots) const {
  for (std::int64_t slot : slots)
    if (slot >= 0 && slot / geometry_.page_tokens >= geometry_.groups[0].total_pages)
      return {StatusCode::invalid_argument,
              "slot " + text(slot) + " is not below the cache's " +
                  text(std::int64_t{geometry_.groups[0].total_pages} * geometry_.page_tokens) + " slots"};
  return {};
}

Status CacheImpl::check_paged(const PagedBatch& batch) const {
  constexpr std::size_t most = std::numeric_limits<std::int32_t>::max();
  if (batch.slot_mapping.size() > most)
    return {StatusCode::invalid_argument, "the step has " + std::to_string(batch.slot_mapping.size()) +
                                              " fresh tokens, at most " + std::to_string(most) + " are possible"};
  KVANT_TRY(check_slots(batch.slot_mapping));
  if (batch.qo_indptr.empty()) return {};
  const std::size_t sequences = batch.qo_indptr.size() - 1;
  if (batch.kv_indptr.size() != sequences + 1 || batch.kv_last_page_len.size() < sequences ||
      (batch.explicit_positions && batch.q_pos_begin.size() < sequences))
    return {StatusCode::invalid_argument, "page tables of a batch of " + std::to_string(sequences) +
                                              " have kv_indptr of " + std::to_string(batch.kv_indptr.size()) +
                                              " and kv_last_page_len of " +
                                              std::to_string(batch.kv_last_page_len.size()) + " elements"};
  if (batch.qo_indptr[0] != 0 || batch.kv_indptr[0] != 0)
    return {StatusCode::invalid_argument, "qo_indptr[0] (" + text(batch.qo_indptr[0]) + ") and kv_indptr[0] (" +
                                              text(batch.kv_indptr[0]) + ") are not 0"};
  for (std::size_t s = 0; s < sequences; ++s) {
    if (batch.qo_indptr[s + 1] < batch.qo_indptr[s] || batch.kv_indptr[s + 1] < batch.kv_indptr[s])
      return {StatusCode::invalid_argument, "qo_indptr or kv_indptr falls at sequence " + std::to_string(s)};
    const std::int64_t pages = batch.kv_indptr[s + 1] - batch.kv_indptr[s];
    const std::int64_t last = batch.kv_last_page_len[s];
    if (pages > 0 && (last < 1 || last > geometry_.page_tokens))
      return {StatusCode::invalid_argument, "kv_last_page_len[" + std::to_string(s) + "] (" + text(last) +
                                                ") is not between 1 and " + text(geometry_.page_tokens)};
    const std::int64_t kv_len = pages == 0 ? 0 : (pages - 1) * geometry_.page_tokens + last;
    if (kv_len > std::numeric_limits<std::int32_t>::max())
      return {StatusCode::invalid_argument, "sequence " + std::to_string(s) + " has " + text(kv_len) +
                                                " keys, at most " + text(std::numeric_limits<std::int32_t>::max()) +
                                                " are possible"};
    if (batch.mask != nullptr && std::int64_t{batch.mask_row_words} * 32 < kv_len)
      return {StatusCode::invalid_argument, "mask_row_words (" + std::to_string(batch.mask_row_words) +
                                                ") cover fewer than the " + text(kv_len) + " keys of sequence " +
                                                std::to_string(s)};
  }
  if (static_cast<std::size_t>(batch.kv_indptr[sequences]) > batch.kv_indices.size())
    return {StatusCode::invalid_argument, "kv_indptr ends at " + text(batch.kv_indptr[sequences]) +
                                              ", kv_indices has " + std::to_string(batch.kv_indices.size()) +
                                              " elements"};
  for (std::int32_t page : batch.kv_indices.first(static_cast<std::size_t>(batch.kv_indptr[sequences])))
    if (page != kNoPage) KVANT_TRY(check_page(page));
  return {};
}

void CacheImpl::build_paged_tables(const PagedBatch& batch) {
  meta_.clear();
  const std::size_t sequences = batch.qo_indptr.empty() ? 0 : batch.qo_indptr.size() - 1;
  std::uint32_t mask_offset = 0;
  if (batch.mask != nullptr && sequences > 0) {
    step_.masked = true;
    mask_offset = meta_.append(std::span<const std::uint32_t>(
        batch.mask, static_cast<std::size_t>(batch.qo_indptr[sequences]) * batch.mask_row_words));
  }
  GroupTables& tables = step_.groups[0];
  for (std::int64_t slot : batch.slot_mapping)
    tables.batch.slots.push_back(static_cast<std::int32_t>(std::max<std::int64_t>(slot, -1)));
  for (std::size_t s = 0; s < sequences; ++s) {
    const std::int32_t queries = batch.qo_indptr[s + 1] - batch.qo_indptr[s];
    if (queries == 0) continue;
    const std::int32_t first = batch.kv_indptr[s], pages = batch.kv_indptr[s + 1] - first;
    params::AttendSeq seq{};
    seq.kv_len = pages == 0 ? 0
                            : (static_cast<std::uint32_t>(pages) - 1) * geometry_.page_tokens +
                                  static_cast<std::uint32_t>(batch.kv_last_page_len[s]);
    seq.page_begin = static_cast<std::uint32_t>(tables.batch.pages.size());
    seq.q_begin = static_cast<std::uint32_t>(batch.qo_indptr[s]);
    seq.q_len = static_cast<std::uint32_t>(queries);
    seq.q_pos_begin = batch.explicit_positions ? batch.q_pos_begin[s] : static_cast<std::int32_t>(seq.kv_len) - queries;
    seq.mask_kv_begin = batch.mask != nullptr ? 0 : seq.kv_len;
    seq.mask_row_words = batch.mask != nullptr ? batch.mask_row_words : 0;
    seq.mask_offset = mask_offset + seq.q_begin * batch.mask_row_words;
    tables.batch.seqs.push_back(seq);
    const auto indices = batch.kv_indices.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(pages));
    tables.batch.pages.insert(tables.batch.pages.end(), indices.begin(), indices.end());
    tables.batch.page_counts.push_back(static_cast<std::uint32_t>(pages));
  }
  find_append_spans(tables.batch, geometry_.groups[0], geometry_.page_tokens);
  find_common_pages(tables.batch);
  tables.slots_offset = meta_.append(std::span<const std::int32_t>(tables.batch.slots));
  tables.seqs_offset = meta_.append(std::span<const params::AttendSeq>(tables.batch.seqs));
  tables.pages_offset = meta_.append(std::span<const std::int32_t>(tables.batch.pages));
  step_.fresh_tokens = static_cast<std::uint32_t>(batch.slot_mapping.size());
  step_.queries = sequences == 0 ? 0 : static_cast<std::uint32_t>(batch.qo_indptr[sequences]);
}

Result<std::unique_ptr<Step>> CacheImpl::plan_paged(const PagedBatch& batch) {
  if (!spec_.external_pages) return not_external();
  if (open_step_ != nullptr)
    return Status(StatusCode::failed_precondition, "a step is open already; commit or abort it first");
  KVANT_TRY(check_paged(batch));
  // Two tokens in one slot would race on the device.
  slot_scratch_.assign(batch.slot_mapping.begin(), batch.slot_mapping.end());
  std::sort(slot_scratch_.begin(), slot_scratch_.end());
  for (std::size_t i = 1; i < slot_scratch_.size(); ++i)
    if (slot_scratch_[i] >= 0 && slot_scratch_[i] == slot_scratch_[i - 1])
      return Status(StatusCode::invalid_argument, "slot " + text(slot_scratch_[i]) + " appears twice in slot_mapping");

  slab_scratch_.clear();
  auto touch = [&](std::int64_t page) {
    const SlabId id{0, geometry_.groups[0].slab_of(static_cast<std::uint32_t>(page))};
    if (std::find(slab_scratch_.begin(), slab_scratch_.end(), id) == slab_scratch_.end()) slab_scratch_.push_back(id);
  };
  for (std::int64_t slot : batch.slot_mapping)
    if (slot >= 0) touch(slot / geometry_.page_tokens);
  if (!batch.qo_indptr.empty())
    for (std::int32_t page : batch.kv_indices.first(static_cast<std::size_t>(batch.kv_indptr.back())))
      if (page != kNoPage) touch(page);
  KVANT_TRY(ensure_slabs(slab_scratch_));

  for (BufferId buffer : retired_) executor_.destroy_buffer(buffer);
  retired_.clear();
  step_.clear();
  Rollback undo([this] { step_.clear(); });
  build_paged_tables(batch);
  std::unique_ptr<Step> step = open_step();
  undo.complete();
  return step;
}

Status CacheImpl::ensure_slabs(std::span<const SlabId> slabs) {
  std::vector<SlabId> created;
  KVANT_TRY(slabs_.ensure(slabs, &created));
  return poison_pages(created, {});
}

Status CacheImpl::read_slots(std::uint32_t layer, Side side, std::span<const std::int64_t> slots,
                             const TensorView& out) {
  if (!spec_.external_pages) return not_external();
  KVANT_TRY(check_layer(layer));
  KVANT_TRY(check_slots(slots));
  std::vector<std::int32_t> narrow;
  std::vector<SlabId> slabs;
  for (std::int64_t slot : slots) {
    narrow.push_back(static_cast<std::int32_t>(std::max<std::int64_t>(slot, -1)));
    if (slot < 0) continue;
    const SlabId id{0, geometry_.groups[0].slab_of(static_cast<std::uint32_t>(slot / geometry_.page_tokens))};
    if (slabs.empty() || !(slabs.back() == id)) slabs.push_back(id);
  }
  KVANT_TRY(ensure_slabs(slabs));
  return read_by_slots(layer, side, narrow, out);
}

Status CacheImpl::copy_pages(std::span<const std::int32_t> source, std::span<const std::int32_t> destination) {
  if (!spec_.external_pages) return not_external();
  if (source.size() != destination.size())
    return {StatusCode::invalid_argument, std::to_string(source.size()) + " source pages and " +
                                              std::to_string(destination.size()) + " destination pages do not pair up"};
  // Pairs are copied all at once, so the order of overlapping pairs could not be kept.
  std::vector<std::int32_t> sources(source.begin(), source.end()), destinations(destination.begin(), destination.end());
  std::sort(sources.begin(), sources.end());
  std::sort(destinations.begin(), destinations.end());
  std::vector<PagePair> pairs;
  std::vector<SlabId> slabs;
  for (std::size_t i = 0; i < source.size(); ++i) {
    KVANT_TRY(check_page(source[i]));
    KVANT_TRY(check_page(destination[i]));
    if (i > 0 && destinations[i] == destinations[i - 1])
      return {StatusCode::invalid_argument, "page " + text(destinations[i]) + " is the destination of two copies"};
    if (std::binary_search(sources.begin(), sources.end(), destination[i]))
      return {StatusCode::invalid_argument, "page " + text(destination[i]) + " is both a source and a destination"};
    for (const std::int32_t page : {source[i], destination[i]})
      slabs.push_back({0, geometry_.groups[0].slab_of(static_cast<std::uint32_t>(page))});
    pairs.push_back({0, static_cast<std::uint32_t>(source[i]), static_cast<std::uint32_t>(destination[i])});
  }
  KVANT_TRY(ensure_slabs(slabs));
  return device_copy_pages(pairs);
}

}  // namespace kvant
