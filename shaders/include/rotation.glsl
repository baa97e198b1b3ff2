// The rotation of a side's rows (docs/rotation.md): random signs, then Walsh-Hadamard matrices of powers of two down the diagonal, the greatest
// first (96 = 64 + 32, 40 = 32 + 8), each over the root of its size. host/rotation.cpp does the same operations in the same order, so that
// what is appended has the same bytes.
//
// A lane makes a span of 32 elements of a row: of a block of S >= 32 elements it adds up the S / 32 spans with the signs that its row of the
// matrix of S / 32 has, then transforms the 32 sums in registers. Spans are loaded S / 32 times, and no lane waits for another.
//
// KV_ROTATED_LOAD(name, load4) defines
//   void name(uint io_type, uint head_dim, uint row, uint span, out vec4 x[8]): a span of the rotated row that begins at element `row`
#ifndef KVANT_ROTATION_GLSL
#define KVANT_ROTATION_GLSL

// The block of the diagonal that a span lies in: its first span, its spans (0: less than 32 elements), and a span's number in it.
struct RotationBlock {
  uint first;
  uint spans;
  uint own;
};

RotationBlock rotation_block(uint head_dim, uint span) {
  RotationBlock block = RotationBlock(0u, 0u, span);
  uint left = head_dim / 32u;
  for (uint i = 0u; i < 5u; ++i) {  // 576 elements are 18 spans
    uint spans = left == 0u ? 0u : 1u << findMSB(left);
    bool past = block.own >= block.spans && (i == 0u || block.spans != 0u);
    block.first += past ? block.spans : 0u;
    block.own -= past ? block.spans : 0u;
    left -= past ? spans : 0u;
    block.spans = past ? spans : block.spans;
  }
  return block;
}

// Signs of four elements from `element` on: -1 where a hash of the element's number has its top bit set.
vec4 rotation_signs(uint element, vec4 x) {
  uvec4 hash = (uvec4(element) + uvec4(1u, 2u, 3u, 4u)) * 0x9E3779B1u;
  hash = (hash ^ (hash >> 15)) * 0x85EBCA77u;
  return uintBitsToFloat(floatBitsToUint(x) ^ (hash & 0x80000000u));
}

// Whether row and column of a Walsh-Hadamard matrix meet in -1.
bool rotation_minus(uint row, uint column) { return (bitCount(row & column) & 1) != 0; }

// Sums and differences of elements that are `distance` quads apart, of `quads` quads from `first` on.
void rotation_step(inout vec4 x[8], uint first, uint quads, uint distance) {
  for (uint i = 0u; i < 8u; ++i) {
    if (i >= first && i < first + quads && ((i - first) & distance) == 0u) {
      precise vec4 sum = x[i] + x[(i + distance) & 7u];
      precise vec4 difference = x[i] - x[(i + distance) & 7u];
      x[i] = sum;
      x[(i + distance) & 7u] = difference;
    }
  }
}

void rotation_quads(inout vec4 x[8], uint first, uint quads, float scale) {
  for (uint i = 0u; i < 8u; ++i) {
    if (i >= first && i < first + quads) {
      precise vec4 pairs = vec4(x[i].xy + x[i].zw, x[i].xy - x[i].zw);
      precise vec4 all = vec4(pairs.x + pairs.y, pairs.x - pairs.y, pairs.z + pairs.w, pairs.z - pairs.w);
      precise vec4 scaled = all * scale;
      x[i] = scaled;
    }
  }
}

// 1 / sqrt(2^log2), rounded once.
float rotation_scale(uint log2) {
  return uintBitsToFloat((127u - log2 / 2u) << 23) * ((log2 & 1u) != 0u ? 0.70710678118654752 : 1.0);
}

// The part of the transform within a span.
void rotation_within(uint head_dim, RotationBlock block, inout vec4 x[8]) {
  if (block.spans != 0u) {
    rotation_step(x, 0u, 8u, 4u);
    rotation_step(x, 0u, 8u, 2u);
    rotation_step(x, 0u, 8u, 1u);
    rotation_quads(x, 0u, 8u, rotation_scale(5u + uint(findMSB(block.spans))));
  } else {
    uint tail = head_dim % 32u;  // 8, 16 or 16 + 8
    uint first = 0u;
    if (tail >= 16u) {
      rotation_step(x, 0u, 4u, 2u);
      rotation_step(x, 0u, 4u, 1u);
      rotation_quads(x, 0u, 4u, rotation_scale(4u));
      first = 4u;
    }
    if ((tail & 8u) != 0u) {
      rotation_step(x, first, 2u, 1u);
      rotation_quads(x, first, 2u, rotation_scale(3u));
    }
  }
}

// Adds a span of the block, the `other`-th, to the sums of the block's own one.
void rotation_add(RotationBlock block, uint other, vec4 y[8], inout vec4 x[8]) {
  bool minus = rotation_minus(block.own, other);
  for (uint i = 0u; i < 8u; ++i) {
    precise vec4 sum = x[i] + (minus ? -y[i] : y[i]);
    x[i] = sum;
  }
}

#define KV_ROTATED_LOAD(name, load4)                                                              \
  void name(uint io_type, uint head_dim, uint row, uint span, out vec4 x[8]) {                    \
    RotationBlock block = rotation_block(head_dim, span);                                         \
    for (uint i = 0u; i < 8u; ++i) x[i] = vec4(0.0);                                              \
    for (uint other = 0u; other < max(block.spans, 1u); ++other) {                                \
      vec4 y[8];                                                                                  \
      for (uint i = 0u; i < 8u; ++i) {                                                            \
        uint element = 32u * (block.first + other) + 4u * i;                                      \
        y[i] = vec4(0.0);                                                                         \
        if (element < head_dim) y[i] = rotation_signs(element, load4(io_type, row + element));    \
      }                                                                                           \
      rotation_add(block, other, y, x);                                                           \
    }                                                                                             \
    rotation_within(head_dim, block, x);                                                          \
  }

// The signs of a span of 32 elements, last step of the way back.
void rotation_sign_span(uint span, inout vec4 x[8]) {
  for (uint i = 0u; i < 8u; ++i) x[i] = rotation_signs(32u * span + 4u * i, x[i]);
}

#endif
