// Runs transfer, import and extract: one dispatch on device and CPU executor, all bytes compared.
#include <algorithm>
#include <array>
#include <string>

#include "formats.hpp"
#include "params/grids.h"
#include "params/strided.h"
#include "run_case.hpp"

namespace kvant::conformance {

namespace {

constexpr std::uint32_t kSpareRows = 3;  // of the side that is looked up

// A tensor [batch][head][row][element] of an engine.
struct Strided {
  std::uint32_t offset = 0;
  std::array<std::uint32_t, 4> nb{};
  std::size_t bytes = 0;  // whole words
};

Strided lay_out(const Case& c, FormatId id, std::uint32_t rows) {
  const FormatInfo& format = format_info(id);
  const std::uint32_t gap = c.placement == Placement::strided ? 2 : 0;
  Strided tensor;
  tensor.offset = 3 * gap;
  tensor.nb[0] = format.canonical_bytes;
  tensor.nb[1] = tensor.nb[0] * (c.dim_k / format.canonical_block) + gap;
  tensor.nb[2] = tensor.nb[1] * rows + gap;
  tensor.nb[3] = tensor.nb[2] * c.kv_heads + gap;
  tensor.bytes = (tensor.offset + std::size_t{tensor.nb[3]} * c.batch + 3) / 4 * 4;
  return tensor;
}

// Bits of any kind where they are moved, values where they are computed with.
Bytes source_bytes(const Case& c, const Random& random, const Strided& tensor, std::uint32_t rows) {
  Bytes bytes(tensor.bytes);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(random.bits(i) & 0xFF);
  if (c.format_k == c.format_v) return bytes;
  const FormatInfo& format = format_info(c.format_k);
  const std::vector<float> x = make_tensor(random, DataClass::outlier, c.batch * c.kv_heads, rows, c.dim_k);
  for (std::size_t row = 0; row < x.size() / c.dim_k; ++row) {
    const std::size_t plane = row / rows;
    const std::size_t at = tensor.offset + row % rows * tensor.nb[1] + plane % c.kv_heads * tensor.nb[2] + plane / c.kv_heads * tensor.nb[3];
    encode_canonical_row(format, std::span(x).subspan(row * c.dim_k, c.dim_k),
                         std::span(bytes).subspan(at, canonical_row_bytes(format, c.dim_k)));
  }
  return bytes;
}

}  // namespace

CaseResult run_transfer_case(const RunContext& context, const Case& c) {
  const Random random(context.seed, c.name, 0);
  const bool set = c.variant == 1, get = c.variant == 2;
  const std::uint32_t looked_up = c.length + kSpareRows;
  const Strided from = lay_out(c, c.format_k, get ? looked_up : c.length), to = lay_out(c, c.format_v, set ? looked_up : c.length);
  const Bytes source = source_bytes(c, random, from, get ? looked_up : c.length);
  const bool blocks = std::max(format_info(c.format_k).canonical_block, format_info(c.format_v).canonical_block) > 1;
  const bool words = to.offset % 4 == 0 && to.nb[1] % 4 == 0 && c.dim_k % 2 == 0 && c.placement == Placement::buffer;
  const std::uint32_t unit = blocks ? 32 : words ? 2 : 1;
  // One plane of indices for all; the second is negative or too small, the third too large, each where it is not the last.
  const std::uint32_t index_words = c.variant == 0 ? 0 : 1 + c.length % 2;
  std::vector<std::uint32_t> indices(2 + std::size_t{c.length} * 2, 0);
  const auto rows = Random(context.seed, c.name, 1).permutation(looked_up);
  const std::uint32_t first_row = c.length % 3, too_small = first_row - 1;
  for (std::uint32_t i = 0; i < c.length && index_words != 0; ++i) {
    const bool last = i + 1 == c.length;
    indices[2 + i * index_words] = i == 1 && !last ? too_small : first_row + (i == 2 && !last ? looked_up : rows[i]);
    if (index_words == 2) indices[3 + i * 2] = i == 1 && !last && first_row == 0 ? UINT32_MAX : 0;
  }
  const params::TransferParams push{.units = c.dim_k * c.length * c.kv_heads * c.batch / unit,
                                    .src_offset = from.offset, .src_ne0 = c.dim_k, .src_ne1 = c.length, .src_ne2 = c.kv_heads,
                                    .src_nb0 = from.nb[0], .src_nb1 = from.nb[1], .src_nb2 = from.nb[2], .src_nb3 = from.nb[3],
                                    .dst_offset = to.offset, .dst_ne0 = c.dim_k, .dst_ne1 = c.length, .dst_ne2 = c.kv_heads,
                                    .dst_nb0 = to.nb[0], .dst_nb1 = to.nb[1], .dst_nb2 = to.nb[2], .dst_nb3 = to.nb[3],
                                    .indexed = get ? 1u : 0u, .rows = looked_up, .idx_offset = 2, .idx_nb0 = index_words,
                                    .idx_nb1 = 0, .idx_nb2 = 0, .idx_ne1 = 1, .idx_ne2 = 1, .first_row = first_row};
  return run_exact(context, c, "the last unit left out", [&](Executor& executor, bool mutate) -> Result<std::vector<Bytes>> {
    auto used = push;
    if (mutate) --used.units;
    Workbench bench(executor);
    KVANT_ASSIGN(const Buffer in, bench.make(source));
    KVANT_ASSIGN(const Buffer out, bench.make_filled(to.bytes, kCanaryByte));
    KVANT_ASSIGN(const Buffer in_indices, bench.make(to_bytes(std::span<const std::uint32_t>(indices))));
    CommandList list;
    Dispatch& d = list.add_dispatch(KernelId::transfer, "transfer", true);
    d.spec[KVANT_SPEC_LOCAL_SIZE] = executor.page_kernel_config(KernelId::transfer).local_size;
    d.spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(c.format_k);
    d.spec[KVANT_SPEC_FORMAT_V] = static_cast<std::uint32_t>(c.format_v);
    d.spec[KVANT_SPEC_TRANSFER_UNIT] = unit;
    d.spec[KVANT_SPEC_TRANSFER_INDEX] = index_words;
    d.bindings = {in.range, out.range, in_indices.range};
    d.groups = params::transfer_grid(used.units, d.spec[KVANT_SPEC_LOCAL_SIZE]);
    set_push(d, used);
    KVANT_TRY(bench.run(list));
    KVANT_ASSIGN(Bytes result, bench.fetch(out));
    return std::vector<Bytes>{std::move(result)};
  });
}

namespace {

// Pages from rows, or rows from pages; what is not written keeps its bytes.
CaseResult run_page_rows(const RunContext& context, const Case& c, KernelId kernel) {
  const Random random(context.seed, c.name, 0);
  const FormatInfo& format = format_info(c.format_k);
  const auto row_bytes = static_cast<std::uint32_t>(canonical_row_bytes(format, c.dim_k));
  const std::uint32_t gap = c.placement == Placement::strided ? 2 : 0;
  params::ImportParams push{};
  push.tokens = c.length;
  push.kv_heads = c.kv_heads;
  push.offset = 3 * gap;
  push.head_stride = row_bytes + gap;
  push.token_stride = push.head_stride * c.kv_heads + gap;
  push.seq_stride = push.token_stride * c.length + gap;
  push.first_page = 1;
  push.seq_pages = c.length / c.page_tokens + 1;
  const std::size_t rows_bytes = (push.offset + std::size_t{push.seq_stride} * c.batch + 3) / 4 * 4;
  const std::uint64_t pages = push.first_page + std::uint64_t{push.seq_pages} * c.batch;
  const std::size_t pages_bytes = pages * c.kv_heads * page_layout(format, c.dim_k, c.page_tokens).head_bytes;
  const bool import = kernel == KernelId::import;
  Bytes source(import ? rows_bytes : pages_bytes);
  for (std::size_t i = 0; i < source.size(); ++i) source[i] = static_cast<std::byte>(random.bits(i) & 0xFF);
  return run_exact(context, c, "the last token left out", [&](Executor& executor, bool mutate) -> Result<std::vector<Bytes>> {
    auto used = push;
    if (mutate) --used.tokens;
    Workbench bench(executor);
    KVANT_ASSIGN(const Buffer in, bench.make(source));
    KVANT_ASSIGN(const Buffer out, bench.make_filled(import ? pages_bytes : rows_bytes, kCanaryByte));
    CommandList list;
    Dispatch& d = list.add_dispatch(kernel, import ? "import" : "extract", true);
    d.spec[KVANT_SPEC_LOCAL_SIZE] = executor.page_kernel_config(kernel).local_size;
    d.spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(c.format_k);
    d.spec[KVANT_SPEC_HEAD_DIM_K] = c.dim_k;
    d.spec[KVANT_SPEC_PAGE_TOKENS] = c.page_tokens;
    d.bindings = {import ? out.range : in.range, import ? in.range : out.range};
    d.groups = params::import_grid(c.length, c.kv_heads, c.dim_k, c.batch, d.spec[KVANT_SPEC_LOCAL_SIZE],
                                   executor.limits().max_groups[0]);
    set_push(d, used);
    KVANT_TRY(bench.run(list));
    KVANT_ASSIGN(Bytes result, bench.fetch(out));
    return std::vector<Bytes>{std::move(result)};
  });
}

}  // namespace

CaseResult run_import_case(const RunContext& context, const Case& c) { return run_page_rows(context, c, KernelId::import); }
CaseResult run_extract_case(const RunContext& context, const Case& c) { return run_page_rows(context, c, KernelId::extract); }

}  // namespace kvant::conformance
