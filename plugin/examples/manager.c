/* The cache manager in use, a part at a time: prefix cache, policies, store, tiers, memory limit, saved state, configuration,
 * statistics. K and V are random numbers that depend on the tokens as a model's would. Every figure that is printed is checked.
 * Usage: manager [path of libkvant.so]; the exit code says whether all went well. docs/manager.md explains the parts. */
#define _XOPEN_SOURCE 700 /* mkdtemp, nftw, P_tmpdir */
#include <dlfcn.h>
#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <kvant/kvant.h>
#include <kvant/kvant_ext_manager.h>

enum { LAYERS = 2, KV_HEADS = 2, HEAD_DIM = 64, ROW = KV_HEADS * HEAD_DIM, PAGE_TOKENS = 16, MOST_TOKENS = 128 };
enum { SHARED = 80, PROMPT = 104 }; /* two prompts: 5 pages in common, then a page and a half of their own */

#define Q8_ERROR 0.005 /* K and V lie between -1 and 1: half a step of each format, and some rounding */
#define Q4_ERROR 0.135

typedef unsigned long long number; /* for printf */

static const kvant_api *api;
static const kvant_ext_manager *manager;
static kvant_context *context;
static kvant_device *device;
static char folder[] = P_tmpdir "/kvant-manager-XXXXXX"; /* of the disk tier and of the saved state */

/* Prints and frees an error; true if there was none. */
static int ok(kvant_error *error) {
  if (error == NULL) return 1;
  fprintf(stderr, "%s failed (%u): %s\n", api->error_source(error), (unsigned)api->error_code(error), api->error_message(error));
  api->error_free(error);
  return 0;
}

/* For calls that should fail: the code, 0 if they did not. */
static uint32_t code_of(kvant_error *error) {
  const uint32_t code = api->error_code(error);
  api->error_free(error);
  return code;
}

static int holds(int condition, const char *text, int line) {
  if (!condition) fprintf(stderr, "manager.c:%d: not so: %s\n", line, text);
  return condition;
}

#define CHECK(condition) \
  if (!holds((condition), #condition, __LINE__)) return 0
#define TRY(call) CHECK(ok(call))

static void print_log(void *user_data, uint32_t level, const char *message, size_t size) {
  (void)user_data;
  fprintf(stderr, "kvant[%u]: %.*s\n", (unsigned)level, (int)size, message);
}

/* Prompts of different names have their first `shared` tokens in common. */
static void make_prompt(int32_t name, int shared, int count, int32_t *tokens) {
  int i;
  for (i = 0; i < count; ++i) tokens[i] = i < shared ? 7 * i + 1 : 1000 * name + i;
}

/* K or V of tokens begin .. end - 1 in a layer. As in a model each depends on its token and on all before it. */
static void make_rows(const int32_t *tokens, uint64_t begin, uint64_t end, uint32_t layer, uint32_t side, float *out) {
  uint32_t prefix = 2 * layer + side + 1, state;
  uint64_t t;
  int i;
  for (t = 0; t < end; ++t) {
    prefix = (prefix ^ (uint32_t)tokens[t]) * 2654435761u;
    for (i = 0, state = prefix; t >= begin && i < ROW; ++i) {
      state = state * 1664525u + 1013904223u;
      *out++ = (float)(state >> 8) / 8388608.0f - 1.0f;
    }
  }
}

static kvant_tensor host_tensor(float *data, uint64_t tokens) {
  kvant_tensor tensor = {.struct_size = sizeof tensor, .data = data, .type = KVANT_TYPE_F32};
  tensor.size = tokens * ROW * sizeof *data;
  return tensor;
}

/* Appends tokens begin .. end - 1: a step without queries. host.c has one with attention. */
static int append(kvant_cache *cache, kvant_sequence sequence, const int32_t *tokens, uint64_t begin, uint64_t end) {
  static float k[MOST_TOKENS * ROW], v[MOST_TOKENS * ROW];
  kvant_tensor tk = host_tensor(k, end - begin), tv = host_tensor(v, end - begin);
  kvant_step_entry entry = {.struct_size = sizeof entry, .sequence = sequence, .append = (uint32_t)(end - begin)};
  kvant_step_args args = {.struct_size = sizeof args, .entry_count = 1, .entries = &entry};
  kvant_run_args run = {.struct_size = sizeof run, .k = &tk, .v = &tv};
  kvant_step *step = NULL;
  uint32_t layer;
  int good = 1;
  if (begin == end) return 1;
  entry.tokens = tokens + begin; /* needed for those that sequence_open was not told */
  if (!ok(api->step_plan(cache, &args, &step))) return 0;
  for (layer = 0; good && layer < LAYERS; ++layer) {
    make_rows(tokens, begin, end, layer, KVANT_SIDE_K, k);
    make_rows(tokens, begin, end, layer, KVANT_SIDE_V, v);
    good = ok(api->step_run(step, layer, &run));
  }
  if (good && ok(api->step_commit(step))) return 1;
  api->step_abort(step);
  return 0;
}

/* The largest difference between what a sequence holds and what it should hold; infinite if it cannot be read. */
static double error_of(kvant_cache *cache, kvant_sequence sequence, const int32_t *tokens, uint64_t count) {
  static float got[MOST_TOKENS * ROW], want[MOST_TOKENS * ROW];
  const kvant_tensor tensor = host_tensor(got, count);
  double worst = 0.0;
  uint32_t layer, side;
  uint64_t i;
  for (layer = 0; layer < LAYERS; ++layer)
    for (side = KVANT_SIDE_K; side <= KVANT_SIDE_V; ++side) {
      if (!ok(api->sequence_read(cache, sequence, layer, side, 0, count, &tensor))) return INFINITY;
      make_rows(tokens, 0, count, layer, side, want);
      for (i = 0; i < count * ROW; ++i)
        if (!(fabs(got[i] - want[i]) <= worst)) worst = fabs(got[i] - want[i]);
    }
  return worst;
}

static int make_cache(const char *format, uint64_t tokens, kvant_cache **out) {
  kvant_layer_args layers[LAYERS];
  kvant_cache_args args = {.struct_size = sizeof args, .layer_count = LAYERS, .layers = layers, .capacity_tokens = tokens};
  uint32_t id, i;
  TRY(api->format_find(context, format, &id));
  for (i = 0; i < LAYERS; ++i)
    layers[i] = (kvant_layer_args){
        .struct_size = sizeof layers[i], .kv_heads = KV_HEADS, .head_dim_k = HEAD_DIM, .format_k = id, .format_v = id};
  args.flags = KVANT_CACHE_PREFIXES;
  args.model_id = "random, 2 layers, seed 1"; /* all that K and V depend on besides tokens, layers and formats: */
  args.rope = "none";                         /* whatever outlives the cache is found by it again */
  args.slab_bytes = 64 * 1024;                /* small, so that memory is given back in small pieces */
  TRY(api->cache_create(device, &args, out));
  return 1;
}

static kvant_cache_stats cache_stats(kvant_cache *cache) {
  kvant_cache_stats stats = {.struct_size = sizeof stats};
  ok(api->cache_stats(cache, &stats)); /* on an error all zeros, which no check accepts */
  return stats;
}

static kvant_prefix_stats prefix_stats(kvant_cache *cache) {
  kvant_prefix_stats stats = {.struct_size = sizeof stats};
  ok(api->prefix_stats(cache, &stats));
  return stats;
}

/* A request: what the cache has of the prompt is taken, the rest computed. */
static int serve(kvant_cache *cache, const int32_t *tokens, uint64_t count, kvant_sequence *out, uint64_t *reused) {
  kvant_sequence_args args = {.struct_size = sizeof args, .tokens = tokens, .token_count = count};
  TRY(api->sequence_open(cache, &args, out, reused));
  return append(cache, *out, tokens, *reused, count);
}

static int share_prefixes(void) {
  int32_t first[PROMPT], second[PROMPT];
  kvant_sequence_args other = {.struct_size = sizeof other, .tokens = first, .token_count = PROMPT};
  kvant_cache_stats one, two, three;
  kvant_sequence a = 0, b = 0, child = 0;
  kvant_cache *cache = NULL;
  uint64_t reused = 0, found = 1;
  make_prompt(1, SHARED, PROMPT, first);
  make_prompt(2, SHARED, PROMPT, second);
  if (!make_cache("q8_0", 512, &cache) || !serve(cache, first, PROMPT, &a, &reused)) return 0;
  one = cache_stats(cache);
  if (!serve(cache, second, PROMPT, &b, &reused)) return 0;
  CHECK(reused == SHARED);
  two = cache_stats(cache);
  printf("prefix cache: %d tokens take %llu bytes; a second prompt that begins with the same %d adds %llu\n", PROMPT,
         (number)one.used_bytes, SHARED, (number)(two.used_bytes - one.used_bytes));
  CHECK(one.used_pages == 7 && two.used_pages == 9 && (two.used_bytes - one.used_bytes) * 7 == one.used_bytes * 2);
  other.salt = "user 2", other.salt_size = 6;
  TRY(api->prefix_find(cache, &other, &found)); /* another salt shares nothing */
  CHECK(found == 0);

  TRY(api->sequence_fork(cache, b, PROMPT, &child));
  three = cache_stats(cache);
  printf("fork: %d tokens again for %llu bytes, a page\n", PROMPT, (number)(three.used_bytes - two.used_bytes));
  CHECK(three.used_pages == two.used_pages + 1);
  CHECK(error_of(cache, a, first, PROMPT) <= Q8_ERROR && error_of(cache, child, second, PROMPT) <= Q8_ERROR);

  CHECK(ok(api->sequence_destroy(cache, a)) && ok(api->sequence_destroy(cache, b)) && ok(api->sequence_destroy(cache, child)));
  printf("  after all have ended %llu full pages stay for later prompts\n", (number)prefix_stats(cache).pages);
  CHECK(cache_stats(cache).used_pages == 7 && prefix_stats(cache).pages == 7 && prefix_stats(cache).hit_tokens == SHARED);
  api->cache_destroy(cache);
  return 1;
}

/* A pool of 16 pages, and prompts of 4 that end at once: the fifth needs the room of another one. */
static int change_policies(void) {
  const kvant_policy_args policies[] = {{.struct_size = sizeof policies[0], .kind = KVANT_POLICY_LRU, .ttl_ms = 3600000},
                                        {.struct_size = sizeof policies[0], .kind = KVANT_POLICY_WINDOW, .sink_pages = 1},
                                        {.struct_size = sizeof policies[0], .kind = KVANT_POLICY_ADAPTIVE},
                                        {.struct_size = sizeof policies[0], .kind = KVANT_POLICY_NONE}};
  int32_t prompt[64];
  kvant_step_entry entry = {.struct_size = sizeof entry, .append = 64};
  kvant_step_args step_args = {.struct_size = sizeof step_args, .entry_count = 1, .entries = &entry};
  kvant_sequence sequence = 0;
  kvant_cache *cache = NULL;
  kvant_step *step = NULL;
  uint64_t reused = 0;
  int i;
  if (!make_cache("q4_0", 256, &cache)) return 0;
  for (i = 0; i < 4; ++i) {
    make_prompt(i, 0, 64, prompt);
    if (!serve(cache, prompt, 64, &sequence, &reused)) return 0;
    TRY(api->sequence_destroy(cache, sequence));
  }
  for (i = 0; i < 3; ++i) {
    const uint64_t before = prefix_stats(cache).evicted_capacity;
    TRY(api->prefix_policy(cache, &policies[i]));
    make_prompt(10 + i, 0, 64, prompt);
    if (!serve(cache, prompt, 64, &sequence, &reused)) return 0;
    TRY(api->sequence_destroy(cache, sequence));
    printf("policy %u: %llu pages left for a new prompt\n", (unsigned)policies[i].kind,
           (number)(prefix_stats(cache).evicted_capacity - before));
    CHECK(prefix_stats(cache).evicted_capacity == before + 4);
  }
  TRY(api->prefix_policy(cache, &policies[3]));
  TRY(api->sequence_create(cache, &entry.sequence));
  CHECK(code_of(api->step_plan(cache, &step_args, &step)) == KVANT_ERROR_RESOURCE_EXHAUSTED);
  puts("policy none: a full cache is an error");
  api->cache_destroy(cache);
  return 1;
}

/* Whole tensors by (prefix, layer): f32 comes back exactly. The prefix that the f32 cache has no room for moves to a q4_0 cache,
 * and back when it is used. */
static int store_tensors(void) {
  enum { COUNT = 64, BATCH = 2 };
  static float k[BATCH * COUNT * ROW], v[BATCH * COUNT * ROW], got[BATCH * COUNT * ROW];
  int32_t prompts[3 * COUNT];
  kvant_store_options options = {.struct_size = sizeof options};
  kvant_tensor tk = host_tensor(k, BATCH * COUNT), tv = host_tensor(v, BATCH * COUNT), tg = host_tensor(got, BATCH * COUNT);
  kvant_store_args put = {.struct_size = sizeof put, .tokens = prompts, .token_count = COUNT, .batch = BATCH, .k = &tk, .v = &tv};
  kvant_store_args get = {.struct_size = sizeof get, .tokens = prompts, .token_count = COUNT, .batch = BATCH, .k = &tg};
  kvant_store_args third = {.struct_size = sizeof third, .tokens = prompts + 2 * COUNT, .token_count = COUNT, .k = &tk, .v = &tv};
  kvant_store_stats stats = {.struct_size = sizeof stats};
  uint32_t found[BATCH] = {0, 0}, layers[BATCH] = {0, 0};
  kvant_cache *cache = NULL;
  int i;
  for (i = 0; i < 3; ++i) make_prompt(i, 0, COUNT, prompts + i * COUNT);
  if (!make_cache("f32", BATCH * COUNT, &cache) || !make_cache("q4_0", 512, &options.cold_cache)) return 0;
  TRY(manager->store_open(cache, &options));
  for (put.layer = 0; put.layer < LAYERS; ++put.layer) {
    for (i = 0; i < BATCH; ++i) {
      make_rows(prompts + i * COUNT, 0, COUNT, put.layer, KVANT_SIDE_K, k + i * COUNT * ROW);
      make_rows(prompts + i * COUNT, 0, COUNT, put.layer, KVANT_SIDE_V, v + i * COUNT * ROW);
    }
    TRY(manager->store_put(cache, &put));
  }
  get.layer = LAYERS - 1; /* what k holds still */
  TRY(manager->store_get(cache, &get, found));
  CHECK(found[0] == 1 && found[1] == 1 && memcmp(k, got, sizeof k) == 0);

  for (third.layer = 0; third.layer < LAYERS; ++third.layer) TRY(manager->store_put(cache, &third)); /* there is no room for it */
  TRY(manager->store_stats(cache, &stats));
  printf("store: %llu prefixes, %llu of them in the cold cache", (number)stats.prefixes, (number)stats.cold_prefixes);
  CHECK(stats.prefixes == 3 && stats.cold_prefixes == 1 && stats.demoted == 1 && stats.evicted == 0);
  for (i = 0; i < 3; ++i) /* the third pass finds it wide again */
    for (get.layer = 0; get.layer < LAYERS; ++get.layer) TRY(manager->store_get(cache, &get, found));
  get.k = NULL, get.layer = 0;
  TRY(manager->store_find(cache, &get, layers));
  TRY(manager->store_stats(cache, &stats));
  printf("; %llu came back, %llu of %llu lookups hit\n", (number)stats.promoted, (number)stats.hits, (number)stats.lookups);
  CHECK(stats.promoted >= 1 && stats.hits == stats.lookups && layers[0] == LAYERS && layers[1] == LAYERS);
  api->cache_destroy(cache);
  api->cache_destroy(options.cold_cache);
  return 1;
}

static int set_tiers(kvant_cache *cache) {
  kvant_tier_args tiers[] = {{.struct_size = sizeof tiers[0], .kind = KVANT_TIER_HOST, .capacity_bytes = 1 << 20},
                             {.struct_size = sizeof tiers[0], .kind = KVANT_TIER_DISK, .capacity_bytes = 1 << 24}};
  kvant_tiers_args args = {.struct_size = sizeof args, .tier_count = 2, .tiers = tiers};
  char disk[sizeof folder + 8];
  snprintf(disk, sizeof disk, "%s/tier", folder);
  tiers[1].location = disk;
  args.flags = KVANT_TIERS_ALWAYS_LOAD; /* these prompts are so short that computing them might be quicker */
  TRY(manager->tiers_set(cache, &args));
  return 1;
}

/* A pool of 8 pages, two prompts of 7: each drives the other out, to memory and disk, and comes back from there. The second cache
 * finds on disk what the first one left, and empties its tiers in the end. */
static int spill_to_tiers(void) {
  int32_t prompt[PROMPT];
  kvant_sequence sequence = 0;
  kvant_cache *cache = NULL;
  uint64_t reused = 0;
  int life, turn;
  for (life = 1; life <= 2; ++life) {
    if (!make_cache("q8_0", 128, &cache) || !set_tiers(cache)) return 0;
    for (turn = 1; turn <= 4; ++turn) {
      make_prompt(turn % 2, 0, PROMPT, prompt);
      if (!serve(cache, prompt, PROMPT, &sequence, &reused)) return 0;
      printf("tiers: life %d, turn %d: %llu of %d tokens were there\n", life, turn, (number)reused, PROMPT);
      CHECK(reused == (life == 1 && turn <= 2 ? 0 : 96) && error_of(cache, sequence, prompt, PROMPT) <= Q8_ERROR);
      TRY(api->sequence_destroy(cache, sequence));
      TRY(manager->tiers_wait(cache)); /* only so that the figures are certain: tiers work in the background */
    }
    TRY(manager->tiers_store(cache)); /* before the end: what is on the device still */
    TRY(manager->tiers_wait(cache));
    if (life == 2) {
      TRY(manager->tiers_clear(cache, KVANT_TIERS_ALL));
      TRY(api->prefix_clear(cache, &reused)); /* the device's pages */
      if (!serve(cache, prompt, PROMPT, &sequence, &reused)) return 0;
      CHECK(reused == 0);
    }
    api->cache_destroy(cache);
  }
  return 1;
}

static int limit_memory(void) {
  int32_t prompt[PROMPT];
  kvant_memory_args args = {.struct_size = sizeof args};
  kvant_cache_stats before, planned, after;
  kvant_sequence sequence = 0;
  kvant_cache *cache = NULL;
  const char *plan = NULL;
  uint64_t reused = 0;
  int i;
  if (!make_cache("f32", 512, &cache)) return 0;
  for (i = 0; i < 4; ++i) { /* the last one stays in use */
    make_prompt(i, 0, PROMPT, prompt);
    if (!serve(cache, prompt, PROMPT, &sequence, &reused)) return 0;
    if (i < 3) TRY(api->sequence_destroy(cache, sequence));
  }
  before = cache_stats(cache);
  args.limit_bytes = before.pool_bytes / 4;
  TRY(manager->memory_weight(cache, 0, KVANT_SIDE_K, 8.0)); /* the last to be narrowed */
  TRY(manager->memory_plan(cache, &args, &plan));
  printf("memory: %s", plan);
  planned = cache_stats(cache); /* as before: nothing has been done */
  TRY(manager->memory_limit(cache, &args));
  after = cache_stats(cache);
  printf("  done: %llu bytes\n", (number)after.pool_bytes);
  CHECK(plan[0] != '\0' && memcmp(&before, &planned, sizeof before) == 0 && after.pool_bytes <= args.limit_bytes);
  CHECK(error_of(cache, sequence, prompt, PROMPT) <= Q4_ERROR);
  args.limit_bytes = 1024; /* no format is narrow enough for what is in use */
  CHECK(code_of(manager->memory_limit(cache, &args)) == KVANT_ERROR_RESOURCE_EXHAUSTED);
  CHECK(cache_stats(cache).pool_bytes == after.pool_bytes && error_of(cache, sequence, prompt, PROMPT) <= Q4_ERROR);
  api->cache_destroy(cache);
  return 1;
}

static int save_and_load(void) {
  char path[sizeof folder + 16];
  int32_t prompt[PROMPT];
  kvant_state_args what = {.struct_size = sizeof what};
  kvant_sequence sequence = 0, child = 0, old = 0, loaded = 0;
  kvant_cache *cache = NULL, *second = NULL;
  uint64_t reused = 0;
  uint32_t count = 0, i;
  snprintf(path, sizeof path, "%s/state.kvant", folder);
  make_prompt(4, 0, PROMPT, prompt);
  if (!make_cache("q8_0", 512, &cache) || !make_cache("q8_0", 512, &second)) return 0;
  if (!serve(cache, prompt, PROMPT, &sequence, &reused)) return 0;
  TRY(api->sequence_fork(cache, sequence, SHARED, &child));
  what.flags = KVANT_STATE_ALL_SEQUENCES | KVANT_STATE_PREFIXES;
  TRY(manager->state_save_file(cache, &what, path));
  TRY(manager->state_load_file(second, path, &count));
  for (i = 0; i < count; ++i) {
    TRY(manager->state_loaded(second, i, &old, &loaded));
    CHECK(old == sequence || old == child);
    CHECK(error_of(second, loaded, prompt, SHARED) == error_of(cache, old, prompt, SHARED)); /* every bit is the same */
  }
  printf("state: %u sequences loaded, in %llu bytes\n", (unsigned)count, (number)cache_stats(second).used_bytes);
  CHECK(count == 2 && cache_stats(second).used_bytes == cache_stats(cache).used_bytes);
  api->cache_destroy(cache);
  api->cache_destroy(second);
  return 1;
}

/* The statistics of a cache that served one prompt and was converted. */
static int watch(kvant_cache *cache) {
  kvant_event events[8];
  const char *text = NULL;
  uint64_t size = 0, lost = 0, since = 0, kinds[KVANT_EVENT_COOLED + 1] = {0};
  uint32_t count = 0, i;
  TRY(manager->stats_text(cache, KVANT_STATS_PROMETHEUS, "model=random,replica=1", &text, &size));
  CHECK(size == strlen(text) && strstr(text, "kvant_lookup_queries_tokens_total{model=\"random\",replica=\"1\"} 104\n") != NULL);
  CHECK((text = strstr(text, "kvant_quantization_relative_mse{")) != NULL);
  printf("Prometheus: %.*s\n", (int)strcspn(text, "\n"), text);
  TRY(manager->stats_text(cache, KVANT_STATS_JSON, NULL, &text, &size));
  CHECK(strstr(text, "\"queries_tokens\":104,\"hit_tokens\":0") != NULL && strstr(text, "\"format_k\":\"q4_0\"") != NULL);
  printf("JSON: %.72s...\n", text);
  TRY(manager->stats_text(cache, KVANT_STATS_MONITOR, NULL, &text, &size));
  CHECK((text = strstr(text, "Hit rate")) != NULL);
  printf("monitor: %.*s\n", (int)strcspn(text, "\""), text);

  memset(events, 0, sizeof events);
  for (i = 0; i < 8; ++i) events[i].struct_size = sizeof events[i];
  do {
    TRY(manager->events_poll(cache, since, 8, events, &count, &lost));
    for (i = 0; i < count; ++i) {
      CHECK(lost == 0 && events[i].number == ++since);
      if (events[i].kind <= KVANT_EVENT_COOLED) ++kinds[events[i].kind]; /* later versions may have more */
    }
  } while (count != 0);
  printf("events: %llu; %llu pages published, %llu conversions\n", (number)since, (number)kinds[KVANT_EVENT_PAGE_PUBLISHED],
         (number)kinds[KVANT_EVENT_CONVERT]);
  CHECK(kinds[KVANT_EVENT_PAGE_PUBLISHED] == 6 && kinds[KVANT_EVENT_CONVERT] >= 1 && kinds[KVANT_EVENT_PREFIX_MISS] == 1);
  return 1;
}

/* A cache from JSON, and its twin from the struct; made narrower while it is in use. */
static int configure_and_quantize(void) {
  const char *const json =
      "{\"preset\": \"mobile\", \"capacity_tokens\": 512, \"format_k\": \"q8_0\", \"format_v\": \"q8_0\","
      " \"window\": 0, \"window_sinks\": 0, \"model_id\": \"random, 2 layers, seed 1\"}";
  kvant_layer_args layers[LAYERS];
  kvant_cache_args args = {.struct_size = sizeof args, .layer_count = LAYERS, .layers = layers};
  int32_t prompt[PROMPT];
  kvant_cache_stats wide, narrow;
  kvant_sequence sequence = 0;
  kvant_config config = {.struct_size = sizeof config};
  kvant_cache *cache = NULL, *twin = NULL;
  const char *text = NULL, *written = NULL;
  uint64_t reused = 0;
  uint32_t q4 = 0, i;
  for (i = 0; i < LAYERS; ++i)
    layers[i] = (kvant_layer_args){.struct_size = sizeof layers[i], .kv_heads = KV_HEADS, .head_dim_k = HEAD_DIM};
  CHECK(code_of(manager->cache_configure(device, &args, "{\"preset\": \"mobil\"}", &cache)) == KVANT_ERROR_INVALID_ARGUMENT);
  TRY(manager->cache_configure(device, &args, json, &cache));
  TRY(manager->config_text(cache, &text));
  printf("configuration: %.50s...\n", text);
  CHECK(strstr(text, "\"capacity_tokens\": 512") != NULL && strstr(text, "\"prefix_cache\": true") != NULL);
  TRY(manager->config_default(context, "mobile", &config)); /* the same from the struct */
  config.capacity_tokens = 512, config.format_k = config.format_v = "q8_0";
  config.window = config.window_sinks = 0, config.model_id = "random, 2 layers, seed 1";
  TRY(manager->config_apply(device, &args, &config, &twin));
  TRY(manager->config_write(context, &config, &written)); /* and config_parse for the way back */
  CHECK(strcmp(written, text) == 0 && manager->config_text(twin, &text) == NULL && strcmp(written, text) == 0);
  api->cache_destroy(twin);

  TRY(manager->stats_sample_errors(cache, 4));
  TRY(manager->stats_observe(cache));
  make_prompt(5, 0, PROMPT, prompt);
  if (!serve(cache, prompt, PROMPT, &sequence, &reused)) return 0;
  wide = cache_stats(cache);
  TRY(api->format_find(context, "q4_0", &q4));
  TRY(manager->cache_quantize(cache, q4, q4));
  narrow = cache_stats(cache);
  printf("quantize: %llu bytes in use become %llu\n", (number)wide.used_bytes, (number)narrow.used_bytes);
  CHECK(narrow.used_bytes * 10 < wide.used_bytes * 6 && error_of(cache, sequence, prompt, PROMPT) <= Q4_ERROR);
  TRY(manager->stats_observe(cache)); /* in an engine every few seconds */
  if (!watch(cache)) return 0;
  api->cache_destroy(cache);
  return 1;
}

static int remove_entry(const char *path, const struct stat *facts, int type, struct FTW *place) {
  (void)facts, (void)type, (void)place;
  return remove(path);
}

int main(int argc, char **argv) {
  void *library = dlopen(argc > 1 ? argv[1] : "libkvant.so", RTLD_NOW | RTLD_LOCAL);
  kvant_get_api_fn get_api = NULL;
  kvant_context_args args = {.struct_size = sizeof args, .log = print_log, .log_level = KVANT_LOG_WARNING};
  kvant_device_info info = {.struct_size = sizeof info};
  int good;
  if (library != NULL) *(void **)&get_api = dlsym(library, "kvant_get_api");
  if (get_api == NULL || (api = get_api(KVANT_VERSION, NULL)) == NULL || api->version < KVANT_MAKE_VERSION(1, 1)) {
    fprintf(stderr, "no usable kvant: %s\n", library == NULL ? dlerror() : "it is older than 1.1, or no kvant at all");
    return 1;
  }
  good = ok(api->context_create(&args, &context));
  manager = good ? api->get_extension(context, KVANT_EXT_MANAGER) : NULL; /* NULL: this library has none */
  good = holds(manager != NULL, "the manager is there", __LINE__) && ok(api->device_open(context, NULL, &device)) &&
         ok(api->device_describe(device, &info)) && holds(mkdtemp(folder) != NULL, "a temporary folder can be made", __LINE__);
  if (good) {
    printf("device: %s (%s)\n", info.name, info.driver);
    good = share_prefixes() && change_policies() && store_tensors() && spill_to_tiers() && limit_memory() && save_and_load() &&
           configure_and_quantize();
    nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
  }
  if (!good) { /* what a failed part leaves open ends with the process */
    puts("FAILED");
    return 1;
  }
  api->device_close(device);
  api->context_destroy(context);
  dlclose(library);
  puts("ok");
  return 0;
}
