// The encoders against the golden bytes of tests/golden/, which a separate Python implementation wrote.
#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include "formats.hpp"

using namespace kvant;

namespace {

// The input that tests/golden/README.md describes.
std::vector<float> golden_input() {
  std::vector<float> x(256, 0.0f);
  std::uint32_t state = 1;
  for (std::uint32_t i = 0; i < 128; ++i) {
    state = state * 1664525u + 1013904223u;
    const auto value = static_cast<float>(static_cast<std::int32_t>(state >> 8) - (1 << 23));
    x[i] = std::ldexp(value, i < 64 ? -22 : -29);
  }
  for (std::uint32_t i = 0; i < 63; ++i) x[128 + i] = (static_cast<float>(i % 17) - 8.0f) * 0.5f;
  x[191] = -0.0f;
  x[197] = -3.0f;
  x[232] = 3.0f;
  return x;
}

std::string hex(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes) {
    text += "0123456789abcdef"[std::to_integer<unsigned>(byte) >> 4];
    text += "0123456789abcdef"[std::to_integer<unsigned>(byte) & 15u];
  }
  return text;
}

std::string golden(std::string_view name) {
  std::ifstream file(std::string(KVANT_SOURCE_DIR) + "/tests/golden/" + std::string(name) + ".hex");
  std::string text, line;
  while (std::getline(file, line)) text += line;
  return text;
}

}  // namespace

TEST_CASE("golden bytes of every format") {
  const std::vector<float> x = golden_input();
  for (const FormatInfo& format : formats()) {
    CAPTURE(format.name);
    std::vector<std::byte> bytes(canonical_row_bytes(format, 256));
    encode_canonical_row(format, x, bytes);
    const std::string expected = golden(format.name);
    REQUIRE(expected.size() == 2 * bytes.size());
    CHECK(hex(bytes) == expected);

    // The golden bytes decode to what their encoding decodes to, and a changed byte is noticed.
    std::vector<float> decoded(256), again(256);
    decode_canonical_row(format, bytes, decoded);
    bytes[bytes.size() / 2] ^= std::byte{0x01};
    CHECK(hex(bytes) != expected);
    decode_canonical_row(format, bytes, again);
    CHECK(decoded != again);
  }
}
