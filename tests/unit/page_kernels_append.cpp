// append on the device against the host encoders, bit for bit: every format and head dimension, hard blocks, scales
// from 1e-6 to 1e4, every input type at odd offsets, skipped slots, and many random blocks.
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "format_samples.hpp"
#include "page_kernels_device.hpp"
#include "params/grids.h"
#include "params/pages.h"

using namespace kvant;
using namespace kvant::test;

namespace {

constexpr std::uint32_t kPageBegin = 5;  // the slab's first page; slots below it belong to another slab
constexpr std::uint32_t kPages = 8;
constexpr std::uint32_t kHeads = 2;

// One side's tensor with its place in memory.
struct SideInput {
  std::uint32_t head_dim = 0;
  std::uint32_t offset = 0, token_stride = 0, head_stride = 0;
  std::vector<std::vector<float>> rows;  // [token * kHeads + head], as the kernel sees them
  Bytes tensor;
};

SideInput make_side(std::uint32_t io_type, std::uint32_t head_dim, std::vector<std::vector<float>> rows, bool odd) {
  SideInput side;
  side.head_dim = head_dim;
  side.offset = odd ? 3 : 0;
  side.head_stride = head_dim + (odd ? 1 : 0);
  side.token_stride = kHeads * side.head_stride + (odd ? 5 : 0);
  const std::size_t tokens = rows.size() / kHeads;
  const std::size_t elements = side.offset + tokens * side.token_stride + 1;
  side.tensor.assign((elements * io_bytes(io_type) + 3) / 4 * 4, std::byte{0xFF});  // NaN everywhere else
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const std::size_t begin = side.offset + r / kHeads * side.token_stride + r % kHeads * side.head_stride;
    for (std::size_t i = 0; i < head_dim; ++i) {
      store_io(io_type, side.tensor, begin + i, rows[r][i]);
      rows[r][i] = as_io(io_type, rows[r][i]);
    }
  }
  side.rows = std::move(rows);
  return side;
}

// Random rows of eleven decades and every hard block, tiled over the head dimension.
std::vector<std::vector<float>> mixed_rows(std::mt19937& engine, std::uint32_t head_dim, std::uint32_t tokens) {
  const auto hard = adversarial_rows(false);
  std::vector<std::vector<float>> rows;
  for (std::uint32_t r = 0; r < tokens * kHeads; ++r) {
    std::vector<float> row(head_dim);
    if (r % 2 == 0) {
      const auto& source = hard[(r / 2) % hard.size()];
      for (std::uint32_t i = 0; i < head_dim; ++i) row[i] = source[i % 64];
    } else {
      row = random_row(engine, head_dim, std::pow(10.0f, static_cast<float>(r / 2 % 11) - 6.0f));
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

// Slots for `tokens` tokens: distinct, shuffled, some negative and some in other slabs.
std::vector<std::int32_t> make_slots(std::mt19937& engine, std::uint32_t tokens, std::uint32_t page_tokens) {
  std::vector<std::int32_t> slots(std::size_t{kPages} * page_tokens);
  std::iota(slots.begin(), slots.end(), static_cast<std::int32_t>(kPageBegin * page_tokens));
  std::shuffle(slots.begin(), slots.end(), engine);
  REQUIRE(tokens <= slots.size());
  slots.resize(tokens);
  for (std::uint32_t t = 0; t < tokens; ++t) {
    if (t % 13 == 4) slots[t] = -1;
    if (t % 13 == 7) slots[t] = static_cast<std::int32_t>(t % (kPageBegin * page_tokens));
    if (t % 13 == 9) slots[t] = static_cast<std::int32_t>((kPageBegin + kPages) * page_tokens + t);
  }
  return slots;
}

void encode_on_host(HostRegion& region, const SideInput& side, const std::vector<std::int32_t>& slots) {
  for (std::size_t r = 0; r < side.rows.size(); ++r) {
    const std::int32_t slot = slots[r / kHeads];
    const std::uint32_t page = static_cast<std::uint32_t>(slot) / region.page_tokens;
    if (slot < 0 || page < kPageBegin || page >= kPageBegin + kPages) continue;
    std::byte* head = region.head(page - kPageBegin, static_cast<std::uint32_t>(r % kHeads));
    encode_planar_row(*region.format, region.layout, head, static_cast<std::uint32_t>(slot) % region.page_tokens,
                      side.rows[r]);
  }
}

struct AppendCase {
  FormatId format_k{}, format_v{};
  std::uint32_t head_dim_k = 64, head_dim_v = 64, page_tokens = 16, io_type = KVANT_IO_F32;
  std::uint32_t local_size = 64, max_groups = 65535;
  bool odd = false;
};

void check_append(PageKernelDevice& device, const AppendCase& c, const SideInput& k, const SideInput& v,
                  const std::vector<std::int32_t>& slots) {
  const auto tokens = static_cast<std::uint32_t>(slots.size());
  HostRegion expected_k(c.format_k, c.head_dim_k, c.page_tokens, kHeads, kPages, std::byte{0xA5});
  HostRegion expected_v(c.format_v, c.head_dim_v, c.page_tokens, kHeads, kPages, std::byte{0x3C});
  Bytes actual_k = expected_k.bytes, actual_v = expected_v.bytes;
  encode_on_host(expected_k, k, slots);
  encode_on_host(expected_v, v, slots);

  SpecValues spec{};
  spec[KVANT_SPEC_LOCAL_SIZE] = c.local_size;
  spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(c.format_k);
  spec[KVANT_SPEC_FORMAT_V] = static_cast<std::uint32_t>(c.format_v);
  spec[KVANT_SPEC_HEAD_DIM_K] = c.head_dim_k;
  spec[KVANT_SPEC_HEAD_DIM_V] = c.head_dim_v;
  spec[KVANT_SPEC_PAGE_TOKENS] = c.page_tokens;
  spec[KVANT_SPEC_IO_TYPE_IN] = c.io_type;
  std::vector<std::int32_t> shifted{-99};  // slots do not start at word 0
  shifted.insert(shifted.end(), slots.begin(), slots.end());
  Bytes slot_bytes = bytes_of(shifted), k_tensor = k.tensor, v_tensor = v.tensor;
  // Masses of the second of two layers.
  const std::uint32_t layer_words = kHeads * c.page_tokens * 2;
  Bytes mass(std::size_t{layer_words} * 2 * kPages * 4, std::byte{0x5A}), expected_mass = mass;
  for (const std::int32_t slot : slots) {
    const std::uint32_t page = static_cast<std::uint32_t>(slot) / c.page_tokens;
    if (slot < 0 || page < kPageBegin || page >= kPageBegin + kPages) continue;
    for (std::uint32_t head = 0; head < kHeads; ++head)
      std::fill_n(expected_mass.begin() +
                      ((page - kPageBegin) * 2 * layer_words + layer_words +
                       (head * c.page_tokens + static_cast<std::uint32_t>(slot) % c.page_tokens) * 2) * 4,
                  8, std::byte{0});
  }
  const params::AppendParams push{tokens,         kHeads,   kPageBegin,     kPages,        1,           1,              k.offset, k.token_stride,
                                  k.head_stride,  v.offset, v.token_stride, v.head_stride, layer_words, layer_words * 2,
                                  0,              0};
  const params::Grid grid =
      params::append_grid(tokens, kHeads, c.head_dim_k, expected_k.format->block, c.head_dim_v,
                          expected_v.format->block, c.local_size, c.max_groups);
  const Status status = device.run(KernelId::append, spec, &push, sizeof(push),
                                   {&actual_k, &actual_v, &k_tensor, &v_tensor, &slot_bytes, &mass}, grid);
  REQUIRE_MESSAGE(status.ok(), status.message());
  const auto differs = [](const Bytes& a, const Bytes& b) {
    return std::mismatch(a.begin(), a.end(), b.begin()).first - a.begin();
  };
  CAPTURE(expected_k.format->name);
  CAPTURE(expected_v.format->name);
  CAPTURE(c.head_dim_k);
  CAPTURE(c.head_dim_v);
  CAPTURE(c.io_type);
  CHECK_MESSAGE(actual_k == expected_k.bytes, "K differs first at byte " << differs(actual_k, expected_k.bytes));
  CHECK(mass == expected_mass);
  CHECK_MESSAGE(actual_v == expected_v.bytes, "V differs first at byte " << differs(actual_v, expected_v.bytes));
}

}  // namespace

TEST_SUITE_BEGIN("page kernels device");

TEST_CASE("page kernels: append encodes as the host, every format and head dimension") {
  KVANT_DEVICE_OR_SKIP(device);
  struct Shape {
    FormatId format;
    std::uint32_t head_dim;
  };
  std::vector<Shape> shapes;
  const std::uint32_t head_dims[] = {32, 40, 64, 80, 96, 128, 576};
  for (std::uint32_t d = 0; d < 7; ++d) {
    for (std::uint32_t f = 0; f < formats().size(); ++f) {
      if (take_combination(f, d, 4)) shapes.push_back({formats()[f].id, head_dims[d]});
    }
  }
  if (shapes.size() % 2 != 0) shapes.push_back(shapes.front());  // each dispatch takes two shapes, K and V
  std::mt19937 engine(11);
  for (std::uint32_t i = 0; i + 1 < shapes.size(); i += 2) {
    AppendCase c;
    c.format_k = shapes[i].format;
    c.head_dim_k = shapes[i].head_dim;
    c.format_v = shapes[i + 1].format;
    c.head_dim_v = shapes[i + 1].head_dim;
    c.page_tokens = i / 2 % 2 == 0 ? 16 : 32;
    c.io_type = i / 2 % 3;
    c.odd = i / 2 % 4 != 0;
    const std::uint32_t tokens = 120;
    const SideInput k = make_side(c.io_type, c.head_dim_k, mixed_rows(engine, c.head_dim_k, tokens), c.odd);
    const SideInput v = make_side(c.io_type, c.head_dim_v, mixed_rows(engine, c.head_dim_v, tokens), c.odd);
    check_append(*device, c, k, v, make_slots(engine, tokens, c.page_tokens));
  }
}

TEST_CASE("page kernels: append of random blocks and bit patterns, looping over a cut grid") {
  KVANT_DEVICE_OR_SKIP(device);
  std::mt19937 engine(12);
  for (const FormatInfo& format : formats()) {
    AppendCase c;
    c.format_k = c.format_v = format.id;
    c.head_dim_k = c.head_dim_v = 256;
    c.page_tokens = 32;
    c.local_size = 32;
    c.max_groups = 3;
    const std::uint32_t tokens = kPages * c.page_tokens;
    // K: one scale a row, all mantissas. V: any bits, NaN and denormals among them, or for formats with a scale
    // exponents near each other, so that blocks are not ruled by a single giant.
    std::vector<std::vector<float>> k_rows, v_rows;
    for (std::uint32_t r = 0; r < tokens * kHeads; ++r) {
      k_rows.push_back(random_row(engine, c.head_dim_k, std::ldexp(1.0f, static_cast<int>(engine() % 60) - 30)));
      std::vector<float> row(c.head_dim_v);
      const std::uint32_t base = static_cast<std::uint32_t>(engine() % 240);
      for (float& value : row) {
        std::uint32_t bits = static_cast<std::uint32_t>(engine());
        if (format.scale_bytes != 0) bits = (bits & 0x807FFFFFu) | ((base + (bits >> 23) % 6) << 23);
        value = std::bit_cast<float>(bits);
      }
      v_rows.push_back(std::move(row));
    }
    const SideInput k = make_side(c.io_type, c.head_dim_k, std::move(k_rows), false);
    const SideInput v = make_side(c.io_type, c.head_dim_v, std::move(v_rows), false);
    check_append(*device, c, k, v, make_slots(engine, tokens, c.page_tokens));
  }
}

TEST_SUITE_END();
