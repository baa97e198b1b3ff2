// What a cache is made of and what its functions take, as far as more than the cache itself knows it: ids, sides, layers, tensors, what is kept of a
// sequence. Facts alone.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "eviction_policy.hpp"
#include "executor.hpp"
#include "formats.hpp"

namespace kvant {

enum class SequenceId : std::uint64_t { none = 0 };  // never reused within a cache
// As messages name it, the same as in the ABI: "sequence 0x1000000002a".
std::string sequence_text(SequenceId id);
enum class Side : std::uint32_t { k = 0, v = 1 };
enum class IoType : std::uint32_t { f32 = KVANT_IO_F32, f16 = KVANT_IO_F16, bf16 = KVANT_IO_BF16 };

struct LayerSpec {
  std::uint32_t kv_heads = 1;
  std::uint32_t head_dim_k = 64, head_dim_v = 64;  // 32..576, multiple of 8
  FormatId format_k = FormatId::f16, format_v = FormatId::f16;
  std::uint32_t window = 0;        // tokens a query sees, its own included; 0 = all
  std::uint32_t window_sinks = 0;  // first tokens that stay visible outside the window
  bool rotate_k = false, rotate_v = false;  // rows lie rotated in pages (docs/rotation.md)
  bool centre_k = false, centre_v = false;  // rows lie in pages less a mean per KV head (docs/centring.md)
  // The means, [kv_head][head_dim], of rows as they are appended; empty: measured over the first ones.
  std::vector<float> means_k = {}, means_v = {};
  bool operator==(const LayerSpec&) const = default;
};

// Tokens that attention reads in f16 although their layers' formats are narrower (wide_pages.hpp). Both counts 0: none.
struct ProtectionSpec {
  std::uint32_t first_tokens = 0;     // of a sequence
  std::uint32_t newest_tokens = 0;    // that a query sees, its own included
  bool k = false, v = false;          // sides that have copies
  std::uint64_t capacity_tokens = 0;  // copies of all sequences together; 0 = an eighth of the pool, or what one sequence needs
  bool any() const { return (k || v) && (first_tokens != 0 || newest_tokens != 0); }
};

struct CacheSpec {
  std::vector<LayerSpec> layers;      // equal kv_heads, head dims and window form a layer group
  std::uint32_t page_tokens = 16;     // 16 or 32
  std::uint64_t capacity_tokens = 0;  // pool size, rounded up to pages; per layer group
  std::uint64_t first_sequence = 1;   // id of the first sequence; later ones count up from it
  bool external_pages = false;        // the engine owns the page tables: only plan_paged, read_slots, copy_pages
  // Keeps full pages of known tokens for later sequences, until their room is needed or the policy lets them go.
  bool prefix_cache = false;
  std::string model_id;  // with rope: what K and V depend on besides tokens, layers and formats; part of every prefix key
  std::string rope;      // parameters of the position encoding in any fixed form
  PolicySpec policy;     // of the prefix cache; capacity_entries 0 = the pool's pages
  std::uint64_t slab_bytes = 0;         // bytes that a slab of one layer aims at; 0 = 256 MiB
  std::uint64_t preallocate_bytes = 0;  // of slabs, allocated at creation, at most the pool
  std::uint32_t events = 1024;          // that are held for readers; CacheConfig's default
  bool attention_mass = false;          // room to count what attention each token gets: 8 bytes per token, layer and KV head
  ProtectionSpec protection = {};
};

// Formats in which tiers keep entries; none: as in the cache.
struct TierFormats {
  std::optional<FormatId> k, v;
  bool changes() const { return k.has_value() || v.has_value(); }
};

// A tensor [token][head][dim] in host memory or in a buffer of the executor. Strides in elements; dim is contiguous.
struct TensorView {
  std::byte* host = nullptr;  // or
  BufferRange buffer;         // if host is null
  IoType type = IoType::f32;
  std::uint64_t token_stride = 0, head_stride = 0;
  bool present() const { return host != nullptr || buffer.buffer != BufferId::none; }
};

// RoPE as its inventor's formula has it: element pair i turns by frequencies[i] radians a position.
struct Rotation {
  std::vector<double> frequencies;  // at most head_dim_k / 2; elements beyond the pairs have no position
  bool halves = false;              // pair i is (i, i + pairs) instead of (2i, 2i + 1)
};

// What pruning keeps of a sequence. At least as many sinks and recent tokens as the sliding windows of the layers see.
struct PruneSpec {
  std::uint64_t keep = 0;     // tokens, at least sinks + recent
  std::uint64_t sinks = 4;    // first tokens
  std::uint64_t recent = 64;  // last tokens
};

// Pages cool where V got least attention: V is encoded again in narrower formats, until the pool takes no more than `target_bytes`.
struct CoolSpec {
  std::uint64_t target_bytes = 0;
  // From wide to narrow, one or two: a page takes one after the other. A layer whose V is as narrow keeps its format.
  std::vector<FormatId> formats = {FormatId::t3, FormatId::t2};
  std::uint64_t sinks = PruneSpec{}.sinks, recent = PruneSpec{}.recent;  // first and last tokens of sequences, which stay as they are
};

}  // namespace kvant
