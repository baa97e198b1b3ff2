/* Extension "kvant.manager/1": what an engine may ask of the cache manager beyond sequences and steps. The conventions of kvant.h
 * hold; all functions are [one-thread-per-object: cache]. Slots are only appended: check struct_size before you call a newer one. */
#ifndef KVANT_EXT_MANAGER_H
#define KVANT_EXT_MANAGER_H

#include "kvant.h"
#include "kvant_config.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KVANT_EXT_MANAGER "kvant.manager/1"

/* ---- state: what a cache holds, as bytes (docs/state_files.md) ----
 * Readable on every device and driver by a cache of the same model_id, rope, layers and formats. Pages that are shared are saved
 * once and are shared again. A wrong byte anywhere is KVANT_ERROR_DATA_LOSS, another model or other layers
 * KVANT_ERROR_INCOMPATIBLE; a load that fails changes nothing. */
typedef struct kvant_state_args {
  size_t struct_size;
  const kvant_next* next;
  const kvant_sequence* sequences;  /* [sequence_count] */
  uint32_t sequence_count;
  uint32_t flags;                   /* KVANT_STATE_*; at least one sequence or flag */
} kvant_state_args;
#define KVANT_STATE_ALL_SEQUENCES 1u  /* instead of `sequences` */
#define KVANT_STATE_PREFIXES 2u       /* what the prefix cache holds as well */

/* Where the bytes go to or come from: any transport. Called during the call, in order; must not call back into the library. */
typedef struct kvant_state_stream {
  size_t struct_size;
  const kvant_next* next;
  void* user_data;
  uint32_t (*write)(void* user_data, const void* data, uint64_t size); /* 1: taken; else the save fails, KVANT_ERROR_UNAVAILABLE */
  uint64_t (*read)(void* user_data, void* out, uint64_t size);  /* bytes read, at most size; 0: the end */
} kvant_state_stream;

/* ---- statistics (docs/monitoring.md has every name) ---- */
#define KVANT_STATS_JSON 0u        /* one object */
#define KVANT_STATS_PROMETHEUS 1u  /* text format 0.0.4 */
#define KVANT_STATS_MONITOR 2u     /* one object: "samples", "trends", "recommendations"; from stats_observe's snapshots */

/* The kinds of events; what a and b mean stands in docs/monitoring.md. */
#define KVANT_EVENT_PAGE_PUBLISHED 0u
#define KVANT_EVENT_PAGE_EVICTED 1u
#define KVANT_EVENT_PREFIX_HIT 2u
#define KVANT_EVENT_PREFIX_MISS 3u
#define KVANT_EVENT_TIER_STORE 4u
#define KVANT_EVENT_TIER_HIT 5u
#define KVANT_EVENT_TIER_MISS 6u
#define KVANT_EVENT_CONVERT 7u
#define KVANT_EVENT_SEQUENCE_CREATED 8u
#define KVANT_EVENT_SEQUENCE_DESTROYED 9u
#define KVANT_EVENT_LIMIT_CHANGED 10u
#define KVANT_EVENT_POLICY_CHANGED 11u
#define KVANT_EVENT_SAVE 12u
#define KVANT_EVENT_LOAD 13u
#define KVANT_EVENT_PRUNED 14u
#define KVANT_EVENT_COOLED 15u

typedef struct kvant_event {
  size_t struct_size;
  const kvant_next* next;
  uint64_t number;            /* from 1 on, without gaps */
  uint64_t time_ms;           /* of a monotonic clock */
  uint64_t a;
  uint64_t b;
  kvant_sequence sequence;    /* 0: none */
  uint32_t kind;              /* KVANT_EVENT_* */
  uint32_t reserved;
} kvant_event;

/* ---- store: whole tensors by (prefix, layer) ----
 * Prefixes are kept as sequences of the cache, which needs a prefix cache: they share pages with each other and with the
 * engine's own sequences. Equal tokens under equal salt mean equal content. A prefix is found by exactly its tokens. */
typedef struct kvant_store_options {
  size_t struct_size;
  const kvant_next* next;
  kvant_cache* cold_cache;             /* of the same device and layers, in narrower formats: prefixes that the cache has no room
                                          for move there and come back when used; NULL: they leave. Give it to nobody else */
  const kvant_policy_args* policy;     /* which prefixes leave first; NULL: KVANT_POLICY_LRU */
  uint32_t promote_uses;               /* uses of a cold prefix, one a pass over the layers, until it comes back; 0: 2 */
  uint32_t reserved;
} kvant_store_options;

typedef struct kvant_store_args {
  size_t struct_size;
  const kvant_next* next;
  const int32_t* tokens;      /* [batch][token_count]: the prefixes */
  uint64_t token_count;       /* required */
  const void* salt;           /* as in kvant_sequence_args */
  uint64_t salt_size;
  uint32_t batch;             /* 0: 1 */
  uint32_t layer;
  /* Of batch row 0, [tokens][kv_heads][head_dim] with any strides, so [kv_heads][tokens][head_dim] too; row i lies i * batch_stride
   * elements behind (0: kv_heads * token_count * head_dim). `size` reaches to the end of the last row. */
  const kvant_tensor* k;
  const kvant_tensor* v;
  uint64_t k_batch_stride;
  uint64_t v_batch_stride;
} kvant_store_args;

typedef struct kvant_store_stats {
  size_t struct_size;
  const kvant_next* next;
  uint64_t puts;              /* layers written; what was there already is not written again */
  uint64_t lookups;           /* layers asked for */
  uint64_t hits;              /* of `lookups` */
  uint64_t prefixes;          /* held now */
  uint64_t cold_prefixes;     /* of these, in the cold cache */
  uint64_t evicted;           /* prefixes that left */
  uint64_t demoted;           /* that moved to the cold cache */
  uint64_t promoted;          /* that came back */
} kvant_store_stats;

/* ---- tiers: where pages of the prefix cache go when their room on the device is needed (docs/tiers.md) ---- */
#define KVANT_TIER_HOST 1u      /* memory of this process */
#define KVANT_TIER_DISK 2u      /* plain files; survives restarts */
#define KVANT_TIER_REMOTE 3u    /* memcached servers */
#define KVANT_TIER_CUSTOM 4u    /* the engine's own */

/* The engine's own tier. Called from any thread, also after tiers_set has returned, until the tiers are replaced or the cache is
 * destroyed; must not call back into the library: calls on objects of the same
 * device are KVANT_ERROR_FAILED_PRECONDITION. Entries are immutable and named by a 32-byte key; their bytes are checked when
 * they come back, so that a wrong answer is a miss. */
typedef struct kvant_tier_functions {
  size_t struct_size;
  const kvant_next* next;
  void* user_data;
  const char* name;           /* in statistics; NULL: "custom" */
  uint32_t (*put)(void* user_data, const uint8_t* key, const void* value, uint64_t size);      /* required. 1: stored */
  /* Required. Size of the entry, 0: a miss; written to `out` if out_size is enough, else asked again with enough. */
  uint64_t (*get)(void* user_data, const uint8_t* key, void* out, uint64_t out_size);
  uint32_t (*contains)(void* user_data, const uint8_t* key);  /* NULL: get is asked */
  void (*erase)(void* user_data, const uint8_t* key);         /* may be NULL */
  void (*clear)(void* user_data);                             /* may be NULL */
} kvant_tier_functions;

typedef struct kvant_tier_args {
  size_t struct_size;
  const kvant_next* next;
  uint32_t kind;              /* required: KVANT_TIER_* */
  uint32_t timeout_ms;        /* remote: of connecting and transfers; 0: 200 */
  uint64_t capacity_bytes;    /* host: required; disk: 0: no limit */
  const char* location;       /* disk: folder, made if missing; remote: "host:port,host:port"; else NULL */
  const kvant_tier_functions* functions;  /* custom; else NULL */
} kvant_tier_args;

typedef struct kvant_tiers_args {
  size_t struct_size;
  const kvant_next* next;
  uint32_t tier_count;        /* nearest first; 0: no tiers from now on */
  uint32_t tier_stride;       /* bytes between elements of `tiers`; 0: tiers[0].struct_size */
  const kvant_tier_args* tiers;
  const char* format_k;       /* narrower formats in which the tiers keep K and V; NULL: the cache's */
  const char* format_v;
  uint32_t store_after_uses;  /* only pages that so many sequences began with are kept; 0: all */
  uint32_t flags;             /* KVANT_TIERS_* */
  uint64_t min_tokens;        /* fewer tokens in a row are not worth a load */
  uint64_t queue_bytes;       /* what may wait to be stored, beyond it is dropped; 0: 256 MiB */
} kvant_tiers_args;
#define KVANT_TIERS_ALWAYS_LOAD 1u  /* also what would be computed quicker, by the rates measured so far */
#define KVANT_TIERS_ALL 0xFFFFFFFFu /* for tiers_clear */

/* ---- memory ---- */
typedef struct kvant_memory_args {
  size_t struct_size;
  const kvant_next* next;
  uint64_t limit_bytes;       /* of all slabs; 0: no limit */
  const uint32_t* formats;    /* [format_count] what a layer's side may become, from wide to narrow; NULL: q8_0, q4_0 */
  uint32_t format_count;
  uint32_t flags;             /* KVANT_MEMORY_* */
  uint32_t sinks;             /* first and last tokens of every sequence that are not pruned; 0: 4 and 64 */
  uint32_t recent;
} kvant_memory_args;
/* The limit may prune sequences by attention mass, if the narrowest formats are not enough. The cache has KVANT_CACHE_MASS. */
#define KVANT_MEMORY_PRUNE 1u

/* ---- pruning (docs/pruning.md) ---- */
typedef struct kvant_prune_args {
  size_t struct_size;
  const kvant_next* next;
  uint64_t keep_tokens;       /* at most so many stay; at least sinks + recent */
  uint32_t sinks;             /* first tokens that stay; 0: 4. At least those that sliding windows keep */
  uint32_t recent;            /* last tokens that stay; 0: 64. At least the widest sliding window */
} kvant_prune_args;
#define KVANT_MASS_ALL 0xFFFFFFFFu  /* instead of a layer or a KV head: the mean over all of them */

/* ---- cooling (docs/cooling.md; since 1.2) ---- */
typedef struct kvant_cool_args {
  size_t struct_size;
  const kvant_next* next;
  uint64_t target_bytes;      /* pages cool until pool_bytes of kvant_cache_stats is no more */
  const uint32_t* formats;    /* [format_count] what V of a page becomes, one after the other, from wide to narrow; NULL: t3, t2 */
  uint32_t format_count;      /* 1 or 2; 0 with NULL */
  uint32_t sinks;             /* first tokens of every sequence, whose pages stay as they are; 0: 4 */
  uint32_t recent;            /* last tokens; 0: 64 */
  uint32_t reserved;          /* 0 */
} kvant_cool_args;

/* ---- rotation of keys by positions ---- */
typedef struct kvant_rotation {
  size_t struct_size;
  const kvant_next* next;
  const double* frequencies;  /* [pair_count] radians that pair i turns a position: theta^(-2i / rotary dimensions), scaled as the
                                 model scales it */
  uint32_t pair_count;        /* at most head_dim_k / 2 of every layer; elements beyond the pairs stay */
  uint32_t flags;             /* KVANT_ROTATION_* */
} kvant_rotation;
#define KVANT_ROTATION_HALVES 1u  /* pair i is (i, i + pair_count); else (2i, 2i + 1) */

typedef struct kvant_ext_manager {
  size_t struct_size;

  kvant_error* (*state_save)(kvant_cache* cache, const kvant_state_args* args, const kvant_state_stream* stream);
  /* Gives the number of sequences that were loaded; state_loaded tells each, until the next load of this cache. */
  kvant_error* (*state_load)(kvant_cache* cache, const kvant_state_stream* stream, uint32_t* out_count);
  /* The handle that a loaded sequence had when it was saved, and the one it has now. */
  kvant_error* (*state_loaded)(kvant_cache* cache, uint32_t index, uint64_t* out_saved, kvant_sequence* out_sequence);
  /* The same with a file. Saving writes a temporary file beside it and renames that: the file is the old one or the new one,
   * whole, whenever the process ends. KVANT_ERROR_UNAVAILABLE: it cannot be written; KVANT_ERROR_NOT_FOUND: there is none. */
  kvant_error* (*state_save_file)(kvant_cache* cache, const kvant_state_args* args, const char* path);
  kvant_error* (*state_load_file)(kvant_cache* cache, const char* path, uint32_t* out_count);

  /* ---- statistics ---- */
  /* Text of a kind, KVANT_STATS_*, until the next call for this cache. labels (Prometheus only; may be NULL): "name=value" pairs,
   * separated by commas, given to every series. */
  kvant_error* (*stats_text)(kvant_cache* cache, uint32_t kind, const char* labels, const char** out_text, uint64_t* out_size);
  /* A snapshot for the monitor: call it every few seconds. */
  kvant_error* (*stats_observe)(kvant_cache* cache);
  /* Compares one of so many appended tokens, at most one a step, with what is stored of it, where K and V come as f32 in host
   * memory; 0: none. A later conversion changes nothing of the figure. */
  kvant_error* (*stats_sample_errors)(kvant_cache* cache, uint64_t every_tokens);
  /* Events with numbers above `since`, at most `capacity`, into `events`, in each of which the caller has set struct_size. out_lost
   * (may be NULL): events before these that are not held any more. The last 1024 are held (cache_configure: `events`). */
  kvant_error* (*events_poll)(kvant_cache* cache, uint64_t since, uint32_t capacity, kvant_event* events, uint32_t* out_count,
                              uint64_t* out_lost);

  /* ---- store ---- */
  /* Once a cache, before the other calls; no sequence may be lost by it. */
  kvant_error* (*store_open)(kvant_cache* cache, const kvant_store_options* options);
  /* All prefixes of the batch or, on an error, none; those that left for their room stay gone. */
  kvant_error* (*store_put)(kvant_cache* cache, const kvant_store_args* args);
  /* out_found [batch]: 1 where K and V were written (either tensor may be NULL), 0: a miss. */
  kvant_error* (*store_get)(kvant_cache* cache, const kvant_store_args* args, uint32_t* out_found);
  /* Layers that are there of each prefix of the batch; counts no use. args->k and v are NULL, layer may be any of the cache's. */
  kvant_error* (*store_find)(kvant_cache* cache, const kvant_store_args* args, uint32_t* out_layers);
  kvant_error* (*store_erase)(kvant_cache* cache, const kvant_store_args* args);
  kvant_error* (*store_clear)(kvant_cache* cache);
  kvant_error* (*store_stats)(kvant_cache* cache, kvant_store_stats* stats);

  /* ---- tokens outside of steps; no step may be open ---- */
  /* Writes K and V of tokens [begin, begin + count) of one layer of a sequence, which grows to begin + count tokens if it is shorter;
   * begin may be at most its length. Every layer of a token must be written before it is attended to. Token ids from begin on are
   * forgotten: those pages are not published. On an error it has not grown, and keeps the ids of tokens behind its end. */
  kvant_error* (*sequence_write)(kvant_cache* cache, kvant_sequence sequence, uint32_t layer, uint64_t begin, uint64_t count,
                                 const kvant_tensor* k, const kvant_tensor* v);
  /* Destroys all sequences and lets the whole prefix cache go; gives their number. */
  kvant_error* (*clear_all)(kvant_cache* cache, uint64_t* out_sequences);

  /* ---- tiers; the cache needs a prefix cache ---- */
  /* Replaces the tiers; what waits for the old ones is stored first, as it is by cache_destroy. A disk folder that cannot be made is
   * KVANT_ERROR_UNAVAILABLE; servers that do not answer are no error, ever: a miss. sequence_open takes from the tiers what the device does not have. */
  kvant_error* (*tiers_set)(kvant_cache* cache, const kvant_tiers_args* args);
  kvant_error* (*tiers_store)(kvant_cache* cache);      /* hands every page of the prefix cache to the tiers */
  /* Brings what farther tiers hold of the prompt to the nearest one, in the background, ahead of its sequence_open. */
  kvant_error* (*tiers_prefetch)(kvant_cache* cache, const kvant_sequence_args* args);
  kvant_error* (*tiers_wait)(kvant_cache* cache);       /* until all that was asked for has been done */

  /* ---- memory; no step may be open ---- */
  /* What memory_limit would do, an action a line with bytes before and after, until the next call for this cache. Does nothing. */
  kvant_error* (*memory_plan)(kvant_cache* cache, const kvant_memory_args* args, const char** out_text);
  /* Does it, and allocates no slab beyond the limit from then on. Sequences lose nothing but precision, and tokens with
   * KVANT_MEMORY_PRUNE; if they do not fit even in the narrowest formats: KVANT_ERROR_RESOURCE_EXHAUSTED, and nothing has changed.
   * If memory or the device fails midway, the actions before stay done and the old limit stays in force: call it again. */
  kvant_error* (*memory_limit)(kvant_cache* cache, const kvant_memory_args* args);
  /* How much an error of a layer's side hurts, relative to the others (K: 2, V: 1 at first): decides what is narrowed first.
   * Negative: never. */
  kvant_error* (*memory_weight)(kvant_cache* cache, uint32_t layer, uint32_t side, double weight);
  /* cache_convert of all layers. On error the layers before keep their new formats. */
  kvant_error* (*cache_quantize)(kvant_cache* cache, uint32_t format_k, uint32_t format_v);

  /* ---- configuration (docs/configuration.md has the keys) ---- */
  /* cache_create, with what the JSON says instead of what `args` say: formats, capacity, prefix cache, policy, tiers, limit, store.
   * What the JSON does not name stays as `args` have it; a preset names everything but the model_id, and the capacity where
   * `args` have one. rope is no key: it comes from `args`. */
  kvant_error* (*cache_configure)(kvant_device* device, const kvant_cache_args* args, const char* json, kvant_cache** out_cache);
  /* The configuration complete, every key with its value, as JSON: as it was after cache_configure.
   * KVANT_ERROR_FAILED_PRECONDITION for a cache of cache_create. */
  kvant_error* (*config_text)(kvant_cache* cache, const char** out_json);

  /* ---- tokens of a sequence, on the device; no step may be open ---- */
  /* Keeps the tokens at these places ([count], ascending) and closes the gaps, codes as they are: the accepted path of a tree of
   * drafts, or what pruning leaves. Keys keep the rotation they were stored with; later queries go on at the positions that they would
   * have had. Causal and custom masks count places, not positions: with a sliding window or ALiBi dropped tokens shift both.
   * From the first gap on the tokens' ids are forgotten, see sequence_identify. With a full pool the tokens move within the sequence's own
   * pages; if the device fails in the midst of that, only those before the first gap's page are left, and the message says so. */
  kvant_error* (*sequence_keep)(kvant_cache* cache, kvant_sequence sequence, uint64_t count, const uint64_t* places);
  /* Tells the ids of the first `count` tokens, whose K and V are those of exactly these tokens in this order: their full pages
   * may be shared from now on. For tokens that came by sequence_write, or that sequence_keep has put together again; not beyond the
   * first gap of a sequence that was pruned: KVANT_ERROR_FAILED_PRECONDITION. */
  kvant_error* (*sequence_identify)(kvant_cache* cache, kvant_sequence sequence, uint64_t count, const int32_t* tokens);
  /* Context shift: the keys of tokens [begin, begin + count), stored after RoPE, turn by `positions` (negative: back), in all layers.
   * They are decoded and encoded again. Typical: sequence_keep without the oldest tokens, then turn those behind the gap back by
   * its length. If it fails midway some layers have been turned: drop those tokens. */
  kvant_error* (*sequence_shift)(kvant_cache* cache, kvant_sequence sequence, uint64_t begin, uint64_t count,
                                 const kvant_rotation* rotation, int64_t positions);

  /* ---- configuration as a struct, kvant_config.h: the same keys, checked alike; errors name the key. [any-thread] but config_apply ----
   * Texts in the struct and the JSON stay as long as the context. Struct -> JSON -> struct gives the same struct again. */
  /* A preset, "llm", "mobile" or "research", or with NULL the defaults: where a host begins. */
  kvant_error* (*config_default)(kvant_context* context, const char* preset, kvant_config* out_config);
  kvant_error* (*config_parse)(kvant_context* context, const char* json, kvant_config* out_config);
  kvant_error* (*config_write)(kvant_context* context, const kvant_config* config, const char** out_json);
  /* cache_configure with the struct: all that it has instead of what `args` say, but for the capacity and the model_id where it has
   * none. */
  kvant_error* (*config_apply)(kvant_device* device, const kvant_cache_args* args, const kvant_config* config,
                               kvant_cache** out_cache);

  /* ---- tiers ---- */
  /* Empties a tier, 0 the nearest, or with KVANT_TIERS_ALL every one, after what waits to be stored has been. All that it holds, also
   * what others have put there: every entry in a disk folder, memcached servers for all who use them. A custom tier without `clear`
   * keeps its entries. The device keeps its pages. */
  kvant_error* (*tiers_clear)(kvant_cache* cache, uint32_t tier);

  /* ---- attention mass (KVANT_CACHE_MASS; else KVANT_ERROR_FAILED_PRECONDITION) ---- */
  /* Of tokens [begin, begin + count) into out[count]: the sum over the queries that were counted (KVANT_RUN_MASS) of their weight for
   * the token, the mean over the query heads of a KV head; `layer` and `kv_head` by number or KVANT_MASS_ALL. Every query gives 1
   * in all, less what attention sinks take. A page that sequences share has one mass. Blocks until the device is done. */
  kvant_error* (*sequence_mass)(kvant_cache* cache, kvant_sequence sequence, uint32_t layer, uint32_t kv_head, uint64_t begin,
                                uint64_t count, float* out);
  kvant_error* (*sequence_mass_clear)(kvant_cache* cache, kvant_sequence sequence);  /* to 0, for all who share its pages */
  /* Keeps the sinks, the newest tokens, and of the others those of the largest mass, as sequence_keep does; places that stay go to
   * out_places[keep_tokens] (may be NULL), their number to `out_count`. Keys keep their rotation: the next query's position is what
   * it would have been. Sliding windows go on seeing what they saw; ALiBi is refused from then on. The sequence cannot be cut
   * shorter than it is now if a layer has a window. No step may be open. KVANT_ERROR_RESOURCE_EXHAUSTED: pages that others
   * share cannot be written, and there are no others. */
  kvant_error* (*sequence_prune)(kvant_cache* cache, kvant_sequence sequence, const kvant_prune_args* args, uint64_t* out_places,
                                 uint64_t* out_count);
  /* Since 1.2. V of the pages that got least attention, of sequences and of the prefix cache, becomes narrower on the device until the cache takes at
   * most target_bytes; K and all tokens stay. The number of pages goes to `out_pages` (may be NULL). Layers whose V is as narrow keep
   * it, and so do those whose weight (memory_weight) is negative. A page comes back to its layer's format, with what is left of its values,
   * when it is written, appended to or moved. No step may be open. KVANT_ERROR_RESOURCE_EXHAUSTED: nothing that may cool meets the target,
   * the message has the least that can, and nothing has cooled; or the device's memory is out (a slab more is needed meanwhile), and what
   * has cooled stays so. While pages are cold to other formats than these: KVANT_ERROR_FAILED_PRECONDITION. */
  kvant_error* (*cache_cool)(kvant_cache* cache, const kvant_cool_args* args, uint64_t* out_pages);
} kvant_ext_manager;

#ifdef __cplusplus
}
#endif
#endif /* KVANT_EXT_MANAGER_H */
