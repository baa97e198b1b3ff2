// Statistics with a different number everywhere, so that a text that mixes two up is seen.
#pragma once

#include <cmath>

#include "stats.hpp"

namespace kvant::test {

inline CacheStats sample_stats() {
  CacheStats stats;
  stats.policy = "lru";
  stats.capacity_tokens = 8192;
  stats.page_tokens = 16;
  stats.ttl_ms = 5000;
  stats.limit_bytes = 1 << 30;
  stats.pool = {18446744073709551615u, 13835058055282163712u, 512, 384, 37, 41, 77};
  for (std::uint32_t i = 0; i < 3; ++i) {
    LayerStats layer;
    layer.layer = i;
    layer.format_k = i == 0 ? "f16" : "q8_0";
    layer.format_v = "q4_0";
    layer.used_bytes = 1000 + i;
    layer.allocated_bytes = 2000 + i;
    layer.appended_tokens = 3000 + i;
    layer.lookups = {500 + i, 400 + i, 50 + i, 40 + i};
    stats.layers.push_back(layer);
    for (const ErrorSide side : {ErrorSide::k, ErrorSide::v})
      stats.quantization.push_back({i, side, 0.001 * (i + 1), side == ErrorSide::k ? 4.0 : 8.0, 64 + i});
  }
  stats.quantization.push_back({3, ErrorSide::k, 0, 0, 0});
  stats.sequences = {{7, 100, 7, 3, 4096, 48}, {9007199254740993u, 33, 3, 1, 1024, 16}};
  stats.lookups = {10007, 7201, 105, 83};
  stats.evictions.pages = {1930, 21, 22, 23};
  TierStats host{200, 150, 80, 3, 1, 2, 17, 60, 65536, 1 << 20, 123456, 234567, 0.125, 0.25};
  TierStats remote{50, 10, 40, 0, 0, 5, 0, 0, 0, 0, 4567, 5678, 1.5, 2.5};
  stats.tiers = {{"host", host}, {"remote", remote}};
  for (std::size_t i = 0; i < kOperations; ++i)
    for (std::size_t k = 0; k < 20 + i; ++k)
      stats.latency[i].add(1e-5 * std::pow(1.5, static_cast<double>(k)) * static_cast<double>(i + 1));
  return stats;
}

}  // namespace kvant::test
