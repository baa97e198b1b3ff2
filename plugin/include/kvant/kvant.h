/* kvant: a quantized, paged KV cache for LLM inference on any Vulkan device. The one public header; C99.
 *
 * Conventions (docs/abi.md has all rules and the test that holds each):
 *  - dlopen the library, look up kvant_get_api, negotiate, and call through the table. Nothing else is exported.
 *  - Every struct starts with struct_size (sizeof as the caller compiled it) and next (NULL, or a chain of extension structs).
 *    Zero every struct first: zero is a valid default unless a field says "required". Fields beyond struct_size read as zero,
 *    and of a struct that the library fills only the first struct_size bytes are written. `reserved` fields must be zero.
 *  - Functions that can fail return kvant_error*: NULL is success. The caller frees it by error_free. On error outputs are
 *    untouched and the objects are as they were.
 *  - Handles are opaque, checked on every call, and never reused: NULL is KVANT_ERROR_INVALID_ARGUMENT; a destroyed handle, one
 *    of another type, or one of another copy of the library is KVANT_ERROR_NOT_FOUND. Destroy functions return nothing and
 *    accept NULL. Destroying a parent before its children (context: devices; device: caches; cache: its open step) is logged
 *    as KVANT_LOG_HOST_MISBEHAVING and ignored; destroying a handle of another type or one that was destroyed, as
 *    KVANT_LOG_WARNING where the context is still known.
 *  - Thread tags: [any-thread] call whenever. [one-thread-per-object]: calls on one device, its caches and their steps wait for
 *    each other; do not destroy an object that another thread still uses. Different devices are independent.
 *  - Callbacks run on the thread of the call that caused them and must not call back into the same device's objects: such a call
 *    is KVANT_ERROR_FAILED_PRECONDITION.
 *  - Strings are UTF-8, NUL-terminated. Strings that the library returns live as long as the object they came from; those
 *    of formats and of the build live as long as the library.
 *  - Sizes are bytes unless the name says otherwise; strides of tensors are in elements.
 */
#ifndef KVANT_H
#define KVANT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KVANT_MAKE_VERSION(major, minor) (((uint32_t)(major) << 16) | (uint32_t)(minor))
#define KVANT_VERSION KVANT_MAKE_VERSION(1, 2)

typedef struct kvant_error kvant_error;
typedef struct kvant_context kvant_context; /* the library, loaded: log, devices */
typedef struct kvant_device kvant_device;   /* an opened or borrowed Vulkan device */
typedef struct kvant_cache kvant_cache;     /* a paged KV cache of one model on one device */
typedef struct kvant_step kvant_step;       /* a planned step of one cache */
typedef uint64_t kvant_sequence;            /* a sequence of one cache; 0 is none; never reused */

/* Extension structs chained by `next`. An unknown type is an error unless flags has KVANT_NEXT_OPTIONAL. */
typedef struct kvant_next {
  size_t struct_size;
  const struct kvant_next* next;
  uint32_t type;
  uint32_t flags;
} kvant_next;
#define KVANT_NEXT_OPTIONAL 1u

/* Error codes (error_code). */
#define KVANT_ERROR_INVALID_ARGUMENT 1u
#define KVANT_ERROR_NOT_FOUND 2u
#define KVANT_ERROR_RESOURCE_EXHAUSTED 3u
#define KVANT_ERROR_FAILED_PRECONDITION 4u
#define KVANT_ERROR_UNIMPLEMENTED 5u
#define KVANT_ERROR_UNAVAILABLE 6u
#define KVANT_ERROR_INCOMPATIBLE 7u
#define KVANT_ERROR_DATA_LOSS 8u
#define KVANT_ERROR_INTERNAL 9u

/* Log levels. The last two blame: the host broke a rule of this header; the library met a state it should not. */
#define KVANT_LOG_DEBUG 0u
#define KVANT_LOG_INFO 1u
#define KVANT_LOG_WARNING 2u
#define KVANT_LOG_ERROR 3u
#define KVANT_LOG_HOST_MISBEHAVING 4u
#define KVANT_LOG_PLUGIN_MISBEHAVING 5u

/* What the host gives. Any callback may be NULL. Log messages are `message_size` bytes of UTF-8 without a newline. */
typedef struct kvant_context_args {
  size_t struct_size;
  const kvant_next* next;
  void* user_data;
  void (*log)(void* user_data, uint32_t level, const char* message, size_t message_size);
  uint32_t log_level;          /* least level that is reported; 0: everything */
  uint32_t enable_validation;  /* 1: Vulkan validation layer with synchronization checks, if installed; messages are logged
                                  as KVANT_LOG_PLUGIN_MISBEHAVING */
} kvant_context_args;

/* Device types. */
#define KVANT_DEVICE_OTHER 0u
#define KVANT_DEVICE_INTEGRATED 1u
#define KVANT_DEVICE_DISCRETE 2u
#define KVANT_DEVICE_VIRTUAL 3u
#define KVANT_DEVICE_CPU 4u

typedef struct kvant_device_info {
  size_t struct_size;
  const kvant_next* next;
  const char* name;
  const char* driver;          /* driver name and version in words */
  uint32_t type;               /* KVANT_DEVICE_* */
  uint32_t vendor_id;
  uint32_t device_id;
  uint32_t api_version;        /* VK_MAKE_API_VERSION */
  uint64_t memory_size;        /* of the largest device-local heap */
  uint32_t tier;               /* 0: the portability floor; more with the capabilities found (docs/architecture.md) */
  uint32_t usable;             /* 1, or 0 and `reasons` says why not */
  const char* reasons;         /* "" if usable */
  const char* json;            /* one object: "snapshot" (all facts), "plan", "modules" (kernels with their state and, where one
                                  cannot run, the reason) and "quirks" (names in force) */
} kvant_device_info;

typedef struct kvant_device_args {
  size_t struct_size;
  const kvant_next* next;
  uint32_t device_index;              /* as enumerated, or KVANT_DEVICE_BEST: discrete, integrated, virtual, CPU */
  uint32_t enable_profiling;          /* 1: timestamps for device_profile */
  const char* capability_override;    /* JSON that narrows the device; NULL: environment KVANT_CAPABILITIES */
  const char* quirks;                 /* "+name,-name"; NULL: environment KVANT_QUIRKS */
  const char* pipeline_cache_folder;  /* NULL: no on-disk pipeline cache */
  uint64_t memory_limit;              /* bytes of device memory; 0: no own limit */
} kvant_device_args;
#define KVANT_DEVICE_BEST 0xFFFFFFFFu

/* A format of K or V, enumerated by id 0 .. format_count - 1. Not enumerated, of other ids: q5_k, q3_k and q2_k, see format_find. */
typedef struct kvant_format_info {
  size_t struct_size;
  const kvant_next* next;
  const char* name;           /* "q4_0" */
  uint32_t block_elements;    /* elements that share a scale; 1 for formats without one */
  uint32_t block_bytes;       /* canonical bytes of a block */
  double bits_per_element;    /* in the pool, at head dimension 128, scales included; of q5_k, q3_k, q2_k in their blocks */
} kvant_format_info;

typedef struct kvant_layer_args {
  size_t struct_size;
  const kvant_next* next;
  uint32_t kv_heads;          /* required: 1..1024 */
  uint32_t head_dim_k;        /* required: 32..576, a multiple of 8 */
  uint32_t head_dim_v;        /* 0: as K */
  uint32_t format_k;          /* format ids, see format_find */
  uint32_t format_v;
  uint32_t window;            /* sliding window in tokens, the query's own included; 0: none; at most 2^31 - 1 */
  uint32_t window_sinks;      /* first tokens that stay visible outside the window; 0 without a window */
  uint32_t unused;            /* padding until 1.1, not read */
  uint32_t transform_k;       /* since 1.2: KVANT_TRANSFORM_*, how rows lie in pages */
  uint32_t transform_v;
  const float* means_k;       /* with KVANT_TRANSFORM_CENTRE [kv_heads][head_dim], finite, of rows as they are appended; NULL: measured. */
  const float* means_v;       /* Read during the call. */
} kvant_layer_args;
/* How rows lie in pages. Attention is the same but for quantization and rounding, and reading gives rows as they were appended; canonical bytes
 * (sequence_export, and what a step takes as such) are those of the rows as they lie.
 * ROTATE: rows are multiplied by a fixed orthonormal matrix before they are quantized, queries or outputs likewise (docs/rotation.md): outliers
 * spread over the row, and narrow formats err less. Not for engines that rotate K or V themselves.
 * CENTRE: a mean per KV head is subtracted first (docs/centring.md). If it is not given, the first rows of a layer decide, 32 at least in one run,
 * whether it pays and what it is; then it stays. Such a cache takes no tiers, and loads states
 * that were saved under the same means; one whose means are not decided yet takes the state's. */
#define KVANT_TRANSFORM_ROTATE 1u
#define KVANT_TRANSFORM_CENTRE 2u

/* Eviction policies of the prefix cache (docs/policies.md). */
#define KVANT_POLICY_LRU 0u       /* least recently used first */
#define KVANT_POLICY_NONE 1u      /* a full pool is an error */
#define KVANT_POLICY_WINDOW 2u    /* ends of prefixes first, `sink_pages` of each last */
#define KVANT_POLICY_ADAPTIVE 3u  /* recency and frequency, with admission */

typedef struct kvant_policy_args {
  size_t struct_size;
  const kvant_next* next;
  uint32_t kind;              /* KVANT_POLICY_* */
  uint32_t sink_pages;        /* of KVANT_POLICY_WINDOW; else 0 */
  uint64_t ttl_ms;            /* pages unused for so long leave; 0: never */
} kvant_policy_args;

typedef struct kvant_cache_args {
  size_t struct_size;
  const kvant_next* next;
  uint32_t layer_count;              /* required: 1..4096 */
  uint32_t layer_stride;             /* bytes between elements of `layers`; 0: layers[0].struct_size */
  const kvant_layer_args* layers;    /* [layer_count] */
  uint64_t capacity_tokens;          /* required: of the pool, all sequences together, rounded up to pages; below 2^31 - 32 */
  uint32_t page_tokens;              /* 16 or 32; 0: 16 */
  uint32_t flags;                    /* KVANT_CACHE_* */
  /* Since 1.1, with KVANT_CACHE_PREFIXES; else NULL. */
  const char* model_id;              /* with `rope`: all that K and V depend on besides tokens, layers and formats: weights, */
  const char* rope;                  /* adapters; position encoding. Read during the call. NULL: "" */
  const kvant_policy_args* policy;   /* NULL: KVANT_POLICY_LRU */
  uint64_t slab_bytes;               /* bytes that a slab of one layer aims at: memory is taken and given back by the slab; 0: 256 MiB */
  /* Since 1.2: tokens that attention reads in f16 although their layers' formats are narrower (docs/protection.md). */
  uint32_t protect_sides;            /* KVANT_PROTECT_K, KVANT_PROTECT_V or both; 0: none. Not with KVANT_CACHE_EXTERNAL_PAGES */
  uint32_t protect_first;            /* tokens at the beginning of each sequence, rounded up to pages; at most 65536 */
  uint32_t protect_newest;           /* tokens that a query sees before it, its own included, rounded up to pages; at most 65536 */
  uint32_t reserved;                 /* 0 */
  uint64_t protect_tokens;           /* room for so many, of all sequences together; what finds none is not protected. 0: an eighth of
                                        capacity_tokens, or what one sequence needs */
} kvant_cache_args;
#define KVANT_PROTECT_K 1u
#define KVANT_PROTECT_V 2u
/* The engine keeps the page tables: only paged_plan, paged_read and paged_copy (and the steps that paged_plan makes). Page ids
 * are 0 .. kvant_cache_stats.total_pages - 1. All layers must have equal head counts, head dimensions and windows. */
#define KVANT_CACHE_EXTERNAL_PAGES 1u
/* Full pages of known tokens stay for later sequences that begin alike (sequence_open), until their room is needed. Since 1.1. */
#define KVANT_CACHE_PREFIXES 2u
/* Room to count what attention each token gets (KVANT_RUN_MASS): 8 bytes per token, layer and KV head. Not with
 * KVANT_CACHE_EXTERNAL_PAGES. Since 1.1. */
#define KVANT_CACHE_MASS 4u

typedef struct kvant_cache_stats {
  size_t struct_size;
  const kvant_next* next;
  uint64_t pool_bytes;        /* device memory of the slabs */
  uint64_t used_bytes;        /* pages held by sequences or the prefix cache; shared pages once; 0 with
                                 KVANT_CACHE_EXTERNAL_PAGES */
  uint64_t used_pages;        /* as used_bytes */
  uint64_t total_pages;
  uint64_t sequence_tokens;   /* sum of lengths */
  uint64_t sequence_count;
} kvant_cache_stats;

/* How a sequence begins. Since 1.1. */
typedef struct kvant_sequence_args {
  size_t struct_size;
  const kvant_next* next;
  const int32_t* tokens;      /* [token_count] ids of what is going to be appended, as far as known; steps need not repeat them */
  uint64_t token_count;
  const void* salt;           /* salt_size bytes, at most 4096: sequences share with those of equal salt only */
  uint64_t salt_size;
  uint64_t leave_tokens;      /* so many of the last tokens are not taken from the cache; 1 to get the last one's logits. Else
                                 whole pages are shared */
  uint64_t ttl_ms;            /* of the pages that the sequence publishes; 0: the policy's */
  uint32_t priority;          /* of the same, 0..100; pages of lower priority leave first */
  uint32_t flags;             /* KVANT_SEQUENCE_* */
} kvant_sequence_args;
#define KVANT_SEQUENCE_NEAR_TIERS 1u  /* waits for no tier but the nearest one (kvant_ext_manager.h) */

/* Counts since cache_create. Since 1.1. */
typedef struct kvant_prefix_stats {
  size_t struct_size;
  const kvant_next* next;
  uint64_t lookups;           /* sequence_open with tokens */
  uint64_t lookup_tokens;     /* and their tokens */
  uint64_t hits;              /* of `lookups`, those that shared tokens */
  uint64_t hit_tokens;        /* of `lookup_tokens`, those that were shared */
  uint64_t published_pages;   /* pages count once, however many layer groups there are */
  uint64_t merged_pages;      /* content that was there already, computed again at the same time */
  uint64_t evicted_capacity;  /* pages that left because their room was needed, */
  uint64_t evicted_expired;   /* because their time was over, */
  uint64_t evicted_cleared;   /* by prefix_clear, */
  uint64_t evicted_limit;     /* to meet a memory limit */
  uint64_t pages;             /* now in the prefix cache */
  uint64_t unshared_pages;    /* pages of layer groups, now, that no sequence holds: what eviction could free */
} kvant_prefix_stats;

/* Element types of tensors. */
#define KVANT_TYPE_F32 0u
#define KVANT_TYPE_F16 1u
#define KVANT_TYPE_BF16 2u

/* A tensor [tokens][heads][head_dim], head_dim contiguous: in host memory (data), or a range of a VkBuffer of the same
 * device (buffer; host pointer NULL): exactly one of the two. Rows of an output must not overlap each other. Data must be
 * aligned to its type; offsets in a buffer to 4 bytes, and its 16-bit strides to 2 elements. */
typedef struct kvant_tensor {
  size_t struct_size;
  const kvant_next* next;
  void* data;
  uint64_t size;              /* required: bytes readable (writable) from data, or from `offset` in the buffer */
  uint64_t buffer;            /* VkBuffer handle as an integer; borrowed devices only (kvant_ext_vulkan.h) */
  uint64_t offset;            /* bytes */
  uint32_t type;              /* KVANT_TYPE_* */
  uint32_t reserved;
  uint64_t token_stride;      /* elements; 0: heads * head_dim */
  uint64_t head_stride;       /* elements; 0: head_dim */
} kvant_tensor;

/* One sequence of a step. `append` fresh tokens go to its end; then `queries` queries attend to all of its tokens. At least one
 * of the two is not 0, and a sequence occurs once in a step. Without KVANT_ENTRY_QUERY_POSITION the last query stands at the
 * sequence's last token; a causal run then needs queries <= tokens. Tokens and queries of a step are each below 2^31. */
typedef struct kvant_step_entry {
  size_t struct_size;
  const kvant_next* next;
  kvant_sequence sequence;
  uint32_t append;
  uint32_t queries;
  uint32_t flags;             /* KVANT_ENTRY_* */
  int32_t query_position;     /* place of the first query: tokens of the sequence before it (not RoPE's
                                 position), with KVANT_ENTRY_QUERY_POSITION; else 0 */
  const uint32_t* mask;       /* tree or custom mask: `queries` rows of mask_row_words words; bit i of a row: may attend to
                                 token mask_begin + i; earlier tokens follow the causal rule. NULL: causal rule only */
  uint64_t mask_begin;        /* at most the number of tokens, fresh ones included */
  uint32_t mask_row_words;    /* a row covers all tokens from mask_begin on: at least ceil((tokens - mask_begin) / 32) */
  uint32_t reserved;
  const int32_t* tokens;      /* since 1.1: [append] ids of the fresh tokens, or NULL: unknown, or told by sequence_open. Pages
                                 of unknown tokens are not shared */
} kvant_step_entry;
#define KVANT_ENTRY_QUERY_POSITION 1u

typedef struct kvant_step_args {
  size_t struct_size;
  const kvant_next* next;
  uint32_t entry_count;       /* required: at least 1 */
  uint32_t entry_stride;      /* bytes between entries; 0: entries[0].struct_size */
  const kvant_step_entry* entries;
} kvant_step_args;

/* The engine's own page tables (FlashInfer, vLLM). Counts in elements. Sequence i of the batch has the queries qo_indptr[i] ..
 * qo_indptr[i + 1] - 1 and the pages kv_indices[kv_indptr[i] .. kv_indptr[i + 1] - 1]; its keys fill all pages but the last, which
 * holds kv_last_page_len[i]. Both indptr begin with 0 and never fall. Arrays are read during paged_plan only. */
typedef struct kvant_paged_args {
  size_t struct_size;
  const kvant_next* next;
  uint32_t batch;                     /* sequences */
  uint32_t token_count;               /* fresh tokens */
  const int64_t* slot_mapping;        /* [token_count]: page * page_tokens + offset; negative: skip; no slot twice */
  const int32_t* qo_indptr;           /* [batch + 1] query rows; NULL: no attention in this step */
  const int32_t* kv_indptr;           /* [batch + 1] offsets into kv_indices */
  const int32_t* kv_indices;          /* [kv_indptr[batch]] page ids; -1: unmapped, masked out */
  const int32_t* kv_last_page_len;    /* [batch], 1..page_tokens; ignored for a sequence without pages */
  const int32_t* query_positions;     /* [batch] position of the first query, not negative; NULL: queries end at the last token */
  const uint32_t* mask;               /* [qo_indptr[batch]] rows of mask_row_words words over all keys of the row's sequence,
                                         instead of the causal rule; NULL: causal rule */
  uint32_t mask_row_words;
  uint32_t reserved;
} kvant_paged_args;

/* One layer of a step: write k and v of the fresh tokens, then out = softmax(scale * q k^T + bias) v. */
typedef struct kvant_run_args {
  size_t struct_size;
  const kvant_next* next;
  const kvant_tensor* k;      /* [fresh tokens][kv_heads][head_dim_k], entries in order; NULL if the step appends nothing */
  const kvant_tensor* v;      /* [fresh tokens][kv_heads][head_dim_v], of k's type */
  const kvant_tensor* q;      /* [queries][q_heads][head_dim_k], entries in order; NULL if the step has no query */
  const kvant_tensor* out;    /* [queries][q_heads][head_dim_v]; overlaps no other tensor; a fully masked row gives zeros */
  const kvant_tensor* lse;    /* optional, f32 [queries][q_heads] without gaps: natural log-sum-exp of each row's logits (sinks
                                 included); overlaps no other tensor */
  uint32_t q_heads;           /* a multiple of kv_heads, at most 16384; 0 if the step has no query */
  uint32_t flags;             /* KVANT_RUN_* */
  float scale;                /* 0: 1 / sqrt(head_dim_k); finite, not negative */
  float soft_cap;             /* 0: off; finite, not negative */
  const float* sinks;         /* [q_heads] sink logits (minus infinity: none for that head), or NULL */
  const float* alibi_slopes;  /* [q_heads], finite, or NULL */
} kvant_run_args;
#define KVANT_RUN_NON_CAUSAL 1u  /* every query sees every key: encoders, cross-attention */
/* Since 1.1: for sequences of at most 32 queries, out is to the bit what each query would get alone in its step, whatever else the step
 * holds: verified drafts then are the target's own text. Slower: queries share no reading of keys, and no token is read as protected. */
#define KVANT_RUN_INVARIANT 2u
/* Since 1.1, with KVANT_CACHE_MASS: adds what each key weighs in the softmax of these queries to its token's attention mass
 * (kvant_ext_manager.h). Costs about one more reading of K (docs/pruning.md). What has been added stays, also if the step is aborted,
 * the layer is run again, or the queries' tokens are taken back. */
#define KVANT_RUN_MASS 4u

/* Sides of a layer. */
#define KVANT_SIDE_K 0u
#define KVANT_SIDE_V 1u

typedef struct kvant_profile_entry {
  size_t struct_size;
  const kvant_next* next;
  const char* label;          /* "append", "attend_decode", ...; lives as long as the device */
  uint64_t count;
  double microseconds;        /* device time, summed */
} kvant_profile_entry;

typedef struct kvant_build_info {
  size_t struct_size;
  const kvant_next* next;
  const char* version;        /* product version "0.1.0" */
  const char* commit;
  const char* compiler;
  const char* sanitizers;     /* "" or "address,undefined", "thread" */
  const char* shader_set;     /* "sha256:..." */
  const char* missing_modules;/* comma-separated names of kernels that this build could not compile; "" if none */
} kvant_build_info;

/* The function table: const, valid while the library is loaded. A host compiled against a later minor version checks
 * struct_size before it calls a newer slot. */
typedef struct kvant_api {
  size_t struct_size;
  uint32_t version;           /* the newest that host and library both know */
  uint32_t reserved;

  /* ---- errors and build [any-thread]: an error's strings live until error_free ---- */
  uint32_t (*error_code)(const kvant_error* error);            /* 0 for NULL */
  const char* (*error_message)(const kvant_error* error);      /* "" for NULL */
  const char* (*error_source)(const kvant_error* error);       /* function of this table that failed */
  void (*error_free)(kvant_error* error);
  kvant_error* (*get_build_info)(kvant_build_info* info);

  /* ---- context ---- */
  /* [any-thread] args may be NULL. A machine without Vulkan is no error: device_count is 0 and device_open says why. */
  kvant_error* (*context_create)(const kvant_context_args* args, kvant_context** out_context);
  void (*context_destroy)(kvant_context* context);                                                      /* [any-thread] */
  /* [any-thread] Const table of an extension, "kvant.<name>/<revision>", or NULL: unknown. Lives as long as the library. */
  const void* (*get_extension)(kvant_context* context, const char* id);

  /* ---- formats [any-thread]; format_find has q5_k, q3_k and q2_k too, which only format_info, row_bytes, quantize and dequantize take ---- */
  kvant_error* (*format_count)(kvant_context* context, uint32_t* out_count);
  kvant_error* (*format_info)(kvant_context* context, uint32_t format, kvant_format_info* info);
  kvant_error* (*format_find)(kvant_context* context, const char* name, uint32_t* out_format);

  /* ---- devices ---- */
  kvant_error* (*device_count)(kvant_context* context, uint32_t* out_count);                            /* [any-thread] */
  kvant_error* (*device_info)(kvant_context* context, uint32_t device_index, kvant_device_info* info);  /* [any-thread] */
  /* [any-thread] args NULL: the best device with defaults. KVANT_ERROR_UNAVAILABLE lists why no device can be used. The
   * environment (KVANT_CAPABILITIES, KVANT_QUIRKS) is read here, nowhere else. */
  kvant_error* (*device_open)(kvant_context* context, const kvant_device_args* args, kvant_device** out_device);
  /* [one-thread-per-object] Waits for the device's work. */
  void (*device_close)(kvant_device* device);
  /* [one-thread-per-object] Facts of the opened device, override and quirks applied. */
  kvant_error* (*device_describe)(kvant_device* device, kvant_device_info* info);
  /* [one-thread-per-object] Takes the device time since the last device_profile, waiting for submitted work, and gives the
   * number of labels; device_profile_entry then reads them by index until the next device_profile.
   * KVANT_ERROR_FAILED_PRECONDITION without enable_profiling. */
  kvant_error* (*device_profile)(kvant_device* device, uint32_t* out_count);
  kvant_error* (*device_profile_entry)(kvant_device* device, uint32_t index, kvant_profile_entry* entry);
  /* [one-thread-per-object] Bytes per second of a device-to-device copy of `size` bytes, best of a few: the yardstick that
   * benchmarks print beside their own figures. */
  kvant_error* (*device_measure_copy)(kvant_device* device, uint64_t size, double* out_bytes_per_second);

  /* ---- stand-alone conversion on the device [one-thread-per-object: device] ---- */
  /* `rows` rows of head_dim floats, tightly packed <-> rows of row_bytes canonical bytes (docs/formats/). head_dim as for layers, of q5_k,
   * q3_k, q2_k a multiple of 256 to 2^20, on the host; sizes in bytes, exact: rows * head_dim * 4 and rows * row_bytes. rows 0 does nothing. */
  kvant_error* (*row_bytes)(kvant_context* context, uint32_t format, uint32_t head_dim, uint64_t* out_bytes);
  kvant_error* (*quantize)(kvant_device* device, uint32_t format, uint32_t head_dim, uint64_t rows, const float* input,
                           uint64_t input_size, void* output, uint64_t output_size);
  kvant_error* (*dequantize)(kvant_device* device, uint32_t format, uint32_t head_dim, uint64_t rows, const void* input,
                             uint64_t input_size, float* output, uint64_t output_size);

  /* ---- caches [one-thread-per-object: cache] ---- */
  /* Allocates no device memory for pages yet: the call that first uses a page does, most often step_plan, and is
   * KVANT_ERROR_RESOURCE_EXHAUSTED if there is none left. So is cache_create, at once, if the pool when full would exceed
   * memory_limit or all memory of the device. */
  kvant_error* (*cache_create)(kvant_device* device, const kvant_cache_args* args, kvant_cache** out_cache);
  void (*cache_destroy)(kvant_cache* cache);  /* what waits for its tiers is stored first, however long they take */
  kvant_error* (*cache_stats)(kvant_cache* cache, kvant_cache_stats* stats);
  /* Re-encodes one side of a layer on the device, all pages in use. No step may be open. */
  kvant_error* (*cache_convert)(kvant_cache* cache, uint32_t layer, uint32_t side, uint32_t format);

  /* ---- sequences [one-thread-per-object: cache] ---- */
  kvant_error* (*sequence_create)(kvant_cache* cache, kvant_sequence* out_sequence);
  kvant_error* (*sequence_destroy)(kvant_cache* cache, kvant_sequence sequence);
  /* The child holds the parent's first `tokens` tokens; full pages are shared, the open page is copied. With a sliding
   * window fork and truncate are KVANT_ERROR_FAILED_PRECONDITION where the next token would need pages that were given back. */
  kvant_error* (*sequence_fork)(kvant_cache* cache, kvant_sequence parent, uint64_t tokens, kvant_sequence* out_child);
  kvant_error* (*sequence_truncate)(kvant_cache* cache, kvant_sequence sequence, uint64_t tokens);
  kvant_error* (*sequence_length)(kvant_cache* cache, kvant_sequence sequence, uint64_t* out_tokens);
  /* Dequantized tokens [begin, begin + count) of one layer and side into `out` [count][kv_heads][head_dim]. Tokens of an open
   * step are not part of the sequence yet. KVANT_ERROR_FAILED_PRECONDITION if a token's page has left the layer's window and was
   * given back. count 0 does nothing. */
  kvant_error* (*sequence_read)(kvant_cache* cache, kvant_sequence sequence, uint32_t layer, uint32_t side, uint64_t begin,
                                uint64_t count, const kvant_tensor* out);
  /* The same as canonical bytes [count][kv_heads][row_bytes]; out_size must be exact. */
  kvant_error* (*sequence_export)(kvant_cache* cache, kvant_sequence sequence, uint32_t layer, uint32_t side, uint64_t begin,
                                  uint64_t count, void* out, uint64_t out_size);

  /* ---- steps [one-thread-per-object: cache] ---- */
  /* Plan once, run every layer, then commit or abort; both end the step. One open step per cache; while it is open its sequences
   * cannot be destroyed or truncated. Entries and masks are read during the call only. */
  kvant_error* (*step_plan)(kvant_cache* cache, const kvant_step_args* args, kvant_step** out_step);
  /* Host tensors: returns when `out` is written. Buffers: returns after submit (or recording); see kvant_ext_vulkan.h. The first
   * run of a kind compiles pipelines, which takes seconds on some drivers. A layer may be run again before the commit. */
  kvant_error* (*step_run)(kvant_step* step, uint32_t layer, const kvant_run_args* args);
  /* Every layer must have been run if the step appends. On error the step stays open: run what is missing, or abort it. */
  kvant_error* (*step_commit)(kvant_step* step);
  void (*step_abort)(kvant_step* step);

  /* ---- raw paged calls (KVANT_CACHE_EXTERNAL_PAGES) [one-thread-per-object: cache] ---- */
  kvant_error* (*paged_plan)(kvant_cache* cache, const kvant_paged_args* args, kvant_step** out_step);
  /* Slots as in slot_mapping; a negative slot gives a row of zeros. `out` [slot_count][kv_heads][head_dim]. */
  kvant_error* (*paged_read)(kvant_cache* cache, uint32_t layer, uint32_t side, uint64_t slot_count, const int64_t* slots,
                             const kvant_tensor* out);
  /* Whole pages, all layers and both sides. No page is destination twice, none is source and destination. */
  kvant_error* (*paged_copy)(kvant_cache* cache, uint32_t pair_count, const int32_t* source_pages,
                             const int32_t* destination_pages);
  /* end of version 1.0 */

  /* ---- prefix cache (KVANT_CACHE_PREFIXES; else KVANT_ERROR_FAILED_PRECONDITION) [one-thread-per-object: cache] ---- */
  /* A sequence that holds the longest prefix of args->tokens that the cache has; `out_reused_tokens` (may be NULL) is its length:
   * append the tokens from there on. What it shares stays until it is destroyed. Without a prefix cache as sequence_create. */
  kvant_error* (*sequence_open)(kvant_cache* cache, const kvant_sequence_args* args, kvant_sequence* out_sequence,
                                uint64_t* out_reused_tokens);
  /* What sequence_open would share now of what the device has; no tier is asked, nothing is held. */
  kvant_error* (*prefix_find)(kvant_cache* cache, const kvant_sequence_args* args, uint64_t* out_tokens);
  /* Lets go every page that no sequence holds; gives their number. */
  kvant_error* (*prefix_clear)(kvant_cache* cache, uint64_t* out_pages);
  kvant_error* (*prefix_policy)(kvant_cache* cache, const kvant_policy_args* policy);
  kvant_error* (*prefix_stats)(kvant_cache* cache, kvant_prefix_stats* stats);
  /* end of version 1.1 */

  /* What a layer's side is centred by, [kv_heads][head_dim] of rows as they are appended; zeros if by nothing. To be given to a later cache
   * as means_k or means_v. `count`: of `out`, exact. side: 0 K, 1 V. Waits for the device. [one-thread-per-object: cache] */
  kvant_error* (*cache_means)(kvant_cache* cache, uint32_t layer, uint32_t side, float* out, uint64_t count);
  /* end of version 1.2: append below only */
} kvant_api;

/* The one exported symbol. host_version: the newest version the host was compiled against (KVANT_VERSION). Returns the table,
 * or NULL if the majors differ; out_library_version (may be NULL) gets the library's own version either way.
 * [any-thread], no side effects. */
typedef const kvant_api* (*kvant_get_api_fn)(uint32_t host_version, uint32_t* out_library_version);
#if defined(KVANT_BUILDING_LIBRARY)
__attribute__((visibility("default")))
#endif
const kvant_api* kvant_get_api(uint32_t host_version, uint32_t* out_library_version);

#ifdef __cplusplus
}
#endif
#endif /* KVANT_H */
