// What a case does to rows before they are stored: rotation and centring.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cases.hpp"

namespace kvant::conformance {

// ".rotK", ".rotV", ".rotKV", ".cenK" and so on, or nothing.
std::string transform_name(const Case& c);
std::uint32_t transform_flags(const Case& c);  // KVANT_ROTATE_*, KVANT_CENTRE_*

// The means that a centred side is given, [kv_head][dim], and as they are stored, rotated where rows are; empty for a side that is not centred.
std::vector<float> given_means(std::uint64_t seed, const Case& c, Side side, std::uint32_t kv_heads);
std::vector<float> stored_means(std::uint64_t seed, const Case& c, Side side, std::uint32_t kv_heads);

// Rows [token][kv_head][dim] as they lie in pages before they are quantized, and as they are given back; in the order of f32 operations of the kernels.
void store_rows(std::span<float> rows, const Case& c, Side side, std::span<const float> means);
void give_back_rows(std::span<float> rows, const Case& c, Side side, std::span<const float> means);

}  // namespace kvant::conformance
