// Raw paged calls: the engine's own page tables give the same results as sequences, and bad tables are refused with the value.
#include <cmath>
#include <functional>

#include "library.hpp"

using namespace abi_test;

namespace {

constexpr std::uint32_t kInvalid = KVANT_ERROR_INVALID_ARGUMENT;
constexpr std::uint32_t kTokens = 37, kHeads = 2, kDim = 64, kPage = 16;

struct Tables {
  std::vector<std::int64_t> slots;
  std::vector<std::int32_t> qo{0, 1}, kv{0, 3}, pages{7, 2, 11}, last{5};
  kvant_paged_args args() const {
    auto a = make<kvant_paged_args>();
    a.batch = 1;
    a.token_count = static_cast<std::uint32_t>(slots.size());
    a.slot_mapping = slots.data();
    a.qo_indptr = qo.data();
    a.kv_indptr = kv.data();
    a.kv_indices = pages.data();
    a.kv_last_page_len = last.data();
    return a;
  }
};

Tables shuffled_tables() {
  Tables tables;
  for (std::uint32_t t = 0; t < kTokens; ++t)
    tables.slots.push_back(std::int64_t{tables.pages[t / kPage]} * kPage + t % kPage);
  return tables;
}

}  // namespace

TEST_CASE("paged: the same as a sequence, bit for bit, and copies of pages") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const CacheShape shape{.kv_heads = kHeads, .head_dim_k = kDim, .head_dim_v = kDim, .format_k = "q8_0", .format_v = "q4_0"};
  CacheShape external = shape;
  external.external = true;
  kvant_cache* cache = make_cache(session, shape);
  kvant_cache* paged = make_cache(session, external);
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  StepData data;
  data.q_heads = 4;
  data.k = random_floats(kTokens * kHeads * kDim, 1);
  data.v = random_floats(kTokens * kHeads * kDim, 2);
  data.q = random_floats(4 * kDim, 3);
  data.out.assign(4 * kDim, 0.0F);
  data.lse.assign(4, 0.0F);
  run_step(cache, 1, sequence, kTokens, 1, data);
  const std::vector<float> out = data.out, lse = data.lse;

  const Tables tables = shuffled_tables();
  const auto attend = [&](const Tables& t, bool append) {
    kvant_paged_args args = t.args();
    if (!append) args.token_count = 0, args.slot_mapping = nullptr;
    kvant_step* step = nullptr;
    require_ok(api().paged_plan(paged, &args, &step));
    std::vector<kvant_tensor> tensors;
    data.out.assign(4 * kDim, 0.0F);
    kvant_run_args run = run_args_of(data, tensors);
    if (!append) run.k = run.v = nullptr;
    require_ok(api().step_run(step, 0, &run));
    require_ok(api().step_commit(step));
  };
  attend(tables, true);
  CHECK(data.out == out);
  CHECK(data.lse == lse);

  std::vector<float> from_sequence(kTokens * kHeads * kDim), from_slots(kTokens * kHeads * kDim, 1.0F);
  kvant_tensor a = tensor_of(from_sequence), b = tensor_of(from_slots);
  require_ok(api().sequence_read(cache, sequence, 0, KVANT_SIDE_V, 0, kTokens, &a));
  require_ok(api().paged_read(paged, 0, KVANT_SIDE_V, kTokens, tables.slots.data(), &b));
  CHECK(from_sequence == from_slots);
  const std::int64_t gap[3] = {tables.slots[4], -1, tables.slots[36]};
  std::vector<float> three(3 * kHeads * kDim, 5.0F);
  kvant_tensor c = tensor_of(three);
  require_ok(api().paged_read(paged, 0, KVANT_SIDE_V, 3, gap, &c));
  for (std::size_t i = 0; i < kHeads * kDim; ++i) {
    REQUIRE(three[i] == from_slots[4 * kHeads * kDim + i]);
    REQUIRE(three[kHeads * kDim + i] == 0.0F);
    REQUIRE(three[2 * kHeads * kDim + i] == from_slots[36 * kHeads * kDim + i]);
  }

  const std::int32_t source[2] = {2, 11}, destination[2] = {0, 5};
  require_ok(api().paged_copy(paged, 2, source, destination));
  Tables moved = tables;
  moved.pages = {7, 0, 5};
  attend(moved, false);
  CHECK(data.out == out);
  // An unmapped page is masked out: the same as attending to the rest alone.
  Tables holed = tables;
  holed.pages = {7, -1, 11};
  attend(holed, false);
  const std::vector<float> with_hole = data.out;
  Tables rest = tables;
  rest.pages = {7, 11};
  rest.kv = {0, 2};
  attend(rest, false);
  double worst = 0.0;
  for (std::size_t i = 0; i < out.size(); ++i) worst = std::max(worst, static_cast<double>(std::fabs(with_hole[i] - data.out[i])));
  CHECK(worst < 1e-5);
  CHECK(with_hole != out);
  api().cache_destroy(paged);
  api().cache_destroy(cache);
}

TEST_CASE("paged: bad tables are refused") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  kvant_cache* paged = make_cache(session, {.kv_heads = kHeads, .head_dim_k = kDim, .head_dim_v = kDim, .external = true});
  const std::uint64_t pages = stats_of(paged).total_pages;
  REQUIRE(pages == 16);
  const auto refuse = [&](const std::function<void(Tables&, kvant_paged_args&)>& change, const std::string& part) {
    Tables tables = shuffled_tables();
    kvant_paged_args args = tables.args();
    change(tables, args);
    kvant_step* step = nullptr;
    check_error(api().paged_plan(paged, &args, &step), kInvalid, "paged_plan", part);
    CHECK(step == nullptr);
  };
  const std::uint32_t mask[2] = {};
  const std::int32_t negative = -2, far = 0x7FFFFFFF;
  refuse([](Tables& t, auto&) { t.slots[3] = 256; }, "slot_mapping[3] (256)");
  refuse([](Tables& t, auto&) { t.slots[3] = 1ll << 40; }, "slot_mapping[3] (1099511627776)");
  refuse([](Tables& t, auto&) { t.slots[3] = t.slots[1]; }, "slot_mapping[3] (113) is also args.slot_mapping[1]");
  refuse([](Tables& t, auto&) { t.pages[1] = 16; }, "kv_indices[1] (16)");
  refuse([](Tables& t, auto&) { t.pages[2] = -2; }, "kv_indices[2] (-2)");
  refuse([](Tables& t, auto&) { t.qo[0] = 1; }, "qo_indptr[0] (1)");
  refuse([](Tables& t, auto&) { t.qo[1] = -1; }, "qo_indptr[1] (-1)");
  refuse([](Tables& t, auto&) { t.kv[0] = 2; }, "kv_indptr[0] (2)");
  refuse([](Tables& t, auto&) { t.kv[1] = -3; }, "kv_indptr[1] (-3)");
  refuse([](Tables& t, auto&) { t.last[0] = 0; }, "kv_last_page_len[0] (0)");
  refuse([](Tables& t, auto&) { t.last[0] = 17; }, "kv_last_page_len[0] (17)");
  refuse([&](Tables&, auto& a) { a.query_positions = &negative; }, "query_positions[0] (-2)");
  refuse([&](Tables&, auto& a) { a.query_positions = &far; }, "query_positions[0] (2147483647)");
  refuse([&](Tables&, auto& a) { a.mask = mask; a.mask_row_words = 1; }, "mask_row_words (1)");
  refuse([](Tables&, auto& a) { a.mask_row_words = 2; }, "mask_row_words (2)");
  refuse([](Tables&, auto& a) { a.reserved = 4; }, "reserved (4)");
  refuse([](Tables&, auto& a) { a.batch = ~0u; }, "batch (4294967295)");
  refuse([](Tables&, auto& a) { a.batch = 0; }, "batch (0)");
  refuse([](Tables&, auto& a) { a.token_count = ~0u; }, "token_count (4294967295)");
  refuse([](Tables& t, auto& a) { a.token_count = 0; t.qo[1] = 0; }, "nothing");
  // More queries than keys: no causal run.
  {
    Tables tables = shuffled_tables();
    tables.qo[1] = 40;
    const kvant_paged_args args = tables.args();
    kvant_step* step = nullptr;
    require_ok(api().paged_plan(paged, &args, &step));
    StepData data;
    data.q_heads = 2;
    data.k = data.v = random_floats(kTokens * kHeads * kDim, 1);
    data.q = random_floats(40 * 2 * kDim, 1);
    data.out.assign(40 * 2 * kDim, 3.0F);
    std::vector<kvant_tensor> tensors;
    const kvant_run_args run = run_args_of(data, tensors);
    check_error(api().step_run(step, 0, &run), kInvalid, "step_run", "sequence 0 of the plan has 40 queries");
    CHECK(data.out[0] == 3.0F);
    api().step_abort(step);
  }

  std::vector<float> read(kHeads * kDim, 2.0F);
  kvant_tensor out = tensor_of(read);
  const std::int64_t slot = 256, good = 0;
  check_error(api().paged_read(paged, 1, 0, 1, &good, &out), kInvalid, "paged_read", "layer (1)");
  check_error(api().paged_read(paged, 0, 2, 1, &good, &out), kInvalid, "paged_read", "side (2)");
  check_error(api().paged_read(paged, 0, 0, 1, &slot, &out), kInvalid, "paged_read", "slots[0] (256)");
  check_error(api().paged_read(paged, 0, 0, ~0ull, &slot, &out), kInvalid, "paged_read", "slot_count (18446744073709551615)");
  CHECK(read == std::vector<float>(kHeads * kDim, 2.0F));
  const auto copy = [&](std::vector<std::int32_t> from, std::vector<std::int32_t> to, const std::string& part) {
    check_error(api().paged_copy(paged, static_cast<std::uint32_t>(from.size()), from.data(), to.data()), kInvalid,
                "paged_copy", part);
  };
  copy({16}, {0}, "source_pages[0] (16)");
  copy({-1}, {0}, "source_pages[0] (-1)");
  copy({0}, {99}, "destination_pages[0] (99)");
  copy({0, 1}, {2, 2}, "destination_pages[1] (2) is also destination_pages[0]");
  copy({0, 1}, {1, 2}, "destination_pages[0] (1) is also source_pages[1]");

  // Each kind of cache refuses the other's calls.
  kvant_sequence sequence = 3;
  check_error(api().sequence_create(paged, &sequence), KVANT_ERROR_FAILED_PRECONDITION, "sequence_create", "EXTERNAL_PAGES");
  CHECK(sequence == 3);
  kvant_cache* cache = make_cache(session, {});
  const kvant_paged_args args = shuffled_tables().args();
  kvant_step* step = nullptr;
  check_error(api().paged_plan(cache, &args, &step), KVANT_ERROR_FAILED_PRECONDITION, "paged_plan", "EXTERNAL_PAGES");
  check_error(api().paged_read(cache, 0, 0, 1, &good, &out), KVANT_ERROR_FAILED_PRECONDITION, "paged_read", "EXTERNAL_PAGES");
  check_error(api().paged_copy(cache, 0, nullptr, nullptr), KVANT_ERROR_FAILED_PRECONDITION, "paged_copy", "EXTERNAL_PAGES");
  api().cache_destroy(cache);
  api().cache_destroy(paged);
}
