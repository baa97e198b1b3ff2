// Test access to a cache: poison memory that nobody may read, scatter pages, look at page tables, force tuning. Not
// reachable through the plugin.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "cache.hpp"
#include "geometry.hpp"
#include "prefix_index.hpp"

namespace kvant {

class CacheDebug {
 public:
  virtual ~CacheDebug() = default;

  virtual const Geometry& geometry() const = 0;
  // From now on new slabs, and pages as they are taken, are filled with this word before use (a NaN shows a forbidden
  // read).
  virtual void set_poison(std::optional<std::uint32_t> word) = 0;
  // Fills every free page of the allocated slabs with the word, now.
  virtual Status poison_free_pages(std::uint32_t word) = 0;
  // Permutes the free lists; `across_slabs` also scatters the pages of a sequence over all slabs.
  virtual void shuffle_free_pages(std::uint64_t seed, bool across_slabs) = 0;
  // Physical pages of a sequence in the layer's group; -1 = hole.
  virtual Result<std::vector<std::int32_t>> sequence_pages(SequenceId sequence, std::uint32_t layer) const = 0;
  // Time of the prefix cache in milliseconds, instead of a steady clock.
  virtual void set_clock(std::function<std::uint64_t()> now_ms) = 0;
  // Time of computing a prompt's token, instead of what was measured.
  virtual void set_seconds_per_token(double seconds) = 0;
  virtual const PrefixIndex* prefix_index() const = 0;  // null without a prefix cache
  virtual std::uint32_t page_references(std::uint32_t layer, std::uint32_t page) const = 0;
  // Where a page of a layer's side lies. none if its slab is not allocated.
  virtual BufferRange page_range(std::uint32_t layer, Side side, std::uint32_t page) const = 0;
  // Replaces what the executor's tuning chose; empty = off.
  virtual void set_attend_override(
      std::function<AttendConfig(const AttendShape&, const AttendConfig&)> override_config) = 0;
};

// The same cache; never null.
CacheDebug& cache_debug(Cache& cache);

// Cache::create with slabs cut otherwise than the device asks.
Result<std::unique_ptr<Cache>> create_cache(Executor& executor, const CacheSpec& spec, const Log& log,
                                            const GeometryOptions& options);

}  // namespace kvant
