/* Extension "kvant.manager/1": what an engine may ask of the cache manager beyond sequences and steps. The conventions of kvant.h
 * hold; all functions are [one-thread-per-object: cache]. Slots are only appended: check struct_size before you call a newer one. */
#ifndef KVANT_EXT_MANAGER_H
#define KVANT_EXT_MANAGER_H

#include "kvant.h"

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
} kvant_ext_manager;

#ifdef __cplusplus
}
#endif
#endif /* KVANT_EXT_MANAGER_H */
