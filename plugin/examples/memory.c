/* A live cache under a memory limit, in plain C: 256 tokens of f32 in use, a plan for a quarter of their bytes printed, carried out,
 * and a limit that cannot be met refused. Usage: memory [path of libkvant.so]; the exit code says whether all went well. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include <kvant/kvant.h>
#include <kvant/kvant_ext_manager.h>

enum { LAYERS = 2, TOKENS = 256, KV_HEADS = 2, HEAD_DIM = 64 };

static const kvant_api *api;
static const kvant_ext_manager *manager;

/* Prints and frees an error; true if there was none. */
static int ok(kvant_error *error) {
  if (error == NULL) return 1;
  fprintf(stderr, "%s failed (%u): %s\n", api->error_source(error), (unsigned)api->error_code(error), api->error_message(error));
  api->error_free(error);
  return 0;
}

static int fill(kvant_cache *cache, kvant_sequence sequence) {
  static float rows[TOKENS * KV_HEADS * HEAD_DIM];
  kvant_tensor tensor;
  uint32_t layer, i;
  for (i = 0; i < TOKENS * KV_HEADS * HEAD_DIM; ++i) rows[i] = (float)(i % 97) / 48.5f - 1.0f;
  memset(&tensor, 0, sizeof tensor);
  tensor.struct_size = sizeof tensor;
  tensor.data = rows;
  tensor.size = sizeof rows;
  tensor.type = KVANT_TYPE_F32;
  for (layer = 0; layer < LAYERS; ++layer)
    if (!ok(manager->sequence_write(cache, sequence, layer, 0, TOKENS, &tensor, &tensor))) return 0;
  return 1;
}

static uint64_t pool_bytes(kvant_cache *cache) {
  kvant_cache_stats stats;
  memset(&stats, 0, sizeof stats);
  stats.struct_size = sizeof stats;
  return ok(api->cache_stats(cache, &stats)) ? stats.pool_bytes : 0;
}

static int limit_to(kvant_cache *cache, uint64_t bytes) {
  kvant_memory_args limit;
  const char *plan = NULL;
  memset(&limit, 0, sizeof limit);
  limit.struct_size = sizeof limit;
  limit.limit_bytes = bytes;
  if (!ok(manager->memory_plan(cache, &limit, &plan))) return 0; /* what would be done, and nothing has been yet */
  printf("%s", plan);
  return ok(manager->memory_limit(cache, &limit));               /* does it, and holds it from now on */
}

static int work(kvant_cache *cache) {
  kvant_sequence sequence = 0;
  uint64_t before, after, length = 0;
  if (!ok(api->sequence_create(cache, &sequence)) || !fill(cache, sequence)) return 0;
  before = pool_bytes(cache);
  if (!limit_to(cache, before / 4)) return 0;
  after = pool_bytes(cache);
  printf("%llu bytes before, %llu after\n", (unsigned long long)before, (unsigned long long)after);
  if (after > before / 4 || !ok(api->sequence_length(cache, sequence, &length)) || length != TOKENS) return 0;
  if (limit_to(cache, before / 16)) return 0; /* less than q4_0 takes: refused, and nothing changes */
  return pool_bytes(cache) == after;
}

int main(int argc, char **argv) {
  void *library = dlopen(argc > 1 ? argv[1] : "libkvant.so", RTLD_NOW | RTLD_LOCAL);
  kvant_get_api_fn get_api = NULL;
  kvant_layer_args layers[LAYERS];
  kvant_cache_args args;
  kvant_context *context = NULL;
  kvant_device *device = NULL;
  kvant_cache *cache = NULL;
  uint32_t i, f32 = 0;
  int good;

  if (library != NULL) *(void **)&get_api = dlsym(library, "kvant_get_api");
  if (get_api == NULL || (api = get_api(KVANT_VERSION, NULL)) == NULL) {
    fprintf(stderr, "no usable kvant: %s\n",
            library == NULL ? dlerror() : get_api == NULL ? "it exports no kvant_get_api" : "its major version differs");
    return 1;
  }
  good = ok(api->context_create(NULL, &context)) && ok(api->format_find(context, "f32", &f32)) &&
         ok(api->device_open(context, NULL, &device));
  manager = good ? (const kvant_ext_manager *)api->get_extension(context, KVANT_EXT_MANAGER) : NULL;
  memset(layers, 0, sizeof layers);
  for (i = 0; i < LAYERS; ++i) {
    layers[i].struct_size = sizeof layers[i];
    layers[i].kv_heads = KV_HEADS;
    layers[i].head_dim_k = HEAD_DIM;
    layers[i].format_k = f32;
    layers[i].format_v = f32;
  }
  memset(&args, 0, sizeof args);
  args.struct_size = sizeof args;
  args.layer_count = LAYERS;
  args.layers = layers;
  args.capacity_tokens = TOKENS;
  args.slab_bytes = 16384; /* small steps: memory comes and goes by the slab */
  good = manager != NULL && ok(api->cache_create(device, &args, &cache)) && work(cache);
  api->cache_destroy(cache); /* all three accept NULL */
  api->device_close(device);
  api->context_destroy(context);
  dlclose(library);
  puts(good ? "ok" : "FAILED");
  return good ? 0 : 1;
}
