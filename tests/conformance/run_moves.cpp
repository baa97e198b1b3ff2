// Runs gather and rotate: one dispatch on device and CPU executor, all bytes compared.
#include <algorithm>
#include <string>

#include "formats.hpp"
#include "params/grids.h"
#include "params/pages.h"
#include "run_case.hpp"
#include "tensor_layout.hpp"

namespace kvant::conformance {

// Tokens of random pages into other pages: a part of them from this slab, the others' bytes stay.
CaseResult run_gather_case(const RunContext& context, const Case& c) {
  const Random random(context.seed, c.name, 0), places(context.seed, c.name, 1);
  const std::uint64_t bytes = std::uint64_t{c.kv_heads} * page_layout(format_info(c.format_k), c.dim_k, c.page_tokens).head_bytes;
  const std::uint32_t pages = c.batch + 3;
  Bytes source(static_cast<std::size_t>(bytes * pages));
  for (std::size_t i = 0; i < source.size(); ++i) source[i] = static_cast<std::byte>(random.bits(i) & 0xFF);
  const auto to = Random(context.seed, c.name, 2).permutation(pages);
  std::vector<std::uint32_t> map(3, 0xFFFFFFFFu);  // the first words are another dispatch's
  std::uint32_t drawn = 0;
  for (std::uint32_t page = 0; page < c.batch; ++page) {
    map.push_back(to[page]);
    for (std::uint32_t token = 0; token < c.page_tokens; ++token, ++drawn) {
      const bool here = token == 0 || places.bits(2 * drawn) % 4 != 0;
      map.push_back(here ? static_cast<std::uint32_t>(places.bits(2 * drawn + 1) % (pages * c.page_tokens)) : 0xFFFFFFFFu);
    }
  }
  return run_exact(context, c, "a token taken from its neighbour", [&](Executor& executor, bool mutate) -> Result<std::vector<Bytes>> {
    auto used = map;
    if (mutate) used[4] = (used[4] + 1) % (pages * c.page_tokens);
    Workbench bench(executor);
    KVANT_ASSIGN(const Buffer in, bench.make(source));
    KVANT_ASSIGN(const Buffer out, bench.make_filled(bytes * pages, kPoisonByte));
    KVANT_ASSIGN(const Buffer in_map, bench.make(to_bytes(std::span<const std::uint32_t>(used))));
    CommandList list;
    Dispatch& d = list.add_dispatch(KernelId::gather, "gather", true);
    d.spec[KVANT_SPEC_LOCAL_SIZE] = executor.page_kernel_config(KernelId::gather).local_size;
    d.spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(c.format_k);
    d.spec[KVANT_SPEC_HEAD_DIM_K] = c.dim_k;
    d.spec[KVANT_SPEC_PAGE_TOKENS] = c.page_tokens;
    d.bindings = {in.range, out.range, in_map.range};
    d.groups = params::gather_grid(bytes, c.batch, d.spec[KVANT_SPEC_LOCAL_SIZE], executor.limits().max_groups[0],
                                   executor.limits().max_groups[1]);
    set_push(d, params::GatherParams{.map_offset = 3, .page_count = c.batch, .kv_heads = c.kv_heads});
    KVANT_TRY(bench.run(list));
    KVANT_ASSIGN(Bytes result, bench.fetch(out));
    return std::vector<Bytes>{std::move(result)};
  });
}

// Rows of small whole numbers and angles of quarters: every product and sum is exact, fused or not.
CaseResult run_rotate_case(const RunContext& context, const Case& c) {
  const Random random(context.seed, c.name, 0), turns(context.seed, c.name, 1);
  const std::uint32_t rows = c.length * c.kv_heads, pairs = c.variant;
  std::vector<float> x(std::size_t{rows} * c.dim_k + 8), angles(std::size_t{pairs + 2} * 2);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(static_cast<int>(random.bits(i) % 513) - 256);
  for (std::size_t i = 0; i < angles.size(); ++i) angles[i] = static_cast<float>(static_cast<int>(turns.bits(i) % 9) - 4) / 4.0f;
  angles[4] = 0.75f;  // of the first pair: something that a fault changes
  x[3] = 5.0f;
  return run_exact(context, c, "first pair not turned", [&](Executor& executor, bool mutate) -> Result<std::vector<Bytes>> {
    auto used = angles;
    if (mutate) used[4] = 1.0f;
    Workbench bench(executor);
    KVANT_ASSIGN(const Buffer data, bench.make(to_bytes(std::span<const float>(x))));
    KVANT_ASSIGN(const Buffer in_angles, bench.make(to_bytes(std::span<const float>(used))));
    CommandList list;
    Dispatch& d = list.add_dispatch(KernelId::rotate, "rotate", true);
    d.spec[KVANT_SPEC_LOCAL_SIZE] = executor.page_kernel_config(KernelId::rotate).local_size;
    d.bindings = {data.range, in_angles.range};
    d.groups = params::rotate_grid(rows, pairs, d.spec[KVANT_SPEC_LOCAL_SIZE], executor.limits().max_groups[0]);
    set_push(d, params::RotateParams{.rows = rows,
                                     .head_dim = c.dim_k,
                                     .pairs = pairs,
                                     .halves = c.page_tokens == 32 ? 1u : 0u,
                                     .row_offset = 3,
                                     .angles_offset = 2});
    KVANT_TRY(bench.run(list));
    KVANT_ASSIGN(Bytes result, bench.fetch(data));
    return std::vector<Bytes>{std::move(result)};
  });
}

}  // namespace kvant::conformance
