// The arguments of the raw paged calls, checked and turned into the core's batch.
#pragma once

#include <span>
#include <string>

#include "objects.hpp"

namespace kvant::abi {

struct PagedInput {
  PagedBatch batch;  // spans over the caller's arrays
  std::uint64_t queries = 0;
  std::string causal_objection;
};

Result<PagedInput> read_paged_args(const kvant_paged_args* args, const CacheObject& cache);

// Slots below the pool's end; negative ones are allowed.
Status check_slots(std::span<const std::int64_t> slots, const CacheObject& cache, std::string_view name);

// Pages of the pool; no destination twice, none that is also a source.
Status check_page_pairs(std::span<const std::int32_t> source, std::span<const std::int32_t> destination,
                        const CacheObject& cache);

}  // namespace kvant::abi
