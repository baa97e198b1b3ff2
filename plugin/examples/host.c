/* A host in plain C: nothing but kvant.h and dlopen. It appends 100 tokens of random keys and values to a q4_0 cache, decodes one
 * step, compares with attention computed here from what the cache holds, forks, truncates and prints figures.
 * Usage: host [path of libkvant.so]; the exit code says whether all went well. */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <kvant/kvant.h>

enum { TOKENS = 100, KV_HEADS = 2, Q_HEADS = 4, HEAD_DIM = 64 };
enum { KV_ROW = KV_HEADS * HEAD_DIM, Q_ROW = Q_HEADS * HEAD_DIM };

static const kvant_api *api;

/* Prints and frees an error; true if there was none. */
static int ok(kvant_error *error) {
  if (error == NULL) return 1;
  fprintf(stderr, "%s failed (%u): %s\n", api->error_source(error), (unsigned)api->error_code(error), api->error_message(error));
  api->error_free(error);
  return 0;
}

static void print_log(void *user_data, uint32_t level, const char *message, size_t size) {
  (void)user_data;
  fprintf(stderr, "kvant[%u]: %.*s\n", (unsigned)level, (int)size, message);
}

static float random_float(uint32_t *state) { /* between -1 and 1 */
  *state = *state * 1664525u + 1013904223u;
  return (float)(*state >> 8) / 8388608.0f - 1.0f;
}

static kvant_tensor host_tensor(float *data, size_t count) {
  kvant_tensor tensor;
  memset(&tensor, 0, sizeof tensor);
  tensor.struct_size = sizeof tensor;
  tensor.data = data;
  tensor.size = count * sizeof(float);
  tensor.type = KVANT_TYPE_F32;
  return tensor;
}

/* One step of one sequence: plan, run the only layer, commit. */
static int step(kvant_cache *cache, kvant_sequence sequence, uint32_t append, uint32_t queries, float *k, float *v, float *q,
                float *out) {
  kvant_step_entry entry;
  kvant_step_args step_args;
  kvant_run_args run;
  kvant_step *open_step = NULL;
  kvant_tensor tk = host_tensor(k, (size_t)append * KV_ROW), tv = host_tensor(v, (size_t)append * KV_ROW);
  kvant_tensor tq = host_tensor(q, (size_t)queries * Q_ROW), to = host_tensor(out, (size_t)queries * Q_ROW);

  memset(&entry, 0, sizeof entry);
  entry.struct_size = sizeof entry;
  entry.sequence = sequence;
  entry.append = append;
  entry.queries = queries;
  memset(&step_args, 0, sizeof step_args);
  step_args.struct_size = sizeof step_args;
  step_args.entry_count = 1;
  step_args.entries = &entry;
  if (!ok(api->step_plan(cache, &step_args, &open_step))) return 0;

  memset(&run, 0, sizeof run);
  run.struct_size = sizeof run;
  if (append != 0) run.k = &tk, run.v = &tv;
  if (queries != 0) run.q = &tq, run.out = &to, run.q_heads = Q_HEADS;
  if (!ok(api->step_run(open_step, 0, &run)) || !ok(api->step_commit(open_step))) {
    api->step_abort(open_step);
    return 0;
  }
  return 1;
}

/* softmax(q k^T / sqrt(d)) v of the last query over `tokens` dequantized tokens, and the largest difference from `out`. */
static double difference(const float *q, const float *k, const float *v, int tokens, const float *out) {
  static double weight[TOKENS + 1];
  double worst = 0.0;
  int h, t, d;
  for (h = 0; h < Q_HEADS; ++h) {
    const int kv_head = h / (Q_HEADS / KV_HEADS);
    double top = -INFINITY, sum = 0.0;
    for (t = 0; t < tokens; ++t) {
      double logit = 0.0;
      for (d = 0; d < HEAD_DIM; ++d) logit += (double)q[h * HEAD_DIM + d] * k[t * KV_ROW + kv_head * HEAD_DIM + d];
      weight[t] = logit / sqrt(HEAD_DIM);
      if (weight[t] > top) top = weight[t];
    }
    for (t = 0; t < tokens; ++t) sum += weight[t] = exp(weight[t] - top);
    for (d = 0; d < HEAD_DIM; ++d) {
      double mean = 0.0;
      for (t = 0; t < tokens; ++t) mean += weight[t] / sum * v[t * KV_ROW + kv_head * HEAD_DIM + d];
      /* written so that a NaN counts as a difference */
      if (!(fabs(mean - out[h * HEAD_DIM + d]) <= worst)) worst = fabs(mean - out[h * HEAD_DIM + d]);
    }
  }
  return worst;
}

static int work(kvant_cache *cache) {
  static float k[(TOKENS + 1) * KV_ROW], v[(TOKENS + 1) * KV_ROW], q[Q_ROW], out[Q_ROW];
  kvant_tensor tk = host_tensor(k, (TOKENS + 1) * KV_ROW), tv = host_tensor(v, (TOKENS + 1) * KV_ROW);
  kvant_sequence sequence = 0, child = 0;
  kvant_cache_stats stats;
  uint64_t length = 0;
  uint32_t seed = 1;
  double worst;
  int i;
  for (i = 0; i < (TOKENS + 1) * KV_ROW; ++i) k[i] = random_float(&seed), v[i] = random_float(&seed);
  for (i = 0; i < Q_ROW; ++i) q[i] = 4.0f * random_float(&seed);

  if (!ok(api->sequence_create(cache, &sequence)) || !step(cache, sequence, TOKENS, 0, k, v, NULL, NULL)) return 0;
  if (!step(cache, sequence, 1, 1, k + TOKENS * KV_ROW, v + TOKENS * KV_ROW, q, out)) return 0; /* decode */
  if (!ok(api->sequence_read(cache, sequence, 0, KVANT_SIDE_K, 0, TOKENS + 1, &tk)) ||
      !ok(api->sequence_read(cache, sequence, 0, KVANT_SIDE_V, 0, TOKENS + 1, &tv)))
    return 0;
  worst = difference(q, k, v, TOKENS + 1, out);
  printf("largest difference from attention in C: %g\n", worst);

  if (!ok(api->sequence_fork(cache, sequence, 50, &child)) || !ok(api->sequence_truncate(cache, sequence, 20)) ||
      !ok(api->sequence_length(cache, child, &length)))
    return 0;
  memset(&stats, 0, sizeof stats);
  stats.struct_size = sizeof stats;
  if (!ok(api->cache_stats(cache, &stats))) return 0;
  printf("%llu sequences, %llu tokens, %llu of %llu pages, %llu bytes in use\n", (unsigned long long)stats.sequence_count,
         (unsigned long long)stats.sequence_tokens, (unsigned long long)stats.used_pages,
         (unsigned long long)stats.total_pages, (unsigned long long)stats.used_bytes);
  return worst <= 1e-3 && length == 50 && stats.sequence_tokens == 70 && ok(api->sequence_destroy(cache, child)) &&
         ok(api->sequence_destroy(cache, sequence));
}

int main(int argc, char **argv) {
  void *library = dlopen(argc > 1 ? argv[1] : "libkvant.so", RTLD_NOW | RTLD_LOCAL);
  kvant_get_api_fn get_api = NULL;
  kvant_context_args context_args;
  kvant_layer_args layer;
  kvant_cache_args cache_args;
  kvant_device_info info;
  kvant_context *context = NULL;
  kvant_device *device = NULL;
  kvant_cache *cache = NULL;
  uint32_t version = 0;
  int good;

  if (library != NULL) *(void **)&get_api = dlsym(library, "kvant_get_api");
  if (get_api == NULL || (api = get_api(KVANT_VERSION, &version)) == NULL) {
    fprintf(stderr, "no usable kvant: %s\n",
            library == NULL ? dlerror() : get_api == NULL ? "it exports no kvant_get_api" : "its major version differs");
    return 1;
  }
  memset(&context_args, 0, sizeof context_args);
  context_args.struct_size = sizeof context_args;
  context_args.log = print_log;
  context_args.log_level = KVANT_LOG_WARNING;
  memset(&info, 0, sizeof info);
  info.struct_size = sizeof info;
  memset(&layer, 0, sizeof layer);
  layer.struct_size = sizeof layer;
  layer.kv_heads = KV_HEADS;
  layer.head_dim_k = HEAD_DIM;
  memset(&cache_args, 0, sizeof cache_args);
  cache_args.struct_size = sizeof cache_args;
  cache_args.layer_count = 1;
  cache_args.layers = &layer;
  cache_args.capacity_tokens = 512;

  good = ok(api->context_create(&context_args, &context)) && ok(api->format_find(context, "q4_0", &layer.format_k)) &&
         ok(api->format_find(context, "q4_0", &layer.format_v)) && ok(api->device_open(context, NULL, &device)) &&
         ok(api->device_describe(device, &info)) && printf("device: %s (%s)\n", info.name, info.driver) > 0 &&
         ok(api->cache_create(device, &cache_args, &cache)) && work(cache);
  api->cache_destroy(cache); /* all three accept NULL */
  api->device_close(device);
  api->context_destroy(context);
  dlclose(library);
  puts(good ? "ok" : "FAILED");
  return good ? 0 : 1;
}
