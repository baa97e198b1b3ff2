// What the parts of tuning share: how rows make tiles and how keys make items.
#pragma once

#include <algorithm>

#include "executor.hpp"

namespace kvant::tuning {

constexpr std::uint32_t divide_up(std::uint32_t a, std::uint32_t b) { return (a + b - 1) / b; }
constexpr std::uint32_t round_up(std::uint32_t a, std::uint32_t b) { return divide_up(a, b) * b; }
constexpr std::uint32_t spans(std::uint32_t head_dim) { return divide_up(head_dim, 32); }

// Tiles of at most `rows` rows, equal in size: 6 heads in tiles of at most 4 are 3 + 3, not 4 + 2.
inline void set_rows(AttendConfig& config, const AttendShape& shape, std::uint32_t rows) {
  config.heads_per_tile = divide_up(shape.group, divide_up(shape.group, rows));
  config.queries_per_item = std::clamp(rows / config.heads_per_tile, 1U, std::max(shape.max_queries, 1U));
}

// Items of `shortest` to `longest` tokens, so short that each of `workgroups` has work.
inline void set_split(AttendConfig& config, const AttendShape& shape, std::uint32_t workgroups, std::uint64_t shortest,
                      std::uint64_t longest) {
  const std::uint32_t tiles = divide_up(shape.group, config.heads_per_tile);
  const std::uint32_t query_items = divide_up(std::max(shape.max_queries, 1U), config.queries_per_item);
  const std::uint64_t work = shape.total_kv_len * query_items * shape.kv_heads * tiles;
  const std::uint64_t share = work / std::max(workgroups, 1U);
  const std::uint64_t split = std::clamp<std::uint64_t>(share, shortest, std::max(longest, shortest));
  config.kv_split = round_up(static_cast<std::uint32_t>(std::min<std::uint64_t>(split, 1U << 30)), shape.page_tokens);
}

}  // namespace kvant::tuning
