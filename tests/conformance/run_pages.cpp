// Runs append, read, copy and convert: one dispatch on device and CPU executor, all bytes of pages, gaps and guards compared.
#include <algorithm>
#include <string>

#include "formats.hpp"
#include "params/grids.h"
#include "params/pages.h"
#include "run_case.hpp"
#include "tensor_layout.hpp"
#include "transforms.hpp"

namespace kvant::conformance {

namespace {

constexpr std::uint32_t kFirstPage = 5;  // page ids of the slab do not start at zero

std::uint32_t page_count_for(std::uint32_t tokens, std::uint32_t page_tokens) {
  return (tokens + page_tokens - 1) / page_tokens + 3;
}

std::uint64_t page_bytes(const FormatInfo& format, std::uint32_t dim, const Case& c) {
  return std::uint64_t{c.kv_heads} * page_layout(format, dim, c.page_tokens).head_bytes;
}

// A slab side whose first `tokens` slots (in `order`) are encoded from `x`; the rest is poison.
Bytes make_pages(const FormatInfo& format, std::uint32_t dim, const Case& c, std::uint32_t pages, std::span<const float> x,
                 std::span<const std::uint32_t> order) {
  const PageLayout layout = page_layout(format, dim, c.page_tokens);
  Bytes bytes(static_cast<std::size_t>(page_bytes(format, dim, c) * pages), kPoisonByte);
  for (std::size_t i = 0; i < order.size(); ++i)
    for (std::uint32_t head = 0; head < c.kv_heads; ++head)
      encode_planar_row(format, layout,
                        bytes.data() + (std::uint64_t{order[i] / c.page_tokens} * c.kv_heads + head) * layout.head_bytes,
                        order[i] % c.page_tokens, x.subspan((i * c.kv_heads + head) * dim, dim));
  return bytes;
}

SpecValues base_spec(Executor& executor, KernelId kernel, const Case& c) {
  SpecValues spec{};
  spec[KVANT_SPEC_LOCAL_SIZE] = executor.page_kernel_config(kernel).local_size;
  spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(c.format_k);
  spec[KVANT_SPEC_FORMAT_V] = static_cast<std::uint32_t>(c.format_v);
  spec[KVANT_SPEC_HEAD_DIM_K] = c.dim_k;
  spec[KVANT_SPEC_HEAD_DIM_V] = c.dim_v;
  spec[KVANT_SPEC_PAGE_TOKENS] = c.page_tokens;
  spec[KVANT_SPEC_IO_TYPE_IN] = static_cast<std::uint32_t>(c.in);
  spec[KVANT_SPEC_IO_TYPE_OUT] = static_cast<std::uint32_t>(c.out);
  spec[KVANT_SPEC_FLAGS] = transform_flags(c);
  return spec;
}

std::vector<std::uint32_t> first_slots(const Random& random, const Case& c, std::uint32_t pages, bool shuffled) {
  std::vector<std::uint32_t> order = random.permutation(pages * c.page_tokens);
  if (!shuffled)
    for (std::uint32_t i = 0; i < order.size(); ++i) order[i] = i;
  order.resize(c.length + 1);  // one more: a free slot for the control
  return order;
}

}  // namespace

CaseResult run_append_case(const RunContext& context, const Case& c) {
  const Random random(context.seed, c.name, 0);
  const FormatInfo& format_k = format_info(c.format_k);
  const FormatInfo& format_v = format_info(c.format_v);
  const std::uint32_t pages = page_count_for(c.length, c.page_tokens);
  const TensorLayout layout_k = make_layout(c.in, c.length, c.kv_heads, c.dim_k, c.placement);
  const TensorLayout layout_v = make_layout(c.in, c.length, c.kv_heads, c.dim_v, c.placement);
  const auto k = make_tensor(Random(context.seed, c.name, 1), c.data, c.length, c.kv_heads, c.dim_k);
  const auto v = make_tensor(Random(context.seed, c.name, 2), c.data, c.length, c.kv_heads, c.dim_v);
  std::vector<float> means = stored_means(context.seed, c, Side::k, c.kv_heads);
  const auto v_means_offset = static_cast<std::uint32_t>(means.size());
  const std::vector<float> means_v = stored_means(context.seed, c, Side::v, c.kv_heads);
  means.insert(means.end(), means_v.begin(), means_v.end());
  means.resize(std::max<std::size_t>(means.size(), 4));
  const bool shuffled = c.tables == Tables::shuffled;
  const auto order = first_slots(random, c, pages, shuffled);
  std::vector<std::int32_t> slots(4, -1);  // an offset before the first
  for (std::uint32_t i = 0; i < c.length; ++i)
    slots.push_back(static_cast<std::int32_t>(kFirstPage * c.page_tokens + order[i]));
  if (shuffled && c.length > 8) {
    slots[4 + 3] = -1;                                                              // skipped
    slots[4 + 5] = 2;                                                               // a page before the slab
    slots[4 + 7] = static_cast<std::int32_t>((kFirstPage + pages) * c.page_tokens);  // and one behind it
  }
  const std::uint32_t words = 1 + c.length % 2;  // of a slot
  // With shuffled tables V has slots of its own behind K's: the same from last to first.
  const std::uint32_t ahead = shuffled ? c.length * words : 0;
  auto in_words = [&](const std::vector<std::int32_t>& of) {
    std::vector<std::int32_t> all(of.begin(), of.begin() + 4);
    auto push = [&](std::int32_t slot) {
      all.push_back(slot);
      if (words == 2) all.push_back(slot < 0 ? -1 : 0);
    };
    std::for_each(of.begin() + 4, of.end(), push);
    if (ahead != 0) std::for_each(of.rbegin(), of.rend() - 4, push);
    return all;
  };
  return run_exact(context, c, "token in the wrong slot", [&](Executor& executor, bool mutate) -> Result<std::vector<Bytes>> {
    auto used = slots;
    if (mutate) used[4] = static_cast<std::int32_t>(kFirstPage * c.page_tokens + order[c.length]);
    Workbench bench(executor);
    KVANT_ASSIGN(const Buffer pool_k, bench.make_filled(page_bytes(format_k, c.dim_k, c) * pages, kPoisonByte));
    KVANT_ASSIGN(const Buffer pool_v, bench.make_filled(page_bytes(format_v, c.dim_v, c) * pages, kPoisonByte));
    KVANT_ASSIGN(const Buffer in_k, bench.make(pack(layout_k, k, kPoisonByte)));
    KVANT_ASSIGN(const Buffer in_v, bench.make(pack(layout_v, v, kPoisonByte)));
    KVANT_ASSIGN(const Buffer in_slots, bench.make(to_bytes(std::span<const std::int32_t>(in_words(used)))));
    const std::uint32_t layer_words = c.kv_heads * c.page_tokens * 2;  // masses of the first of two layers
    KVANT_ASSIGN(const Buffer mass, bench.make_filled(std::uint64_t{layer_words} * 2 * 4 * pages, kPoisonByte));
    CommandList list;
    KVANT_ASSIGN(const Buffer in_means, bench.make(to_bytes(std::span<const float>(means))));
    Dispatch& d = list.add_dispatch(KernelId::append, "append", true);
    d.spec = base_spec(executor, KernelId::append, c);
    d.bindings = {pool_k.range, pool_v.range, in_k.range, in_v.range, in_slots.range, mass.range, in_means.range};
    d.groups = params::append_grid(c.length, c.kv_heads, c.dim_k, format_k.block, c.dim_v, format_v.block,
                                   d.spec[KVANT_SPEC_LOCAL_SIZE], executor.limits().max_groups[0]);
    set_push(d, params::AppendParams{.tokens = c.length,
                                     .kv_heads = c.kv_heads,
                                     .page_begin = kFirstPage,
                                     .page_count = pages,
                                     .slots_offset = 4,
                                     .slots_stride = words,
                                     .k_offset = layout_k.offset,
                                     .k_token_stride = layout_k.token_stride,
                                     .k_head_stride = layout_k.head_stride,
                                     .v_offset = layout_v.offset,
                                     .v_token_stride = layout_v.token_stride,
                                     .v_head_stride = layout_v.head_stride,
                                     .mass_offset = 0,
                                     .mass_page_stride = layer_words * 2,
                                     .v_means_offset = v_means_offset,
                                     .v_slots_ahead = ahead});
    KVANT_TRY(bench.run(list));
    KVANT_ASSIGN(Bytes out_k, bench.fetch(pool_k));
    KVANT_ASSIGN(Bytes out_v, bench.fetch(pool_v));
    KVANT_ASSIGN(Bytes out_mass, bench.fetch(mass));
    return std::vector<Bytes>{std::move(out_k), std::move(out_v), std::move(out_mass)};
  });
}

CaseResult run_read_case(const RunContext& context, const Case& c) {
  const Random random(context.seed, c.name, 0);
  const FormatInfo& format = format_info(c.format_k);
  const std::uint32_t pages = page_count_for(c.length, c.page_tokens);
  const auto order = first_slots(random, c, pages, true);
  const auto x = make_tensor(Random(context.seed, c.name, 1), c.data, c.length + 1, c.kv_heads, c.dim_k);
  const Bytes pool = make_pages(format, c.dim_k, c, pages, x, order);
  const TensorLayout layout = make_layout(c.out, c.length, c.kv_heads, c.dim_k, c.placement);
  std::vector<std::int32_t> slots(4, -1);
  for (std::uint32_t i = 0; i < c.length; ++i)
    slots.push_back(static_cast<std::int32_t>(kFirstPage * c.page_tokens + order[i]));
  if (c.length > 8) {
    slots[4 + 2] = -1;          // a row of zeros
    slots[4 + 4] = slots[4];    // the same row twice
    slots[4 + 6] = 1;           // another slab's: left alone
  }
  return run_exact(context, c, "row of another slab", [&](Executor& executor, bool mutate) -> Result<std::vector<Bytes>> {
    auto used = slots;
    if (mutate) used[4] = 3;
    Workbench bench(executor);
    KVANT_ASSIGN(const Buffer region, bench.make(pool));
    KVANT_ASSIGN(const Buffer out, bench.make_filled(layout.bytes(), kCanaryByte));
    KVANT_ASSIGN(const Buffer in_slots, bench.make(to_bytes(std::span<const std::int32_t>(used))));
    CommandList list;
    std::vector<float> means = stored_means(context.seed, c, Side::k, c.kv_heads);
    means.resize(std::max<std::size_t>(means.size(), 4));
    KVANT_ASSIGN(const Buffer in_means, bench.make(to_bytes(std::span<const float>(means))));
    Dispatch& d = list.add_dispatch(KernelId::read, "read", true);
    d.spec = base_spec(executor, KernelId::read, c);
    d.bindings = {region.range, out.range, in_slots.range, in_means.range};
    d.groups = params::read_grid(c.length, c.kv_heads, c.dim_k, d.spec[KVANT_SPEC_LOCAL_SIZE], executor.limits().max_groups[0]);
    set_push(d, params::ReadParams{.tokens = c.length,
                                   .kv_heads = c.kv_heads,
                                   .page_begin = kFirstPage,
                                   .page_count = pages,
                                   .slots_offset = 4,
                                   .out_offset = layout.offset,
                                   .out_token_stride = layout.token_stride,
                                   .out_head_stride = layout.head_stride,
                                   .write_zero_rows = 1});
    KVANT_TRY(bench.run(list));
    KVANT_ASSIGN(Bytes bytes, bench.fetch(out));
    return std::vector<Bytes>{std::move(bytes)};
  });
}

CaseResult run_copy_case(const RunContext& context, const Case& c) {
  const Random random(context.seed, c.name, 0);
  const std::uint64_t bytes = page_bytes(format_info(c.format_k), c.dim_k, c);
  const std::uint32_t pages = c.batch + 3;
  Bytes source(static_cast<std::size_t>(bytes * pages));
  for (std::size_t i = 0; i < source.size(); ++i) source[i] = static_cast<std::byte>(random.bits(i) & 0xFF);
  const auto from = Random(context.seed, c.name, 1).permutation(pages), to = Random(context.seed, c.name, 2).permutation(pages);
  std::vector<std::uint32_t> pairs(2, 0xFFFFFFFFu);
  for (std::uint32_t i = 0; i < c.batch; ++i) {
    pairs.push_back(from[i]);
    pairs.push_back(to[i]);
  }
  return run_exact(context, c, "page copied to its neighbour", [&](Executor& executor, bool mutate) -> Result<std::vector<Bytes>> {
    auto used = pairs;
    if (mutate) used[3] = to[c.batch];
    Workbench bench(executor);
    KVANT_ASSIGN(const Buffer in, bench.make(source));
    KVANT_ASSIGN(const Buffer out, bench.make_filled(bytes * pages, kPoisonByte));
    KVANT_ASSIGN(const Buffer in_pairs, bench.make(to_bytes(std::span<const std::uint32_t>(used))));
    CommandList list;
    Dispatch& d = list.add_dispatch(KernelId::copy, "copy", true);
    d.spec = base_spec(executor, KernelId::copy, c);
    d.bindings = {in.range, out.range, in_pairs.range};
    const auto words = static_cast<std::uint32_t>(bytes / 16);
    d.groups = params::copy_grid(words, c.batch, d.spec[KVANT_SPEC_LOCAL_SIZE], executor.limits().max_groups[0],
                                 executor.limits().max_groups[1]);
    set_push(d, params::CopyParams{.pairs_offset = 2, .pair_count = c.batch, .page_words16 = words});
    KVANT_TRY(bench.run(list));
    KVANT_ASSIGN(Bytes result, bench.fetch(out));
    return std::vector<Bytes>{std::move(result)};
  });
}

CaseResult run_convert_case(const RunContext& context, const Case& c) {
  const FormatInfo& from = format_info(c.format_k);
  const FormatInfo& to = format_info(c.format_v);
  const std::uint32_t full = (c.length + c.page_tokens - 1) / c.page_tokens, pages = full + 2;
  std::vector<std::uint32_t> order(c.length);
  const auto source_pages = Random(context.seed, c.name, 1).permutation(pages);
  const auto target_pages = Random(context.seed, c.name, 2).permutation(pages);
  for (std::uint32_t i = 0; i < c.length; ++i)
    order[i] = source_pages[i / c.page_tokens] * c.page_tokens + i % c.page_tokens;
  const auto x = make_tensor(Random(context.seed, c.name, 0), c.data, c.length, c.kv_heads, c.dim_k);
  const Bytes pool = make_pages(from, c.dim_k, c, pages, x, order);
  std::vector<std::uint32_t> triples(1, 0xFFFFFFFFu);
  for (std::uint32_t page = 0; page < full; ++page) {
    triples.push_back(source_pages[page]);
    triples.push_back(target_pages[page]);
    triples.push_back(std::min(c.page_tokens, c.length - page * c.page_tokens));
  }
  return run_exact(context, c, "last token left out", [&](Executor& executor, bool mutate) -> Result<std::vector<Bytes>> {
    auto used = triples;
    if (mutate) --used.back();
    Workbench bench(executor);
    KVANT_ASSIGN(const Buffer in, bench.make(pool));
    KVANT_ASSIGN(const Buffer out, bench.make_filled(page_bytes(to, c.dim_k, c) * pages, kPoisonByte));
    KVANT_ASSIGN(const Buffer in_triples, bench.make(to_bytes(std::span<const std::uint32_t>(used))));
    CommandList list;
    Dispatch& d = list.add_dispatch(KernelId::convert, "convert", true);
    d.spec = base_spec(executor, KernelId::convert, c);
    d.bindings = {in.range, out.range, in_triples.range};
    d.groups = params::convert_grid(c.kv_heads, c.page_tokens, c.dim_k, to.block, full, d.spec[KVANT_SPEC_LOCAL_SIZE],
                                    executor.limits().max_groups[0], executor.limits().max_groups[1]);
    set_push(d, params::ConvertParams{.triples_offset = 1, .triple_count = full, .kv_heads = c.kv_heads});
    KVANT_TRY(bench.run(list));
    KVANT_ASSIGN(Bytes result, bench.fetch(out));
    return std::vector<Bytes>{std::move(result)};
  });
}

}  // namespace kvant::conformance
