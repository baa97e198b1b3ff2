// q5_k, q3_k and q2_k: decoding against golden bytes, errors on normal data, and what the encoders must keep to.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "format_samples.hpp"
#include "formats.hpp"
#include "interchange.hpp"

using namespace kvant;

namespace {

using Bytes = std::vector<std::byte>;
constexpr std::uint32_t kBlock = kInterchangeBlock;

Bytes encoded(const InterchangeFormat& format, const std::vector<float>& x) {
  Bytes bytes(interchange_bytes(format, x.size()), std::byte{0xEE});
  encode_interchange(format, x, bytes);
  return bytes;
}

std::vector<float> decoded(const InterchangeFormat& format, std::span<const std::byte> bytes) {
  std::vector<float> x(bytes.size() / format.block_bytes * kBlock);
  decode_interchange(format, bytes, x);
  return x;
}

std::vector<float> there_and_back(const InterchangeFormat& format, const std::vector<float>& x) { return decoded(format, encoded(format, x)); }

double relative_mse(const std::vector<float>& x, const std::vector<float>& y) {
  double squared_error = 0, squared = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    squared_error += std::pow(double{x[i]} - double{y[i]}, 2.0);
    squared += std::pow(double{x[i]}, 2.0);
  }
  return squared_error / squared;
}

std::vector<float> normal(std::size_t size, std::uint32_t seed) {
  std::mt19937 engine(seed);
  std::vector<float> x(size);
  for (float& value : x) {
    const double u = (static_cast<double>(engine()) + 1.0) / 4294967297.0, v = static_cast<double>(engine()) / 4294967296.0;
    value = static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v));
  }
  return x;
}

std::vector<float> times(std::vector<float> x, float factor) {
  for (float& value : x) value *= factor;
  return x;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Bytes of tests/golden/<name>.hex.
Bytes golden(std::string_view name) {
  std::ifstream file(std::string(KVANT_SOURCE_DIR) + "/tests/golden/" + std::string(name) + ".hex");
  std::string text, line;
  while (std::getline(file, line)) text += line;
  Bytes bytes;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) bytes.push_back(static_cast<std::byte>(std::stoi(text.substr(i, 2), nullptr, 16)));
  return bytes;
}

// Most relative MSE on N(0,1): a little above what is measured.
double gate(std::string_view name) { return name == "q5_k" ? 1.25e-3 : name == "q3_k" ? 2.12e-2 : 7.0e-2; }

}  // namespace

TEST_CASE("k-quants: the table") {
  const auto all = interchange_formats();
  REQUIRE(all.size() == 3);
  CHECK(interchange_names() == "q5_k, q3_k, q2_k");
  CHECK(all[0].block_bytes == 176);
  CHECK(all[1].block_bytes == 110);
  CHECK(all[2].block_bytes == 84);
  for (const InterchangeFormat& format : all) {
    CAPTURE(format.name);
    CHECK(interchange_by_name(format.name) == &format);
    CHECK(interchange_by_id(format.id) == &format);
    CHECK(interchange_bytes(format, 1024) == 4 * format.block_bytes);
    // No cache holds it.
    CHECK(!format_by_name(format.name).has_value());
    CHECK(!format_from_id(format.id).has_value());
  }
  CHECK(interchange_by_name("q4_0") == nullptr);
  CHECK(interchange_by_name("q5_K") == nullptr);
  CHECK(interchange_by_id(0) == nullptr);
  CHECK(interchange_by_id(all[2].id + 1) == nullptr);
}

TEST_CASE("k-quants: golden bytes decode to the golden floats") {
  for (const InterchangeFormat& format : interchange_formats()) {
    CAPTURE(format.name);
    const Bytes file = golden(format.name);
    const std::size_t size = 2 * std::size_t{format.block_bytes};
    REQUIRE(file.size() == size + 2 * kBlock * sizeof(float));
    Bytes bytes(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(size));
    std::vector<float> expected(2 * std::size_t{kBlock});
    for (std::size_t i = 0; i < expected.size(); ++i) {
      std::uint32_t bits = 0;
      for (std::size_t j = 0; j < 4; ++j) bits |= std::to_integer<std::uint32_t>(file[size + 4 * i + j]) << (8 * j);
      expected[i] = std::bit_cast<float>(bits);
    }
    CHECK(same_bits(decoded(format, bytes), expected));
    // Every byte matters.
    for (std::byte& byte : bytes) {
      byte ^= std::byte{0xFF};  // all bits: some parts have the scale zero
      CHECK(!same_bits(decoded(format, bytes), expected));
      byte ^= std::byte{0xFF};
    }
  }
}

TEST_CASE("k-quants: errors on normal data, at any scale") {
  const std::vector<float> x = normal(std::size_t{kBlock} * 2000, 20);
  for (const InterchangeFormat& format : interchange_formats()) {
    CAPTURE(format.name);
    const double unit = relative_mse(x, there_and_back(format, x));
    INFO("relMSE " << unit);
    CHECK(unit <= gate(format.name));
    for (const float factor : {1e-3f, 7e-2f, 13.0f, 1e3f}) {
      CAPTURE(factor);
      const std::vector<float> scaled = times(x, factor);
      CHECK(std::fabs(relative_mse(scaled, there_and_back(format, scaled)) / unit - 1.0) <= 0.01);
    }
  }
}

TEST_CASE("k-quants: a power of two changes nothing but the scales") {
  const std::vector<float> x = normal(std::size_t{kBlock} * 40, 3);
  for (const InterchangeFormat& format : interchange_formats()) {
    CAPTURE(format.name);
    const std::vector<float> y = there_and_back(format, x);
    for (const float factor : {0.125f, 2.0f, 256.0f}) CHECK(same_bits(there_and_back(format, times(x, factor)), times(y, factor)));
  }
}

TEST_CASE("k-quants: data that the format can hold stays exact") {
  std::mt19937 engine(9);
  const auto below = [&](std::uint32_t end) { return static_cast<std::uint32_t>(engine()) % end; };
  // d = 1, or 2 and dmin = 3: each part has its own scale and min, the first the largest; its codes reach both ends.
  const auto affine = [&](std::uint32_t part, std::uint32_t top, std::uint32_t most) {
    std::vector<float> x(kBlock);
    std::uint32_t scale = most, min = most;
    for (std::uint32_t i = 0; i < kBlock; ++i) {
      const std::uint32_t place = i % part;
      if (place == 0 && i != 0) {
        scale = most / 2 + below(most / 2);
        min = below(most);
      }
      const std::uint32_t code = place < 2 ? place * top : top == 3 ? place % 4 : below(top + 1);
      x[i] = 2.0f * static_cast<float>(scale * code) - 3.0f * static_cast<float>(min);
    }
    return x;
  };
  const auto symmetric = [&] {
    std::vector<float> x(kBlock);
    std::int32_t scale = -32;
    for (std::uint32_t i = 0; i < kBlock; ++i) {
      if (i % 16 == 0 && i != 0) scale = static_cast<std::int32_t>(below(63)) - 31;
      x[i] = static_cast<float>(scale * (static_cast<std::int32_t>(i * 5 % 8) - 4));
    }
    return x;
  };
  int exact[3] = {};
  for (int repeat = 0; repeat < 50; ++repeat) {
    const std::vector<float> inputs[3] = {affine(32, 31, 63), symmetric(), affine(16, 3, 15)};
    for (std::size_t i = 0; i < 3; ++i) exact[i] += there_and_back(interchange_formats()[i], inputs[i]) == inputs[i] ? 1 : 0;
  }
  CHECK(exact[0] == 50);
  CHECK(exact[1] == 50);
  CHECK(exact[2] == 50);
}

TEST_CASE("k-quants: a second trip costs a fifth of the first at most") {
  const std::vector<float> x = normal(std::size_t{kBlock} * 200, 5);
  for (const InterchangeFormat& format : interchange_formats()) {
    CAPTURE(format.name);
    const std::vector<float> once = there_and_back(format, x), twice = there_and_back(format, once);
    INFO("second trip " << relative_mse(once, twice));
    CHECK(relative_mse(once, twice) <= 0.2 * gate(format.name));
  }
}

TEST_CASE("k-quants: zeros, and blocks too small to hold") {
  for (const InterchangeFormat& format : interchange_formats()) {
    CAPTURE(format.name);
    for (const float value : {0.0f, -0.0f, 1e-38f, -std::ldexp(1.0f, -101), 1e-20f, std::numeric_limits<float>::denorm_min()}) {
      CAPTURE(value);
      std::vector<float> x(kBlock, value);
      x[17] = -value;
      CHECK(encoded(format, x) == Bytes(format.block_bytes));
    }
    CHECK(same_bits(decoded(format, Bytes(format.block_bytes)), std::vector<float>(kBlock, 0.0f)));
  }
}

TEST_CASE("k-quants: hard blocks stay finite and err less than zeros would") {
  for (const InterchangeFormat& format : interchange_formats()) {
    CAPTURE(format.name);
    for (const std::vector<float>& row : test::adversarial_rows(true)) {
      for (const bool alone : {false, true}) {  // the row four times, or among zeros
        std::vector<float> x(kBlock, 0.0f);
        for (std::size_t i = 0; i < (alone ? 64 : kBlock); ++i) x[i] = row[i % 64];
        const std::vector<float> y = there_and_back(format, x);
        double error = 0, squares = 0;
        for (std::size_t i = 0; i < kBlock; ++i) {
          REQUIRE(std::isfinite(y[i]));
          error += std::pow(double{x[i]} - double{y[i]}, 2.0);
          squares += std::pow(double{x[i]}, 2.0);
        }
        CAPTURE(row[0]);
        CAPTURE(row[1]);
        CHECK(error <= squares);
      }
    }
  }
}

TEST_CASE("k-quants: a block that is not finite decodes to NaN, its neighbours do not") {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const InterchangeFormat& format : interchange_formats()) {
    CAPTURE(format.name);
    for (const float value : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::max(), -std::ldexp(1.0f, 126)}) {
      std::vector<float> x = normal(std::size_t{kBlock} * 3, 4);
      const std::vector<float> whole = there_and_back(format, x);
      x[kBlock + 77] = value;
      const std::vector<float> y = there_and_back(format, x);
      for (std::size_t i = 0; i < x.size(); ++i) CHECK((i / kBlock == 1 ? std::isnan(y[i]) : y[i] == whole[i]));
    }
  }
}
