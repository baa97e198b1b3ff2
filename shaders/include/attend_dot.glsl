// A lane's span of the query rows, in registers, and its dot products with a span of K. Three arithmetics, one
// interface: fp32;
// USE_FP16: products in fp16; USE_INT_DOT: the span of Q in 8-bit integers, products by packed integer dot.
#ifndef KVANT_ATTEND_DOT_GLSL
#define KVANT_ATTEND_DOT_GLSL

vec4 lane_query_quad(uint row, uint span, uint i) {
  // A lane without a span dots with zeros.
  const vec4 x = queries[(row * K_SPANS + min(span, K_SPANS - 1u)) * 8u + i];
  return span < K_SPANS ? x : vec4(0.0);
}

float largest_of_span(uint row, uint span) {
  vec4 most = vec4(0.0);
  [[unroll]] for (uint i = 0u; i < 8u; ++i) most = max(most, abs(lane_query_quad(row, span, i)));
  return max(max(most.x, most.y), max(most.z, most.w));
}

vec4 lane_queries[ROWS * 8u];

void load_lane_queries_f32(uint span) {
  [[unroll]] for (uint r = 0u; r < ROWS; ++r) {
    [[unroll]] for (uint i = 0u; i < 8u; ++i) lane_queries[r * 8u + i] = lane_query_quad(r, span, i);
  }
}

void dot_rows_f32(uvec4 codes[8], uint high, uint scale, out float dots[ROWS]) {
  vec4 x[8];
  kv_decode_span(FORMAT_K, codes, high, scale, x);
  [[unroll]] for (uint r = 0u; r < ROWS; ++r) {
    vec4 sum = lane_queries[r * 8u] * x[0];
    [[unroll]] for (uint i = 1u; i < 8u; ++i) sum = fma(lane_queries[r * 8u + i], x[i], sum);
    dots[r] = (sum.x + sum.y) + (sum.z + sum.w);
  }
}

#if defined(USE_FP16)
// Formats whose values can leave fp16's range stay in fp32.
#define FITS_FP16 (kv_code_bits(FORMAT_K) < 16u || FORMAT_K == FORMAT_f16)

f16vec4 lane_queries_f16[ROWS * 8u];
float lane_query_scales[ROWS];

void load_lane_queries(uint span) {
  if (!FITS_FP16) {
    load_lane_queries_f32(span);
    return;
  }
  // Q is brought to at most 1/8, so that a sum of eight products with any finite fp16 value cannot overflow.
  [[unroll]] for (uint r = 0u; r < ROWS; ++r) {
    const float most = largest_of_span(r, span) * 8.0;
    const float inverse = most == 0.0 ? 0.0 : 1.0 / most;
    lane_query_scales[r] = most;
    [[unroll]] for (uint i = 0u; i < 8u; ++i)
      lane_queries_f16[r * 8u + i] = f16vec4(lane_query_quad(r, span, i) * inverse);
  }
}

void dot_rows(uvec4 codes[8], uint high, uint scale, out float dots[ROWS]) {
  if (!FITS_FP16) {
    dot_rows_f32(codes, high, scale, dots);
    return;
  }
  vec4 x[8];
  kv_decode_span(FORMAT_K, codes, high, scale, x);
  f16vec4 h[8];
  [[unroll]] for (uint i = 0u; i < 8u; ++i) h[i] = f16vec4(x[i]);
  [[unroll]] for (uint r = 0u; r < ROWS; ++r) {
    f16vec4 sum = lane_queries_f16[r * 8u] * h[0];
    [[unroll]] for (uint i = 1u; i < 8u; ++i) sum = fma(lane_queries_f16[r * 8u + i], h[i], sum);
    const vec4 wide = vec4(sum);
    dots[r] = ((wide.x + wide.y) + (wide.z + wide.w)) * lane_query_scales[r];
  }
}

#elif defined(USE_INT_DOT)
uint lane_queries_q8[ROWS * 8u];
float lane_query_scales[ROWS];
float lane_query_sums[ROWS];  // of the quantized elements: what a format's minimum multiplies

void load_lane_queries(uint span) {
  if (kv_has_int8(FORMAT_K) == 0u) {
    load_lane_queries_f32(span);
    return;
  }
  [[unroll]] for (uint r = 0u; r < ROWS; ++r) {
    const float most = largest_of_span(r, span);
    const float inverse = most == 0.0 ? 0.0 : 127.0 / most;
    ivec4 sum = ivec4(0);
    [[unroll]] for (uint i = 0u; i < 8u; ++i) {
      const ivec4 q = ivec4(round(lane_query_quad(r, span, i) * inverse));
      const uvec4 bytes = uvec4(q) & 255u;
      lane_queries_q8[r * 8u + i] = bytes.x | bytes.y << 8 | bytes.z << 16 | bytes.w << 24;
      sum += q;
    }
    lane_query_scales[r] = most / 127.0;
    lane_query_sums[r] = float(sum.x + sum.y + sum.z + sum.w) * lane_query_scales[r];
  }
}

void dot_rows(uvec4 codes[8], uint high, uint scale, out float dots[ROWS]) {
  if (kv_has_int8(FORMAT_K) == 0u) {
    dot_rows_f32(codes, high, scale, dots);
    return;
  }
  uint k[8];
  float step, minimum;
  kv_int8_span(FORMAT_K, codes, high, scale, k, step, minimum);
  [[unroll]] for (uint r = 0u; r < ROWS; ++r) {
    int sum = 0;
    [[unroll]] for (uint i = 0u; i < 8u; ++i) sum += dotPacked4x8EXT(int(lane_queries_q8[r * 8u + i]), int(k[i]));
    dots[r] = float(sum) * (step * lane_query_scales[r]) + minimum * lane_query_sums[r];
  }
}

#else
void load_lane_queries(uint span) { load_lane_queries_f32(span); }
void dot_rows(uvec4 codes[8], uint high, uint scale, out float dots[ROWS]) { dot_rows_f32(codes, high, scale, dots); }
#endif
#endif
