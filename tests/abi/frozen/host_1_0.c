/* A host as it was compiled when version 1.0 was new. Later libraries must serve it unchanged. */
#include <dlfcn.h>
#include <string.h>

#include "kvant_1_0.h"

#define LAYOUT_NAME abi_layout_1_0
#include "../layout_table.inc"

#define ZERO(object) (memset(&(object), 0, sizeof(object)), (object).struct_size = sizeof(object))

enum { TOKENS = 3, DIM = 32 };

static const kvant_api *table;
static kvant_context *context;
static kvant_device *device;
static kvant_cache *cache;

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

/* Three tokens with equal keys: the output is the mean of the values, for any query. */
static int step_through(void) {
  static float k[TOKENS * DIM], v[TOKENS * DIM], q[DIM], out[DIM];
  kvant_tensor tk = tensor_over(k, TOKENS * DIM), tv = tensor_over(v, TOKENS * DIM);
  kvant_tensor tq = tensor_over(q, DIM), to = tensor_over(out, DIM);
  kvant_step_entry entry;
  kvant_step_args plan;
  kvant_run_args run;
  kvant_step *step = NULL;
  int i;
  for (i = 0; i < TOKENS * DIM; ++i) k[i] = 0.5f, v[i] = (float)(i / DIM);
  for (i = 0; i < DIM; ++i) q[i] = (float)i;
  ZERO(entry);
  ZERO(plan);
  ZERO(run);
  if (!good(table->sequence_create(cache, &entry.sequence))) return 1;
  entry.append = TOKENS;
  entry.queries = 1;
  plan.entry_count = 1;
  plan.entries = &entry;
  run.k = &tk, run.v = &tv, run.q = &tq, run.out = &to, run.q_heads = 1;
  if (!good(table->step_plan(cache, &plan, &step))) return 2;
  if (!good(table->step_run(step, 0, &run))) return 3;
  if (!good(table->step_commit(step))) return 4;
  for (i = 0; i < DIM; ++i)
    if (!(out[i] > 0.999f && out[i] < 1.001f)) return 5;
  return 0;
}

int abi_frozen_host(const char *library) {
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
  ZERO(layer);
  ZERO(args);
  layer.kv_heads = 1;
  layer.head_dim_k = DIM;
  args.layer_count = 1;
  args.layers = &layer;
  args.capacity_tokens = 64;
  if (count == 0) {
    result = 77;
  } else if (!good(table->format_find(context, "f32", &layer.format_k)) || !good(table->device_open(context, NULL, &device))) {
    result = 14;
  } else {
    layer.format_v = layer.format_k;
    result = good(table->cache_create(device, &args, &cache)) ? step_through() : 15;
  }
  table->cache_destroy(cache);
  table->device_close(device);
  table->context_destroy(context);
  return result;
}
