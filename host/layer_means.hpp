// LayerMeans: the means of a cache's centred layers (docs/centring.md): where they lie on the device, and whether they are settled. One per layer,
// side and KV head, for the life of the cache: all that lies in pages was stored under them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cache_spec.hpp"
#include "executor.hpp"
#include "geometry.hpp"

namespace kvant {

class LayerMeans {
 public:
  // Fewer rows do not tell a mean: they are stored as they are.
  static constexpr std::uint32_t kLeastTokens = 32;
  // More are not looked at.
  static constexpr std::uint32_t kMostTokens = 1024;

  LayerMeans(Executor& executor, const Geometry& geometry) : executor_(executor), geometry_(geometry) {}
  ~LayerMeans() { executor_.destroy_buffer(buffer_); }
  LayerMeans(const LayerMeans&) = delete;
  LayerMeans& operator=(const LayerMeans&) = delete;

  // Means that the spec gives, zeros for the others. Errors: of create_buffer and submit.
  Status create(const CacheSpec& spec);

  // Bytes on the device.
  std::uint64_t bytes() const { return bytes_; }
  // K's means, then V's from v_offset words on; nothing is bound for a layer without.
  BufferRange range(std::uint32_t layer) const;
  BufferRange range(std::uint32_t layer, Side side) const;
  std::uint32_t v_offset(std::uint32_t layer) const { return layers_[layer].v_offset; }

  // Sides of a layer (bit 0 K, bit 1 V) whose means its next rows decide; 0: none, or decided.
  std::uint32_t open_sides(std::uint32_t layer) const { return layers_[layer].state == State::open ? layers_[layer].measured : 0; }
  // Rows went into the layer's pages: measured, or with means of zero because they were too few.
  void settle(std::uint32_t layer, bool measured);
  // Whether a layer took too few rows to decide.
  bool waiting() const { return waiting_; }
  // No page holds rows any more: too few of them are forgotten.
  void reopen();
  // Whether any means depend on what was appended.
  bool any_measured() const;

  // The measured sides of all layers, K before V.
  Result<std::vector<float>> download() const;
  Result<std::vector<float>> download(std::uint32_t layer, Side side) const;
  std::uint64_t measured_floats() const;
  // Means that pages from elsewhere were stored under. Errors: incompatible, naming the layer that holds rows under other ones.
  Status check(std::span<const float> saved) const;
  // After check: layers without rows take them.
  Status adopt(std::span<const float> saved);

 private:
  enum class State : std::uint8_t { settled, open, passed };
  struct Layer {
    std::uint64_t offset = 0;  // bytes
    std::uint32_t v_offset = 0, measured = 0;
    State state = State::settled;
    bool centred = false;
  };
  std::uint64_t side_bytes(std::uint32_t layer, Side side) const;
  Status upload(std::uint32_t layer, Side side, std::span<const float> means);
  template <typename Visit>
  Status for_measured(Visit visit) const;

  Executor& executor_;
  const Geometry& geometry_;
  BufferId buffer_ = BufferId::none;
  std::uint64_t bytes_ = 0;
  std::vector<Layer> layers_;
  bool waiting_ = false;
};

}  // namespace kvant
