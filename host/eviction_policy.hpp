// EvictionPolicy: which cached entry leaves next. A policy orders entries and knows nothing of pages, prefixes or devices, so
// that the cache, its tiers and the trace replay share it. Time is given by the caller in milliseconds of a monotonic clock.
// Thread rule: one thread per policy at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "status.hpp"

namespace kvant {

enum class EntryId : std::uint64_t {};

enum class PolicyKind : std::uint32_t { none, lru, window, adaptive };
std::string_view policy_name(PolicyKind kind);
std::optional<PolicyKind> policy_from_name(std::string_view name);

struct PolicySpec {
  PolicyKind kind = PolicyKind::lru;
  std::uint64_t capacity_entries = 0;  // what the caller can hold: sizes the queues of adaptive
  std::uint64_t ttl_ms = 0;            // entries without a TTL of their own expire after this long without use; 0 = never
  std::uint32_t sink_entries = 0;      // window: entries of depth below this leave last
};

struct EntryFacts {
  std::uint64_t fingerprint = 0;  // of the entry's key: recognizes content that comes back after its eviction
  std::uint32_t depth = 0;        // entries before it in its prefix
  std::uint32_t priority = 0;     // 0..100; of the entries that a policy would let go, lower priorities go first
  std::uint64_t ttl_ms = 0;       // 0 = the policy's
};

class EvictionPolicy {
 public:
  // Errors: invalid_argument (unknown kind, adaptive without capacity).
  static Result<std::unique_ptr<EvictionPolicy>> create(const PolicySpec& spec);
  virtual ~EvictionPolicy() = default;

  virtual void insert(EntryId id, const EntryFacts& facts, std::uint64_t now_ms) = 0;  // not pinned
  virtual void touch(EntryId id, std::uint64_t now_ms) = 0;                            // a hit
  // A pinned entry is in use, or others hang on it: it is no victim and does not expire. Pins count.
  virtual void pin(EntryId id) = 0;
  // Letting go is no use: who ends a use touches first, and a prefix whose end left is not young for that.
  virtual void unpin(EntryId id, std::uint64_t now_ms) = 0;
  virtual void erase(EntryId id) = 0;  // left for another reason than eviction

  // Takes the next entry out of the policy: an expired one first. None: every entry is pinned, or the policy is `none`.
  virtual std::optional<EntryId> evict(std::uint64_t now_ms) = 0;
  // Takes out every entry that has expired.
  virtual void expire(std::uint64_t now_ms, std::vector<EntryId>& out) = 0;

  virtual std::uint64_t size() const = 0;
};

}  // namespace kvant
