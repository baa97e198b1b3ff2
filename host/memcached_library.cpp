#include "memcached_library.hpp"

#include <dlfcn.h>

#include <string>

namespace kvant {
namespace {

constexpr const char* kLibrary = "libmemcached.so.11";

}  // namespace

Result<std::shared_ptr<const MemcachedLibrary>> MemcachedLibrary::open() {
  void* library = ::dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* reason = ::dlerror();
    return Status(StatusCode::unavailable,
                  std::string("the remote tier needs ") + kLibrary +
                      ", which does not open: " + (reason == nullptr ? "no reason is given" : reason));
  }
  std::shared_ptr<MemcachedLibrary> made(new MemcachedLibrary(library));
#define KVANT_MEMCACHED_LOAD(name)                                                                 \
  made->name##_ = reinterpret_cast<decltype(made->name##_)>(::dlsym(library, "memcached_" #name)); \
  if (made->name##_ == nullptr)                                                                    \
    return Status(StatusCode::unavailable, std::string(kLibrary) + " has no function memcached_" #name);
  KVANT_MEMCACHED_FUNCTIONS(KVANT_MEMCACHED_LOAD)
#undef KVANT_MEMCACHED_LOAD
  return std::shared_ptr<const MemcachedLibrary>(std::move(made));
}

MemcachedLibrary::~MemcachedLibrary() { ::dlclose(library_); }

}  // namespace kvant
