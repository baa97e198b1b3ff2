// What a saved state holds, before pages and bytes are touched: sequences with their page tables renumbered to the pages of the state,
// each of which is saved once; and the records of the header and of a sequence.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "cache_spec.hpp"
#include "page_pool.hpp"
#include "prefix_index.hpp"
#include "state_stream.hpp"

namespace kvant {

struct FilledPage {
  std::uint32_t page = 0;
  std::uint32_t tokens = 0;  // written, from the first on
};

struct SavedSequence {
  std::uint64_t id = 0;  // 0: a prefix that no sequence holds
  std::uint64_t length = 0;
  std::vector<std::int32_t> tokens;  // as far as known
  std::string salt;
  PublishFacts publish;
  bool pruned = false;               // Sequence's
  std::uint64_t least_length = 0;
  std::vector<std::vector<std::int32_t>> tables;  // per layer group: number of the page in the state, or kNoPage
};

class StatePlan {
 public:
  explicit StatePlan(std::size_t groups) : pages_(groups), numbers_(groups) {}
  // `sequence.tables` hold page ids of the pools; they become numbers of the state.
  void add(SavedSequence sequence, std::uint32_t page_tokens);
  std::span<const FilledPage> pages(std::size_t group) const { return pages_[group]; }
  std::span<const SavedSequence> sequences() const { return sequences_; }

 private:
  std::vector<std::vector<FilledPage>> pages_;
  std::vector<std::map<std::int32_t, std::int32_t>> numbers_;  // page id -> number
  std::vector<SavedSequence> sequences_;
};

// `means`: those that were measured, of all layers (LayerMeans::download).
void write_state_header(const CacheSpec& spec, const PrefixKey& content, std::span<const float> means, RecordFields& fields);
// Fills `means`, whose size says how many there must be. Errors: incompatible, naming the first thing that differs; data_loss.
Status check_state_header(const CacheSpec& spec, const PrefixKey& content, FieldReader fields, std::span<float> means);

void write_state_sequence(const SavedSequence& sequence, RecordFields& fields);
// False: the fields are not whole. Numbers and lengths are as they came.
bool read_state_sequence(FieldReader& fields, std::size_t groups, SavedSequence& sequence);

}  // namespace kvant
