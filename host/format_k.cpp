// The bytes of q5_k, q3_k and q2_k, and their decoding in the order of operations of ggml's dequantizers: the product of d and the
// part's scale is rounded, then that with the code, then the difference. Source of the byte formats: ggml, ggml-quants.c.
#include "format_k.hpp"

#include "format_codec.hpp"
#include "format_k_search.hpp"

namespace kvant::codec {
namespace {

constexpr AffineShape kQ5{.part = 32, .top = 31, .most = 63, .tries = 4, .narrowest = 0.92f, .wider_by = 0.04f};
constexpr AffineShape kQ2{.part = 16, .top = 3, .most = 15, .tries = 6, .narrowest = 0.5f, .wider_by = 0.1f};

std::uint32_t at(const std::byte* in, std::uint32_t i) { return std::to_integer<std::uint32_t>(in[i]); }

void put(std::byte* out, std::uint32_t i, std::uint32_t bits) { out[i] |= static_cast<std::byte>(bits); }

void decode(const AffineShape& shape, const AffineBlock& block, float* x) {
  const float d = f16_scale(block.d_bits), low = f16_scale(block.low_bits);
  for (std::uint32_t i = 0; i < kSuperBlock; ++i) {
    const float step = d * static_cast<float>(block.scales[i / shape.part]);
    const float offset = low * static_cast<float>(block.mins[i / shape.part]);
    x[i] = step * static_cast<float>(block.codes[i]) - offset;
  }
}

// Where the two low bits of element i lie in q3_k and q2_k: each 32 bytes hold 128 elements, four rows of 32 one above the other.
struct PairPlace {
  std::uint32_t byte, shift;
};
PairPlace pair_place(std::uint32_t i) { return {i / 128 * 32 + i % 32, i / 32 % 4 * 2}; }

// The 12 bytes of q5_k's scales and mins. The first four of each lie in the low six bits of bytes 0 .. 7; of the last four the low
// nibbles lie in bytes 8 .. 11 and the upper two bits above the first ones.
void put_six_bits(const AffineBlock& block, std::byte* out) {
  for (std::uint32_t j = 0; j < 4; ++j) {
    const std::uint32_t scale = block.scales[j + 4], min = block.mins[j + 4];
    put(out, j, block.scales[j] | scale >> 4 << 6);
    put(out, j + 4, block.mins[j] | min >> 4 << 6);
    put(out, j + 8, (scale & 15u) | (min & 15u) << 4);
  }
}

void get_six_bits(const std::byte* in, AffineBlock& block) {
  for (std::uint32_t j = 0; j < 4; ++j) {
    block.scales[j] = at(in, j) & 63u;
    block.mins[j] = at(in, j + 4) & 63u;
    block.scales[j + 4] = (at(in, j + 8) & 15u) | at(in, j) >> 6 << 4;
    block.mins[j + 4] = at(in, j + 8) >> 4 | at(in, j + 4) >> 6 << 4;
  }
}

}  // namespace

// d, dmin, 12 bytes of scales, 32 of fifth bits, 128 of nibbles: each 32 bytes of nibbles hold 64 elements.
void encode_q5_k(const float* x, std::byte* out) {
  const AffineBlock block = search_affine(kQ5, x);
  std::fill_n(out, 176, std::byte{});
  store_le(out, block.d_bits, 2);
  store_le(out + 2, block.low_bits, 2);
  put_six_bits(block, out + 4);
  for (std::uint32_t i = 0; i < kSuperBlock; ++i) {
    put(out + 16, i % 32, block.codes[i] >> 4 << i / 32);
    put(out + 48, i / 64 * 32 + i % 32, (block.codes[i] & 15u) << i / 32 % 2 * 4);
  }
}

void decode_q5_k(const std::byte* in, float* x) {
  AffineBlock block{.d_bits = load_le(in, 2), .low_bits = load_le(in + 2, 2)};
  get_six_bits(in + 4, block);
  for (std::uint32_t i = 0; i < kSuperBlock; ++i) {
    const std::uint32_t high = at(in + 16, i % 32) >> i / 32 & 1u;
    block.codes[i] = (at(in + 48, i / 64 * 32 + i % 32) >> i / 32 % 2 * 4 & 15u) | high << 4;
  }
  decode(kQ5, block, x);
}

// 32 bytes of third bits, 64 of pairs, 12 of scales (plus 32: nibbles in bytes 0 .. 7, the upper two bits in 8 .. 11), d.
void encode_q3_k(const float* x, std::byte* out) {
  const SymmetricBlock block = search_symmetric(x);
  std::fill_n(out, 110, std::byte{});
  for (std::uint32_t i = 0; i < kSuperBlock; ++i) {
    const PairPlace place = pair_place(i);
    put(out, i % 32, block.codes[i] >> 2 << i / 32);
    put(out + 32, place.byte, (block.codes[i] & 3u) << place.shift);
  }
  for (std::uint32_t part = 0; part < 16; ++part) {
    const auto scale = static_cast<std::uint32_t>(block.scales[part] + 32);
    put(out + 96, part % 8, (scale & 15u) << part / 8 * 4);
    put(out + 104, part % 4, scale >> 4 << part / 4 * 2);
  }
  store_le(out + 108, block.d_bits, 2);
}

void decode_q3_k(const std::byte* in, float* x) {
  const float d = f16_scale(load_le(in + 108, 2));
  for (std::uint32_t i = 0; i < kSuperBlock; ++i) {
    const std::uint32_t part = i / 16;
    const std::uint32_t scale = (at(in + 96, part % 8) >> part / 8 * 4 & 15u) | (at(in + 104, part % 4) >> part / 4 * 2 & 3u) << 4;
    const PairPlace place = pair_place(i);
    const std::uint32_t code = (at(in + 32, place.byte) >> place.shift & 3u) | (at(in, i % 32) >> i / 32 & 1u) << 2;
    const float step = d * (static_cast<float>(scale) - 32.0f);
    x[i] = step * (static_cast<float>(code) - 4.0f);
  }
}

// 16 bytes with a scale in the low and a min in the high half, 64 of pairs, d, dmin.
void encode_q2_k(const float* x, std::byte* out) {
  const AffineBlock block = search_affine(kQ2, x);
  std::fill_n(out, 84, std::byte{});
  for (std::uint32_t part = 0; part < 16; ++part) put(out, part, block.scales[part] | block.mins[part] << 4);
  for (std::uint32_t i = 0; i < kSuperBlock; ++i) put(out + 16, pair_place(i).byte, block.codes[i] << pair_place(i).shift);
  store_le(out + 80, block.d_bits, 2);
  store_le(out + 82, block.low_bits, 2);
}

void decode_q2_k(const std::byte* in, float* x) {
  AffineBlock block{.d_bits = load_le(in + 80, 2), .low_bits = load_le(in + 82, 2)};
  for (std::uint32_t part = 0; part < 16; ++part) {
    block.scales[part] = at(in, part) & 15u;
    block.mins[part] = at(in, part) >> 4;
  }
  for (std::uint32_t i = 0; i < kSuperBlock; ++i) block.codes[i] = at(in + 16, pair_place(i).byte) >> pair_place(i).shift & 3u;
  decode(kQ2, block, x);
}

}  // namespace kvant::codec
