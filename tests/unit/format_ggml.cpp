// q8_0, q4_0, q4_1, q5_0, q5_1 and iq4_nl against a second derivation of ggml's reference quantizers that writes ggml's bytes
// directly: random rows over 40 decades and hard blocks.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <string_view>
#include <vector>

#include "format_samples.hpp"
#include "formats.hpp"

using namespace kvant;

namespace {

using Bytes = std::vector<std::uint8_t>;

void push16(Bytes& bytes, float value) {
  std::uint16_t h = f32_to_f16(value);
  if ((h & 0x7FFFu) == 0x7C00u) h = static_cast<std::uint16_t>(h - 1u);  // kvant: scales saturate
  bytes.push_back(static_cast<std::uint8_t>(h & 0xFFu));
  bytes.push_back(static_cast<std::uint8_t>(h >> 8));
}

void push_codes(Bytes& bytes, const int (&q)[32], bool five) {
  if (five) {
    std::uint32_t word = 0;
    for (int j = 0; j < 16; ++j) {
      word |= static_cast<std::uint32_t>((q[j] & 0x10) >> 4) << j;
      word |= static_cast<std::uint32_t>((q[j + 16] & 0x10) >> 4) << (j + 16);
    }
    for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<std::uint8_t>(word >> (8 * i)));
  }
  for (int j = 0; j < 16; ++j) bytes.push_back(static_cast<std::uint8_t>((q[j] & 0x0F) | ((q[j + 16] & 0x0F) << 4)));
}

Bytes reference_symmetric(const float* x, int half, bool five) {
  float amax = 0.0f;
  float max = 0.0f;
  for (int j = 0; j < 32; ++j) {
    if (amax < std::fabs(x[j])) {
      amax = std::fabs(x[j]);
      max = x[j];
    }
  }
  const float d = max / static_cast<float>(-half);
  const float id = d != 0.0f ? 1.0f / d : 0.0f;
  int q[32];
  for (int j = 0; j < 32; ++j) {
    const volatile float product = x[j] * id;  // volatile: no contraction with the addition
    q[j] = std::min(2 * half - 1, static_cast<int>(product + (static_cast<float>(half) + 0.5f)));
  }
  Bytes bytes;
  push16(bytes, d);
  push_codes(bytes, q, five);
  return bytes;
}

Bytes reference_affine(const float* x, int top, bool five) {
  float min = std::numeric_limits<float>::max();
  float max = -std::numeric_limits<float>::max();
  for (int j = 0; j < 32; ++j) {
    if (x[j] < min) min = x[j];
    if (x[j] > max) max = x[j];
  }
  const float d = (max - min) / static_cast<float>(top);
  const float id = d != 0.0f ? 1.0f / d : 0.0f;
  int q[32];
  for (int j = 0; j < 32; ++j) {
    const volatile float product = (x[j] - min) * id;
    q[j] = std::min(top, static_cast<int>(product + 0.5f));
  }
  Bytes bytes;
  push16(bytes, d);
  push16(bytes, min);
  push_codes(bytes, q, five);
  return bytes;
}

Bytes reference_q8_0(const float* x) {
  float amax = 0.0f;
  for (int j = 0; j < 32; ++j) amax = std::max(amax, std::fabs(x[j]));
  const float d = amax / 127.0f;
  const float id = d != 0.0f ? 1.0f / d : 0.0f;
  Bytes bytes;
  push16(bytes, d);
  for (int j = 0; j < 32; ++j) bytes.push_back(static_cast<std::uint8_t>(static_cast<int>(std::roundf(x[j] * id))));
  return bytes;
}

// As in ggml, but for a power of two that brings the block to a magnitude of about 1: ggml's cubes of x overflow from 2^38 on and
// lose bits below 2^-30.
Bytes reference_iq4_nl(const float* row) {
  constexpr int kValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
  float amax = 0.0f, max = 0.0f;
  for (int j = 0; j < 32; ++j) {
    if (amax < std::fabs(row[j])) {
      amax = std::fabs(row[j]);
      max = row[j];
    }
  }
  const int exponent = amax > 0.0f && !(amax < 1e4f && amax > 1e-4f) ? std::ilogb(amax) : 0;
  int q[32];
  std::fill_n(q, 32, 8);
  float d = 0.0f;
  if (amax > 0.0f) {
    d = std::ldexp(max, -exponent) / static_cast<float>(kValues[0]);
    const float id = 1.0f / d;
    float sumqx = 0.0f, sumq2 = 0.0f;
    for (int j = 0; j < 32; ++j) {
      const float x = std::ldexp(row[j], -exponent);
      const float al = id * x;
      int low = 0, high = 15;
      while (high - low > 1) {
        const int middle = (low + high) / 2;
        (al < static_cast<float>(kValues[middle]) ? high : low) = middle;
      }
      const bool lower = al - static_cast<float>(kValues[low]) < static_cast<float>(kValues[high]) - al;
      q[j] = al <= static_cast<float>(kValues[0]) ? 0 : al >= static_cast<float>(kValues[15]) ? 15 : lower ? low : high;
      const auto value = static_cast<float>(kValues[q[j]]);
      const volatile float wqx = x * x * value * x, wqq = x * x * value * value;
      sumqx += wqx;
      sumq2 += wqq;
    }
    d = std::ldexp(sumqx / sumq2, exponent);
  }
  Bytes bytes;
  push16(bytes, d);
  push_codes(bytes, q, false);
  return bytes;
}

Bytes reference(std::string_view name, const float* x) {
  if (name == "iq4_nl") return reference_iq4_nl(x);
  if (name == "q8_0") return reference_q8_0(x);
  if (name == "q4_0") return reference_symmetric(x, 8, false);
  if (name == "q5_0") return reference_symmetric(x, 16, true);
  return name == "q4_1" ? reference_affine(x, 15, false) : reference_affine(x, 31, true);
}

bool encodes_as_reference(const FormatInfo& format, const float* x) {
  std::vector<std::byte> bytes(format.canonical_bytes);
  encode_canonical_row(format, {x, 32}, bytes);
  const Bytes expected = reference(format.name, x);
  return expected.size() == bytes.size() && std::memcmp(expected.data(), bytes.data(), bytes.size()) == 0;
}

constexpr std::string_view kGgmlFormats[] = {"q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl"};

}  // namespace

TEST_CASE("ggml formats: random rows give the reference quantizers' bytes") {
  for (const std::string_view name : kGgmlFormats) {
    CAPTURE(name);
    const FormatInfo& format = format_info(*format_by_name(name));
    std::mt19937 engine(7);
    int wrong = 0;
    for (int exponent = -60; exponent <= 60; ++exponent) {
      for (int repeat = 0; repeat < 40; ++repeat) {
        std::vector<float> row = test::random_row(engine, 32, std::ldexp(1.0f, exponent));
        if (repeat % 4 == 1) row[static_cast<std::size_t>(repeat) % 32] *= 50.0f;
        if (repeat % 4 == 2) {
          for (float& value : row) value = std::round(value * 4.0f);  // many ties
        }
        wrong += encodes_as_reference(format, row.data()) ? 0 : 1;
      }
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("ggml formats: hard blocks give the reference quantizers' bytes") {
  for (const std::string_view name : kGgmlFormats) {
    CAPTURE(name);
    const FormatInfo& format = format_info(*format_by_name(name));
    std::uint32_t compared = 0;
    for (const std::vector<float>& row : test::adversarial_rows(true)) {
      for (int half = 0; half < 2; ++half) {
        const float* x = row.data() + 32 * half;
        float amax = 0.0f, least = 1.0f, low = x[0], high = x[0];
        for (int j = 0; j < 32; ++j) {
          amax = std::max(amax, std::fabs(x[j]));
          if (x[j] != 0.0f) least = std::min(least, std::fabs(x[j]));
          low = std::min(low, x[j]);
          high = std::max(high, x[j]);
        }
        // kvant's documented floor: a block, or a range, below 2^-100 is zero, and f32 denormals count as zeros.
        const float floor = std::ldexp(1.0f, -100);
        if ((amax != 0.0f && amax < floor) || (high - low != 0.0f && high - low < floor)) continue;
        if (least < std::numeric_limits<float>::min()) continue;
        ++compared;
        CHECK_MESSAGE(encodes_as_reference(format, x), "row starting with " << x[0] << ", " << x[1]);
      }
    }
    CHECK(compared > 80);
  }
}

TEST_CASE("ggml formats: a zero block has the reference's scale") {
  const float zeros[32] = {};
  for (const std::string_view name : kGgmlFormats) {
    CAPTURE(name);
    const FormatInfo& format = format_info(*format_by_name(name));
    CHECK(encodes_as_reference(format, zeros));
    std::vector<std::byte> bytes(format.canonical_bytes);
    encode_canonical_row(format, zeros, bytes);
    const bool negative_zero = name == "q4_0" || name == "q5_0";
    CHECK(std::to_integer<int>(bytes[1]) == (negative_zero ? 0x80 : 0));
  }
}
