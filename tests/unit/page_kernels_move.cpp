// read, copy, gather, rotate and convert on the device against the host, bit for bit.
#include <doctest/doctest.h>

#include <algorithm>

#include "format_samples.hpp"
#include "page_kernels_device.hpp"
#include "params/grids.h"
#include "params/pages.h"

using namespace kvant;
using namespace kvant::test;

namespace {

constexpr std::uint32_t kPages = 4;
constexpr std::uint32_t kPageBegin = 2;
constexpr std::uint32_t kHeads = 3;

// A region whose rows are all written: random over eleven decades, and hard blocks.
HostRegion written_region(std::mt19937& engine, FormatId format, std::uint32_t head_dim, std::uint32_t page_tokens) {
  HostRegion region(format, head_dim, page_tokens, kHeads, kPages, std::byte{0xA5});
  const auto hard = adversarial_rows(false);
  std::uint32_t count = 0;
  for (std::uint32_t page = 0; page < kPages; ++page) {
    for (std::uint32_t head = 0; head < kHeads; ++head) {
      for (std::uint32_t token = 0; token < page_tokens; ++token, ++count) {
        std::vector<float> row = random_row(engine, head_dim, std::pow(10.0f, static_cast<float>(count % 11) - 6.0f));
        if (count % 3 == 0) {
          for (std::uint32_t i = 0; i < head_dim; ++i) row[i] = hard[count / 3 % hard.size()][i % 64];
        }
        encode_planar_row(*region.format, region.layout, region.head(page, head), token, row);
      }
    }
  }
  return region;
}

// The tensor that read must leave: rows of other slabs untouched, zeros for negative slots if asked.
Bytes expected_read(HostRegion& region, const params::ReadParams& push, std::uint32_t io_type,
                    const std::vector<std::int32_t>& slots, Bytes tensor) {
  std::vector<float> row(region.head_dim);
  for (std::uint32_t t = 0; t < slots.size(); ++t) {
    for (std::uint32_t head = 0; head < kHeads; ++head) {
      const std::uint32_t page = static_cast<std::uint32_t>(slots[t]) / region.page_tokens;
      if (slots[t] < 0) {
        if (push.write_zero_rows == 0) continue;
        std::fill(row.begin(), row.end(), 0.0f);
      } else if (page < kPageBegin || page >= kPageBegin + kPages) {
        continue;
      } else {
        decode_planar_row(*region.format, region.layout, region.head(page - kPageBegin, head),
                          static_cast<std::uint32_t>(slots[t]) % region.page_tokens, row);
      }
      const std::size_t begin = push.out_offset + std::size_t{t} * push.out_token_stride + head * push.out_head_stride;
      for (std::size_t i = 0; i < row.size(); ++i) store_io(io_type, tensor, begin + i, row[i]);
    }
  }
  return tensor;
}

std::size_t count_differences(std::uint32_t io_type, const Bytes& a, const Bytes& b) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < a.size() / io_bytes(io_type); ++i) {
    count += same_or_both_nan(load_io(io_type, a, i), load_io(io_type, b, i)) ? 0 : 1;
  }
  return count;
}

}  // namespace

TEST_SUITE_BEGIN("page kernels device");

TEST_CASE("page kernels: read decodes as the host") {
  KVANT_DEVICE_OR_SKIP(device);
  std::mt19937 engine(21);
  std::uint32_t round = 0;
  const std::uint32_t head_dims[] = {32, 40, 64, 80, 96, 128, 576};
  for (std::uint32_t f = 0; f < formats().size(); ++f) {
    for (std::uint32_t d = 0; d < 7; ++d) {
      if (!take_combination(f, d, 4)) continue;
      const FormatInfo& format = formats()[f];
      const std::uint32_t head_dim = head_dims[d];
      const std::uint32_t page_tokens = round % 2 == 0 ? 16 : 32;
      const std::uint32_t io_type = round / 2 % 3;
      ++round;
      HostRegion region = written_region(engine, format.id, head_dim, page_tokens);
      std::vector<std::int32_t> slots;
      for (std::uint32_t t = 0; t < 70; ++t) {
        slots.push_back(static_cast<std::int32_t>(kPageBegin * page_tokens + engine() % (kPages * page_tokens)));
        if (t % 11 == 3) slots.back() = -7;
        if (t % 11 == 5) slots.back() = static_cast<std::int32_t>(t % (kPageBegin * page_tokens));
        if (t % 11 == 6) slots.back() = static_cast<std::int32_t>((kPageBegin + kPages) * page_tokens);
      }
      params::ReadParams push{};
      push.tokens = static_cast<std::uint32_t>(slots.size());
      push.kv_heads = kHeads;
      push.page_begin = kPageBegin;
      push.page_count = kPages;
      push.out_offset = 6;
      push.out_head_stride = head_dim + 2;
      push.out_token_stride = kHeads * push.out_head_stride + 4;
      push.write_zero_rows = round % 3 == 0 ? 0 : 1;
      const std::size_t elements = push.out_offset + std::size_t{push.tokens} * push.out_token_stride;
      Bytes tensor(elements * io_bytes(io_type), std::byte{0x42});
      const Bytes expected = expected_read(region, push, io_type, slots, tensor);

      SpecValues spec{};
      spec[KVANT_SPEC_LOCAL_SIZE] = 64;
      spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(format.id);
      spec[KVANT_SPEC_HEAD_DIM_K] = head_dim;
      spec[KVANT_SPEC_PAGE_TOKENS] = page_tokens;
      spec[KVANT_SPEC_IO_TYPE_OUT] = io_type;
      const params::Grid grid = params::read_grid(push.tokens, kHeads, head_dim, 64, round % 5 == 0 ? 2 : 65535);
      Bytes slot_bytes = bytes_of(slots);
      const Status status = device->run(KernelId::read, spec, &push, sizeof(push), {&region.bytes, &tensor, &slot_bytes},
                                        grid);
      REQUIRE_MESSAGE(status.ok(), status.message());
      CAPTURE(format.name);
      CAPTURE(head_dim);
      CAPTURE(io_type);
      CHECK(count_differences(io_type, tensor, expected) == 0);
    }
  }
}

TEST_CASE("page kernels: copy moves whole pages and nothing else") {
  KVANT_DEVICE_OR_SKIP(device);
  std::mt19937 engine(22);
  HostRegion source = written_region(engine, FormatId::q5_1, 80, 16);
  HostRegion destination(FormatId::q5_1, 80, 16, kHeads, kPages, std::byte{0x77});
  Bytes expected = destination.bytes;
  const std::size_t page_bytes = std::size_t{kHeads} * source.layout.head_bytes;
  const std::vector<std::uint32_t> pairs{9, 9, 0, 3, 2, 0, 2, 1};  // the first two words are another dispatch's
  for (std::size_t i = 2; i < pairs.size(); i += 2) {
    std::memcpy(expected.data() + pairs[i + 1] * page_bytes, source.bytes.data() + pairs[i] * page_bytes, page_bytes);
  }
  params::CopyParams push{};
  push.pairs_offset = 2;
  push.pair_count = 3;
  push.page_words16 = static_cast<std::uint32_t>(page_bytes / 16);
  SpecValues spec{};
  spec[KVANT_SPEC_LOCAL_SIZE] = 64;
  for (const std::uint32_t limit : {65535u, 2u}) {
    Bytes actual = destination.bytes, pair_bytes = bytes_of(pairs);
    const params::Grid grid = params::copy_grid(push.page_words16, push.pair_count, 64, limit, limit);
    const Status status = device->run(KernelId::copy, spec, &push, sizeof(push), {&source.bytes, &actual, &pair_bytes},
                                      grid);
    REQUIRE_MESSAGE(status.ok(), status.message());
    CHECK(actual == expected);
  }
}

TEST_CASE("page kernels: gather brings tokens of a slab together and leaves the bytes of others") {
  KVANT_DEVICE_OR_SKIP(device);
  std::mt19937 engine(25);
  std::uint32_t index = 0;
  for (const FormatInfo& format : formats()) {
    const std::uint32_t head_dims[] = {32, 40, 72, 128};
    for (std::uint32_t d = 0; d < 4; ++d) {
      if (!take_combination(index, d, 4)) continue;
      const std::uint32_t head_dim = head_dims[d];
      const std::uint32_t page_tokens = (index + d) % 2 == 0 ? 16 : 32;
      CAPTURE(format.name);
      CAPTURE(head_dim);
      CAPTURE(page_tokens);
      HostRegion source = written_region(engine, format.id, head_dim, page_tokens);
      HostRegion destination(format.id, head_dim, page_tokens, kHeads, kPages, std::byte{0x5C});
      Bytes actual = destination.bytes;
      std::vector<std::uint32_t> map{7, 7};  // the first words are another dispatch's
      const PageLayout& layout = source.layout;
      const std::uint32_t planes[][2] = {{0, layout.code_row_bytes},
                                         {layout.high_offset, layout.high_row_bytes},
                                         {layout.scale_offset, layout.scale_row_bytes}};
      for (const std::uint32_t page : {2u, 0u}) {
        map.push_back(page);
        for (std::uint32_t token = 0; token < page_tokens; ++token) {
          const bool here = engine() % 4 != 0;
          const auto slot = static_cast<std::uint32_t>(engine() % (kPages * page_tokens));
          map.push_back(here ? slot : UINT32_MAX);
          if (!here) continue;
          for (std::uint32_t head = 0; head < kHeads; ++head)
            for (const auto& [begin, row] : planes)
              std::memcpy(destination.head(page, head) + begin + token * row,
                          source.head(slot / page_tokens, head) + begin + slot % page_tokens * row, row);
        }
      }
      params::GatherParams push{};
      push.map_offset = 2;
      push.page_count = 2;
      push.kv_heads = kHeads;
      SpecValues spec{};
      spec[KVANT_SPEC_LOCAL_SIZE] = 64;
      spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(format.id);
      spec[KVANT_SPEC_HEAD_DIM_K] = head_dim;
      spec[KVANT_SPEC_PAGE_TOKENS] = page_tokens;
      for (const std::uint32_t limit : {65535u, 1u}) {
        Bytes result = actual, map_bytes = bytes_of(map);
        const params::Grid grid =
            params::gather_grid(std::uint64_t{kHeads} * layout.head_bytes, push.page_count, 64, limit, limit);
        const Status status =
            device->run(KernelId::gather, spec, &push, sizeof(push), {&source.bytes, &result, &map_bytes}, grid);
        REQUIRE_MESSAGE(status.ok(), status.message());
        CHECK(result == destination.bytes);
      }
    }
    ++index;
  }
}

TEST_CASE("page kernels: rotate turns pairs, and nothing else") {
  KVANT_DEVICE_OR_SKIP(device);
  std::mt19937 engine(26);
  constexpr std::uint32_t kRows = 37, kDim = 40, kPairs = 12, kOffset = 5, kAngles = 3;
  for (const std::uint32_t halves : {0u, 1u}) {
    std::vector<float> rows = random_row(engine, kOffset + kRows * kDim + 7, 3.0f), expected = rows, angles((kAngles + kPairs) * 2, 9.0f);
    for (std::uint32_t pair = 0; pair < kPairs; ++pair) {
      angles[(kAngles + pair) * 2] = std::cos(0.37f * static_cast<float>(pair + 1));
      angles[(kAngles + pair) * 2 + 1] = std::sin(0.37f * static_cast<float>(pair + 1));
    }
    for (std::uint32_t row = 0; row < kRows; ++row)
      for (std::uint32_t pair = 0; pair < kPairs; ++pair) {
        float* const begin = expected.data() + kOffset + row * kDim;
        float& a = begin[halves != 0 ? pair : 2 * pair];
        float& b = begin[halves != 0 ? pair + kPairs : 2 * pair + 1];
        const float c = angles[(kAngles + pair) * 2], s = angles[(kAngles + pair) * 2 + 1], x = a, y = b;
        a = x * c - y * s;
        b = x * s + y * c;
      }
    params::RotateParams push{kRows, kDim, kPairs, halves, kOffset, kAngles};
    SpecValues spec{};
    spec[KVANT_SPEC_LOCAL_SIZE] = 64;
    for (const std::uint32_t limit : {65535u, 2u}) {
      Bytes bytes = bytes_of(rows), angle_bytes = bytes_of(angles);
      const Status status = device->run(KernelId::rotate, spec, &push, sizeof(push), {&bytes, &angle_bytes},
                                        params::rotate_grid(kRows, kPairs, 64, limit));
      REQUIRE_MESSAGE(status.ok(), status.message());
      std::vector<float> result(rows.size());
      std::memcpy(result.data(), bytes.data(), result.size() * 4);
      // Two products and a sum, each rounded: of the larger of the two, a few units in the last place.
      for (std::size_t i = 0; i < rows.size(); ++i) CHECK(std::fabs(result[i] - expected[i]) <= 20.0f * 1.2e-7f * 4);
      for (std::size_t i = 0; i < kOffset; ++i) CHECK(result[i] == rows[i]);
      for (std::uint32_t row = 0; row < kRows; ++row)
        for (std::uint32_t i = 2 * kPairs; i < kDim; ++i) CHECK(result[kOffset + row * kDim + i] == rows[kOffset + row * kDim + i]);
    }
  }
}

TEST_CASE("page kernels: convert is host decode and host encode") {
  KVANT_DEVICE_OR_SKIP(device);
  std::mt19937 engine(23);
  const std::uint32_t head_dims[] = {64, 80, 96, 40, 128, 32};
  const auto count = static_cast<std::uint32_t>(formats().size());
  std::uint32_t round = 0;
  for (std::uint32_t from = 0; from < count; ++from) {
    const std::uint32_t steps[] = {1, 4, 7};
    for (std::uint32_t s = 0; s < 3; ++s) {
      if (!take_combination(from, s, 3)) continue;
      const std::uint32_t step = steps[s];
      const FormatInfo& source_format = formats()[from];
      const FormatInfo& destination_format = formats()[(from + step) % count];
      const std::uint32_t head_dim = head_dims[round++ % 6];
      HostRegion source = written_region(engine, source_format.id, head_dim, 16);
      HostRegion destination(destination_format.id, head_dim, 16, kHeads, kPages, std::byte{0x19});
      Bytes actual = destination.bytes;
      const std::vector<std::uint32_t> triples{8, 1, 3, 16, 0, 0, 5, 3, 2, 0, 2, 1, 13};  // the first word is another's
      for (std::size_t i = 1; i < triples.size(); i += 3) {
        for (std::uint32_t head = 0; head < kHeads; ++head) {
          for (std::uint32_t token = 0; token < triples[i + 2]; ++token) {
            std::vector<float> row(head_dim);
            decode_planar_row(source_format, source.layout, source.head(triples[i], head), token, row);
            encode_planar_row(destination_format, destination.layout, destination.head(triples[i + 1], head), token,
                              row);
          }
        }
      }
      params::ConvertParams push{};
      push.triples_offset = 1;
      push.triple_count = 4;
      push.kv_heads = kHeads;
      SpecValues spec{};
      spec[KVANT_SPEC_LOCAL_SIZE] = 32;
      spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(source_format.id);
      spec[KVANT_SPEC_FORMAT_V] = static_cast<std::uint32_t>(destination_format.id);
      spec[KVANT_SPEC_HEAD_DIM_K] = head_dim;
      spec[KVANT_SPEC_PAGE_TOKENS] = 16;
      const std::uint32_t limit = round % 4 == 0 ? 2 : 65535;
      const params::Grid grid =
          params::convert_grid(kHeads, 16, head_dim, destination_format.block, push.triple_count, 32, limit, limit);
      Bytes triple_bytes = bytes_of(triples);
      const Status status = device->run(KernelId::convert, spec, &push, sizeof(push),
                                        {&source.bytes, &actual, &triple_bytes}, grid);
      REQUIRE_MESSAGE(status.ok(), status.message());
      CAPTURE(source_format.name);
      CAPTURE(destination_format.name);
      CAPTURE(head_dim);
      const auto first = std::mismatch(actual.begin(), actual.end(), destination.bytes.begin()).first - actual.begin();
      CHECK_MESSAGE(actual == destination.bytes, "differs first at byte " << first);
    }
  }
}

TEST_SUITE_END();
