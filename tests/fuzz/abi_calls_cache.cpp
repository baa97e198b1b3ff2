// cache_create and cache_destroy, sequences, conversion, the prefix cache.
#include <algorithm>

#include "abi_session.hpp"

namespace kvant::fuzz {
namespace {

constexpr std::size_t kMostCaches = 3, kMostSequences = 8;

// The shapes that most inputs use; their pools are small enough to be full now and then.
void fill_cache_args(AbiSession& s, kvant_cache_args& args, LiveCache& shape) {
  static constexpr std::uint32_t kFlags[] = {KVANT_CACHE_PREFIXES, KVANT_CACHE_PREFIXES | KVANT_CACHE_MASS,
                                             KVANT_CACHE_EXTERNAL_PAGES, 0};
  const std::uint8_t kind = s.in.u8();
  shape.layers = kind % 4 == 1 ? 2 : 1;
  auto* layers = s.array<kvant_layer_args>(shape.layers);
  for (std::uint32_t i = 0; i < shape.layers; ++i) {
    std::memset(&layers[i], 0, sizeof layers[i]);
    layers[i].struct_size = sizeof layers[i];
    layers[i].kv_heads = kind % 4 == 0 ? 2 : 1;
    layers[i].head_dim_k = kind % 4 == 3 ? 64 : 32;
    layers[i].head_dim_v = 32;
    layers[i].format_k = s.in.below(10);
    layers[i].format_v = s.in.below(10);
    if (kind % 4 == 1 && i == 1) {
      layers[i].window = 20;
      layers[i].window_sinks = 2;
    }
  }
  args.layer_count = shape.layers;
  args.layers = layers;
  args.capacity_tokens = 32 + 32 * s.in.below(5);
  args.flags = kFlags[kind % 4];
  if ((args.flags & KVANT_CACHE_PREFIXES) != 0 || s.in.one_in(32)) args.model_id = "fuzz";
  if (kind % 8 >= 4 && (args.flags & KVANT_CACHE_EXTERNAL_PAGES) == 0) {
    args.protect_sides = 1 + kind % 3;
    args.protect_first = kind % 5;
    args.protect_newest = 1 + kind % 40;
  }
  if (kind >= 200) {  // one value of anything
    kvant_layer_args& layer = layers[s.in.below(shape.layers)];
    const std::uint64_t value = s.in.magnitude();
    const auto narrow = static_cast<std::uint32_t>(value);
    switch (s.in.below(14)) {
      case 0:
        layer.kv_heads = narrow;
        break;
      case 1:
        layer.head_dim_k = narrow;
        break;
      case 2:
        layer.head_dim_v = narrow;
        break;
      case 3:
        layer.format_k = narrow;
        break;
      case 4:
        layer.window = narrow;
        break;
      case 5:
        layer.window_sinks = narrow;
        break;
      case 6:
        args.capacity_tokens = value;
        break;
      case 7:
        args.page_tokens = narrow;
        break;
      case 8:
        args.flags = narrow;
        break;
      case 9:
        args.slab_bytes = value;
        break;
      case 10:
        args.layer_stride = shape.layers == 1 ? narrow : narrow % 8;
        break;
      case 11:
        args.layer_count = s.in.below(shape.layers + 1);
        break;
      case 12:
        layer.struct_size = s.in.below(sizeof layer + 1);
        break;
      default:
        args.layers = nullptr;
        args.layer_count = narrow;
        break;
    }
  }
  shape.external = (args.flags & KVANT_CACHE_EXTERNAL_PAGES) != 0;
  shape.layers = std::min(shape.layers, args.layer_count);
  shape.kv_heads = layers[0].kv_heads;
  shape.dim_k = layers[0].head_dim_k;
  shape.dim_v = layers[0].head_dim_v != 0 ? layers[0].head_dim_v : shape.dim_k;
}

const kvant_policy_args* policy(AbiSession& s) {
  auto& boxed = s.box<kvant_policy_args>();
  boxed.value.kind = s.in.one_in(16) ? s.in.magnitude32() : s.in.below(4);
  if (boxed.value.kind == KVANT_POLICY_WINDOW || s.in.one_in(16)) boxed.value.sink_pages = s.in.magnitude32();
  if (s.in.one_in(4)) boxed.value.ttl_ms = s.in.magnitude();
  return s.spoil(boxed);
}

void create(AbiSession& s) {
  if (s.caches.size() == kMostCaches) return;
  auto& boxed = s.box<kvant_cache_args>();
  LiveCache made;
  fill_cache_args(s, boxed.value, made);
  if (s.in.one_in(4) && boxed.value.model_id != nullptr) boxed.value.policy = policy(s);
  kvant_cache* cache = nullptr;
  kvant_error* error = nullptr;
  const char* source = "cache_create";
  if (s.in.one_in(6)) {
    static const char* const kTexts[] = {
        "{}",
        "{\"preset\": \"llm\"}",
        "{\"preset\": \"mobile\", \"model_id\": \"x\"}",
        "{\"prefix_cache\": true, \"format_k\": \"q8_0\"}",
        "{\"preallocate_bytes\": 1000000}",
        "{\"slab_bytes\": 1}",
        "{\"memory_limit_bytes\": 1}",
        "{\"prefix_cache\": true, \"hybrid\": {\"hot_format\": \"f16\", \"cold_format\": \"q4_0\"}}",
        "{\"events\": 0}",
        "[",
        ""};
    source = "cache_configure";
    const kvant_cache_args* args = s.spoil(boxed);
    const char* json = s.in.one_in(16) ? nullptr : kTexts[s.in.below(std::size(kTexts))];
    error = s.m.cache_configure(s.library.device, args, json, &cache);
  } else {
    const kvant_cache_args* args = s.spoil(boxed);
    error = s.api.cache_create(s.library.device, args, s.in.one_in(64) ? nullptr : &cache);
  }
  if (!s.took(error, source)) {
    KVANT_FUZZ_CHECK(cache == nullptr);
    return;
  }
  made.handle = cache;
  s.caches.push_back(std::move(made));
}

void destroy(AbiSession& s) {
  LiveCache& one = s.own();
  if (one.step != nullptr) {
    s.api.cache_destroy(one.handle);  // refused: its step is open
    (void)s.stats(one);
    return;
  }
  s.forget(one);
  s.api.cache_destroy(one.handle);
  s.caches.erase(s.caches.begin() + (&one - s.caches.data()));
}

void add(LiveCache& to, kvant_sequence sequence) {
  KVANT_FUZZ_CHECK(sequence != 0 &&
                   std::find(to.sequences.begin(), to.sequences.end(), sequence) == to.sequences.end());
  to.sequences.push_back(sequence);
}

const kvant_sequence_args* sequence_args(AbiSession& s) {
  auto& boxed = s.box<kvant_sequence_args>();
  kvant_sequence_args& args = boxed.value;
  args.token_count = s.in.below(60);
  args.tokens = s.token_ids(args.token_count);
  const std::uint8_t odd = s.in.u8();
  if (odd >= 200) args.leave_tokens = s.in.magnitude();
  if (odd >= 216) args.ttl_ms = s.in.magnitude();
  if (odd >= 224) args.priority = s.in.magnitude32();
  if (odd >= 240) {
    args.salt_size = s.in.below(6);
    args.salt = s.array<char>(args.salt_size);
  }
  if (odd >= 248) {
    args.salt = odd == 248 ? args.salt : nullptr;
    args.salt_size = odd == 248 ? args.salt_size : s.in.magnitude();
  }
  if (odd >= 252) {
    args.tokens = nullptr;
    args.token_count = s.in.magnitude();
    args.flags = s.in.below(4);
  }
  return s.spoil(boxed);
}

void open_sequence(AbiSession& s, LiveCache& one, std::uint32_t how) {
  kvant_sequence made = 7;
  std::uint64_t tokens = 7;
  bool ok = false;
  const std::size_t held = one.sequences.size();
  if (held >= kMostSequences) return;
  const kvant_cache_stats before = s.stats(one);
  const char* source = how == 0 ? "sequence_create" : how == 1 ? "sequence_open" : "sequence_fork";
  kvant_cache* cache = s.cache(one);
  if (how == 0) {
    ok = s.took(s.api.sequence_create(cache, &made), source);
  } else if (how == 1) {
    const kvant_sequence_args* args = sequence_args(s);
    ok = s.took(s.api.sequence_open(cache, args, &made, s.in.one_in(8) ? nullptr : &tokens), source);
  } else {
    const kvant_sequence parent = s.sequence(one);
    const std::uint64_t length = s.tokens_of(one, parent);
    ok = s.took(s.api.sequence_fork(cache, parent, length, &made), source);
  }
  if (ok) {
    add(one, made);
  } else {
    KVANT_FUZZ_CHECK(made == 7 && tokens == 7);
    s.unchanged(one, before, source);
  }
}

void shorten(AbiSession& s, LiveCache& one) {
  const kvant_cache_stats before = s.stats(one);
  kvant_cache* cache = s.cache(one);
  const kvant_sequence sequence = s.sequence(one);
  if (s.in.one_in(2)) {
    const std::uint64_t tokens = s.tokens_of(one, sequence);
    if (!s.took(s.api.sequence_truncate(cache, sequence, tokens), "sequence_truncate"))
      s.unchanged(one, before, "sequence_truncate");
  } else if (s.took(s.api.sequence_destroy(cache, sequence), "sequence_destroy")) {
    const auto found = std::find(one.sequences.begin(), one.sequences.end(), sequence);
    // A store's own sequences are destroyed by a guessed handle alone.
    if (found != one.sequences.end()) one.sequences.erase(found);
    s.dead_sequences.push_back(sequence);
  } else {
    s.unchanged(one, before, "sequence_destroy");
  }
}

void read(AbiSession& s, LiveCache& one) {
  const kvant_cache_stats before = s.stats(one);
  kvant_cache* cache = s.cache(one);
  const kvant_sequence sequence = s.sequence(one);
  const std::uint32_t layer = s.layer(one), side = s.side();
  const std::uint64_t end = s.tokens_of(one, sequence),
                      count = s.in.one_in(8) ? s.in.magnitude() : std::min<std::uint64_t>(end, s.in.below(24));
  const std::uint64_t begin = s.in.one_in(16) ? s.in.magnitude() : end - std::min(count, end);
  const char* source = "sequence_read";
  bool ok = false;
  if (s.in.one_in(2)) {
    source = "sequence_export";
    // One of the formats has the exact size.
    for (std::uint32_t format = 0; format < s.library.formats && !ok; ++format) {
      std::uint64_t size = 0, row = 0;
      if (!s.took(s.api.row_bytes(s.library.context, format, side == 0 ? one.dim_k : one.dim_v, &row), "row_bytes"))
        break;
      float* out = s.floats(count * one.kv_heads * row / 4 + 1, &size);
      size = std::min(size, count * one.kv_heads * row);
      ok = s.took(s.api.sequence_export(cache, sequence, layer, side, begin, count, out, size), source);
    }
  } else {
    ok = s.took(
        s.api.sequence_read(cache, sequence, layer, side, begin, count, s.tensor(count * one.kv_heads * one.dim_k)),
        source);
  }
  if (!ok) s.unchanged(one, before, source);
}

void prefixes(AbiSession& s, LiveCache& one) {
  const kvant_cache_stats before = s.stats(one);
  kvant_cache* cache = s.cache(one);
  std::uint64_t number = 7;
  switch (s.in.below(4)) {
    case 0: {
      const kvant_sequence_args* args = sequence_args(s);
      if (!s.took(s.api.prefix_find(cache, args, &number), "prefix_find")) KVANT_FUZZ_CHECK(number == 7);
      break;
    }
    case 1:
      if (s.took(s.api.prefix_clear(cache, &number), "prefix_clear")) return;
      KVANT_FUZZ_CHECK(number == 7);
      break;
    case 2:
      if (s.took(s.api.prefix_policy(cache, policy(s)), "prefix_policy")) return;
      break;
    default: {
      auto& boxed = s.box<kvant_prefix_stats>();
      (void)s.took(s.api.prefix_stats(cache, s.spoil(boxed)), "prefix_stats");
      break;
    }
  }
  s.unchanged(one, before, "prefix_*");
}

void convert(AbiSession& s, LiveCache& one) {
  const kvant_cache_stats before = s.stats(one);
  kvant_cache* cache = s.cache(one);
  const std::uint32_t layer = s.layer(one), side = s.side(), format = s.format();
  if (!s.took(s.api.cache_convert(cache, layer, side, format), "cache_convert"))
    s.unchanged(one, before, "cache_convert");
}

}  // namespace

void call_cache(AbiSession& s) {
  if (s.caches.empty()) {
    create(s);
    return;
  }
  const std::uint32_t what = s.in.below(20);
  if (what == 0) return create(s);
  if (what == 1) return destroy(s);
  LiveCache& one = s.own();
  if (one.external && what < 15) return call_step(s);
  if (what < 10) return open_sequence(s, one, what % 3);
  if (what < 13) return shorten(s, one);
  if (what < 16) return read(s, one);
  if (what < 18) return prefixes(s, one);
  convert(s, one);
}

}  // namespace kvant::fuzz
