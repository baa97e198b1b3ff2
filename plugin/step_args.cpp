// Checks of step_plan's entries: sequences alive and unrepeated, counts, positions, masks.
#include "step_args.hpp"

#include <algorithm>

#include "boundary.hpp"
#include "checks.hpp"

namespace kvant::abi {
namespace {

Status check_mask(const kvant_step_entry& entry, std::uint64_t tokens, std::string_view name) {
  if (entry.mask == nullptr) {
    if (entry.mask_row_words != 0 || entry.mask_begin != 0)
      return invalid(name, ".mask is NULL although mask_row_words (", entry.mask_row_words, ") or mask_begin (",
                     entry.mask_begin, ") is not 0");
    return {};
  }
  if (entry.queries == 0) return invalid(name, ".mask is given although ", name, ".queries is 0");
  if (entry.mask_begin > tokens)
    return invalid(name, ".mask_begin (", entry.mask_begin, ") is greater than the sequence's ", tokens, " tokens");
  const std::uint64_t words = (tokens - entry.mask_begin + 31) / 32;
  if (entry.mask_row_words < words)
    return invalid(name, ".mask_row_words (", entry.mask_row_words, ") is less than ", words, ", the words of tokens ",
                   entry.mask_begin, " to ", tokens);
  if (std::uint64_t{entry.mask_row_words} * entry.queries > kMaxTokens)
    return invalid(name, ".mask_row_words (", entry.mask_row_words, ") times ", name, ".queries (", entry.queries,
                   ") is greater than ", kMaxTokens);
  return {};
}

Status check_entry(const kvant_step_entry& entry, std::uint64_t length, std::string_view name) {
  if (entry.append == 0 && entry.queries == 0) return invalid(name, " neither appends nor queries: both counts are 0");
  if (entry.append > kMaxTokens || length + entry.append > kMaxTokens)
    return invalid(name, ".append (", entry.append, ") takes the sequence of ", length, " tokens beyond ", kMaxTokens);
  if (entry.queries > kMaxTokens) return invalid(name, ".queries (", entry.queries, ") is greater than ", kMaxTokens);
  if ((entry.flags & ~KVANT_ENTRY_QUERY_POSITION) != 0)
    return invalid(name, ".flags (", hex(entry.flags), ") have bits beyond ", hex(KVANT_ENTRY_QUERY_POSITION));
  if (entry.append == 0 && entry.tokens != nullptr) return invalid(name, ".tokens is given although ", name, ".append is 0");
  if (entry.reserved != 0) return invalid(name, ".reserved (", entry.reserved, ") is not 0");
  const bool positioned = (entry.flags & KVANT_ENTRY_QUERY_POSITION) != 0;
  if (!positioned && entry.query_position != 0)
    return invalid(name, ".query_position (", entry.query_position, ") is not 0 without KVANT_ENTRY_QUERY_POSITION");
  if (entry.query_position < 0) return invalid(name, ".query_position (", entry.query_position, ") is negative");
  if (static_cast<std::uint64_t>(entry.query_position) + entry.queries > kMaxTokens)
    return invalid(name, ".query_position (", entry.query_position, ") plus ", entry.queries, " queries is greater than ",
                   kMaxTokens);
  return check_mask(entry, length + entry.append, name);
}

}  // namespace

Result<StepInput> read_step_args(const kvant_step_args* args, CacheObject& cache) {
  kvant_step_args values{};
  KVANT_TRY(read_args(args, "args", values));
  if (values.entry_count == 0) return invalid("args.entry_count (0) is not at least 1");
  if (values.entries == nullptr) return check_pointer(values.entries, "args.entries", text(values.entry_count, " kvant_step_entry"));
  KVANT_ASSIGN(const std::size_t stride,
               element_stride(values.entries, values.entry_stride, "args.entries", "args.entry_stride"));
  StepInput input;
  cache.step_entries.clear();
  cache.step_sequences.clear();
  for (std::uint32_t i = 0; i < values.entry_count; ++i) {
    const ElementName name("args.entries", i);
    kvant_step_entry entry{};
    KVANT_TRY(read_args(element_at(values.entries, stride, i), name, entry));
    KVANT_ASSIGN(const SequenceId sequence, cache.sequence(entry.sequence, ElementName("args.entries", i, ".sequence")));
    const auto place = std::lower_bound(cache.step_sequences.begin(), cache.step_sequences.end(), entry.sequence);
    if (place != cache.step_sequences.end() && *place == entry.sequence) {
      std::uint32_t first = 0;
      while (cache.step_entries[first].sequence != sequence) ++first;
      return invalid(name, ".sequence (", hex(entry.sequence), ") is also the sequence of entries[", first, "]");
    }
    cache.step_sequences.insert(place, entry.sequence);
    KVANT_ASSIGN(const std::uint64_t length, cache.cache->sequence_length(sequence));
    KVANT_TRY(check_entry(entry, length, name));

    const bool positioned = (entry.flags & KVANT_ENTRY_QUERY_POSITION) != 0;
    if (!positioned && entry.mask == nullptr && entry.queries > length + entry.append && input.causal_objection.empty())
      input.causal_objection = text("entries[", i, "] of the plan: queries (", entry.queries, ") is greater than the sequence's ",
                                    length + entry.append, " tokens, so that a causal run needs KVANT_ENTRY_QUERY_POSITION");
    input.fresh_tokens += entry.append;
    input.queries += entry.queries;
    if (input.fresh_tokens > kMaxTokens || input.queries > kMaxTokens)
      return invalid("args.entries append ", input.fresh_tokens, " tokens and ask ", input.queries,
                     " queries in all; expected at most ", kMaxTokens, " each");
    cache.step_entries.push_back({.sequence = sequence,
                             .append = entry.append,
                             .queries = entry.queries,
                             .explicit_positions = positioned,
                             .q_pos_begin = entry.query_position,
                             .mask = entry.mask,
                             .mask_row_words = entry.mask_row_words,
                             .mask_kv_begin = entry.mask_begin,
                             .tokens = entry.tokens});
  }
  return input;
}

}  // namespace kvant::abi
