// Checks of the raw paged calls: slots and pages inside the pool, row pointers that never fall, masks that cover all keys.
#include "paged_args.hpp"

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "boundary.hpp"
#include "checks.hpp"

namespace kvant::abi {
namespace {

std::int64_t total_pages(const CacheObject& cache) {
  return static_cast<std::int64_t>(cache.cache->memory_use().total_pages);
}

// Two tokens in one slot would race on the device.
Status check_distinct(std::span<const std::int64_t> slots, std::string_view name) {
  std::vector<std::pair<std::int64_t, std::size_t>> sorted;
  sorted.reserve(slots.size());
  for (std::size_t i = 0; i < slots.size(); ++i)
    if (slots[i] >= 0) sorted.emplace_back(slots[i], i);
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t i = 1; i < sorted.size(); ++i)
    if (sorted[i].first == sorted[i - 1].first)
      return invalid(name, "[", sorted[i].second, "] (", sorted[i].first, ") is also ", name, "[", sorted[i - 1].second, "]");
  return {};
}

Status check_indptr(const std::int32_t* indptr, std::uint32_t batch, std::string_view name) {
  if (indptr[0] != 0) return invalid(name, "[0] (", indptr[0], ") is not 0");
  for (std::uint32_t i = 0; i < batch; ++i)
    if (indptr[i + 1] < indptr[i])
      return invalid(name, "[", i + 1, "] (", indptr[i + 1], ") is less than ", name, "[", i, "] (", indptr[i], ")");
  return {};
}

Status check_pages(std::span<const std::int32_t> pages, std::int64_t total) {
  for (std::size_t i = 0; i < pages.size(); ++i)
    if (pages[i] < -1 || pages[i] >= total)
      return invalid("args.kv_indices[", i, "] (", pages[i], ") is not -1 or a page from 0 to ", total - 1);
  return {};
}

// Keys of sequence i, from its pages.
std::uint64_t key_count(const kvant_paged_args& values, std::uint32_t i, std::uint32_t page_tokens) {
  const auto pages = static_cast<std::uint64_t>(values.kv_indptr[i + 1] - values.kv_indptr[i]);
  return pages == 0 ? 0 : (pages - 1) * page_tokens + static_cast<std::uint64_t>(values.kv_last_page_len[i]);
}

Status check_sequence(const kvant_paged_args& values, std::uint32_t i, std::uint32_t page_tokens, PagedInput& input) {
  const std::int32_t pages = values.kv_indptr[i + 1] - values.kv_indptr[i];
  const std::int32_t last = values.kv_last_page_len[i];
  if (pages != 0 && (last < 1 || last > static_cast<std::int32_t>(page_tokens)))
    return invalid("args.kv_last_page_len[", i, "] (", last, ") is not between 1 and ", page_tokens);
  const auto queries = static_cast<std::uint64_t>(values.qo_indptr[i + 1] - values.qo_indptr[i]);
  const std::uint64_t keys = key_count(values, i, page_tokens);
  if (keys > kMaxTokens) return invalid("args.kv_indptr gives sequence ", i, " ", keys, " keys; expected at most ", kMaxTokens);
  if (values.query_positions != nullptr) {
    if (values.query_positions[i] < 0)
      return invalid("args.query_positions[", i, "] (", values.query_positions[i], ") is negative");
    if (static_cast<std::uint64_t>(values.query_positions[i]) + queries > kMaxTokens)
      return invalid("args.query_positions[", i, "] (", values.query_positions[i], ") plus ", queries,
                     " queries is greater than ", kMaxTokens);
  } else if (values.mask == nullptr && queries > keys && input.causal_objection.empty()) {
    input.causal_objection = text("sequence ", i, " of the plan has ", queries, " queries, more than its ", keys,
                                  " keys, so that a causal run needs query_positions");
  }
  if (values.mask != nullptr && queries != 0 && values.mask_row_words < (keys + 31) / 32)
    return invalid("args.mask_row_words (", values.mask_row_words, ") is less than ", (keys + 31) / 32, ", the words of the ",
                   keys, " keys of sequence ", i);
  return {};
}

Status read_attention(const kvant_paged_args& values, const CacheObject& cache, PagedInput& input) {
  const std::uint32_t batch = values.batch;
  if (values.qo_indptr == nullptr) {
    if (values.kv_indptr != nullptr || values.kv_indices != nullptr || values.kv_last_page_len != nullptr ||
        values.query_positions != nullptr || values.mask != nullptr)
      return invalid("args.qo_indptr is NULL although other arrays of the attention are given");
    return {};
  }
  KVANT_TRY(check_pointer(values.kv_indptr, "args.kv_indptr", text(batch + std::uint64_t{1}, " offsets")));
  KVANT_TRY(check_pointer(values.kv_last_page_len, "args.kv_last_page_len", text(batch, " counts")));
  KVANT_TRY(check_indptr(values.qo_indptr, batch, "args.qo_indptr"));
  KVANT_TRY(check_indptr(values.kv_indptr, batch, "args.kv_indptr"));
  const auto page_count = static_cast<std::size_t>(values.kv_indptr[batch]);
  if (page_count != 0) KVANT_TRY(check_pointer(values.kv_indices, "args.kv_indices", text(page_count, " pages")));
  const std::span<const std::int32_t> pages(values.kv_indices, page_count);
  KVANT_TRY(check_pages(pages, total_pages(cache)));
  for (std::uint32_t i = 0; i < batch; ++i) KVANT_TRY(check_sequence(values, i, cache.cache->spec().page_tokens, input));

  input.queries = static_cast<std::uint64_t>(values.qo_indptr[batch]);
  if (input.queries > kMaxTokens || input.queries * values.mask_row_words > kMaxTokens)
    return invalid("args.qo_indptr[", batch, "] (", input.queries, ") queries of args.mask_row_words (", values.mask_row_words,
                   ") exceed ", kMaxTokens);
  const std::size_t ends = std::size_t{batch} + 1;
  input.batch.qo_indptr = {values.qo_indptr, ends};
  input.batch.kv_indptr = {values.kv_indptr, ends};
  input.batch.kv_indices = pages;
  input.batch.kv_last_page_len = {values.kv_last_page_len, batch};
  input.batch.mask = values.mask;
  input.batch.mask_row_words = values.mask_row_words;
  input.batch.explicit_positions = values.query_positions != nullptr;
  if (input.batch.explicit_positions) input.batch.q_pos_begin = {values.query_positions, batch};
  return {};
}

}  // namespace

Status check_slots(std::span<const std::int64_t> slots, const CacheObject& cache, std::string_view name) {
  const std::int64_t end = total_pages(cache) * cache.cache->spec().page_tokens;
  for (std::size_t i = 0; i < slots.size(); ++i)
    if (slots[i] >= end) return invalid(name, "[", i, "] (", slots[i], ") is not less than ", end, ", the pool's slots");
  return {};
}

Result<PagedInput> read_paged_args(const kvant_paged_args* args, const CacheObject& cache) {
  kvant_paged_args values{};
  KVANT_TRY(read_args(args, "args", values));
  if (values.reserved != 0) return invalid("args.reserved (", values.reserved, ") is not 0");
  if (values.batch > kMaxTokens) return invalid("args.batch (", values.batch, ") is greater than ", kMaxTokens);
  if (values.token_count > kMaxTokens)
    return invalid("args.token_count (", values.token_count, ") is greater than ", kMaxTokens);
  if (values.mask == nullptr && values.mask_row_words != 0)
    return invalid("args.mask is NULL although args.mask_row_words (", values.mask_row_words, ") is not 0");
  if (values.batch == 0 && values.qo_indptr != nullptr) return invalid("args.batch (0) is not at least 1 with args.qo_indptr");
  PagedInput input;
  if (values.token_count != 0) {
    KVANT_TRY(check_pointer(values.slot_mapping, "args.slot_mapping", text(values.token_count, " slots")));
    input.batch.slot_mapping = {values.slot_mapping, values.token_count};
    KVANT_TRY(check_slots(input.batch.slot_mapping, cache, "args.slot_mapping"));
    KVANT_TRY(check_distinct(input.batch.slot_mapping, "args.slot_mapping"));
  }
  KVANT_TRY(read_attention(values, cache, input));
  if (values.token_count == 0 && input.queries == 0)
    return invalid("args.token_count is 0 and args.qo_indptr asks no queries: the step would do nothing");
  return input;
}

Status check_page_pairs(std::span<const std::int32_t> source, std::span<const std::int32_t> destination,
                        const CacheObject& cache) {
  const std::int64_t total = total_pages(cache);
  std::unordered_map<std::int32_t, std::size_t> sources;
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] < 0 || source[i] >= total)
      return invalid("source_pages[", i, "] (", source[i], ") is not a page from 0 to ", total - 1);
    sources.emplace(source[i], i);
  }
  std::unordered_map<std::int32_t, std::size_t> destinations;
  for (std::size_t i = 0; i < destination.size(); ++i) {
    const std::int32_t page = destination[i];
    if (page < 0 || page >= total)
      return invalid("destination_pages[", i, "] (", page, ") is not a page from 0 to ", total - 1);
    if (const auto [first, fresh] = destinations.emplace(page, i); !fresh)
      return invalid("destination_pages[", i, "] (", page, ") is also destination_pages[", first->second, "]");
    if (const auto read = sources.find(page); read != sources.end())
      return invalid("destination_pages[", i, "] (", page, ") is also source_pages[", read->second, "]");
  }
  return {};
}

}  // namespace kvant::abi
