/* A host that ends without destroying anything: exit_host <library> <work> <way>. Ends with 37; 77: there is no device; anything
 * else: the host did not get that far. Run by exit_test.cpp. */
#define _POSIX_C_SOURCE 200809L
#define _ISOC11_SOURCE /* quick_exit */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <kvant/kvant_ext_manager.h>

#define ZERO(object) (memset(&(object), 0, sizeof(object)), (object).struct_size = sizeof(object))

enum { TOKENS = 64, DIM = 64, ENDED = 37, NO_DEVICE = 77 };

static const kvant_api *table;
static const kvant_ext_manager *manager;
static kvant_context *context;
static kvant_device *device;
static kvant_cache *cache;
static kvant_sequence sequence;
static kvant_step *step;
static int32_t tokens[TOKENS];

/* What the other threads tell. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int at_work;

static void tell(void) {
  pthread_mutex_lock(&mutex);
  ++at_work;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&mutex);
}
static void wait_for(int count) {
  pthread_mutex_lock(&mutex);
  while (at_work < count) pthread_cond_wait(&changed, &mutex);
  pthread_mutex_unlock(&mutex);
}
static void rest(long milliseconds) {
  struct timespec time;
  time.tv_sec = milliseconds / 1000;
  time.tv_nsec = milliseconds % 1000 * 1000000;
  nanosleep(&time, NULL);
}

static void need(kvant_error *error) {
  if (table->error_code(error) == 0) return;
  fprintf(stderr, "%s: %s\n", table->error_source(error), table->error_message(error));
  _exit(2);
}

static void open_all(const char *library) {
  kvant_get_api_fn get_api = NULL;
  kvant_context_args args;
  uint32_t count = 0;
  void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (handle == NULL) _exit(3);
  *(void **)&get_api = dlsym(handle, "kvant_get_api");
  table = get_api != NULL ? get_api(KVANT_VERSION, NULL) : NULL;
  if (table == NULL) _exit(4);
  ZERO(args);
  args.enable_validation = getenv("KVANT_VALIDATION") != NULL;
  need(table->context_create(&args, &context));
  manager = (const kvant_ext_manager *)table->get_extension(context, KVANT_EXT_MANAGER);
  need(table->device_count(context, &count));
  if (count == 0) _exit(NO_DEVICE);
}

static void open_cache(void) {
  kvant_layer_args layer;
  kvant_cache_args args;
  kvant_device_args device_args;
  ZERO(device_args);
  device_args.device_index = KVANT_DEVICE_BEST;
  need(table->device_open(context, &device_args, &device));
  ZERO(layer);
  ZERO(args);
  layer.kv_heads = 1;
  layer.head_dim_k = DIM;
  need(table->format_find(context, "q8_0", &layer.format_k));
  layer.format_v = layer.format_k;
  args.layer_count = 1;
  args.layers = &layer;
  args.capacity_tokens = 4 * TOKENS;
  args.flags = KVANT_CACHE_PREFIXES;
  need(table->cache_create(device, &args, &cache));
}

static void plan(uint32_t append, uint32_t queries) {
  kvant_step_entry entry;
  kvant_step_args args;
  ZERO(entry);
  ZERO(args);
  entry.sequence = sequence;
  entry.append = append;
  entry.queries = queries;
  args.entry_count = 1;
  args.entries = &entry;
  need(table->step_plan(cache, &args, &step));
}

static kvant_tensor tensor_over(float *data, size_t count) {
  kvant_tensor tensor;
  ZERO(tensor);
  tensor.data = data;
  tensor.size = count * sizeof(float);
  return tensor;
}

static void run(uint32_t queries) {
  static float k[TOKENS * DIM], v[TOKENS * DIM], q[DIM], out[DIM];
  kvant_tensor tk = tensor_over(k, TOKENS * DIM), tv = tensor_over(v, TOKENS * DIM);
  kvant_tensor tq = tensor_over(q, DIM), to = tensor_over(out, DIM);
  kvant_run_args args;
  ZERO(args);
  args.k = &tk, args.v = &tv;
  if (queries != 0) args.q = &tq, args.out = &to, args.q_heads = 1;
  need(table->step_run(step, 0, &args));
}

static void fill_sequence(void) {
  kvant_sequence_args args;
  int i;
  for (i = 0; i < TOKENS; ++i) tokens[i] = i;
  ZERO(args);
  args.tokens = tokens;
  args.token_count = TOKENS;
  need(table->sequence_open(cache, &args, &sequence, NULL));
  plan(TOKENS, 0);
  run(0);
  need(table->step_commit(step));
}

/* A tier whose functions take their time: the process ends while the cache's own thread is inside. */
static uint32_t slow_put(void *user, const uint8_t *key, const void *value, uint64_t size) {
  (void)user, (void)key, (void)value, (void)size;
  tell();
  rest(2000);
  return 1;
}
static uint64_t slow_get(void *user, const uint8_t *key, void *out, uint64_t size) {
  (void)user, (void)key, (void)out, (void)size;
  tell();
  rest(2000);
  return 0;
}
static void set_tiers(void) {
  static kvant_tier_functions functions;
  kvant_tier_args tiers[2];
  kvant_tiers_args args;
  ZERO(functions);
  functions.put = slow_put;
  functions.get = slow_get;
  ZERO(tiers[0]);
  ZERO(tiers[1]);
  tiers[0].kind = KVANT_TIER_HOST;
  tiers[0].capacity_bytes = 1 << 24;
  tiers[1].kind = KVANT_TIER_CUSTOM;
  tiers[1].functions = &functions;
  ZERO(args);
  args.tier_count = 2;
  args.tiers = tiers;
  args.flags = KVANT_TIERS_ALWAYS_LOAD;
  need(manager->tiers_set(cache, &args));
}

static void *compile_on(void *unused) {
  (void)unused;
  tell();
  run(1); /* the first of its kind: compiles */
  return NULL;
}
static void *convert_on(void *unused) {
  static float x[DIM * 4096];
  static unsigned char y[sizeof x];
  (void)unused;
  tell();
  for (long i = 0; i < 1000000000L; ++i) need(table->quantize(device, 0, DIM, 4096, x, sizeof x, y, sizeof y));
  return NULL;
}

static void begin_work(const char *work) {
  pthread_t thread;
  if (strcmp(work, "context") == 0) return;
  open_cache();
  if (strcmp(work, "compile") == 0) {
    need(table->sequence_create(cache, &sequence));
    plan(TOKENS, 1);
    if (pthread_create(&thread, NULL, compile_on, NULL) != 0) _exit(5);
    wait_for(1);
    rest(3);
  } else if (strcmp(work, "convert") == 0) {
    if (pthread_create(&thread, NULL, convert_on, NULL) != 0) _exit(5);
    wait_for(1);
    rest(30);
  } else if (strcmp(work, "step") == 0) {
    need(table->sequence_create(cache, &sequence));
    plan(TOKENS, 0); /* pages are taken; never committed or aborted */
  } else if (strcmp(work, "prefetch") == 0) {
    kvant_sequence_args args;
    set_tiers();
    ZERO(args);
    args.tokens = tokens;
    args.token_count = TOKENS;
    need(manager->tiers_prefetch(cache, &args));
    wait_for(1);
  } else if (strcmp(work, "store") == 0) {
    fill_sequence();
    set_tiers();
    need(manager->tiers_store(cache));
    wait_for(1);
  } else {
    _exit(6);
  }
}

int main(int argc, char **argv) {
  if (argc != 4) return 1;
  open_all(argv[1]);
  begin_work(argv[2]);
  puts("at work");
  fflush(stdout);
  if (strcmp(argv[3], "_exit") == 0) _exit(ENDED);
  if (strcmp(argv[3], "quick_exit") == 0) quick_exit(ENDED);
  if (strcmp(argv[3], "exit") == 0) exit(ENDED);
  return strcmp(argv[3], "return") == 0 ? ENDED : 7;
}
