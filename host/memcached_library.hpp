// MemcachedLibrary: libmemcached, opened when a remote tier is made, so that nothing depends on it where none is used.
#pragma once

#include <libmemcached/memcached.h>

#include <memory>
#include <string_view>

#include "status.hpp"

namespace kvant {

class MemcachedLibrary {
 public:
  // Errors: unavailable (not installed, or without one of the functions).
  static Result<std::shared_ptr<const MemcachedLibrary>> open();
  ~MemcachedLibrary();
  MemcachedLibrary(const MemcachedLibrary&) = delete;
  MemcachedLibrary& operator=(const MemcachedLibrary&) = delete;

  // Each function under its own name, less the prefix.
#define KVANT_MEMCACHED_FUNCTIONS(X)                                                                            \
  X(create)                                                                                                     \
  X(free) X(quit) X(server_add) X(behavior_set) X(set) X(touch) X(delete) X(flush) X(mget) X(fetch_result)      \
      X(result_create) X(result_free) X(result_key_value) X(result_key_length) X(result_value) X(result_length) \
          X(last_error)
#define KVANT_MEMCACHED_POINTER(name) decltype(&::memcached_##name) name##_ = nullptr;
  KVANT_MEMCACHED_FUNCTIONS(KVANT_MEMCACHED_POINTER)
#undef KVANT_MEMCACHED_POINTER

 private:
  explicit MemcachedLibrary(void* library) : library_(library) {}
  void* library_;
};

}  // namespace kvant
