// The table of formats, page_layout, and rows between floats, planes and canonical bytes.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <set>
#include <vector>

#include "format_samples.hpp"
#include "formats.hpp"

using namespace kvant;

namespace {

constexpr std::uint32_t kHeadDims[] = {32, 40, 64, 72, 80, 96, 112, 128, 192, 256, 320, 512, 576};

bool same_values(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

TEST_CASE("formats: looked up by id and by name, in order") {
  std::set<std::string_view> names;
  std::uint32_t last = 0;
  for (const FormatInfo& format : formats()) {
    CHECK(names.insert(format.name).second);
    const auto id = static_cast<std::uint32_t>(format.id);
    CHECK((id > last || names.size() == 1));
    last = id;
    CHECK(format_from_id(id) == format.id);
    CHECK(format_by_name(format.name) == format.id);
    CHECK(&format_info(format.id) == &format);
    CHECK(format.block % format.canonical_block == 0);
  }
  CHECK(names.size() == 19);
  CHECK(!format_from_id(last + 1).has_value());
  CHECK(!format_by_name("q4_9").has_value());
  CHECK(!format_by_name("").has_value());
}

TEST_CASE("formats: bytes of canonical blocks") {
  const auto bytes = [](std::string_view name) { return canonical_row_bytes(format_info(*format_by_name(name)), 128); };
  CHECK(bytes("f32") == 512);
  CHECK(bytes("f16") == 256);
  CHECK(bytes("bf16") == 256);
  CHECK(bytes("f8_e4m3") == 128);
  CHECK(bytes("q8_0") == 4 * 34);
  CHECK(bytes("q4_0") == 4 * 18);
  CHECK(bytes("q4_1") == 4 * 20);
  CHECK(bytes("q5_0") == 4 * 22);
  CHECK(bytes("q5_1") == 4 * 24);
  CHECK(bytes("nf4") == 2 * 34);
  CHECK(bytes("nf4_dq") == 2 * 33);
  CHECK(bytes("iq4_nl") == 4 * 18);
  CHECK(bytes("nl4") == 4 * 17);
  CHECK(bytes("t4") == 4 * 17);
  CHECK(bytes("t5") == 4 * 21);
  CHECK(bytes("t4x") == 2 * 33);
  CHECK(bytes("t3") == 4 * 13);
  CHECK(bytes("t2") == 4 * 9);
  CHECK(bytes("q8h") == 2 * 66);
  CHECK(canonical_row_bytes(format_info(FormatId::q4_0), 40) == 2 * 18);  // the last block is padded
  CHECK(canonical_row_bytes(format_info(FormatId::f16), 40) == 80);
}

TEST_CASE("page_layout: planes of known shapes") {
  PageLayout layout = page_layout(format_info(FormatId::q4_0), 128, 16);
  CHECK(layout.code_row_bytes == 64);
  CHECK(layout.scale_row_bytes == 8);
  CHECK(layout.scale_offset == 16 * 64);
  CHECK(layout.head_bytes == 16 * 72);
  layout = page_layout(format_info(FormatId::q5_1), 80, 32);
  CHECK(layout.code_row_bytes == 48);
  CHECK(layout.high_row_bytes == 12);
  CHECK(layout.scale_row_bytes == 12);
  CHECK(layout.high_offset == 32 * 48);
  CHECK(layout.scale_offset == 32 * 60);
  CHECK(layout.head_bytes == 32 * 72);
  layout = page_layout(format_info(FormatId::nf4_dq), 96, 16);
  CHECK(layout.code_row_bytes == 48);
  CHECK(layout.scale_row_bytes == 2);
  layout = page_layout(format_info(FormatId::f8_e4m3), 40, 16);
  CHECK(layout.code_row_bytes == 48);
  CHECK(layout.scale_row_bytes == 0);
  layout = page_layout(format_info(FormatId::f32), 40, 16);
  CHECK(layout.code_row_bytes == 160);
  CHECK(layout.head_bytes == 16 * 160);
}

TEST_CASE("page_layout: every plane starts on 16 bytes and nf4_dq holds at most 4.2 bits an element") {
  for (const FormatInfo& format : formats()) {
    for (std::uint32_t head_dim = 32; head_dim <= 576; head_dim += 8) {
      for (const std::uint32_t page_tokens : {16u, 32u}) {
        const PageLayout layout = page_layout(format, head_dim, page_tokens);
        REQUIRE(layout.code_row_bytes % (format.code_bits == 2 ? 8 : 16) == 0);
        REQUIRE(layout.high_offset % 16 == 0);
        REQUIRE(layout.scale_offset % 16 == 0);
        REQUIRE(layout.head_bytes % 16 == 0);
      }
    }
  }
  const PageLayout layout = page_layout(format_info(FormatId::nf4_dq), 128, 16);
  CHECK(layout.head_bytes * 8.0 / (16 * 128) == doctest::Approx(4.125));
}

TEST_CASE("planar rows: hold what canonical rows hold, and convert without decoding") {
  std::mt19937 engine(3);
  for (const FormatInfo& format : formats()) {
    for (const std::uint32_t head_dim : kHeadDims) {
      CAPTURE(format.name);
      CAPTURE(head_dim);
      const PageLayout layout = page_layout(format, head_dim, 16);
      // Every byte of the page is written by its 16 rows, in any order; neighbours stay as they are.
      std::vector<std::byte> page(layout.head_bytes, std::byte{0xA5}), imported(layout.head_bytes, std::byte{0x5A});
      std::vector<std::vector<float>> rows;
      for (std::uint32_t token = 0; token < 16; ++token) rows.push_back(test::random_row(engine, head_dim, 1.0f));
      for (const std::uint32_t token : {3u, 0u, 1u, 15u, 2u, 14u, 13u, 12u, 4u, 5u, 6u, 7u, 11u, 10u, 9u, 8u}) {
        encode_planar_row(format, layout, page.data(), token, rows[token]);
      }
      for (std::uint32_t token = 0; token < 16; ++token) {
        std::vector<std::byte> canonical(canonical_row_bytes(format, head_dim)), exported(canonical.size());
        encode_canonical_row(format, rows[token], canonical);
        planar_to_canonical_row(format, layout, page.data(), token, head_dim, exported);
        REQUIRE(canonical == exported);
        canonical_to_planar_row(format, layout, imported.data(), token, head_dim, canonical);
        std::vector<float> from_planes(head_dim), from_canonical(head_dim);
        decode_planar_row(format, layout, page.data(), token, from_planes);
        decode_canonical_row(format, canonical, from_canonical);
        REQUIRE(same_values(from_planes, from_canonical));
      }
      REQUIRE(page == imported);
    }
  }
}

TEST_CASE("encoding decoded values again is stable where the format is a grid of floats") {
  std::mt19937 engine(5);
  for (const FormatId id : {FormatId::f32, FormatId::f16, FormatId::bf16, FormatId::f8_e4m3}) {
    const FormatInfo& format = format_info(id);
    const std::vector<float> row = test::random_row(engine, 96, 3.0f);
    std::vector<std::byte> first(canonical_row_bytes(format, 96)), second(first.size());
    encode_canonical_row(format, row, first);
    std::vector<float> decoded(96);
    decode_canonical_row(format, first, decoded);
    encode_canonical_row(format, decoded, second);
    CHECK(first == second);
  }
}

TEST_CASE("blocks that are not finite decode to NaN, too small ones to zero, too large ones stay finite") {
  for (const FormatInfo& format : formats()) {
    if (format.scale_bytes == 0) continue;
    CAPTURE(format.name);
    std::vector<float> row(64, 1.0f), decoded(64);
    std::vector<std::byte> bytes(canonical_row_bytes(format, 64));
    for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN(),
                            -std::numeric_limits<float>::max()}) {
      row[2] = bad;
      encode_canonical_row(format, row, bytes);
      decode_canonical_row(format, bytes, decoded);
      CHECK(std::isnan(decoded[2]));
      CHECK(std::isnan(decoded[0]));
      CHECK(std::isnan(decoded[40]) == (format.block == 64));
    }
    std::fill(row.begin(), row.end(), 1e-37f);
    encode_canonical_row(format, row, bytes);
    decode_canonical_row(format, bytes, decoded);
    for (const float value : decoded) CHECK(value == 0.0f);
    for (std::size_t i = 0; i < 64; ++i) row[i] = i % 2 == 0 ? 1e30f : -1e30f;
    encode_canonical_row(format, row, bytes);
    decode_canonical_row(format, bytes, decoded);
    for (std::size_t i = 0; i < 64; ++i) {
      CHECK(std::isfinite(decoded[i]));
      if (format.name != "q4_1" && format.name != "q5_1") CHECK((decoded[i] > 0) == (row[i] > 0));
    }
  }
}
