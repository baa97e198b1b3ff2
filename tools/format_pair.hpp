// Configurations of a cache (which format K has and which V, and whether their rows are centred and rotated) as the command line spells them: the one place that reads
// them, names them and makes caches of them.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/attention.hpp"
#include "library.hpp"

namespace kvant::tools {

struct FormatPair {
  FormatFacts k;
  FormatFacts v;
  uint32_t transform_k = 0;  // KVANT_TRANSFORM_*
  uint32_t transform_v = 0;
  uint32_t protect = 0;  // KVANT_PROTECT_*
  // Of a plan, a pair of its own for each layer: then k and v are the first one's, and `label` is the name.
  std::vector<LayerFormats> by_layer = {};
  std::string label = {};
  bool operator==(const FormatPair& other) const {
    return k.id == other.k.id && v.id == other.v.id && transform_k == other.transform_k && transform_v == other.transform_v &&
           protect == other.protect && label == other.label;
  }
  std::string name() const;
};

// "+cr": centred and rotated rows.
std::string suffix(uint32_t transform, bool protect);

// "q8_0,q8_0/q4_0,t4+crp" -> pairs, "+c" for centred rows, "+r" for rotated ones, "+p" for protected tokens, duplicates left out; an unknown format is an error that lists the known ones. "all" stands
// for each format; a preset's name for what it is made of (presets()); "@FILE" for a plan of kvant plan-formats. "all" is every format with itself, "all/q4_0" every K beside a V of q4_0, "all/all" every pair.
Outcome<std::vector<FormatPair>> parse_pairs(const Library& library, const std::string& list);

// Names that stand for pairs, from the most bits to the fewest (docs/accuracy.md).
struct Preset {
  const char* name;
  const char* pair;
};
std::span<const Preset> presets();

// Of a cache so configured, every layer alike.
CacheShape cache_shape(const FormatPair& pair, uint32_t layers, uint32_t kv_heads, uint32_t head_dim,
                       uint64_t capacity_tokens);
CacheShape cache_shape(const FormatPair& pair, const engine::AttentionShape& model, uint64_t capacity_tokens);

// "128,64" -> numbers.
Outcome<std::vector<uint32_t>> parse_counts(const std::string& what, const std::string& list, uint32_t least = 1);

}  // namespace kvant::tools
