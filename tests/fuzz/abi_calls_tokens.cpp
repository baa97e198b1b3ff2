// Tokens outside of steps, memory, pruning, rotation; errors, formats, devices, stand-alone conversion, configuration.
#include <algorithm>

#include "abi_session.hpp"

namespace kvant::fuzz {
namespace {

void write_tokens(AbiSession& s, LiveCache& one) {
  const kvant_cache_stats before = s.stats(one);
  kvant_cache* cache = s.cache(one);
  const kvant_sequence sequence = s.sequence(one);
  std::uint64_t begin = 0;
  (void)s.took(s.api.sequence_length(one.handle, sequence, &begin), "sequence_length");
  if (s.in.one_in(4)) begin = s.in.magnitude() / 4;
  const std::uint64_t count = s.in.one_in(8) ? s.in.magnitude() : s.in.below(24);
  const std::uint32_t layer = s.layer(one);
  const kvant_tensor* k = s.tensor(count * one.kv_heads * one.dim_k);
  const kvant_tensor* v = s.tensor(count * one.kv_heads * one.dim_v);
  if (!s.took(s.m.sequence_write(cache, sequence, layer, begin, count, k, v), "sequence_write"))
    s.unchanged(one, before, "sequence_write");
}

void keep(AbiSession& s, LiveCache& one) {
  const kvant_cache_stats before = s.stats(one);
  kvant_cache* cache = s.cache(one);
  const kvant_sequence sequence = s.sequence(one);
  const std::uint64_t count = std::min<std::uint64_t>(s.tokens_of(one, sequence), 64);
  auto* places = s.array<std::uint64_t>(count);
  std::uint64_t place = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    places[i] = place;
    place += 1 + (s.in.one_in(4) ? s.in.below(4) : 0);
  }
  if (count != 0 && s.in.one_in(8)) places[s.in.below(static_cast<std::uint32_t>(count))] = s.in.magnitude();
  const bool none = s.in.one_in(32);
  const std::uint64_t said = none ? s.in.magnitude() : count;
  if (!s.took(s.m.sequence_keep(cache, sequence, said, none ? nullptr : places), "sequence_keep"))
    s.unchanged(one, before, "sequence_keep");
}

void identify(AbiSession& s, LiveCache& one) {
  const kvant_cache_stats before = s.stats(one);
  kvant_cache* cache = s.cache(one);
  const kvant_sequence sequence = s.sequence(one);
  const std::uint64_t count = std::min<std::uint64_t>(s.tokens_of(one, sequence), 300);
  const std::int32_t* ids = s.token_ids(count);
  const bool none = s.in.one_in(32);
  if (!s.took(s.m.sequence_identify(cache, sequence, none ? s.in.magnitude() : count, none ? nullptr : ids),
              "sequence_identify"))
    s.unchanged(one, before, "sequence_identify");
}

void shift(AbiSession& s, LiveCache& one) {
  kvant_cache* cache = s.cache(one);
  const kvant_sequence sequence = s.sequence(one);
  auto& boxed = s.box<kvant_rotation>();
  boxed.value.pair_count = s.in.below(20);
  auto* frequencies = s.array<double>(boxed.value.pair_count);
  for (std::uint32_t i = 0; i < boxed.value.pair_count; ++i) {
    const std::uint64_t bits = s.in.one_in(16) ? s.in.u64() : 0x3FF0000000000000;
    std::memcpy(&frequencies[i], &bits, sizeof bits);
  }
  boxed.value.frequencies = frequencies;
  boxed.value.flags = s.in.one_in(16) ? s.in.magnitude32() : s.in.below(2);
  if (s.in.one_in(32)) {
    boxed.value.frequencies = nullptr;
    boxed.value.pair_count = s.in.magnitude32();
  }
  const std::uint64_t begin = s.tokens_of(one, sequence) / 2, count = s.tokens_of(one, sequence) / 2;
  const auto positions = static_cast<std::int64_t>(s.in.magnitude());
  const kvant_rotation* rotation = s.spoil(boxed);
  const std::int64_t turn = s.in.one_in(2) ? positions : -(positions & 0xFFFF);
  (void)s.took(s.m.sequence_shift(cache, sequence, begin, count, rotation, turn), "sequence_shift");
}

void mass(AbiSession& s, LiveCache& one) {
  const kvant_cache_stats before = s.stats(one);
  kvant_cache* cache = s.cache(one);
  const kvant_sequence sequence = s.sequence(one);
  const std::uint64_t count = std::min<std::uint64_t>(s.tokens_of(one, sequence), 300);
  const bool none = s.in.one_in(16);
  const std::uint32_t layer = s.in.one_in(2) ? KVANT_MASS_ALL : s.layer(one),
                      head = s.in.one_in(2) ? KVANT_MASS_ALL : s.in.magnitude32();
  const std::uint64_t begin = s.in.one_in(4) ? s.in.magnitude() / 16 : 0;
  if (s.in.one_in(6)) {
    (void)s.took(s.m.sequence_mass_clear(cache, sequence), "sequence_mass_clear");
  } else if (none) {
    // Where the count is more than any sequence has, nothing may be written.
    (void)s.took(s.m.sequence_mass(cache, sequence, layer, head, begin, (std::uint64_t{1} << 32) + s.in.magnitude() / 2,
                                   s.arena.data()),
                 "sequence_mass");
  } else {
    (void)s.took(s.m.sequence_mass(cache, sequence, layer, head, begin, count, s.array<float>(count)), "sequence_mass");
  }
  s.unchanged(one, before, "sequence_mass");
}

void cool(AbiSession& s, LiveCache& one) {
  const kvant_cache_stats before = s.stats(one);
  kvant_cache* cache = s.cache(one);
  auto& boxed = s.box<kvant_cool_args>();
  boxed.value.target_bytes = s.in.one_in(8) ? s.in.magnitude() : before.pool_bytes * s.in.below(101) / 100;
  boxed.value.sinks = s.in.one_in(16) ? s.in.magnitude32() : 1 + s.in.below(4);
  boxed.value.recent = s.in.one_in(16) ? s.in.magnitude32() : 1 + s.in.below(24);
  std::uint64_t pages = 7;
  if (s.took(s.m.cache_cool(cache, s.spoil(boxed), &pages), "cache_cool")) {
    KVANT_FUZZ_CHECK(s.stats(one).used_pages == before.used_pages);
    KVANT_FUZZ_CHECK(s.stats(one).used_bytes <= before.used_bytes);
  } else {
    KVANT_FUZZ_CHECK(pages == 7);
  }
}

void prune(AbiSession& s, LiveCache& one) {
  const kvant_cache_stats before = s.stats(one);
  kvant_cache* cache = s.cache(one);
  const kvant_sequence sequence = s.sequence(one);
  auto& boxed = s.box<kvant_prune_args>();
  boxed.value.keep_tokens = s.in.one_in(8) ? s.in.magnitude() : s.in.below(64);
  boxed.value.sinks = s.in.one_in(16) ? s.in.magnitude32() : 1 + s.in.below(4);
  boxed.value.recent = s.in.one_in(16) ? s.in.magnitude32() : 1 + s.in.below(24);
  std::uint64_t count = 7;
  // Room for as many places as may stay, or none.
  std::uint64_t* places = boxed.value.keep_tokens < 4096 ? s.array<std::uint64_t>(boxed.value.keep_tokens) : nullptr;
  if (!s.took(s.m.sequence_prune(cache, sequence, s.spoil(boxed), places, &count), "sequence_prune")) {
    KVANT_FUZZ_CHECK(count == 7);
    s.unchanged(one, before, "sequence_prune");
  }
  if (s.in.one_in(3)) cool(s, one);
}

void memory(AbiSession& s, LiveCache& one) {
  const kvant_cache_stats before = s.stats(one);
  kvant_cache* cache = s.cache(one);
  const std::uint32_t what = s.in.below(6);
  if (what == 0) {
    const std::uint64_t bits = s.in.u64();
    double weight = 0;
    std::memcpy(&weight, &bits, sizeof weight);
    const std::uint32_t layer = s.layer(one), side = s.side();
    (void)s.took(s.m.memory_weight(cache, layer, side, s.in.one_in(2) ? weight : 1.0), "memory_weight");
    return s.unchanged(one, before, "memory_weight");
  }
  if (what == 1) {
    const std::uint32_t k = s.format(), v = s.format();
    (void)s.took(s.m.cache_quantize(cache, k, v), "cache_quantize");
    return;
  }
  auto& boxed = s.box<kvant_memory_args>();
  kvant_memory_args& args = boxed.value;
  args.limit_bytes = s.in.one_in(2) ? before.pool_bytes * s.in.below(9) / 8 : s.in.magnitude();
  args.flags = s.in.one_in(16) ? s.in.magnitude32() : s.in.below(2);
  if (s.in.one_in(2)) {
    args.format_count = s.in.below(4);
    auto* formats = s.array<std::uint32_t>(args.format_count);
    for (std::uint32_t i = 0; i < args.format_count; ++i) formats[i] = s.format();
    args.formats = formats;
  }
  if (s.in.one_in(8)) args.sinks = s.in.magnitude32();
  if (s.in.one_in(8)) args.recent = s.in.magnitude32();
  if (what < 4) {
    const char* text = nullptr;
    if (s.took(s.m.memory_plan(cache, s.spoil(boxed), &text), "memory_plan"))
      KVANT_FUZZ_CHECK(text != nullptr);
    else
      KVANT_FUZZ_CHECK(text == nullptr);
    s.unchanged(one, before, "memory_plan");
  } else if (!s.took(s.m.memory_limit(cache, s.spoil(boxed)), "memory_limit")) {
    s.unchanged(one, before, "memory_limit");
  }
}

void clear(AbiSession& s, LiveCache& one) {
  const kvant_cache_stats before = s.stats(one);
  kvant_cache* cache = s.cache(one);
  std::uint64_t count = 7;
  if (s.took(s.m.clear_all(cache, &count), "clear_all")) {
    KVANT_FUZZ_CHECK(count <= before.sequence_count && s.stats(one).sequence_count == 0);
    s.dead_sequences.insert(s.dead_sequences.end(), one.sequences.begin(), one.sequences.end());
    one.sequences.clear();
  } else {
    KVANT_FUZZ_CHECK(count == 7);
    s.unchanged(one, before, "clear_all");
  }
}

// Rows of floats to canonical bytes and back.
void rows(AbiSession& s) {
  const std::uint32_t format = s.format(), head_dim = s.in.one_in(8) ? s.in.magnitude32() : 32 + 8 * s.in.below(20);
  std::uint64_t bytes = 7;
  if (!s.took(s.api.row_bytes(s.library.context, format, head_dim, &bytes), "row_bytes")) {
    KVANT_FUZZ_CHECK(bytes == 7);
    bytes = s.in.u8();
  }
  const std::uint64_t count = s.in.one_in(4) ? s.in.magnitude() : s.in.below(6);
  std::uint64_t in_size = 0, out_size = 0;
  float* in = s.floats(count * head_dim, &in_size);
  float* out = s.floats(count * bytes / 4 + 1, &out_size);
  out_size = std::min(out_size, count * bytes);
  if (s.in.one_in(2))
    (void)s.took(s.api.quantize(s.library.device, format, head_dim, count, in, in_size, out, out_size), "quantize");
  else
    (void)s.took(s.api.dequantize(s.library.device, format, head_dim, count, out, out_size, in, in_size), "dequantize");
}

void facts(AbiSession& s) {
  std::uint32_t number = 7;
  switch (s.in.below(7)) {
    case 0: {
      auto& boxed = s.box<kvant_format_info>();
      const std::uint32_t format = s.format();
      (void)s.took(s.api.format_info(s.library.context, format, s.spoil(boxed)), "format_info");
      break;
    }
    case 1: {
      static const char* const kNames[] = {"q8_0", "", "Q8_0", nullptr, "nonsense"};
      if (!s.took(s.api.format_find(s.library.context, kNames[s.in.below(5)], &number), "format_find"))
        KVANT_FUZZ_CHECK(number == 7);
      break;
    }
    case 2: {
      auto& boxed = s.box<kvant_device_info>();
      const std::uint32_t index = s.in.magnitude32();
      (void)s.took(s.api.device_info(s.library.context, index, s.spoil(boxed)), "device_info");
      break;
    }
    case 3: {
      auto& boxed = s.box<kvant_profile_entry>();
      const std::uint32_t index = s.in.magnitude32();
      if (s.took(s.api.device_profile(s.library.device, &number), "device_profile"))
        (void)s.took(s.api.device_profile_entry(s.library.device, index, s.spoil(boxed)), "device_profile_entry");
      break;
    }
    case 4: {
      auto& boxed = s.box<kvant_build_info>();
      (void)s.took(s.api.get_build_info(s.spoil(boxed)), "get_build_info");
      break;
    }
    case 5: {
      static const char* const kIds[] = {"kvant.manager/1", "kvant.manager/2", "", nullptr};
      const std::uint32_t which = s.in.below(4);
      KVANT_FUZZ_CHECK((s.api.get_extension(s.library.context, kIds[which]) != nullptr) == (which == 0));
      break;
    }
    default: {
      auto& boxed = s.box<kvant_config>();
      static const char* const kPresets[] = {nullptr, "llm", "mobile", "research", "nonsense"};
      if (!s.took(s.m.config_default(s.library.context, kPresets[s.in.below(5)], &boxed.value), "config_default"))
        break;
      boxed.value.capacity_tokens = s.in.magnitude();
      boxed.value.page_tokens = s.in.one_in(2) ? s.in.magnitude32() : 16;
      boxed.value.policy.ttl_ms = s.in.magnitude();
      boxed.value.policy.sink_pages = s.in.one_in(2) ? s.in.magnitude32() : 0;
      boxed.value.tiers.reserved[s.in.below(8)] = s.in.below(2);
      const char* json = nullptr;
      if (!s.took(s.m.config_write(s.library.context, s.spoil(boxed), &json), "config_write"))
        KVANT_FUZZ_CHECK(json == nullptr);
      break;
    }
  }
}

}  // namespace

void call_tokens(AbiSession& s) {
  LiveCache& one = s.own();
  switch (s.in.below(12)) {
    case 0:
    case 1:
    case 2:
    case 3:
      return write_tokens(s, one);
    case 4:
      return keep(s, one);
    case 5:
      return identify(s, one);
    case 6:
      return shift(s, one);
    case 7:
      return mass(s, one);
    case 8:
      return prune(s, one);
    case 9:
    case 10:
      return memory(s, one);
    default:
      return s.in.one_in(4) ? clear(s, one) : write_tokens(s, one);
  }
}

void call_context(AbiSession& s) { s.in.one_in(2) ? rows(s) : facts(s); }

}  // namespace kvant::fuzz
