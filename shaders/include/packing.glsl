// Codes between words and values: nibbles and bytes of a 32-bit word as floats and back, without a shift per element.
// A field inside the low 23 bits, or-ed into the bits of 2^23, is the float 2^23 + field; subtracting is exact.
#ifndef KVANT_PACKING_GLSL
#define KVANT_PACKING_GLSL

const uint KV_MAGIC = 0x4B000000u;  // bits of 2^23

// Nibble n of the low 16 bits comes out as 16^n * (nibble - offset); KV_NIBBLE_UNITS brings it back in the scale's
// product.
const vec4 KV_NIBBLE_UNITS = vec4(1.0, 1.0 / 16.0, 1.0 / 256.0, 1.0 / 4096.0);
const uvec4 KV_NIBBLE_MASKS = uvec4(0xFu, 0xF0u, 0xF00u, 0xF000u);

vec4 nibbles_scaled(uint word, float offset) {
  uvec4 bits = (uvec4(word) & KV_NIBBLE_MASKS) | KV_MAGIC;
  return uintBitsToFloat(bits) - (8388608.0 + offset * vec4(1.0, 16.0, 256.0, 4096.0));
}

// Four codes of a nibble and a fifth bit each, minus the offset; bits 0..3 of `high`. Masks in place, as above, would need more
// constants than older GPUs have scalar registers for, next to a span of Q.
vec4 fives(uint word, uint high, float offset) {
  uvec4 nibbles = (uvec4(word) >> uvec4(0u, 4u, 8u, 12u)) & 15u;
  uvec4 fifth = (uvec4(high) << uvec4(4u, 3u, 2u, 1u)) & 16u;
  return vec4(ivec4(nibbles | fifth)) - offset;
}

// Eight nibbles as two words of bytes, element order.
uvec2 nibbles_to_bytes(uint word) {
  uvec2 bytes = uvec2(word & 0xFFFFu, word >> 16);
  bytes = (bytes | (bytes << 8)) & 0x00FF00FFu;
  return (bytes | (bytes << 4)) & 0x0F0F0F0Fu;
}

// Bits 0..3 of `bits` as bit 4 of the four bytes of a word.
uint fifth_bits_to_bytes(uint bits) {
  return ((bits & 1u) << 4) | ((bits & 2u) << 11) | ((bits & 4u) << 18) | ((bits & 8u) << 25);
}

// Unsigned bytes 0..31 minus 8 or 16, as signed bytes: with `bias` = 0x80 - 8 or 0x80 - 16 in each byte no borrow can
// cross.
uint bytes_minus(uint bytes, uint bias) { return (bytes + bias) ^ 0x80808080u; }

// Four codes side by side at `bits` bits each.
uint pack4(uvec4 codes, uint bits) {
  return codes.x | (codes.y << bits) | (codes.z << (2u * bits)) | (codes.w << (3u * bits));
}

#endif
