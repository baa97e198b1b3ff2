// Tier: a store colder than the device, of immutable entries named by their content's key. What an entry's bytes mean is the
// caller's matter; a tier gives back exactly the bytes that it was given, or nothing. Thread rule: any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "status.hpp"

namespace kvant {

struct TierKey {
  std::array<std::byte, 32> bytes{};
  bool operator==(const TierKey&) const = default;
};
struct TierKeyHash {  // keys are digests: any of their bytes will do
  std::size_t operator()(const TierKey& key) const;
};
std::string tier_key_text(const TierKey& key);  // 64 hexadecimal digits

struct TierStats {
  std::uint64_t gets = 0, hits = 0;        // one get a key
  std::uint64_t puts = 0, rejected = 0;    // rejected: larger than the tier, or the tier could not take it
  std::uint64_t corrupt = 0;               // entries that were not what was put, each a miss
  std::uint64_t errors = 0;                // the medium failed (disk full, server gone), each a miss or a rejected put
  std::uint64_t evictions = 0;
  std::uint64_t entries = 0, bytes = 0;    // held now; 0 where a tier cannot know (remote)
  std::uint64_t capacity_bytes = 0;        // 0: unknown or without a limit
  std::uint64_t bytes_read = 0, bytes_written = 0;
  double read_seconds = 0, write_seconds = 0;  // time spent in hits and in puts
};

class Tier {
 public:
  virtual ~Tier() = default;
  virtual std::string_view name() const = 0;  // "host", "disk", "remote", or a custom tier's own name

  // Stores the entry. A key that is held already is refreshed, its bytes are not written again: equal keys mean equal content.
  // false: not stored, and the counters say why. Never an error for the engine.
  virtual bool put(const TierKey& key, std::span<const std::byte> value) = 0;
  // One result a key, in order; empty: a miss (no entry is ever empty).
  virtual std::vector<std::vector<std::byte>> get(std::span<const TierKey> keys) = 0;
  // Whether get would probably hit: a hint, which may be wrong either way by the time of the get.
  virtual std::vector<bool> contains(std::span<const TierKey> keys) = 0;
  virtual void erase(const TierKey& key) = 0;
  virtual void clear() = 0;
  virtual TierStats stats() const = 0;
};

// In this process's memory, least recently used out first. `capacity_bytes` counts values and a fixed cost an entry.
std::unique_ptr<Tier> make_memory_tier(std::uint64_t capacity_bytes);

struct DiskTierSpec {
  std::string folder;                  // made if missing; the tier uses the files that it knows as its own, and no others
  std::uint64_t capacity_bytes = 0;    // 0: no limit
};
// Plain files, one an entry. Errors: unavailable (the folder cannot be made or written).
Result<std::unique_ptr<Tier>> make_disk_tier(const DiskTierSpec& spec);

struct RemoteTierSpec {
  std::string servers;                 // "host:port,host:port" ; port 11211 if absent
  std::uint32_t timeout_ms = 200;      // connect and transfer
  std::uint64_t max_value_bytes = (1u << 20) - 1024;  // larger entries are cut into parts of at most this
};
// memcached through libmemcached, opened at run time. Errors: invalid_argument (no server), unavailable (no library).
// A server that does not answer is a miss; keys of a dead server move to the others.
Result<std::unique_ptr<Tier>> make_remote_tier(const RemoteTierSpec& spec);

// An engine's own tier: plain functions with a user pointer, called from any thread.
struct CustomTierFunctions {
  void* user_data = nullptr;
  const char* name = nullptr;  // copied
  // 1: stored; else not.
  std::uint32_t (*put)(void* user_data, const std::uint8_t key[32], const void* value, std::uint64_t size) = nullptr;
  // Size of the entry, 0: a miss. Writes it to `out` if `out_size` is enough; else it is called again with enough.
  std::uint64_t (*get)(void* user_data, const std::uint8_t key[32], void* out, std::uint64_t out_size) = nullptr;
  std::uint32_t (*contains)(void* user_data, const std::uint8_t key[32]) = nullptr;  // null: get is asked
  void (*erase)(void* user_data, const std::uint8_t key[32]) = nullptr;              // may be null
  void (*clear)(void* user_data) = nullptr;  // may be null: then clear() leaves the entries where they are
};
// Errors: invalid_argument (put or get is missing).
Result<std::unique_ptr<Tier>> make_custom_tier(const CustomTierFunctions& functions);

}  // namespace kvant
