// TensorStore: whole tensors by (prefix, layer): K and V of all tokens of a prefix, put once and found again. It keeps them as
// sequences of a cache, so that prefixes share pages with each other and with the sequences of the engine. With a second, narrower
// cache it is a hybrid: prefixes that are used stay wide, others move to the narrow cache, and come back when they are used again.
// Thread rule: that of the caches.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cache.hpp"
#include "prefix_key.hpp"

namespace kvant {

struct StoreSpec {
  Cache* hot = nullptr;                // has a prefix cache, sequences of its own beside the store's
  Cache* cold = nullptr;               // of equal layers but for formats; null: no hybrid
  PolicySpec policy;                   // which prefixes leave first when a cache is full
  std::uint32_t promote_uses = 2;      // gets of a cold prefix until it moves to the hot cache
};

struct StoreCounters {
  std::uint64_t puts = 0;              // layers written
  std::uint64_t lookups = 0, hits = 0; // layers asked for, and found
  std::uint64_t prefixes = 0, cold_prefixes = 0;  // held now
  std::uint64_t evicted = 0, demoted = 0, promoted = 0;  // prefixes
};

// K and V [tokens][kv_heads][head_dim] of one layer of a prefix.
struct StorePut {
  std::span<const std::int32_t> tokens;
  TensorView k, v;
};

class TensorStore {
 public:
  // Errors: invalid_argument (caches that do not fit together, a policy that does not exist).
  static Result<std::unique_ptr<TensorStore>> create(Executor& executor, const StoreSpec& spec);
  ~TensorStore();  // gives back what it holds
  TensorStore(const TensorStore&) = delete;
  TensorStore& operator=(const TensorStore&) = delete;

  // Equal tokens under equal salt mean equal content: what is there already is not written again. All rows or none: after an error
  // the store has nothing of this call, though prefixes that left for its room are gone. Errors: resource_exhausted (also if the rows
  // do not fit at once), invalid_argument, failed_precondition (a step is open).
  Status put(std::span<const StorePut> rows, std::string_view salt, std::uint32_t layer);
  Status put(std::span<const std::int32_t> tokens, std::string_view salt, std::uint32_t layer, const TensorView& k,
             const TensorView& v) {
    const StorePut row{tokens, k, v};
    return put({&row, 1}, salt, layer);
  }
  // Writes K and V; false: a miss, nothing is written. Either view may be absent.
  Result<bool> get(std::span<const std::int32_t> tokens, std::string_view salt, std::uint32_t layer, const TensorView& k,
                   const TensorView& v);
  // Layers of the prefix that are there; no use is counted.
  std::uint32_t layers_held(std::span<const std::int32_t> tokens, std::string_view salt) const;
  bool erase(std::span<const std::int32_t> tokens, std::string_view salt);
  void erase(std::span<const std::span<const std::int32_t>> batch, std::string_view salt);  // all or, on an exception, none
  void clear();
  StoreCounters counters() const;

 private:
  struct Entry {
    PrefixKey key;
    std::vector<std::int32_t> tokens;
    std::string salt;
    SequenceId sequence{};
    bool cold = false;
    std::vector<bool> layers;          // written
    std::uint32_t missing = 0;         // layers not written yet
    std::uint64_t shared = 0;          // tokens that were there when it was made, all layers of them
    std::uint32_t uses_since_move = 0;
    std::uint64_t id = 0;
  };

  // A row whose layer a put has begun to write.
  struct Begun {
    const StorePut* row;
    bool made = false, written = false;  // made: the entry is of this put
  };

  TensorStore(Executor& executor, const StoreSpec& spec, std::unique_ptr<EvictionPolicy> hot_policy,
              std::unique_ptr<EvictionPolicy> cold_policy);
  Status put_row(const StorePut& row, std::string_view salt, std::uint32_t layer, std::vector<Begun>& begun);
  void take_back(const Begun& begun, std::string_view salt, std::uint32_t layer);
  Cache& cache_of(const Entry& entry) const { return entry.cold ? *spec_.cold : *spec_.hot; }
  EvictionPolicy& policy_of(bool cold) const { return cold ? *cold_policy_ : *hot_policy_; }
  Entry* find(std::span<const std::int32_t> tokens, std::string_view salt) const;
  Entry* find(const PrefixKey& key, std::span<const std::int32_t> tokens, std::string_view salt) const;
  bool erase(const PrefixKey& key, std::span<const std::int32_t> tokens, std::string_view salt);
  Result<Entry*> make(std::span<const std::int32_t> tokens, std::string_view salt);
  Result<SequenceStart> open(Cache& cache, const Entry& entry);
  Result<SequenceStart> open_with_room(bool cold, const Entry& entry);
  Status move(Entry& entry, bool cold);
  Status copy_layers(Entry& entry, Cache& from, Cache& to, const SequenceStart& start);
  bool let_one_go(bool cold);
  void drop(Entry& entry);
  void use(Entry& entry);
  std::uint64_t tick() { return ++clock_; }

  Executor& executor_;
  StoreSpec spec_;
  std::unique_ptr<EvictionPolicy> hot_policy_, cold_policy_;
  std::unordered_map<PrefixKey, std::unique_ptr<Entry>, PrefixKeyHash> entries_;
  std::unordered_map<std::uint64_t, Entry*> by_id_;
  StoreCounters counters_;
  std::uint64_t next_id_ = 1, clock_ = 0;
};

}  // namespace kvant
