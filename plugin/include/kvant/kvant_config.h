/* kvant_config: the cache manager's choices as a struct. Every member has the name, the values and the range of its key of the JSON
 * (docs/configuration.md); either becomes the other by config_parse and config_write. Part of kvant_ext_manager.h. */
#ifndef KVANT_CONFIG_H
#define KVANT_CONFIG_H

#include "kvant.h"

#ifdef __cplusplus
extern "C" {
#endif

/* config_default and config_parse fill all members. In what a host fills in: texts may be NULL, the same as "". A 0 where the key
 * takes none is its default; so it is in a struct of an older host, in what that struct ends before. 0 and "" keep what nothing was
 * said about, but for three members, where 0 is a choice of its own: tiers.compare_recompute, monitor.interval_ms and events.
 * Switches are 0 or 1. Reserved words are 0: later keys of a section come there. */

typedef struct kvant_config_policy {
  const char* kind;             /* "none", "lru", "window" or "adaptive"; NULL: "lru" */
  uint64_t ttl_ms;              /* milliseconds without use; 0: never */
  uint32_t sink_pages;          /* pages at the beginning of a prefix that leave last; for "window" only */
  uint32_t reserved0;
  uint64_t reserved[4];
} kvant_config_policy;

typedef struct kvant_config_tiers {
  uint64_t host_bytes;          /* 0: no tier in host memory */
  const char* disk_folder;      /* "": no tier on disk */
  uint64_t disk_bytes;          /* 0: no limit */
  const char* remote_servers;   /* "host:port,host:port"; "": no remote tier */
  const char* format;           /* of entries, "q8_0" or K and V as "q8_0/q4_0"; "": as they are */
  uint64_t min_tokens;          /* fewer tokens in a row are not loaded */
  uint64_t queue_bytes;         /* that may wait to be stored; 0: 256 MiB */
  uint32_t remote_timeout_ms;   /* milliseconds; 0: 200 */
  uint32_t store_after_uses;    /* sequences that began with a page before it goes to the tiers */
  uint32_t compare_recompute;   /* 1, the default: loads nothing that would be computed sooner; 0: loads whatever is there */
  uint32_t reserved0;
  uint64_t reserved[8];
} kvant_config_tiers;

typedef struct kvant_config_hybrid {
  const char* hot_format;       /* "q8_0" or "q8_0/q4_0"; both "": no hybrid */
  const char* cold_format;
  uint32_t promote_uses;        /* of a cold prefix until it becomes a hot one; 0: 2 */
  uint32_t reserved0;
  uint64_t reserved[4];
} kvant_config_hybrid;

typedef struct kvant_config_monitor {
  uint32_t history;             /* intervals kept; 0: 240 */
  uint32_t reserved0;
  uint64_t interval_ms;         /* milliseconds between two observations; 0: only when asked; config_default has 10000 */
  uint64_t reserved[4];
} kvant_config_monitor;

/* Since 1.2. Sides are "k", "v", "kv" or "". */
typedef struct kvant_config_accuracy {
  const char* centre;           /* in all layers; "": each layer's own, of kvant_layer_args */
  const char* rotate;           /* the same */
  const char* protect;          /* whose first and newest tokens are read in f16; "": the engine's, of kvant_cache_args */
  uint32_t protect_first;       /* tokens; config_default has 4 */
  uint32_t protect_newest;      /* tokens; config_default has 64 */
  uint64_t reserved[4];
} kvant_config_accuracy;

typedef struct kvant_config {
  size_t struct_size;
  const kvant_next* next;
  const char* preset;           /* that the others began as. Filling it in changes none of them: config_default does that */
  uint64_t capacity_tokens;     /* 0: the engine's, of kvant_cache_args */
  uint64_t memory_limit_bytes;  /* of device memory; 0: none */
  uint64_t preallocate_bytes;   /* of slabs, at creation; 0: as pages are first used */
  uint64_t slab_bytes;          /* that a slab aims at; 0: 256 MiB */
  const char* format_k;         /* of all layers, "q8_0"; "": each layer's own, of kvant_layer_args */
  const char* format_v;
  const char* model_id;         /* "": the engine's, of kvant_cache_args */
  uint32_t page_tokens;         /* 16 or 32; 0: 16 */
  uint32_t window;              /* tokens; 0: each layer's own */
  uint32_t window_sinks;        /* tokens; with a window only */
  uint32_t prefix_cache;        /* 1: full pages of known tokens stay for later sequences */
  uint32_t events;              /* the last so many are held; 0: none; config_default has 1024 */
  uint32_t attention_mass;      /* 1: room to count what attention each token gets, as KVANT_CACHE_MASS */
  kvant_config_policy policy;
  kvant_config_tiers tiers;
  kvant_config_hybrid hybrid;
  kvant_config_monitor monitor;
  kvant_config_accuracy accuracy;
} kvant_config;

#ifdef __cplusplus
}
#endif
#endif /* KVANT_CONFIG_H */
