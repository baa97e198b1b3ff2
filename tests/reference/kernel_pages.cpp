// Reference of append, read, copy and convert: the host encoders and decoders applied row by row.
#include <optional>
#include <vector>

#include "formats.hpp"
#include "kernels.hpp"
#include "means.hpp"
#include "params/pages.h"
#include "rotation.hpp"

namespace kvant::reference {

namespace {

// One side of a slab's pages: finds the planes of a head and moves rows in and out of them.
struct Region {
  const FormatInfo* format;
  PageLayout layout;
  std::uint32_t kv_heads, head_dim, page_tokens;

  std::byte* head(View& view, std::uint64_t local_page, std::uint32_t kv_head, const char* what) const {
    return view.range((local_page * kv_heads + kv_head) * layout.head_bytes, layout.head_bytes, what);
  }
};

std::optional<Region> make_region(KernelCall& call, std::uint32_t format_id, std::uint32_t head_dim, std::uint32_t kv_heads) {
  const auto format = format_from_id(format_id);
  const std::uint32_t page_tokens = call.spec[KVANT_SPEC_PAGE_TOKENS];
  if (!format || head_dim == 0 || !is_page_size(page_tokens)) {
    call.log->report("format " + std::to_string(format_id) + ", head_dim " + std::to_string(head_dim) + " or page_tokens " +
                     std::to_string(page_tokens) + " is no valid constant");
    return std::nullopt;
  }
  const FormatInfo& info = format_info(*format);
  return Region{&info, page_layout(info, head_dim, page_tokens), kv_heads, head_dim, page_tokens};
}

struct TensorPlace {
  std::uint32_t type;
  std::uint64_t offset, token_stride, head_stride;
};

struct Transform {
  bool rotate, centre;
  std::uint32_t means_offset;  // words of binding 6
};

// `ahead`: 0 for K, v_slots_ahead for V.
std::int32_t append_slot(View& slots, const params::AppendParams& p, std::uint32_t token, std::uint32_t ahead) {
  return static_cast<std::int32_t>(slots.word(std::uint64_t{p.slots_offset + ahead} + std::uint64_t{token} * p.slots_stride));
}

void append_side(KernelCall& call, const params::AppendParams& p, const Region& region, View& planes, View& tensor,
                 View& slots, const TensorPlace& place, const Transform& transform, std::uint32_t slots_ahead) {
  std::vector<float> row(region.head_dim);
  for (std::uint32_t token = 0; token < p.tokens; ++token) {
    const std::int32_t slot = append_slot(slots, p, token, slots_ahead);
    if (slot < 0) continue;
    const std::uint32_t page = static_cast<std::uint32_t>(slot) / region.page_tokens;
    if (page < p.page_begin || page - p.page_begin >= p.page_count) continue;
    for (std::uint32_t head = 0; head < p.kv_heads; ++head) {
      const std::uint64_t first = place.offset + token * place.token_stride + head * place.head_stride;
      for (std::uint32_t d = 0; d < region.head_dim; ++d)
        row[d] = static_cast<float>(load_element(tensor, place.type, first + d));
      if (transform.rotate) rotate_row(row);
      for (std::uint32_t d = 0; transform.centre && d < region.head_dim; ++d)
        row[d] -= call.bindings[6].float_at(transform.means_offset + std::uint64_t{head} * region.head_dim + d);
      if (std::byte* out = region.head(planes, page - p.page_begin, head, "writes"))
        encode_planar_row(*region.format, region.layout, out, static_cast<std::uint32_t>(slot) % region.page_tokens, row);
      if (!call.log->empty()) return;
    }
  }
}

}  // namespace

void run_append(KernelCall& call) {
  const auto p = call.params<params::AppendParams>();
  const std::uint32_t in = call.spec[KVANT_SPEC_IO_TYPE_IN], flags = call.spec[KVANT_SPEC_FLAGS];
  const auto k = make_region(call, call.spec[KVANT_SPEC_FORMAT_K], call.spec[KVANT_SPEC_HEAD_DIM_K], p.kv_heads);
  if (k && call.groups[1] >= 1)
    append_side(call, p, *k, call.bindings[0], call.bindings[2], call.bindings[4],
                {in, p.k_offset, p.k_token_stride, p.k_head_stride},
                {(flags & KVANT_ROTATE_K) != 0, (flags & KVANT_CENTRE_K) != 0, 0}, 0);
  for (std::uint32_t token = 0; k && p.mass_page_stride != 0 && token < p.tokens && call.log->empty(); ++token) {
    const std::int32_t slot = append_slot(call.bindings[4], p, token, 0);
    const std::uint32_t page = static_cast<std::uint32_t>(slot) / k->page_tokens;
    if (slot < 0 || page < p.page_begin || page - p.page_begin >= p.page_count) continue;
    for (std::uint32_t head = 0; head < p.kv_heads; ++head) {
      const std::uint64_t word = std::uint64_t{p.mass_offset} + std::uint64_t{page - p.page_begin} * p.mass_page_stride +
                                 (head * k->page_tokens + static_cast<std::uint32_t>(slot) % k->page_tokens) * 2u;
      call.bindings[5].store(word * 4, std::uint64_t{0});
    }
  }
  if (call.groups[1] < 2) return;
  const auto v = make_region(call, call.spec[KVANT_SPEC_FORMAT_V], call.spec[KVANT_SPEC_HEAD_DIM_V], p.kv_heads);
  if (v)
    append_side(call, p, *v, call.bindings[1], call.bindings[3], call.bindings[4],
                {in, p.v_offset, p.v_token_stride, p.v_head_stride},
                {(flags & KVANT_ROTATE_V) != 0, (flags & KVANT_CENTRE_V) != 0, p.v_means_offset}, p.v_slots_ahead);
}

void run_read(KernelCall& call) {
  const auto p = call.params<params::ReadParams>();
  const auto region = make_region(call, call.spec[KVANT_SPEC_FORMAT_K], call.spec[KVANT_SPEC_HEAD_DIM_K], p.kv_heads);
  if (!region) return;
  const std::uint32_t out_type = call.spec[KVANT_SPEC_IO_TYPE_OUT], flags = call.spec[KVANT_SPEC_FLAGS];
  std::vector<float> row(region->head_dim);
  for (std::uint32_t token = 0; token < p.tokens; ++token) {
    const auto slot = static_cast<std::int32_t>(call.bindings[2].word(std::uint64_t{p.slots_offset} + token));
    if (slot < 0 && p.write_zero_rows == 0) continue;
    const std::uint32_t page = slot < 0 ? 0 : static_cast<std::uint32_t>(slot) / region->page_tokens;
    if (slot >= 0 && (page < p.page_begin || page - p.page_begin >= p.page_count)) continue;
    for (std::uint32_t head = 0; head < p.kv_heads; ++head) {
      std::fill(row.begin(), row.end(), 0.0f);
      if (slot >= 0) {
        if (const std::byte* in = region->head(call.bindings[0], page - p.page_begin, head, "reads"))
          decode_planar_row(*region->format, region->layout, in, static_cast<std::uint32_t>(slot) % region->page_tokens, row);
        for (std::uint32_t d = 0; (flags & KVANT_CENTRE_K) != 0 && d < region->head_dim; ++d)
          row[d] += call.bindings[3].float_at(std::uint64_t{head} * region->head_dim + d);
        if ((flags & KVANT_ROTATE_K) != 0) rotate_row_back(row);
      }
      const std::uint64_t first =
          p.out_offset + std::uint64_t{token} * p.out_token_stride + std::uint64_t{head} * p.out_head_stride;
      for (std::uint32_t d = 0; d < region->head_dim; ++d)
        store_element(call.bindings[1], out_type, first + d, static_cast<double>(row[d]));
      if (!call.log->empty()) return;
    }
  }
}

void run_means(KernelCall& call) {
  const auto p = call.params<params::MeansParams>();
  const std::uint32_t in = call.spec[KVANT_SPEC_IO_TYPE_IN], flags = call.spec[KVANT_SPEC_FLAGS];
  for (const bool is_v : {false, true}) {
    if ((p.sides & (is_v ? 2u : 1u)) == 0 || call.groups[1] < (is_v ? 2u : 1u)) continue;
    const std::uint32_t dim = call.spec[is_v ? KVANT_SPEC_HEAD_DIM_V : KVANT_SPEC_HEAD_DIM_K];
    for (std::uint32_t head = 0; head < call.groups[0] && call.log->empty(); ++head) {
      std::vector<float> rows;
      for (std::uint32_t token = 0; token < p.tokens; ++token) {
        if (static_cast<std::int32_t>(call.bindings[2].word(std::uint64_t{p.slots_offset} + token)) < 0) continue;
        const std::uint64_t first = (is_v ? p.v_offset : p.k_offset) + std::uint64_t{token} * (is_v ? p.v_token_stride : p.k_token_stride) +
                                    std::uint64_t{head} * (is_v ? p.v_head_stride : p.k_head_stride);
        for (std::uint32_t d = 0; d < dim; ++d) rows.push_back(static_cast<float>(load_element(call.bindings[is_v ? 1 : 0], in, first + d)));
      }
      const std::vector<float> mean = mean_of_rows(rows, dim, p.inverse, (flags & (is_v ? KVANT_ROTATE_V : KVANT_ROTATE_K)) != 0);
      for (std::uint32_t d = 0; d < dim; ++d)
        call.bindings[3].store(((is_v ? p.v_means_offset : 0) + std::uint64_t{head} * dim + d) * 4, mean[d]);
    }
  }
}

void run_copy(KernelCall& call) {
  const auto p = call.params<params::CopyParams>();
  const std::uint64_t bytes = std::uint64_t{p.page_words16} * 16;
  const std::uint32_t pairs = p.pair_count;
  for (std::uint32_t i = 0; i < pairs && call.log->empty(); ++i) {
    const std::uint64_t from = call.bindings[2].word(p.pairs_offset + std::uint64_t{i} * 2);
    const std::uint64_t to = call.bindings[2].word(p.pairs_offset + std::uint64_t{i} * 2 + 1);
    const std::byte* in = call.bindings[0].range(from * bytes, bytes, "reads");
    std::byte* out = call.bindings[1].range(to * bytes, bytes, "writes");
    if (in != nullptr && out != nullptr) std::memmove(out, in, bytes);
  }
}

void run_convert(KernelCall& call) {
  const auto p = call.params<params::ConvertParams>();
  const std::uint32_t head_dim = call.spec[KVANT_SPEC_HEAD_DIM_K];
  const auto from = make_region(call, call.spec[KVANT_SPEC_FORMAT_K], head_dim, p.kv_heads);
  const auto to = make_region(call, call.spec[KVANT_SPEC_FORMAT_V], head_dim, p.kv_heads);
  if (!from || !to) return;
  std::vector<float> row(head_dim);
  for (std::uint32_t i = 0; i < p.triple_count; ++i) {
    const std::uint64_t at = p.triples_offset + std::uint64_t{i} * 3;
    const std::uint32_t source = call.bindings[2].word(at);
    const std::uint32_t destination = call.bindings[2].word(at + 1);
    const std::uint32_t tokens = call.bindings[2].word(at + 2);
    for (std::uint32_t head = 0; head < p.kv_heads; ++head) {
      const std::byte* in = from->head(call.bindings[0], source, head, "reads");
      std::byte* out = to->head(call.bindings[1], destination, head, "writes");
      if (in == nullptr || out == nullptr) return;
      for (std::uint32_t token = 0; token < tokens; ++token) {
        decode_planar_row(*from->format, from->layout, in, token, row);
        encode_planar_row(*to->format, to->layout, out, token, row);
      }
    }
  }
}

// Rows of bytes, plane by plane.
void run_gather(KernelCall& call) {
  const auto p = call.params<params::GatherParams>();
  const std::uint32_t page_tokens = call.spec[KVANT_SPEC_PAGE_TOKENS];
  const auto region = make_region(call, call.spec[KVANT_SPEC_FORMAT_K], call.spec[KVANT_SPEC_HEAD_DIM_K], p.kv_heads);
  if (!region) return;
  const PageLayout& layout = region->layout;
  const std::uint32_t planes[][2] = {
      {0, layout.code_row_bytes}, {layout.high_offset, layout.high_row_bytes}, {layout.scale_offset, layout.scale_row_bytes}};
  for (std::uint32_t i = 0; i < p.page_count; ++i) {
    const std::uint64_t entry = p.map_offset + std::uint64_t{i} * (page_tokens + 1);
    const std::uint32_t page = call.bindings[2].word(entry);
    for (std::uint32_t token = 0; token < page_tokens; ++token) {
      const auto slot = static_cast<std::int32_t>(call.bindings[2].word(entry + 1 + token));
      if (slot < 0) continue;
      const auto from = static_cast<std::uint32_t>(slot);
      for (std::uint32_t head = 0; head < p.kv_heads; ++head) {
        const std::byte* in = region->head(call.bindings[0], from / page_tokens, head, "reads");
        std::byte* out = region->head(call.bindings[1], page, head, "writes");
        if (in == nullptr || out == nullptr) return;
        for (const auto& [begin, row] : planes)
          std::memcpy(out + begin + token * row, in + begin + from % page_tokens * row, row);
      }
    }
  }
}

void run_rotate(KernelCall& call) {
  const auto p = call.params<params::RotateParams>();
  for (std::uint64_t row = 0; row < p.rows; ++row)
    for (std::uint64_t pair = 0; pair < p.pairs; ++pair) {
      const std::uint64_t begin = p.row_offset + row * p.head_dim;
      const std::uint64_t first = begin + (p.halves != 0 ? pair : 2 * pair);
      const std::uint64_t second = first + (p.halves != 0 ? p.pairs : 1);
      const double cosine = static_cast<double>(call.bindings[1].float_at((p.angles_offset + pair) * 2));
      const double sine = static_cast<double>(call.bindings[1].float_at((p.angles_offset + pair) * 2 + 1));
      const double a = static_cast<double>(call.bindings[0].float_at(first)), b = static_cast<double>(call.bindings[0].float_at(second));
      call.bindings[0].store(first * 4, static_cast<float>(a * cosine - b * sine));
      call.bindings[0].store(second * 4, static_cast<float>(a * sine + b * cosine));
    }
}

}  // namespace kvant::reference
