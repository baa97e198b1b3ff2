// Saving and loading, statistics, the store, tiers.
#include <algorithm>

#include "abi_session.hpp"

namespace kvant::fuzz {
namespace {

constexpr std::size_t kMostStream = 1u << 20;

std::uint32_t write_stream(void* user_data, const void* data, std::uint64_t size) {
  AbiSession& s = *static_cast<AbiSession*>(user_data);
  if (s.stream.size() + size > kMostStream) return 0;
  s.stream.append(static_cast<const char*>(data), size);
  return 1;
}

// Reads the stream's bytes, some of them changed; now and then it says more than was asked for, or calls back.
struct Reader {
  AbiSession* session;
  std::size_t at, spoil;
  std::uint8_t with, kind;
};

std::uint64_t read_stream(void* user_data, void* out, std::uint64_t size) {
  Reader& reader = *static_cast<Reader*>(user_data);
  AbiSession& s = *reader.session;
  if (reader.kind == 250) return size + 1;
  if (reader.kind == 251 && !s.caches.empty()) {
    kvant_sequence made = 7;
    KVANT_FUZZ_CHECK(!s.took(s.api.sequence_create(s.caches.front().handle, &made), "sequence_create") && made == 7);
    KVANT_FUZZ_CHECK(s.last_code == KVANT_ERROR_FAILED_PRECONDITION);
  }
  const std::size_t got = std::min<std::size_t>({static_cast<std::size_t>(size), s.stream.size() - reader.at, 4096});
  std::memcpy(out, s.stream.data() + reader.at, got);
  if (reader.kind >= 200 && reader.spoil >= reader.at && reader.spoil < reader.at + got)
    static_cast<std::uint8_t*>(out)[reader.spoil - reader.at] = reader.with;
  reader.at += got;
  return got;
}

void save(AbiSession& s, LiveCache& one) {
  auto& args = s.box<kvant_state_args>();
  args.value.flags = s.in.one_in(16) ? s.in.magnitude32() : s.in.below(4);
  if ((args.value.flags & KVANT_STATE_ALL_SEQUENCES) == 0 || s.in.one_in(8)) {
    args.value.sequence_count = s.in.below(4);
    auto* list = s.array<kvant_sequence>(args.value.sequence_count);
    for (std::uint32_t i = 0; i < args.value.sequence_count; ++i) list[i] = s.sequence(one);
    args.value.sequences = list;
  }
  auto& stream = s.box<kvant_state_stream>();
  stream.value.user_data = &s;
  stream.value.write = s.in.one_in(32) ? nullptr : write_stream;
  const kvant_cache_stats before = s.stats(one);
  kvant_cache* cache = s.cache(one);
  const kvant_state_args* given = s.spoil(args);
  const kvant_state_stream* to = s.spoil(stream);
  s.stream.clear();
  if (s.in.one_in(8)) {
    static const char* const kPaths[] = {nullptr, "", "/nonexistent/folder/state", "/"};
    (void)s.took(s.m.state_save_file(cache, given, kPaths[s.in.below(4)]), "state_save_file");
  } else {
    (void)s.took(s.m.state_save(cache, given, to), "state_save");
  }
  s.unchanged(one, before, "state_save");
}

void load(AbiSession& s, LiveCache& one) {
  if (one.sequences.size() > 8) return;
  Reader reader{&s, 0, s.in.u16(), s.in.u8(), s.in.u8()};
  auto& stream = s.box<kvant_state_stream>();
  stream.value.user_data = &reader;
  stream.value.read = s.in.one_in(32) ? nullptr : read_stream;
  const kvant_cache_stats before = s.stats(one);
  std::uint32_t count = 7;
  kvant_cache* cache = s.cache(one);
  const kvant_state_stream* from = s.spoil(stream);
  if (s.in.one_in(8)) {
    KVANT_FUZZ_CHECK(!s.took(s.m.state_load_file(cache, s.in.one_in(2) ? nullptr : "/nonexistent/state", &count),
                             "state_load_file"));
    KVANT_FUZZ_CHECK(count == 7);
    return;
  }
  if (!s.took(s.m.state_load(cache, from, &count), "state_load")) {
    KVANT_FUZZ_CHECK(count == 7);
    return s.unchanged(one, before, "state_load");
  }
  for (std::uint32_t i = 0; i < count; ++i) {
    std::uint64_t saved = 0;
    kvant_sequence made = 0;
    KVANT_FUZZ_CHECK(s.took(s.m.state_loaded(cache, i, &saved, &made), "state_loaded"));
    one.sequences.push_back(made);
  }
  std::uint64_t saved = 7;
  kvant_sequence made = 7;
  KVANT_FUZZ_CHECK(!s.took(s.m.state_loaded(cache, count + s.in.magnitude32() % 16, &saved, &made), "state_loaded") &&
                   saved == 7 && made == 7);
}

void statistics(AbiSession& s, LiveCache& one) {
  const kvant_cache_stats before = s.stats(one);
  kvant_cache* cache = s.cache(one);
  switch (s.in.below(4)) {
    case 0: {
      static const char* const kLabels[] = {nullptr, "a=b", "a=b,c=", "=", ",", "a=\"\\\n", "1=2", "a=b,a=c"};
      const char* text = nullptr;
      std::uint64_t size = 0;
      const std::uint32_t kind = s.in.one_in(8) ? s.in.magnitude32() : s.in.below(3);
      if (s.took(s.m.stats_text(cache, kind, kLabels[s.in.below(8)], &text, &size), "stats_text"))
        KVANT_FUZZ_CHECK(text != nullptr && std::strlen(text) == size);
      else
        KVANT_FUZZ_CHECK(text == nullptr && size == 0);
      break;
    }
    case 1:
      (void)s.took(s.m.stats_observe(cache), "stats_observe");
      break;
    case 2:
      (void)s.took(s.m.stats_sample_errors(cache, s.in.magnitude()), "stats_sample_errors");
      break;
    default: {
      const std::uint32_t capacity = s.in.below(20);
      auto* events = s.array<kvant_event>(capacity);
      for (std::uint32_t i = 0; i < capacity; ++i)
        events[i].struct_size = s.in.one_in(24) ? s.in.below(sizeof(kvant_event)) : sizeof(kvant_event);
      std::uint32_t count = 0;
      std::uint64_t lost = 0;
      const std::uint64_t since = s.in.magnitude();
      if (s.took(s.m.events_poll(cache, since, capacity, s.in.one_in(16) ? nullptr : events, &count, &lost),
                 "events_poll"))
        KVANT_FUZZ_CHECK(count <= capacity);
      break;
    }
  }
  s.unchanged(one, before, "statistics");
}

const kvant_store_args* store_args(AbiSession& s, LiveCache& one, bool tensors) {
  auto& boxed = s.box<kvant_store_args>();
  kvant_store_args& args = boxed.value;
  args.batch = s.in.below(3);
  args.token_count = 1 + s.in.below(40);
  args.layer = s.layer(one);
  args.tokens = s.token_ids(std::max<std::uint32_t>(1, args.batch) * args.token_count);
  const std::uint64_t rows = std::max<std::uint32_t>(1, args.batch) * args.token_count * one.kv_heads;
  if (tensors) {
    args.k = s.tensor(rows * one.dim_k);
    args.v = s.in.one_in(16) ? nullptr : s.tensor(rows * one.dim_v);
  }
  const std::uint8_t odd = s.in.u8();
  if (odd >= 200 && odd < 216) args.k_batch_stride = s.in.magnitude();
  if (odd >= 208 && odd < 224) args.v_batch_stride = s.in.magnitude();
  if (odd >= 240) {
    args.tokens = nullptr;
    args.token_count = s.in.magnitude();
    args.batch = s.in.magnitude32();
  }
  return s.spoil(boxed);
}

// Prefixes that made room stay gone, whatever became of the call.
void store(AbiSession& s, LiveCache& one) {
  kvant_cache* cache = s.cache(one);
  switch (one.has_store || s.in.one_in(8) ? s.in.below(8) : 0) {
    case 0: {
      auto& boxed = s.box<kvant_store_options>();
      if (s.in.one_in(3)) boxed.value.cold_cache = s.cache(s.own());
      boxed.value.promote_uses = s.in.below(3);
      if (s.in.one_in(32)) boxed.value.reserved = 1;
      one.has_store |= s.took(s.m.store_open(cache, s.spoil(boxed)), "store_open");
      break;
    }
    case 1:
    case 2:
      (void)s.took(s.m.store_put(cache, store_args(s, one, true)), "store_put");
      break;
    case 3:
    case 4: {
      const kvant_store_args* args = store_args(s, one, true);
      auto* found = s.array<std::uint32_t>(4);
      (void)s.took(s.m.store_get(cache, args, s.in.one_in(32) ? nullptr : found), "store_get");
      break;
    }
    case 5: {
      const kvant_store_args* args = store_args(s, one, s.in.one_in(16));
      (void)s.took(s.m.store_find(cache, args, s.array<std::uint32_t>(4)), "store_find");
      break;
    }
    case 6:
      (void)s.took(s.m.store_erase(cache, store_args(s, one, false)), "store_erase");
      break;
    default: {
      if (s.in.one_in(2)) (void)s.took(s.m.store_clear(cache), "store_clear");
      auto& boxed = s.box<kvant_store_stats>();
      (void)s.took(s.m.store_stats(cache, s.spoil(boxed)), "store_stats");
      break;
    }
  }
}

// ---- the custom tier: keeps what it gets, for a while ----
std::string key_of(const std::uint8_t* key) { return {reinterpret_cast<const char*>(key), 32}; }

std::uint32_t tier_put(void* user_data, const std::uint8_t* key, const void* value, std::uint64_t size) {
  AbiSession& s = *static_cast<AbiSession*>(user_data);
  const std::lock_guard lock(s.tier_mutex);
  if (s.tier.size() >= 64) return 0;
  s.tier[key_of(key)] = std::string(static_cast<const char*>(value), size);
  return 1;
}
std::uint64_t tier_get(void* user_data, const std::uint8_t* key, void* out, std::uint64_t out_size) {
  AbiSession& s = *static_cast<AbiSession*>(user_data);
  const std::lock_guard lock(s.tier_mutex);
  const auto found = s.tier.find(key_of(key));
  if (found == s.tier.end()) return 0;
  if (found->second.size() <= out_size) std::memcpy(out, found->second.data(), found->second.size());
  return found->second.size();
}

void set_tiers(AbiSession& s, LiveCache& one, kvant_cache* cache) {
  auto& boxed = s.box<kvant_tiers_args>();
  kvant_tiers_args& args = boxed.value;
  args.tier_count = s.in.below(3);
  auto* tiers = s.array<kvant_tier_args>(args.tier_count);
  auto& functions = s.box<kvant_tier_functions>();
  functions.value.user_data = &s;
  functions.value.put = s.in.one_in(32) ? nullptr : tier_put;
  functions.value.get = tier_get;
  const kvant_tier_functions* given = s.spoil(functions);
  for (std::uint32_t i = 0; i < args.tier_count; ++i) {
    std::memset(&tiers[i], 0, sizeof tiers[i]);
    tiers[i].struct_size = s.in.one_in(32) ? s.in.below(sizeof tiers[i]) : sizeof tiers[i];
    tiers[i].kind = s.in.one_in(2) ? KVANT_TIER_CUSTOM : KVANT_TIER_HOST;
    tiers[i].functions = tiers[i].kind == KVANT_TIER_CUSTOM ? given : nullptr;
    tiers[i].capacity_bytes = tiers[i].kind == KVANT_TIER_HOST ? 4096 + s.in.magnitude() : 0;
    const std::uint8_t odd = s.in.u8();
    if (odd == 240) tiers[i].kind = s.in.magnitude32() | 8;
    if (odd == 241) tiers[i].kind = KVANT_TIER_DISK;
    if (odd == 242) tiers[i].location = "";
    if (odd == 243) tiers[i].kind = KVANT_TIER_REMOTE;
    if (odd == 244) tiers[i].timeout_ms = s.in.magnitude32();
    if (odd == 245) tiers[i].functions = given;
  }
  args.tiers = tiers;
  static const char* const kFormats[] = {nullptr, "q8_0", "q4_0", "", "nonsense", "q8_0/q4_0"};
  args.format_k = kFormats[s.in.one_in(16) ? s.in.below(6) : s.in.below(3)];
  args.format_v = kFormats[s.in.one_in(16) ? s.in.below(6) : s.in.below(3)];
  args.flags = s.in.one_in(16) ? s.in.magnitude32() : KVANT_TIERS_ALWAYS_LOAD;
  if (s.in.one_in(4)) args.min_tokens = s.in.magnitude();
  if (s.in.one_in(4)) args.queue_bytes = s.in.magnitude();
  if (s.in.one_in(4)) args.store_after_uses = s.in.magnitude32();
  if (s.in.one_in(32)) args.tier_stride = s.in.below(16);
  if (s.in.one_in(32)) args.tiers = nullptr;
  one.has_tiers = s.took(s.m.tiers_set(cache, s.spoil(boxed)), "tiers_set") || one.has_tiers;
}

void tiers(AbiSession& s, LiveCache& one) {
  kvant_cache* cache = s.cache(one);
  switch (one.has_tiers || s.in.one_in(8) ? s.in.below(6) : 0) {
    case 0:
    case 1:
      set_tiers(s, one, cache);
      break;
    case 2:
      (void)s.took(s.m.tiers_store(cache), "tiers_store");
      break;
    case 3: {
      auto& boxed = s.box<kvant_sequence_args>();
      boxed.value.token_count = s.in.below(48);
      boxed.value.tokens = s.token_ids(boxed.value.token_count);
      (void)s.took(s.m.tiers_prefetch(cache, s.spoil(boxed)), "tiers_prefetch");
      break;
    }
    case 4:
      (void)s.took(s.m.tiers_clear(cache, s.in.one_in(2) ? KVANT_TIERS_ALL : s.in.magnitude32()), "tiers_clear");
      break;
    default:
      (void)s.took(s.m.tiers_wait(cache), "tiers_wait");
      break;
  }
}

}  // namespace

void call_state(AbiSession& s) {
  LiveCache& one = s.own();
  const std::uint32_t what = s.in.below(3);
  if (what == 0) return save(s, one);
  if (what == 1) return load(s, one);
  statistics(s, one);
}

void call_store(AbiSession& s) {
  LiveCache& one = s.own();
  s.in.one_in(2) ? store(s, one) : tiers(s, one);
}

}  // namespace kvant::fuzz
