/* A host as it was compiled when version 1.1 was new: prefix cache, manager extension. Later libraries must serve it unchanged. */
#include <dlfcn.h>
#include <string.h>

#include "1_1/kvant_ext_manager.h"
#include "1_1/kvant_ext_vulkan.h"

#define LAYOUT_NAME abi_layout_1_1
#include "../layout_table.inc"
#define LAYOUT_EXT_NAME abi_layout_ext_1_1
#include "../layout_table_ext.inc"

#define ZERO(object) (memset(&(object), 0, sizeof(object)), (object).struct_size = sizeof(object))

enum { TOKENS = 16, DIM = 32 };

static const kvant_api *table;
static const kvant_ext_manager *manager;
static kvant_context *context;
static kvant_device *device;
static kvant_cache *cache;
static unsigned char saved[1 << 16];
static uint64_t saved_bytes, loaded_bytes;

static int good(kvant_error *error) {
  const uint32_t code = table->error_code(error);
  table->error_free(error);
  return code == 0;
}

static kvant_tensor tensor_over(float *data, size_t count) {
  kvant_tensor tensor;
  ZERO(tensor);
  tensor.data = data;
  tensor.size = count * sizeof(float);
  return tensor;
}

static uint32_t keep(void *user, const void *data, uint64_t size) {
  (void)user;
  if (size > sizeof saved - saved_bytes) return 0;
  memcpy(saved + saved_bytes, data, size);
  saved_bytes += size;
  return 1;
}
static uint64_t give(void *user, void *out, uint64_t size) {
  const uint64_t left = saved_bytes - loaded_bytes, count = size < left ? size : left;
  (void)user;
  memcpy(out, saved + loaded_bytes, count);
  loaded_bytes += count;
  return count;
}

/* A page of tokens, found again by the next sequence that begins alike. */
static int share(void) {
  static float k[TOKENS * DIM], v[TOKENS * DIM];
  static int32_t tokens[TOKENS];
  kvant_tensor tk = tensor_over(k, TOKENS * DIM), tv = tensor_over(v, TOKENS * DIM);
  kvant_sequence_args open;
  kvant_prefix_stats stats;
  kvant_step_entry entry;
  kvant_step_args plan;
  kvant_run_args run;
  kvant_sequence second = 0;
  kvant_step *step = NULL;
  uint64_t reused = 1;
  int i;
  for (i = 0; i < TOKENS; ++i) tokens[i] = i;
  for (i = 0; i < TOKENS * DIM; ++i) k[i] = 0.5f, v[i] = 2.0f;
  ZERO(open);
  ZERO(stats);
  ZERO(entry);
  ZERO(plan);
  ZERO(run);
  open.tokens = tokens;
  open.token_count = TOKENS;
  if (!good(table->sequence_open(cache, &open, &entry.sequence, &reused)) || reused != 0) return 20;
  entry.append = TOKENS;
  entry.tokens = tokens;
  plan.entry_count = 1;
  plan.entries = &entry;
  run.k = &tk, run.v = &tv;
  if (!good(table->step_plan(cache, &plan, &step)) || !good(table->step_run(step, 0, &run)) || !good(table->step_commit(step)))
    return 21;
  if (!good(table->sequence_open(cache, &open, &second, &reused)) || reused != TOKENS) return 22;
  if (!good(table->prefix_stats(cache, &stats)) || stats.lookups != 2 || stats.hit_tokens != TOKENS) return 23;
  return 0;
}

static int save_and_load(void) {
  kvant_state_args what;
  kvant_state_stream stream;
  uint64_t length = 0, was = 0, dropped = 0;
  kvant_sequence now = 0;
  uint32_t count = 0;
  ZERO(what);
  ZERO(stream);
  what.flags = KVANT_STATE_ALL_SEQUENCES;
  stream.write = keep;
  stream.read = give;
  if (!good(manager->state_save(cache, &what, &stream)) || !good(manager->clear_all(cache, &dropped)) || dropped != 2) return 30;
  if (!good(manager->state_load(cache, &stream, &count)) || count != 2) return 31;
  if (!good(manager->state_loaded(cache, 1, &was, &now)) || !good(table->sequence_length(cache, now, &length))) return 32;
  return length == TOKENS ? 0 : 33;
}

static int configure(void) {
  kvant_config config;
  const char *json = NULL;
  ZERO(config);
  if (!good(manager->config_default(context, "llm", &config)) || config.capacity_tokens != 131072) return 40;
  if (!good(manager->config_write(context, &config, &json)) || strstr(json, "\"policy\"") == NULL) return 41;
  return 0;
}

int abi_frozen_host_1_1(const char *library) {
  kvant_get_api_fn get_api = NULL;
  kvant_layer_args layer;
  kvant_cache_args args;
  uint32_t count = 0;
  int result = 0;
  void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (handle == NULL) return 10;
  *(void **)&get_api = dlsym(handle, "kvant_get_api");
  if (get_api == NULL || (table = get_api(KVANT_VERSION, NULL)) == NULL) return 11;
  if (table->struct_size < sizeof(kvant_api)) return 12;
  if (!good(table->context_create(NULL, &context)) || !good(table->device_count(context, &count))) return 13;
  manager = (const kvant_ext_manager *)table->get_extension(context, KVANT_EXT_MANAGER);
  if (manager == NULL || manager->struct_size < sizeof(kvant_ext_manager)) return 14;
  saved_bytes = loaded_bytes = 0;
  ZERO(layer);
  ZERO(args);
  layer.kv_heads = 1;
  layer.head_dim_k = DIM;
  args.layer_count = 1;
  args.layers = &layer;
  args.capacity_tokens = 4 * TOKENS;
  args.flags = KVANT_CACHE_PREFIXES;
  result = configure();
  if (result == 0 && count == 0) result = 77;
  if (result == 0 && (!good(table->device_open(context, NULL, &device)) || !good(table->cache_create(device, &args, &cache)))) result = 15;
  if (result == 0) result = share();
  if (result == 0) result = save_and_load();
  table->cache_destroy(cache);
  table->device_close(device);
  table->context_destroy(context);
  return result;
}
