// Steps, and the raw calls with the engine's own page tables.
#include <algorithm>

#include "abi_session.hpp"

namespace kvant::fuzz {
namespace {

// A run's work goes by queries times keys; what is merely large adds nothing.
constexpr std::uint32_t kMostQueries = 4096;

void begin(AbiSession& s, LiveCache& one, kvant_error* error, const char* source, kvant_step* made, std::uint64_t fresh,
           std::uint64_t queries, const kvant_cache_stats& before) {
  if (s.took(error, source)) {
    KVANT_FUZZ_CHECK(made != nullptr && one.step == nullptr);
    one.step = made;
    one.fresh = fresh;
    one.queries = queries;
    one.next_layer = 0;
  } else {
    KVANT_FUZZ_CHECK(made == nullptr);
    s.unchanged(one, before, source);
  }
}

void fill_entry(AbiSession& s, LiveCache& one, kvant_step_entry& entry) {
  std::memset(&entry, 0, sizeof entry);
  entry.struct_size = sizeof entry;
  entry.sequence = s.sequence(one);
  entry.append = s.in.one_in(16) ? s.in.magnitude32() : s.in.below(40);
  entry.queries = s.in.one_in(16) ? s.in.magnitude32() % kMostQueries : std::min(s.in.below(12), entry.append);
  const std::uint8_t odd = s.in.u8();
  // Ids have to be there for as many tokens as the caller says.
  if (odd < 140 && entry.append < 256) entry.tokens = s.token_ids(entry.append);
  if (odd >= 200 && odd < 232) {
    entry.flags = KVANT_ENTRY_QUERY_POSITION;
    entry.query_position = static_cast<std::int32_t>(s.in.magnitude32());
  }
  if (odd >= 220 && odd < 248) {
    entry.mask_row_words = s.in.one_in(8) ? s.in.magnitude32() : 1 + s.in.below(8);
    entry.mask_begin = s.in.magnitude() / 4;
    const std::uint64_t words = std::uint64_t{entry.mask_row_words} * entry.queries;
    if (words < 65536) {
      auto* mask = s.array<std::uint32_t>(words);
      const std::uint32_t pattern = s.in.u32();
      std::fill_n(mask, words, pattern);
      entry.mask = mask;
    }
  }
  if (odd == 250) entry.flags = s.in.magnitude32();
  if (odd == 251) entry.reserved = s.in.magnitude32();
  if (odd == 252) entry.struct_size = s.in.below(sizeof entry + 1);
  if (odd == 253) entry.query_position = -1;
}

void plan(AbiSession& s, LiveCache& one) {
  const kvant_cache_stats before = s.stats(one);
  kvant_cache* cache = s.cache(one);
  const std::uint32_t count = 1 + (s.in.one_in(3) ? s.in.below(3) : 0);
  auto* entries = s.array<kvant_step_entry>(count);
  std::uint64_t fresh = 0, queries = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    fill_entry(s, one, entries[i]);
    fresh += entries[i].append;
    queries += entries[i].queries;
  }
  auto& boxed = s.box<kvant_step_args>();
  boxed.value.entry_count = count;
  boxed.value.entries = entries;
  const std::uint8_t odd = s.in.u8();
  if (odd == 240) boxed.value.entry_count = 0;
  if (odd == 241) boxed.value.entries = nullptr;
  if (odd >= 242) boxed.value.entry_stride = count == 1 ? s.in.magnitude32() : s.in.below(16);
  kvant_step* made = nullptr;
  const kvant_step_args* args = s.spoil(boxed);
  kvant_error* error = s.api.step_plan(cache, args, &made);
  begin(s, one, error, "step_plan", made, fresh, queries, before);
}

std::int32_t* offsets(AbiSession& s, std::uint32_t batch, std::uint32_t most) {
  auto* values = s.array<std::int32_t>(batch + 1);
  for (std::uint32_t i = 0; i < batch; ++i) values[i + 1] = values[i] + static_cast<std::int32_t>(s.in.below(most));
  if (s.in.one_in(24)) values[s.in.below(batch)] = static_cast<std::int32_t>(s.in.magnitude32());
  return values;
}

void plan_paged(AbiSession& s, LiveCache& one) {
  const kvant_cache_stats before = s.stats(one);
  kvant_cache* cache = s.cache(one);
  auto& boxed = s.box<kvant_paged_args>();
  kvant_paged_args& args = boxed.value;
  args.batch = 1 + s.in.below(3);
  args.token_count = s.in.below(20);
  auto* slots = s.array<std::int64_t>(args.token_count);
  const std::uint8_t first = s.in.u8();
  for (std::uint32_t i = 0; i < args.token_count; ++i) slots[i] = first % 64 + i;
  if (args.token_count != 0 && s.in.one_in(6))
    slots[s.in.below(args.token_count)] = static_cast<std::int64_t>(s.in.magnitude());
  args.slot_mapping = slots;
  std::uint64_t queries = 0;
  if (!s.in.one_in(5)) {
    const std::int32_t* rows = offsets(s, args.batch, 6);
    const std::int32_t* pages = offsets(s, args.batch, 4);
    args.qo_indptr = rows;
    args.kv_indptr = pages;
    const std::int32_t ids = pages[args.batch];
    auto* indices = s.array<std::int32_t>(ids > 0 && ids < 256 ? static_cast<std::size_t>(ids) : 0);
    for (std::int32_t i = 0; i < ids && ids < 256; ++i)
      indices[i] = static_cast<std::int32_t>(s.in.one_in(16) ? s.in.magnitude32() : s.in.below(6));
    // An offset that is not as the others promises pages that no caller could have.
    args.kv_indices = ids >= 0 && ids < 256 ? indices : nullptr;
    auto* lengths = s.array<std::int32_t>(args.batch);
    for (std::uint32_t i = 0; i < args.batch; ++i)
      lengths[i] = static_cast<std::int32_t>(s.in.one_in(16) ? s.in.magnitude32() : 1 + s.in.below(16));
    args.kv_last_page_len = lengths;
    queries = rows[args.batch] >= 0 ? static_cast<std::uint64_t>(rows[args.batch]) : 0;
    if (s.in.one_in(4)) {
      auto* positions = s.array<std::int32_t>(args.batch);
      for (std::uint32_t i = 0; i < args.batch; ++i) positions[i] = static_cast<std::int32_t>(s.in.magnitude32());
      args.query_positions = positions;
    }
    if (s.in.one_in(6) && queries < 64) {
      args.mask_row_words = 1 + s.in.below(4);
      args.mask = s.array<std::uint32_t>(queries * args.mask_row_words);
    }
  }
  if (s.in.one_in(32)) args.reserved = s.in.magnitude32();
  if (s.in.one_in(32)) {
    args.slot_mapping = nullptr;
    args.token_count = s.in.magnitude32();
  }
  // More queries than a caller could have rows for stay out of the plan.
  if (queries >= kMostQueries) return;
  kvant_step* made = nullptr;
  const std::uint64_t fresh = args.token_count;
  const kvant_paged_args* given = s.spoil(boxed);
  kvant_error* error = s.api.paged_plan(cache, given, &made);
  begin(s, one, error, "paged_plan", made, fresh, queries, before);
}

void run(AbiSession& s, LiveCache& one) {
  const kvant_cache_stats before = s.stats(one);
  kvant_step* step = s.step(one);
  auto& boxed = s.box<kvant_run_args>();
  kvant_run_args& args = boxed.value;
  const std::uint32_t heads = one.kv_heads * (1 + s.in.below(2));
  if (one.fresh != 0 || s.in.one_in(16)) {
    args.k = s.tensor(one.fresh * one.kv_heads * one.dim_k);
    args.v = s.tensor(one.fresh * one.kv_heads * one.dim_v);
  }
  if (one.queries != 0 || s.in.one_in(16)) {
    args.q = s.tensor(one.queries * heads * one.dim_k);
    args.out = s.tensor(one.queries * heads * one.dim_v);
    args.q_heads = s.in.one_in(16) ? s.in.magnitude32() : heads;
    if (s.in.one_in(4)) args.lse = s.tensor(one.queries * heads);
  }
  const std::uint8_t odd = s.in.u8();
  if (odd >= 128) args.flags = odd >= 250 ? s.in.magnitude32() : s.in.below(8);
  const auto any_float = [&s] {
    const std::uint32_t bits = s.in.u32();
    float value = 0;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  };
  if (odd >= 200 && odd < 210) args.scale = any_float();
  if (odd >= 205 && odd < 215) args.soft_cap = any_float();
  if (odd >= 215 && odd < 235 && args.q_heads <= 16384) {
    auto* values = s.array<float>(args.q_heads);
    for (std::uint32_t i = 0; i < args.q_heads; ++i) values[i] = i == 0 ? any_float() : 0.5F;
    (odd % 2 == 0 ? args.sinks : args.alibi_slopes) = values;
  }
  const std::uint32_t layer = s.in.one_in(8) ? s.layer(one) : one.next_layer;
  if (s.took(s.api.step_run(step, layer, s.spoil(boxed)), "step_run"))
    one.next_layer = (one.next_layer + 1) % one.layers;
  else
    s.unchanged(one, before, "step_run");
}

void end(AbiSession& s, LiveCache& one) {
  kvant_step* step = s.step(one);
  if (s.in.one_in(3)) {
    // Of a step that is not there it is logged and ignored.
    s.api.step_abort(step);
  } else {
    const kvant_cache_stats before = s.stats(one);
    if (!s.took(s.api.step_commit(step), "step_commit")) {
      s.unchanged(one, before, "step_commit");
      return;
    }
  }
  if (step == nullptr) return;
  for (LiveCache& cache : s.caches)
    if (cache.step == step) {
      s.dead.push_back(step);
      cache.step = nullptr;
    }
}

void slots(AbiSession& s, LiveCache& one) {
  const kvant_cache_stats before = s.stats(one);
  kvant_cache* cache = s.cache(one);
  const std::uint32_t count = s.in.below(20);
  if (s.in.one_in(2)) {
    auto* list = s.array<std::int64_t>(count);
    for (std::uint32_t i = 0; i < count; ++i)
      list[i] = static_cast<std::int64_t>(s.in.one_in(8) ? s.in.magnitude() : s.in.below(64));
    const bool none = s.in.one_in(32);
    const std::uint64_t said = none ? s.in.magnitude() : count;
    const std::uint32_t layer = s.layer(one), side = s.side();
    if (!s.took(s.api.paged_read(cache, layer, side, said, none ? nullptr : list,
                                 s.tensor(count * one.kv_heads * one.dim_k)),
                "paged_read"))
      s.unchanged(one, before, "paged_read");
  } else {
    auto* from = s.array<std::int32_t>(count);
    auto* to = s.array<std::int32_t>(count);
    for (std::uint32_t i = 0; i < count; ++i) {
      from[i] = static_cast<std::int32_t>(s.in.one_in(16) ? s.in.magnitude32() : s.in.below(6));
      to[i] = static_cast<std::int32_t>(s.in.one_in(16) ? s.in.magnitude32() : s.in.below(6));
    }
    const std::uint32_t pairs = count % 4;
    if (!s.took(s.api.paged_copy(cache, pairs, s.in.one_in(32) ? nullptr : from, to), "paged_copy"))
      s.unchanged(one, before, "paged_copy");
  }
}

}  // namespace

void call_step(AbiSession& s) {
  LiveCache& one = s.own();
  const std::uint32_t what = s.in.below(16);
  if (what == 0 || (one.external && what < 4)) return slots(s, one);
  if (what == 1) return plan_paged(s, one);
  if (one.step == nullptr || what == 2) return one.external ? plan_paged(s, one) : plan(s, one);
  if (what < 11) return run(s, one);
  end(s, one);
}

}  // namespace kvant::fuzz
