/* Attention mass and pruning, in plain C: a prompt of 256 tokens in which three matter to the question at its end. The
 * weights that the question's queries give are counted, 96 tokens are kept by them, and decoding goes on and still
 * finds what the three say. Usage: prune [path of libkvant.so]; the exit code says whether all went well. */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <kvant/kvant.h>
#include <kvant/kvant_ext_manager.h>

enum { LAYERS = 2, PROMPT = 256, QUESTION = 16, KEEP = 96, KV_HEADS = 2, Q_HEADS = 4, HEAD_DIM = 64 };
enum { ROW = KV_HEADS * HEAD_DIM, Q_ROW = Q_HEADS * HEAD_DIM };

static const kvant_api *api;
static const kvant_ext_manager *manager;
static const uint64_t facts[3] = {41, 110, 170}; /* the tokens that matter */

/* Prints and frees an error; true if there was none. */
static int ok(kvant_error *error) {
  if (error == NULL) return 1;
  fprintf(stderr, "%s failed (%u): %s\n", api->error_source(error), (unsigned)api->error_code(error),
          api->error_message(error));
  api->error_free(error);
  return 0;
}

static int is_true(int condition, const char *what) {
  if (!condition) fprintf(stderr, "not so: %s\n", what);
  return condition;
}

static kvant_tensor tensor_of(float *data, size_t count) {
  kvant_tensor tensor = {
      .struct_size = sizeof tensor, .data = data, .size = count * sizeof *data, .type = KVANT_TYPE_F32};
  return tensor;
}

/* A model would compute these: keys that look at nothing in particular, but for the facts, which the queries ask for.
 * The values of the facts are 1, all others -1. */
static void make_rows(uint64_t begin, uint64_t count, float *k, float *v) {
  for (uint64_t t = 0; t < count; ++t) {
    const int fact = begin + t == facts[0] || begin + t == facts[1] || begin + t == facts[2];
    for (uint64_t i = 0; i < ROW; ++i) {
      k[t * ROW + i] = fact ? 1.0f : (float)((begin + t * 5 + i * 3) % 7) / 7.0f - 0.5f;
      v[t * ROW + i] = fact ? 1.0f : -1.0f;
    }
  }
}

/* A step of `count` fresh tokens, the last `queries` of which attend; `out` gets the last query's row of the last
 * layer. */
static int feed(kvant_cache *cache, kvant_sequence sequence, uint64_t begin, uint32_t count, uint32_t queries,
                uint32_t flags, float *out) {
  static float k[PROMPT * ROW], v[PROMPT * ROW], q[QUESTION * Q_ROW], results[QUESTION * Q_ROW];
  const kvant_tensor tk = tensor_of(k, (size_t)count * ROW), tv = tensor_of(v, (size_t)count * ROW);
  const kvant_tensor tq = tensor_of(q, (size_t)queries * Q_ROW), to = tensor_of(results, (size_t)queries * Q_ROW);
  kvant_step_entry entry = {.struct_size = sizeof entry, .sequence = sequence, .append = count, .queries = queries};
  kvant_step_args args = {.struct_size = sizeof args, .entry_count = 1, .entries = &entry};
  kvant_run_args run = {.struct_size = sizeof run, .k = &tk, .v = &tv};
  kvant_step *step = NULL;
  make_rows(begin, count, k, v);
  for (uint32_t i = 0; i < queries * Q_ROW; ++i) q[i] = 1.0f;
  if (queries != 0) {
    run.q = &tq, run.out = &to, run.q_heads = Q_HEADS;
    run.flags = flags; /* KVANT_RUN_MASS where these queries are to be counted */
  }
  if (!ok(api->step_plan(cache, &args, &step))) return 0;
  for (uint32_t layer = 0; layer < LAYERS; ++layer)
    if (!ok(api->step_run(step, layer, &run))) {
      api->step_abort(step);
      return 0;
    }
  if (!ok(api->step_commit(step))) return 0;
  if (out != NULL) memcpy(out, results + (queries - 1) * Q_ROW, Q_ROW * sizeof *out);
  return 1;
}

static int read_keys(kvant_cache *cache, kvant_sequence sequence, uint64_t count, float *keys) {
  const kvant_tensor tensor = tensor_of(keys, count * ROW);
  return ok(api->sequence_read(cache, sequence, 0, KVANT_SIDE_K, 0, count, &tensor));
}

/* The prompt; only the queries of the question at its end are counted. */
static int read_prompt(kvant_cache *cache, kvant_sequence sequence, float *answer) {
  return feed(cache, sequence, 0, PROMPT - QUESTION, 0, 0, NULL) &&
         feed(cache, sequence, PROMPT - QUESTION, QUESTION, QUESTION, KVANT_RUN_MASS, answer);
}

static int look_at_masses(kvant_cache *cache, kvant_sequence sequence) {
  float mass[PROMPT];
  double sum = 0.0;
  if (!ok(manager->sequence_mass(cache, sequence, KVANT_MASS_ALL, KVANT_MASS_ALL, 0, PROMPT, mass))) return 0;
  for (int i = 0; i < PROMPT; ++i) sum += mass[i];
  printf("%d queries gave %.3f in all, of it %.3f to three tokens\n", QUESTION, sum,
         mass[facts[0]] + mass[facts[1]] + mass[facts[2]]);
  return is_true(fabs(sum - QUESTION) < 1e-3, "every query gives 1") &&
         is_true(mass[facts[1]] > 2.0f * mass[5], "facts are heavy");
}

static int prune(kvant_cache *cache, kvant_sequence sequence) {
  static float before[PROMPT * ROW], after[KEEP * ROW];
  kvant_prune_args args = {.struct_size = sizeof args};
  uint64_t places[KEEP], kept = 0, length = 0;
  int found = 0;
  if (!read_keys(cache, sequence, PROMPT, before)) return 0;
  args.keep_tokens = KEEP;
  args.sinks = 4;   /* the first tokens stay whatever they got, */
  args.recent = 32; /* and the newest, which had little time to get anything */
  if (!ok(manager->sequence_prune(cache, sequence, &args, places, &kept))) return 0;
  if (!ok(api->sequence_length(cache, sequence, &length)) || !read_keys(cache, sequence, kept, after)) return 0;
  for (uint64_t i = 0; i < kept; ++i) {
    for (int f = 0; f < 3; ++f) found += places[i] == facts[f];
    if (!is_true(memcmp(after + i * ROW, before + places[i] * ROW, ROW * sizeof *after) == 0, "keys stay as they were"))
      return 0;
  }
  printf("%d tokens before, %llu after, the three facts among them\n", PROMPT, (unsigned long long)length);
  return is_true(kept == KEEP && length == KEEP, "96 tokens are left") &&
         is_true(found == 3, "the facts are among them") &&
         is_true(places[3] == 3 && places[KEEP - 32] == PROMPT - 32, "so are the first and the newest");
}

static int work(kvant_cache *cache) {
  kvant_sequence sequence = 0;
  float whole[Q_ROW], answer[Q_ROW];
  uint64_t position, dropped = PROMPT - KEEP;
  uint32_t i;
  if (!ok(api->sequence_create(cache, &sequence)) || !read_prompt(cache, sequence, whole) ||
      !look_at_masses(cache, sequence) || !prune(cache, sequence))
    return 0;
  for (i = 0; i < 20; ++i) {
    /* Keys have the rotation of where they stood, so the next token goes on behind all that was read. */
    if (!ok(api->sequence_length(cache, sequence, &position))) return 0;
    position += dropped;
    if (!feed(cache, sequence, position, 1, 1, KVANT_RUN_MASS, answer)) return 0;
  }
  printf("the answer was %.4f over %d tokens and is %.4f over %d\n", (double)whole[0], PROMPT, (double)answer[0],
         KEEP + 20);
  return is_true(position == PROMPT + 19, "positions went on") &&
         is_true(fabsf(answer[0] - whole[0]) < 0.05f, "the answer is the same");
}

int main(int argc, char **argv) {
  void *library = dlopen(argc > 1 ? argv[1] : "libkvant.so", RTLD_NOW | RTLD_LOCAL);
  kvant_get_api_fn get_api = NULL;
  kvant_layer_args layers[LAYERS];
  kvant_cache_args args = {.struct_size = sizeof args, .layer_count = LAYERS, .layers = layers, .capacity_tokens = 512};
  kvant_context *context = NULL;
  kvant_device *device = NULL;
  kvant_cache *cache = NULL;
  uint32_t i, q8 = 0;
  int good;

  if (library != NULL) *(void **)&get_api = dlsym(library, "kvant_get_api");
  if (get_api == NULL || (api = get_api(KVANT_VERSION, NULL)) == NULL) {
    fprintf(stderr, "no usable kvant: %s\n",
            library == NULL   ? dlerror()
            : get_api == NULL ? "it exports no kvant_get_api"
                              : "its major version differs");
    return 1;
  }
  good = ok(api->context_create(NULL, &context)) && ok(api->format_find(context, "q8_0", &q8)) &&
         ok(api->device_open(context, NULL, &device));
  manager = good ? (const kvant_ext_manager *)api->get_extension(context, KVANT_EXT_MANAGER) : NULL;
  memset(layers, 0, sizeof layers);
  for (i = 0; i < LAYERS; ++i) {
    layers[i].struct_size = sizeof layers[i];
    layers[i].kv_heads = KV_HEADS;
    layers[i].head_dim_k = HEAD_DIM;
    layers[i].format_k = q8;
    layers[i].format_v = q8;
  }
  args.flags = KVANT_CACHE_MASS; /* 8 bytes per token, layer and KV head */
  good = manager != NULL && ok(api->cache_create(device, &args, &cache)) && work(cache);
  api->cache_destroy(cache); /* all three accept NULL */
  api->device_close(device);
  api->context_destroy(context);
  dlclose(library);
  puts(good ? "ok" : "FAILED");
  return good ? 0 : 1;
}
