// What a cache holds, to see that a refused call changed nothing.
#pragma once

#include "library.hpp"

namespace abi_test {

struct CacheState {
  kvant_cache_stats stats;
  std::vector<std::uint64_t> lengths;
  std::vector<std::vector<float>> keys, values;
  bool operator==(const CacheState& other) const {
    return std::memcmp(&stats, &other.stats, sizeof stats) == 0 && lengths == other.lengths && keys == other.keys &&
           values == other.values;
  }
};

// Of layer 0 of these sequences.
inline CacheState state_of(kvant_cache* cache, const std::vector<kvant_sequence>& sequences, std::uint32_t kv_heads,
                           std::uint32_t head_dim) {
  CacheState state;
  state.stats = stats_of(cache);
  for (const kvant_sequence sequence : sequences) {
    std::uint64_t length = 0;
    require_ok(api().sequence_length(cache, sequence, &length));
    state.lengths.push_back(length);
    for (const std::uint32_t side : {KVANT_SIDE_K, KVANT_SIDE_V}) {
      std::vector<float> data(length * kv_heads * head_dim);
      kvant_tensor out = tensor_of(data);
      if (length != 0) require_ok(api().sequence_read(cache, sequence, 0, side, 0, length, &out));
      (side == KVANT_SIDE_K ? state.keys : state.values).push_back(std::move(data));
    }
  }
  return state;
}

}  // namespace abi_test
