// transfer on the device against its reference, and against the host's codecs, bit for bit: every ggml format both ways, strides with
// gaps, permuted and transposed tensors, half words at the ends, rows looked up by indices.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "format_samples.hpp"
#include "kernels.hpp"
#include "page_kernels_device.hpp"
#include "params/grids.h"
#include "params/strided.h"

using namespace kvant;
using namespace kvant::test;

namespace {

using Four = std::array<std::uint32_t, 4>;

// The three plain formats first, then the six of blocks.
constexpr std::array kFormats{FormatId::f32,  FormatId::f16,  FormatId::bf16, FormatId::q8_0,  FormatId::q4_0,
                              FormatId::q4_1, FormatId::q5_0, FormatId::q5_1, FormatId::iq4_nl};

// A tensor in the middle of other bytes.
struct Tensor {
  const FormatInfo* format;
  Four ne, nb;
  std::uint32_t offset;
  Bytes bytes;

  std::uint32_t elements() const { return ne[0] * ne[1] * ne[2] * ne[3]; }
  std::size_t place(std::uint32_t element) const {
    std::size_t at = offset;
    for (std::size_t d = 0; d < 4; ++d) {
      const std::uint32_t i = element % ne[d];
      at += std::size_t{d == 0 ? i / format->canonical_block : i} * nb[d];
      element /= ne[d];
    }
    return at;
  }
};

// Dimensions lie in memory in the order `inner` to outer; `gap` bytes follow each extent.
Tensor make_tensor(FormatId id, const Four& ne, std::uint32_t offset = 0, std::uint32_t gap = 0,
                   const Four& inner = {0, 1, 2, 3}) {
  Tensor tensor{&format_info(id), ne, {}, offset, {}};
  std::uint32_t extent = tensor.format->canonical_bytes + gap;
  for (const std::uint32_t d : inner) {
    tensor.nb[d] = extent;
    extent = extent * (d == 0 ? ne[0] / tensor.format->canonical_block : ne[d]) + gap;
  }
  tensor.bytes.assign((offset + extent + 16 + 3) / 4 * 4, std::byte{0xA5});
  return tensor;
}

void fill_random(std::mt19937& engine, Bytes& bytes) {
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(engine() >> 13);
}

// Floats in blocks of 32 of eleven decades and hard ones, in the elements' order; other bytes are random.
void fill_values(std::mt19937& engine, Tensor& tensor) {
  fill_random(engine, tensor.bytes);
  const auto hard = adversarial_rows(false);
  const auto shift = static_cast<std::uint32_t>(engine() % hard.size());
  std::vector<float> x(tensor.elements());
  for (std::uint32_t e = 0; e < x.size(); ++e) {
    const std::uint32_t block = e / 32;
    x[e] = block % 3 == 0 ? hard[(block / 3 + shift) % hard.size()][e % 64]
                          : random_normal(engine) * std::pow(10.0f, static_cast<float>(block % 11) - 6.0f);
  }
  const FormatInfo& format = *tensor.format;
  for (std::uint32_t e = 0; e < x.size(); e += format.canonical_block)
    encode_canonical_row(format, std::span<const float>(x).subspan(e, format.canonical_block),
                         std::span(tensor.bytes).subspan(tensor.place(e), format.canonical_bytes));
}

// Indices of rows, in words, and how they are read.
struct Indices {
  std::uint32_t words = 0;  // of an index; 0: none
  std::uint32_t indexed = 0, rows = 0, offset = 0;
  std::uint32_t ne1 = 1, ne2 = 1, nb1 = 0, nb2 = 0;
  Bytes bytes = Bytes(4);
};

// What the engine writes of a NaN that went through f32 is its own affair.
void forgive_nans(const Tensor& tensor, Bytes& expected, const Bytes& actual) {
  const std::uint32_t size = tensor.format->canonical_bytes;
  for (std::uint32_t e = 0; e < tensor.elements(); ++e) {
    const std::size_t at = tensor.place(e);
    float a = 0, b = 0;
    decode_canonical_row(*tensor.format, std::span(expected).subspan(at, size), {&a, 1});
    decode_canonical_row(*tensor.format, std::span(actual).subspan(at, size), {&b, 1});
    if (a != a && b != b) std::memcpy(expected.data() + at, actual.data() + at, size);
  }
}

// Runs the transfer and leaves its result in `to`; `shape` is that of the rows as looked up.
void check_transfer(PageKernelDevice& device, Tensor& from, Tensor& to, std::uint32_t unit, Indices indices = {},
                    const Four* shape = nullptr, std::uint32_t local_size = 64) {
  const Four source = shape != nullptr ? *shape : from.ne, destination = shape != nullptr ? *shape : to.ne;
  const std::uint32_t units = source[0] * source[1] * source[2] * source[3] / unit;
  const params::TransferParams push{units,          from.offset,     source[0],      source[1],      source[2],
                                    from.nb[0],     from.nb[1],      from.nb[2],     from.nb[3],     to.offset,
                                    destination[0], destination[1],  destination[2], to.nb[0],       to.nb[1],
                                    to.nb[2],       to.nb[3],        indices.indexed, indices.rows,  indices.offset,
                                    indices.words,  indices.nb1,     indices.nb2,    indices.ne1,    indices.ne2,   0};
  SpecValues spec{};
  spec[KVANT_SPEC_LOCAL_SIZE] = local_size;
  spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(from.format->id);
  spec[KVANT_SPEC_FORMAT_V] = static_cast<std::uint32_t>(to.format->id);
  spec[KVANT_SPEC_TRANSFER_UNIT] = unit;
  spec[KVANT_SPEC_TRANSFER_INDEX] = indices.words;
  const params::Grid grid = params::transfer_grid(units, local_size);
  const Bytes before = to.bytes, source_before = from.bytes;

  Bytes expected = to.bytes;
  reference::FaultLog log;
  reference::KernelCall call;
  call.spec = spec;
  call.push = reinterpret_cast<const std::byte*>(&push);
  call.bindings[0] = reference::View(from.bytes, "source", log);
  call.bindings[1] = reference::View(expected, "destination", log);
  call.bindings[2] = reference::View(indices.bytes, "indices", log);
  call.groups = grid;
  call.log = &log;
  reference::run_transfer(call);
  REQUIRE_MESSAGE(log.empty(), log.message());
  REQUIRE(expected != before);

  const Status status =
      device.run(KernelId::transfer, spec, &push, sizeof(push), {&from.bytes, &to.bytes, &indices.bytes}, grid);
  REQUIRE_MESSAGE(status.ok(), status.message());
  CAPTURE(from.format->name);
  CAPTURE(to.format->name);
  CAPTURE(unit);
  if (from.format != to.format && to.format->canonical_block == 1) forgive_nans(to, expected, to.bytes);
  const auto first = std::mismatch(expected.begin(), expected.end(), to.bytes.begin()).first - expected.begin();
  CHECK_MESSAGE(to.bytes == expected, "differs first at byte " << first);
  CHECK(from.bytes == source_before);
}

// Every kind of layout for one pair of formats: the same pipeline runs them all.
void check_layouts(PageKernelDevice& device, std::mt19937& engine, FormatId from_id, FormatId to_id, std::uint32_t unit) {
  const bool from_blocks = format_info(from_id).canonical_block > 1, to_blocks = format_info(to_id).canonical_block > 1;
  const Four whole{64, 21, 3, 2};
  // The same elements in other rows; where there are no blocks, units begin and end anywhere in any dimension.
  const Four other = from_blocks && to_blocks ? Four{32, 6, 21, 2} : Four{7, 9, 8, 16};
  struct Layout {
    Tensor from, to;
  };
  const std::uint32_t word = unit == 2 ? 4 : 2;  // units of 2 fill words of DESTINATION
  std::vector<Layout> layouts{
      {make_tensor(from_id, whole), make_tensor(to_id, whole)},
      {make_tensor(from_id, whole, 6, 2), make_tensor(to_id, whole, 10, unit == 2 ? 0 : 2)},
      {make_tensor(from_id, whole, 2, 6, {2, 0, 3, 1}), make_tensor(to_id, whole, word, 0)},
      {make_tensor(from_id, from_blocks ? whole : other, 14, 2, {1, 0, 2, 3}),
       make_tensor(to_id, from_blocks && !to_blocks ? other : whole, 4)},
      {make_tensor(from_id, from_blocks && to_blocks ? other : whole, 2), make_tensor(to_id, to_blocks ? whole : other, word, 0)},
      {make_tensor(from_id, whole, 8), make_tensor(to_id, whole, 22, 2, {3, 1, 0, 2})},
  };
  for (std::size_t i = 0; i < layouts.size(); ++i) {
    Tensor& from = layouts[i].from;
    Tensor& to = layouts[i].to;
    fill_values(engine, from);
    // Bits of any kind, where none is computed with that an encoder would have to agree on.
    if (!to_blocks || from_id == to_id) fill_random(engine, from.bytes);
    CAPTURE(i);
    check_transfer(device, from, to, unit);
  }
}

}  // namespace

TEST_SUITE_BEGIN("page kernels device");

TEST_CASE("page kernels: transfer of rows as they lie is host encode and host decode") {
  KVANT_DEVICE_OR_SKIP(device);
  std::mt19937 engine(41);
  for (const FormatId id : kFormats) {
    if (id == FormatId::f32) continue;
    const FormatInfo& format = format_info(id);
    const std::uint32_t unit = format.canonical_block == 1 ? 2 : 32;
    Tensor floats = make_tensor(FormatId::f32, {96, 37, 1, 1}), codes = make_tensor(id, {96, 37, 1, 1}, 4);
    fill_values(engine, floats);
    check_transfer(*device, floats, codes, unit);
    std::vector<float> x(96), y(96);
    const std::uint64_t row_bytes = canonical_row_bytes(format, 96);
    Bytes row(row_bytes);
    for (std::uint32_t r = 0; r < 37; ++r) {
      std::memcpy(x.data(), floats.bytes.data() + floats.place(r * 96), 96 * 4);
      encode_canonical_row(format, x, row);
      CHECK(std::equal(row.begin(), row.end(), codes.bytes.begin() + static_cast<std::ptrdiff_t>(codes.place(r * 96))));
    }
    Tensor back = make_tensor(FormatId::f32, {96, 37, 1, 1}, 8);
    check_transfer(*device, codes, back, unit);
    for (std::uint32_t r = 0; r < 37; ++r) {
      decode_canonical_row(format, std::span(codes.bytes).subspan(codes.place(r * 96), row_bytes), x);
      std::memcpy(y.data(), back.bytes.data() + back.place(r * 96), 96 * 4);
      for (std::size_t i = 0; i < 96; ++i) CHECK(same_or_both_nan(x[i], y[i]));
    }
  }
}

TEST_CASE("page kernels: transfer with gaps, permuted and into other shapes") {
  KVANT_DEVICE_OR_SKIP(device);
  std::mt19937 engine(42);
  for (std::uint32_t f = 3; f < kFormats.size(); ++f) {
    const FormatId id = kFormats[f];
    check_layouts(*device, engine, FormatId::f32, id, 32);
    check_layouts(*device, engine, FormatId::f16, id, 32);
    check_layouts(*device, engine, id, FormatId::f32, 32);
    check_layouts(*device, engine, id, id, 32);
    if (take_combination(f, 0, 3)) check_layouts(*device, engine, id, kFormats[1 + f / 3 % 2], 32);
    if (take_combination(f, 1, 3)) check_layouts(*device, engine, id, kFormats[f == 8 ? 3 : f + 1], 32);
  }
  for (std::uint32_t from = 0; from < 3; ++from)
    for (std::uint32_t to = 0; to < 3; ++to)
      for (std::uint32_t unit = 1; unit <= 2; ++unit) check_layouts(*device, engine, kFormats[from], kFormats[to], unit);
}

TEST_CASE("page kernels: transfer of odd rows, and of more units than a row of the grid") {
  KVANT_DEVICE_OR_SKIP(device);
  std::mt19937 engine(43);
  Tensor from = make_tensor(FormatId::f16, {9, 7, 5, 1}, 6, 2, {1, 2, 0, 3}), to = make_tensor(FormatId::f16, {5, 63, 1, 1}, 2, 6);
  fill_random(engine, from.bytes);
  check_transfer(*device, from, to, 1);
  from = make_tensor(FormatId::bf16, {3, 23333, 1, 1}, 2);
  to = make_tensor(FormatId::f32, {69999, 1, 1, 1}, 4);
  fill_random(engine, from.bytes);
  check_transfer(*device, from, to, 1, {}, nullptr, 1);
}

TEST_CASE("page kernels: transfer of rows that indices name") {
  KVANT_DEVICE_OR_SKIP(device);
  std::mt19937 engine(44);
  constexpr std::uint32_t kRows = 10;
  struct Lookup {
    FormatId from, to;
    std::uint32_t ne0, unit;
  };
  const Lookup lookups[] = {{FormatId::f32, FormatId::q8_0, 64, 32},  {FormatId::f32, FormatId::q4_0, 64, 32},
                            {FormatId::f16, FormatId::q5_1, 64, 32},  {FormatId::q5_0, FormatId::q5_0, 96, 32},
                            {FormatId::q4_1, FormatId::f32, 32, 32},  {FormatId::iq4_nl, FormatId::f16, 64, 32},
                            {FormatId::f32, FormatId::f16, 12, 2},    {FormatId::f32, FormatId::f16, 9, 1},
                            {FormatId::f16, FormatId::f16, 7, 2},     {FormatId::f16, FormatId::f32, 9, 1},
                            {FormatId::f32, FormatId::f32, 5, 1}};
  std::uint32_t round = 0;
  for (const Lookup& c : lookups) {
    for (std::uint32_t indexed = 0; indexed < 2; ++indexed) {  // 0: set rows, 1: get rows
      for (const std::uint32_t words : {1u, 2u}) {
        if (!take_combination(c.ne0, words + static_cast<std::uint32_t>(c.to), 2)) continue;
        const Four shape{c.ne0, 6, 6, 2}, all{c.ne0, kRows, 6, 2};
        Indices indices;
        indices.words = words;
        indices.indexed = indexed;
        indices.rows = kRows;
        indices.offset = 5;
        indices.ne1 = round % 3 == 0 ? 1 : round % 3 == 1 ? 3 : 6;
        indices.ne2 = 1 + round / 3 % 2;
        indices.nb1 = 6 * words + 3;
        indices.nb2 = indices.nb1 * indices.ne1 + 1;
        ++round;
        std::vector<std::uint32_t> table(indices.offset + indices.nb2 * indices.ne2, 3);
        for (std::uint32_t plane = 0; plane < indices.ne1 * indices.ne2; ++plane) {
          std::vector<std::uint32_t> rows(kRows);
          std::iota(rows.begin(), rows.end(), 0u);
          std::shuffle(rows.begin(), rows.end(), engine);
          rows[engine() % 6] = UINT32_MAX;
          rows[engine() % 6] = kRows + static_cast<std::uint32_t>(engine() % 3);
          if (indexed == 1) rows[5] = rows[0];  // rows that are read may be named twice
          for (std::uint32_t i = 0; i < 6; ++i) {
            std::uint32_t* word = &table[indices.offset + plane % indices.ne1 * indices.nb1 +
                                         plane / indices.ne1 * indices.nb2 + i * words];
            word[0] = rows[i];
            if (words == 2) word[1] = rows[i] == UINT32_MAX ? UINT32_MAX : 0;
          }
        }
        indices.bytes = bytes_of(table);
        Tensor from = make_tensor(c.from, indexed == 1 ? all : shape, 6, 2);
        Tensor to = make_tensor(c.to, indexed == 0 ? all : shape, 4, c.unit == 2 && c.ne0 % 2 == 0 ? 0 : 2);
        fill_values(engine, from);
        CAPTURE(indexed);
        CAPTURE(words);
        check_transfer(*device, from, to, c.unit, indices, &shape);
      }
    }
  }
}

TEST_SUITE_END();
