// import and extract on the device against the host's planes, bit for bit: every ggml format, head dimensions with partial blocks, several
// sequences, rows at half words.
#include <doctest/doctest.h>

#include <algorithm>

#include "format_samples.hpp"
#include "kernels.hpp"
#include "page_kernels_device.hpp"
#include "params/grids.h"
#include "params/strided.h"

using namespace kvant;
using namespace kvant::test;

namespace {

constexpr std::uint32_t kHeads = 3, kSequences = 2, kTokens = 41, kFirstPage = 1, kSequencePages = 4;

// Rows of tokens are written; gaps between sequences, the last page's other rows and guards stay.
void check_import(PageKernelDevice& device, std::mt19937& engine, const FormatInfo& format, std::uint32_t head_dim, bool values,
                  std::uint32_t max_groups) {
  const std::uint32_t page_tokens = head_dim % 16 == 0 ? 16 : 32;
  const auto row_bytes = static_cast<std::uint32_t>(canonical_row_bytes(format, head_dim));
  params::ImportParams push{};
  push.tokens = kTokens;
  push.kv_heads = kHeads;
  push.offset = values ? 4 : 6;
  push.head_stride = row_bytes + (values ? 0 : 2);
  push.token_stride = kHeads * push.head_stride + (values ? 0 : 6);
  push.seq_stride = kTokens * push.token_stride + 10;
  push.first_page = kFirstPage;
  push.seq_pages = kSequencePages;
  Bytes source((push.offset + kSequences * push.seq_stride + 3) / 4 * 4);
  for (std::byte& byte : source) byte = static_cast<std::byte>(engine() >> 13);

  HostRegion region(format.id, head_dim, page_tokens, kHeads, kFirstPage + kSequences * kSequencePages, std::byte{0xA5});
  Bytes actual = region.bytes, expected = region.bytes;
  for (std::uint32_t s = 0; s < kSequences; ++s)
    for (std::uint32_t t = 0; t < kTokens; ++t)
      for (std::uint32_t head = 0; head < kHeads; ++head) {
        std::byte* planes = region.head(kFirstPage + s * kSequencePages + t / page_tokens, head);
        const auto row = std::span(source).subspan(
            push.offset + s * push.seq_stride + t * push.token_stride + head * push.head_stride, row_bytes);
        if (values) {  // the planes that an encoder makes of the same floats
          const std::vector<float> x = random_row(engine, head_dim, std::pow(10.0f, static_cast<float>(t % 11) - 6.0f));
          encode_canonical_row(format, x, row);
          encode_planar_row(format, region.layout, planes, t % page_tokens, x);
        } else {
          canonical_to_planar_row(format, region.layout, planes, t % page_tokens, head_dim, row);
        }
      }

  SpecValues spec{};
  spec[KVANT_SPEC_LOCAL_SIZE] = 64;
  spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(format.id);
  spec[KVANT_SPEC_HEAD_DIM_K] = head_dim;
  spec[KVANT_SPEC_PAGE_TOKENS] = page_tokens;
  const params::Grid grid = params::import_grid(kTokens, kHeads, head_dim, kSequences, 64, max_groups);
  CAPTURE(format.name);
  CAPTURE(head_dim);
  CAPTURE(values);

  reference::FaultLog log;
  reference::KernelCall call;
  call.spec = spec;
  call.push = reinterpret_cast<const std::byte*>(&push);
  call.bindings[0] = reference::View(expected, "pages", log);
  call.bindings[1] = reference::View(source, "source", log);
  call.groups = grid;
  call.log = &log;
  reference::run_import(call);
  REQUIRE_MESSAGE(log.empty(), log.message());
  CHECK(expected == region.bytes);

  const Bytes source_before = source;
  const Status status = device.run(KernelId::import, spec, &push, sizeof(push), {&actual, &source}, grid);
  REQUIRE_MESSAGE(status.ok(), status.message());
  const auto first = std::mismatch(actual.begin(), actual.end(), region.bytes.begin()).first - actual.begin();
  CHECK_MESSAGE(actual == region.bytes, "differs first at byte " << first);
  CHECK(source == source_before);

  // And back: gaps keep what they had.
  Bytes rows(source.size(), std::byte{0x5A}), reference_rows = rows, expected_rows = rows;
  for (std::uint32_t s = 0; s < kSequences; ++s)
    for (std::uint32_t t = 0; t < kTokens; ++t)
      for (std::uint32_t head = 0; head < kHeads; ++head) {
        const std::size_t at = push.offset + s * push.seq_stride + t * push.token_stride + head * push.head_stride;
        std::copy_n(source.begin() + static_cast<std::ptrdiff_t>(at), row_bytes, expected_rows.begin() + static_cast<std::ptrdiff_t>(at));
      }
  call.bindings[0] = reference::View(expected, "pages", log);
  call.bindings[1] = reference::View(reference_rows, "rows", log);
  reference::run_extract(call);
  REQUIRE_MESSAGE(log.empty(), log.message());
  CHECK(reference_rows == expected_rows);
  const Status back = device.run(KernelId::extract, spec, &push, sizeof(push), {&actual, &rows}, grid);
  REQUIRE_MESSAGE(back.ok(), back.message());
  const auto wrong = std::mismatch(rows.begin(), rows.end(), expected_rows.begin()).first - rows.begin();
  CHECK_MESSAGE(rows == expected_rows, "rows differ first at byte " << wrong);
  CHECK(actual == region.bytes);
}

}  // namespace

TEST_SUITE_BEGIN("page kernels device");

TEST_CASE("page kernels: import makes the planes of canonical rows, extract these rows again") {
  KVANT_DEVICE_OR_SKIP(device);
  std::mt19937 engine(51);
  const std::uint32_t head_dims[] = {40, 64, 72, 80, 96, 128, 256, 576};
  for (const FormatId id : {FormatId::f32, FormatId::f16, FormatId::bf16, FormatId::q8_0, FormatId::q4_0, FormatId::q4_1,
                            FormatId::q5_0, FormatId::q5_1, FormatId::iq4_nl}) {
    const FormatInfo& format = format_info(id);
    for (const std::uint32_t head_dim : head_dims) {
      if (head_dim % format.canonical_block != 0) continue;
      check_import(*device, engine, format, head_dim, true, 65535);
      check_import(*device, engine, format, head_dim, false, 2);
    }
  }
}

TEST_SUITE_END();
