// Codecs q5_k, q3_k and q2_k: ggml's blocks of 256 elements. docs/formats/k_quants.md
#pragma once

#include <cstddef>

namespace kvant::codec {

void encode_q5_k(const float* x, std::byte* out);
void decode_q5_k(const std::byte* in, float* x);
void encode_q3_k(const float* x, std::byte* out);
void decode_q3_k(const std::byte* in, float* x);
void encode_q2_k(const float* x, std::byte* out);
void decode_q2_k(const std::byte* in, float* x);

}  // namespace kvant::codec
