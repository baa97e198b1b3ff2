// A pool of more than 4 GiB of which little is ever touched: tokens whose pages lie beyond the first 4 GiB are written, attended to,
// read back and copied as those at the pool's beginning are. Slabs are taken as pages are first used, and drivers map memory as it is
// touched, so that this needs no more than a few slabs.
#include <fstream>
#include <numeric>

#include "library.hpp"

using namespace abi_test;

namespace {

constexpr std::uint32_t kHeads = 8, kDim = 128, kQueryHeads = 16, kPage = 16, kTokens = 40;
constexpr std::uint64_t kTokenBytes = 2ull * kHeads * kDim * 4;   // K and V in f32: 8 KiB
constexpr std::uint64_t kPoolTokens = (5ull << 30) / kTokenBytes; // 5 GiB
constexpr std::uint64_t kNeededMemory = 3ull << 30;

std::uint64_t memory_available() {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  for (std::uint64_t value = 0; file >> name >> value;) {
    if (name == "MemAvailable:") return value * 1024;
    std::getline(file, unit);
  }
  return 0;
}

// Null, with the reason told, where the device cannot hold such a pool.
kvant_cache* large_cache(const Session& session, std::uint64_t slab_bytes) {
  auto layer = make<kvant_layer_args>();
  layer.kv_heads = kHeads;
  layer.head_dim_k = kDim;
  layer.format_k = layer.format_v = session.format("f32");
  auto args = make<kvant_cache_args>();
  args.layer_count = 1;
  args.layers = &layer;
  args.capacity_tokens = kPoolTokens;
  args.flags = KVANT_CACHE_EXTERNAL_PAGES;
  args.slab_bytes = slab_bytes;
  kvant_cache* cache = nullptr;
  const Outcome outcome = take(api().cache_create(session.device, &args, &cache));
  if (outcome.code == KVANT_ERROR_RESOURCE_EXHAUSTED) MESSAGE("left out: " << outcome.message);
  else REQUIRE_MESSAGE(outcome.code == 0, outcome.message);
  return cache;
}

struct Result {
  std::vector<float> out, k, v;
  bool operator==(const Result&) const = default;
};

std::vector<float> read_side(kvant_cache* cache, std::uint32_t side, std::int64_t first_page) {
  std::vector<std::int64_t> slots(kTokens);
  std::iota(slots.begin(), slots.end(), first_page * kPage);
  std::vector<float> rows(kTokens * kHeads * kDim, -1.0F);
  const kvant_tensor tensor = tensor_of(rows);
  require_ok(api().paged_read(cache, 0, side, kTokens, slots.data(), &tensor));
  return rows;
}

// Tokens into pages from `first_page` on, a query over them, and the tokens read back.
Result write_and_attend(kvant_cache* cache, std::int64_t first_page, StepData data) {
  std::vector<std::int64_t> slots(kTokens);
  std::iota(slots.begin(), slots.end(), first_page * kPage);
  std::vector<std::int32_t> pages((kTokens + kPage - 1) / kPage);
  std::iota(pages.begin(), pages.end(), static_cast<std::int32_t>(first_page));
  const std::int32_t queries[2] = {0, 1}, page_counts[2] = {0, static_cast<std::int32_t>(pages.size())}, last = (kTokens - 1) % kPage + 1;
  auto args = make<kvant_paged_args>();
  args.batch = 1;
  args.token_count = kTokens;
  args.slot_mapping = slots.data();
  args.qo_indptr = queries;
  args.kv_indptr = page_counts;
  args.kv_indices = pages.data();
  args.kv_last_page_len = &last;
  kvant_step* step = nullptr;
  require_ok(api().paged_plan(cache, &args, &step));
  std::vector<kvant_tensor> tensors;
  const kvant_run_args run = run_args_of(data, tensors);
  require_ok(api().step_run(step, 0, &run));
  require_ok(api().step_commit(step));
  return {data.out, read_side(cache, KVANT_SIDE_K, first_page), read_side(cache, KVANT_SIDE_V, first_page)};
}

StepData inputs(std::uint32_t seed) {
  StepData data;
  data.k = random_floats(kTokens * kHeads * kDim, seed);
  data.v = random_floats(kTokens * kHeads * kDim, seed + 1);
  data.q = random_floats(kQueryHeads * kDim, seed + 2);
  data.q_heads = kQueryHeads;
  data.out.assign(kQueryHeads * kDim, 0.0F);
  return data;
}

}  // namespace

TEST_CASE("beyond 4 GiB: pages at the end of a large pool are as those at its beginning") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  if (const std::uint64_t free = memory_available(); free < kNeededMemory) {
    MESSAGE("left out: " << free << " bytes of memory are available, " << kNeededMemory << " are asked for");
    return;
  }
  const std::int64_t last_page = static_cast<std::int64_t>(kPoolTokens / kPage) - 3;
  const std::int64_t beyond = static_cast<std::int64_t>((4ull << 30) / kTokenBytes / kPage);
  // Slabs of the default size, and as large as the device lets them be: there a slab's V begins far behind its K.
  for (const std::uint64_t slab_bytes : {std::uint64_t{0}, std::uint64_t{8} << 30}) {
    CAPTURE(slab_bytes);
    kvant_cache* cache = large_cache(session, slab_bytes);
    if (cache == nullptr) return;
    CHECK(stats_of(cache).total_pages * kPage * kTokenBytes > (std::uint64_t{4} << 30));
    const StepData first = inputs(1), other = inputs(7);
    const Result low = write_and_attend(cache, 0, first);
    CHECK(low.k == first.k);
    CHECK(low.v == first.v);
    for (const std::int64_t page : {last_page, beyond}) {
      CAPTURE(page);
      const Result high = write_and_attend(cache, page, first);
      CHECK(high == low);
      const Result changed = write_and_attend(cache, page, other);
      CHECK(changed.k == other.k);
      CHECK(changed.v == other.v);
      CHECK_FALSE(changed.out == low.out);
      // What 32 bits would have taken for the same place is untouched.
      CHECK(read_side(cache, KVANT_SIDE_K, 0) == first.k);
      CHECK(read_side(cache, KVANT_SIDE_V, 0) == first.v);
    }
    CHECK(read_side(cache, KVANT_SIDE_K, last_page) == other.k);
    const std::int32_t from[3] = {static_cast<std::int32_t>(last_page), static_cast<std::int32_t>(last_page) + 1,
                                  static_cast<std::int32_t>(last_page) + 2};
    const std::int32_t to[3] = {8, 9, 10};
    require_ok(api().paged_copy(cache, 3, from, to));
    CHECK(read_side(cache, KVANT_SIDE_K, 8) == other.k);
    CHECK(read_side(cache, KVANT_SIDE_V, 8) == other.v);
    CHECK(read_side(cache, KVANT_SIDE_K, 0) == first.k);
    api().cache_destroy(cache);
  }
}
