// Reference of transfer, import and extract: one element or block after the other, through the host's codecs and canonical bytes.
#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <vector>

#include "formats.hpp"
#include "kernels.hpp"
#include "params/grids.h"
#include "params/strided.h"

namespace kvant::reference {

namespace {

using Coordinates = std::array<std::uint64_t, 4>;

// One tensor of transfer.
struct Side {
  const FormatInfo* format;
  std::uint64_t offset;
  std::array<std::uint64_t, 3> ne;
  std::array<std::uint64_t, 4> nb;
  bool looked_up;

  bool in_blocks() const { return format->canonical_block > 1; }

  Coordinates coordinates(std::uint64_t element) const {
    Coordinates i{};
    for (std::size_t d = 0; d < 3; ++d) {
      i[d] = element % ne[d];
      element /= ne[d];
    }
    i[3] = element;
    return i;
  }
};

// The first byte of an element, or nothing if its row is left out.
std::optional<std::uint64_t> find(KernelCall& call, const params::TransferParams& p, const Side& side, std::uint64_t element) {
  Coordinates i = side.coordinates(element);
  if (side.looked_up) {
    const std::uint64_t word =
        p.idx_offset + i[1] * p.idx_nb0 + i[2] % p.idx_ne1 * p.idx_nb1 + i[3] % p.idx_ne2 * p.idx_nb2;
    const std::uint32_t row = call.bindings[2].word(word);
    if (row < p.first_row || row - p.first_row >= p.rows) return std::nullopt;
    i[1] = row - p.first_row;
  }
  const std::uint64_t first = i[0] / side.format->canonical_block;
  return side.offset + first * side.nb[0] + i[1] * side.nb[1] + i[2] * side.nb[2] + i[3] * side.nb[3];
}

bool plain_or_ggml(const FormatInfo& format) {
  return format.canonical_block == 32 || format.id == FormatId::f32 || format.id == FormatId::f16 || format.id == FormatId::bf16;
}

std::optional<FormatId> known_format(KernelCall& call, std::uint32_t id) {
  const auto format = format_from_id(id);
  if (format && plain_or_ggml(format_info(*format))) return format;
  call.log->report("format " + std::to_string(id) + " has no elements and no blocks of 32");
  return std::nullopt;
}

bool even(std::initializer_list<std::uint32_t> values) {
  return std::all_of(values.begin(), values.end(), [](std::uint32_t v) { return v % 2 == 0; });
}

// One canonical block (or element) after the other from `first` on, `count` elements in all, as far as they are there.
void move_unit(KernelCall& call, const params::TransferParams& p, const Side& from, const Side& to, std::uint64_t first,
               std::uint64_t count) {
  const FormatInfo& source = *from.format;
  const FormatInfo& destination = *to.format;
  std::vector<float> x(count);
  std::vector<bool> present(count, false);
  for (std::uint64_t e = 0; e < count; e += source.canonical_block) {
    const auto at = find(call, p, from, first + e);
    if (!at || !find(call, p, to, first + e)) continue;
    const std::byte* in = call.bindings[0].range(*at, source.canonical_bytes, "reads");
    if (in == nullptr) return;
    std::fill_n(present.begin() + static_cast<std::ptrdiff_t>(e), source.canonical_block, true);
    if (&source != &destination)
      decode_canonical_row(source, {in, source.canonical_bytes}, std::span(x).subspan(e, source.canonical_block));
  }
  for (std::uint64_t e = 0; e < count; e += destination.canonical_block) {
    if (!present[e]) continue;
    const auto at = find(call, p, to, first + e);
    std::byte* out = call.bindings[1].range(*at, destination.canonical_bytes, "writes");
    if (out == nullptr) return;
    if (&source == &destination) {
      std::memcpy(out, call.bindings[0].range(*find(call, p, from, first + e), source.canonical_bytes, "reads"),
                  source.canonical_bytes);
    } else {
      encode_canonical_row(destination, std::span<const float>(x).subspan(e, destination.canonical_block),
                           {out, destination.canonical_bytes});
    }
  }
}

}  // namespace

void run_transfer(KernelCall& call) {
  const auto p = call.params<params::TransferParams>();
  const auto source = known_format(call, call.spec[KVANT_SPEC_FORMAT_K]);
  const auto destination = known_format(call, call.spec[KVANT_SPEC_FORMAT_V]);
  if (!source || !destination) return;
  const std::uint32_t unit = call.spec[KVANT_SPEC_TRANSFER_UNIT];
  const bool indices = call.spec[KVANT_SPEC_TRANSFER_INDEX] != 0;
  const Side from{&format_info(*source), p.src_offset, {p.src_ne0, p.src_ne1, p.src_ne2},
                  {p.src_nb0, p.src_nb1, p.src_nb2, p.src_nb3}, indices && p.indexed == 1};
  const Side to{&format_info(*destination), p.dst_offset, {p.dst_ne0, p.dst_ne1, p.dst_ne2},
                {p.dst_nb0, p.dst_nb1, p.dst_nb2, p.dst_nb3}, indices && p.indexed == 0};
  const bool blocks = from.in_blocks() || to.in_blocks();
  if (blocks ? unit != 32 : unit != 1 && unit != 2) call.log->report("units of " + std::to_string(unit) + " elements");
  for (const Side* side : {&from, &to})
    if (side->in_blocks() && side->ne[0] % 32 != 0)
      call.log->report("dimension 0 of " + std::to_string(side->ne[0]) + " elements is not whole blocks");
  if (!even({p.src_offset, p.src_nb0, p.src_nb1, p.src_nb2, p.src_nb3, p.dst_offset, p.dst_nb0, p.dst_nb1, p.dst_nb2, p.dst_nb3}))
    call.log->report("an offset or a stride is odd");
  const std::uint64_t local = call.spec[KVANT_SPEC_LOCAL_SIZE];
  const std::uint64_t last_row = (call.groups[1] - 1) * params::kTransferGroupsX * local;
  if (call.groups[1] > 1 && call.groups[0] != params::kTransferGroupsX) call.log->report("rows of the grid are not whole");
  if (last_row + call.groups[0] * local < p.units) call.log->report("the grid does not cover " + std::to_string(p.units) + " units");
  for (std::uint64_t u = 0; u < p.units && call.log->empty(); ++u) move_unit(call, p, from, to, u * unit, unit);
}

namespace {

void run_page_rows(KernelCall& call, bool extract) {
  const auto p = call.params<params::ImportParams>();
  const auto id = known_format(call, call.spec[KVANT_SPEC_FORMAT_K]);
  if (!id) return;
  const FormatInfo& format = format_info(*id);
  const std::uint32_t head_dim = call.spec[KVANT_SPEC_HEAD_DIM_K], page_tokens = call.spec[KVANT_SPEC_PAGE_TOKENS];
  if (head_dim == 0 || head_dim % 8 != 0 || !is_page_size(page_tokens) || head_dim % format.canonical_block != 0) {
    call.log->report("head_dim " + std::to_string(head_dim) + " or page_tokens " + std::to_string(page_tokens) +
                     " is no valid constant");
    return;
  }
  if (!even({p.offset, p.token_stride, p.head_stride, p.seq_stride})) call.log->report("an offset or a stride is odd");
  const PageLayout layout = page_layout(format, head_dim, page_tokens);
  const std::uint64_t row_bytes = canonical_row_bytes(format, head_dim);
  for (std::uint64_t s = 0; s < call.groups[1]; ++s)
    for (std::uint32_t t = 0; t < p.tokens; ++t)
      for (std::uint32_t head = 0; head < p.kv_heads; ++head) {
        const std::uint64_t page = p.first_page + s * p.seq_pages + t / page_tokens;
        const std::uint64_t at = p.offset + s * p.seq_stride + std::uint64_t{t} * p.token_stride +
                                 std::uint64_t{head} * p.head_stride;
        std::byte* row = call.bindings[1].range(at, row_bytes, extract ? "writes" : "reads");
        std::byte* planes =
            call.bindings[0].range((page * p.kv_heads + head) * layout.head_bytes, layout.head_bytes, extract ? "reads" : "writes");
        if (row == nullptr || planes == nullptr || !call.log->empty()) return;
        const std::span bytes(row, static_cast<std::size_t>(row_bytes));
        if (extract)
          planar_to_canonical_row(format, layout, planes, t % page_tokens, head_dim, bytes);
        else
          canonical_to_planar_row(format, layout, planes, t % page_tokens, head_dim, bytes);
      }
}

}  // namespace

void run_import(KernelCall& call) { run_page_rows(call, false); }
void run_extract(KernelCall& call) { run_page_rows(call, true); }

}  // namespace kvant::reference
