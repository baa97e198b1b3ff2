// LayerRun: one layer's device work while it is being recorded: what is asked, the bound tensors, the tables it uses.
#pragma once

#include <array>

#include "cache_impl.hpp"

namespace kvant {

struct CacheImpl::LayerRun {
  std::uint32_t layer = 0, group = 0;
  const RunArgs* args = nullptr;
  bool append = false, attend = false;
  bool recording = false;  // into the engine's command buffer: nothing may be staged for it
  std::uint32_t kv_heads = 1, head_dim_k = 0, head_dim_v = 0;
  std::uint32_t flags = 0;  // KVANT_ATTEND_*
  std::uint32_t transforms = 0;  // KVANT_ROTATE_*, KVANT_CENTRE_*
  std::uint32_t measure = 0;     // sides whose means this run decides
  bool wide = false;             // fresh tokens of protected pages are copied,
  bool read_wide = false;        // and copies are read
  bool centred() const { return (transforms & KVANT_CENTRE_K) != 0; }

  // A step may mix prompts and single tokens; each kind runs with its own config.
  struct Part {
    std::size_t variant = 0;  // in StepState::variants
    std::size_t scored = 0;   // the one that masses are counted by: without copies, which have none
    AttendConfig config, shared_config;
  };
  std::array<Part, 2> parts;
  std::size_t part_count = 0;

  BoundTensor k, v, q, out, lse;
  BufferRange heads, facts;  // HEADS of the attention kernels, and where sinks and slopes lie
  std::uint32_t sinks_offset = 0, slopes_offset = 0;

  TensorShape shape(TensorRole role, std::uint32_t fresh_tokens, std::uint32_t queries) const {
    switch (role) {
      case TensorRole::k:
        return {fresh_tokens, kv_heads, head_dim_k};
      case TensorRole::v:
        return {fresh_tokens, kv_heads, head_dim_v};
      case TensorRole::q:
        return {queries, args->q_heads, head_dim_k};
      case TensorRole::out:
        return {queries, args->q_heads, head_dim_v};
      default:
        return {queries, args->q_heads, 1};
    }
  }

  // What does not depend on the batch; its lengths and counts are left at 0.
  AttendShape attend_shape(const Geometry& geometry) const {
    const LayerGeometry& sides = geometry.layers[layer];
    AttendShape result;
    result.format_k = static_cast<std::uint32_t>(sides.sides[0].format);
    result.format_v = static_cast<std::uint32_t>(sides.sides[1].format);
    result.head_dim_k = head_dim_k;
    result.head_dim_v = head_dim_v;
    result.group = args->q_heads / kv_heads;
    result.kv_heads = kv_heads;
    result.page_tokens = geometry.page_tokens;
    return result;
  }
};

}  // namespace kvant
