// What the stress test knows: K and V of a token are a function of all tokens up to it, as in a real model, so that pages that
// sequences share must hold the same; all values are exact in f32 and f16. StressSequence is a sequence in plain words.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "library.hpp"

namespace abi_test {

using Tokens = std::vector<std::int32_t>;

constexpr std::uint32_t kStressLayers = 2, kStressDim = 32, kStressPage = 16;
constexpr std::uint32_t kStressHeads[kStressLayers] = {1, 2};  // two layer groups

// Rows of tokens [begin, end) of a history.
inline std::vector<float> stress_rows(const Tokens& history, std::size_t begin, std::uint32_t layer, std::uint32_t side) {
  std::vector<float> out;
  std::uint64_t state = layer * 2 + side;
  for (std::size_t t = 0; t < history.size(); ++t) {
    state = (state ^ static_cast<std::uint32_t>(history[t])) * 0x9E3779B97F4A7C15ull;
    state ^= state >> 29;
    std::uint64_t value = state;
    for (std::uint32_t i = 0; t >= begin && i < kStressHeads[layer] * kStressDim; ++i) {
      value = value * 6364136223846793005ull + 1442695040888963407ull;
      out.push_back(static_cast<float>(static_cast<int>(value >> 56) - 128) / 16.0F);
    }
  }
  return out;
}

// One of few prompts, so that sequences meet; its end may be its own.
inline Tokens stress_prompt(std::mt19937& random) {
  const auto family = static_cast<std::int32_t>(random() % 3);
  const std::size_t length = 8 + random() % 64, own = random() % 2 == 0 ? random() % length : length;
  Tokens tokens(length);
  for (std::size_t i = 0; i < length; ++i)
    tokens[i] = i < own ? family * 1000 + static_cast<std::int32_t>(i) : static_cast<std::int32_t>(random() % 2);
  return tokens;
}

inline kvant_cache* stress_cache(const Session& session, std::uint64_t capacity_tokens) {
  std::vector<kvant_layer_args> layers(kStressLayers, make<kvant_layer_args>());
  for (std::uint32_t i = 0; i < kStressLayers; ++i) {
    layers[i].kv_heads = kStressHeads[i];
    layers[i].head_dim_k = kStressDim;
    layers[i].format_k = layers[i].format_v = session.format("f32");
  }
  auto args = make<kvant_cache_args>();
  args.layer_count = kStressLayers;
  args.layers = layers.data();
  args.capacity_tokens = capacity_tokens;
  args.flags = KVANT_CACHE_PREFIXES;
  args.model_id = "stress";
  kvant_cache* cache = nullptr;
  require_ok(api().cache_create(session.device, &args, &cache));
  return cache;
}

struct StressSequence {
  kvant_sequence id = 0;
  Tokens tokens;  // that it holds
  Tokens told;    // that the cache may know: of these, and of what may come
};

// A state in memory, given and taken in pieces; counts the page records as docs/state_files.md lays them out.
struct StateBytes {
  std::string bytes;
  std::size_t at = 0;

  kvant_state_stream stream() {
    auto made = make<kvant_state_stream>();
    made.user_data = this;
    made.write = [](void* self, const void* data, std::uint64_t size) {
      static_cast<StateBytes*>(self)->bytes.append(static_cast<const char*>(data), size);
      return std::uint32_t{1};
    };
    made.read = [](void* self, void* out, std::uint64_t size) {
      auto& state = *static_cast<StateBytes*>(self);
      const std::size_t got = std::min<std::size_t>(size, state.bytes.size() - state.at);
      std::memcpy(out, state.bytes.data() + state.at, got);
      state.at += got;
      return std::uint64_t{got};
    };
    return made;
  }
  std::uint64_t pages() const {
    std::uint64_t count = 0;
    for (std::size_t record = 16; record + 32 <= bytes.size();) {
      std::uint32_t type = 0;
      std::uint64_t size = 0;
      std::memcpy(&type, bytes.data() + record + 4, sizeof type);
      std::memcpy(&size, bytes.data() + record + 8, sizeof size);
      count += type == 2 ? 1 : 0;
      record += 32 + size;
    }
    return count;
  }
};

}  // namespace abi_test
