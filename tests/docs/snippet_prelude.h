/* What the snippets of the documentation take for granted: the tables, handles, and a few names of a host. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <kvant/kvant.h>
#include <kvant/kvant_ext_manager.h>

extern const kvant_api *api;
extern const kvant_ext_manager *manager;
extern kvant_context *context;
extern kvant_device *device;
extern kvant_cache *cache, *other_cache;
extern kvant_sequence sequence;
extern kvant_cache_args args;
extern kvant_error *error;
extern uint64_t bytes;
int ok(kvant_error *failed);
uint32_t put_entry(void *user_data, const uint8_t *key, const void *value, uint64_t size);
uint64_t get_entry(void *user_data, const uint8_t *key, void *out, uint64_t out_size);
