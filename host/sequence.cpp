#include "sequence.hpp"

#include <algorithm>
#include <cassert>
#include <cstdio>
#include <string>

#include "checked.hpp"

namespace kvant {

std::string sequence_text(SequenceId id) {
  char text[40];
  std::snprintf(text, sizeof text, "sequence 0x%llx", static_cast<unsigned long long>(id));
  return text;
}

PageSpan pages_past_window(const GroupGeometry& group, std::uint64_t length, std::uint32_t page_tokens) {
  if (group.window == 0 || length <= group.window) return {};
  const auto begin = static_cast<std::uint32_t>(divide_up(group.window_sinks, page_tokens));
  const auto end = static_cast<std::uint32_t>((length - group.window) / page_tokens);
  return {begin, std::max(begin, end)};
}

void drop_past_window(Sequence& sequence, std::span<const GroupGeometry> groups, std::span<PagePool> pools,
                      std::uint64_t length, std::uint32_t page_tokens) {
  for (std::size_t g = 0; g < groups.size(); ++g) {
    PageSpan past = pages_past_window(groups[g], length, page_tokens);
    // Earlier calls have emptied the front: walk backwards and stop at the first hole.
    PageTable& table = sequence.tables[g];
    while (past.end > past.begin && table.at(past.end - 1) != kNoPage) {
      table.punch(past.end - 1, past.end, pools[g]);
      --past.end;
    }
  }
}

Status check_history(const Sequence& sequence, std::span<const GroupGeometry> groups, std::uint64_t length,
                     std::uint32_t page_tokens) {
  if (length != 0 && length < sequence.least_length)
    return {StatusCode::failed_precondition, sequence_text(sequence.id) + " was pruned to " + std::to_string(sequence.least_length) +
                                                 " tokens and cannot go on at " + std::to_string(length)};
  const auto pages = static_cast<std::uint32_t>(divide_up(length, page_tokens));
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const PageTable& table = sequence.tables[g];
    assert(pages <= table.size());
    const PageSpan past = pages_past_window(groups[g], length, page_tokens);
    const std::uint32_t first = past.empty() ? 0 : past.end;
    const std::uint32_t hole = table.first_hole(first, pages);
    if (hole == pages) continue;
    return {StatusCode::failed_precondition,
            "token " + std::to_string(std::uint64_t{hole} * page_tokens) + " of " + sequence_text(sequence.id) +
                " has left the window of " +
                std::to_string(groups[g].window) + " tokens, and a continuation at token " + std::to_string(length) +
                " would need it"};
  }
  return {};
}

void shrink_sequence(Sequence& sequence, std::span<PagePool> pools, std::uint64_t length, std::uint32_t page_tokens) {
  const auto pages = static_cast<std::uint32_t>(divide_up(length, page_tokens));
  for (std::size_t g = 0; g < sequence.tables.size(); ++g)
    if (sequence.tables[g].size() > pages) sequence.tables[g].shrink(pages, pools[g]);
  sequence.length = length;
}

}  // namespace kvant
