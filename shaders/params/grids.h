// Grids of the kernels that move tokens between tensors and pages: how many workgroups a dispatch of append, read, copy or
// convert needs. C++ only; the planner calls it, the kernels' header comments refer to it. The kernels stride over
// their units by the grid's size, so a grid that is cut off at the device's limit stays correct.
#ifndef KVANT_PARAMS_GRIDS_H
#define KVANT_PARAMS_GRIDS_H
#include "types.h"
#ifdef __cplusplus
#include <algorithm>
#include <array>

namespace kvant::params {

using Grid = std::array<uint, 3>;

// A kernel counts its units in 32 bits, and the last stride must not wrap: the planner splits a dispatch above this.
inline constexpr std::uint64_t kMaxUnits = std::uint64_t{1} << 31;

constexpr std::uint64_t ceil_div(std::uint64_t value, std::uint64_t divisor) { return (value + divisor - 1) / divisor; }

constexpr uint clamp_groups(std::uint64_t groups, uint limit) {
  return static_cast<uint>(std::clamp<std::uint64_t>(groups, 1, limit));
}

// append: one lane per block of a row; y = side. `block` is the format's block of that side.
constexpr std::uint64_t append_units(uint tokens, uint kv_heads, uint head_dim_k, uint block_k, uint head_dim_v,
                                     uint block_v) {
  const std::uint64_t blocks = std::max(ceil_div(head_dim_k, block_k), ceil_div(head_dim_v, block_v));
  return std::uint64_t{tokens} * kv_heads * blocks;
}
constexpr Grid append_grid(uint tokens, uint kv_heads, uint head_dim_k, uint block_k, uint head_dim_v, uint block_v,
                           uint local_size, uint max_groups_x) {
  const std::uint64_t units = append_units(tokens, kv_heads, head_dim_k, block_k, head_dim_v, block_v);
  return {clamp_groups(ceil_div(units, local_size), max_groups_x), 2, 1};
}

// read: one lane per span of 32 elements of a row.
constexpr std::uint64_t read_units(uint tokens, uint kv_heads, uint head_dim) {
  return std::uint64_t{tokens} * kv_heads * ceil_div(head_dim, 32);
}
constexpr Grid read_grid(uint tokens, uint kv_heads, uint head_dim, uint local_size, uint max_groups_x) {
  return {clamp_groups(ceil_div(read_units(tokens, kv_heads, head_dim), local_size), max_groups_x), 1, 1};
}

// copy: one lane per 16-byte word of a page; y = pair.
constexpr Grid copy_grid(uint page_words16, uint pair_count, uint local_size, uint max_groups_x, uint max_groups_y) {
  return {clamp_groups(ceil_div(page_words16, local_size), max_groups_x), clamp_groups(pair_count, max_groups_y), 1};
}

// convert: one lane per destination block of a row; y = triple.
constexpr Grid convert_grid(uint kv_heads, uint page_tokens, uint head_dim, uint block_destination, uint triple_count,
                            uint local_size, uint max_groups_x, uint max_groups_y) {
  const std::uint64_t units = std::uint64_t{kv_heads} * page_tokens * ceil_div(head_dim, block_destination);
  return {clamp_groups(ceil_div(units, local_size), max_groups_x), clamp_groups(triple_count, max_groups_y), 1};
}

// gather: one lane per 32-bit word of a page; y = page.
constexpr Grid gather_grid(std::uint64_t page_bytes, uint page_count, uint local_size, uint max_groups_x, uint max_groups_y) {
  return {clamp_groups(ceil_div(page_bytes / 4, local_size), max_groups_x), clamp_groups(page_count, max_groups_y), 1};
}

// rotate: one lane per pair of a row.
constexpr Grid rotate_grid(uint rows, uint pairs, uint local_size, uint max_groups_x) {
  return {clamp_groups(ceil_div(std::uint64_t{rows} * pairs, local_size), max_groups_x), 1, 1};
}

// transfer: one lane per unit; y = further rows of kTransferGroupsX groups. Units: fewer than 2^32 elements in all.
inline constexpr uint kTransferGroupsX = 65535;
constexpr Grid transfer_grid(uint units, uint local_size) {
  const std::uint64_t groups = std::max<std::uint64_t>(ceil_div(units, local_size), 1);
  return {clamp_groups(groups, kTransferGroupsX), static_cast<uint>(ceil_div(groups, kTransferGroupsX)), 1};
}

// import: one lane per block of a row; y = sequence.
constexpr Grid import_grid(uint tokens, uint kv_heads, uint head_dim, uint sequences, uint local_size, uint max_groups_x) {
  const std::uint64_t units = read_units(tokens, kv_heads, head_dim);
  return {clamp_groups(ceil_div(units, local_size), max_groups_x), sequences, 1};
}

// rope: one lane per unit of a token, whose angles serve all rows; few tokens' rows are dealt out besides, y = row.
constexpr std::uint64_t rope_units(uint pairs, uint unit, uint rest, uint tokens, uint batches) {
  return (ceil_div(pairs, unit) + ceil_div(rest, 2)) * tokens * batches;
}
constexpr Grid rope_grid(std::uint64_t units, uint rows, uint local_size, uint max_groups_x, uint max_groups_y) {
  constexpr std::uint64_t kLanes = 16384;
  const std::uint64_t parts = std::min<std::uint64_t>(ceil_div(kLanes, std::max<std::uint64_t>(units, 1)), rows);
  return {clamp_groups(ceil_div(units, local_size), max_groups_x), clamp_groups(parts, max_groups_y), 1};
}

// hadamard: eight elements a lane; y = further rows of kTransferGroupsX groups.
constexpr Grid hadamard_grid(std::uint64_t elements, uint local_size) {
  const std::uint64_t groups = std::max<std::uint64_t>(ceil_div(elements, std::uint64_t{8} * local_size), 1);
  return {clamp_groups(groups, kTransferGroupsX), static_cast<uint>(ceil_div(groups, kTransferGroupsX)), 1};
}

}  // namespace kvant::params
#endif
#endif
