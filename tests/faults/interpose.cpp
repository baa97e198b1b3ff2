// What the test program puts in the place of libc's and libstdc++'s functions, for itself and for the library it opens:
// operator new, the calls that write and read files, and pthread_create, to tell the library's threads from the driver's.
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <new>

#include "injector.hpp"

#define KVANT_REPLACES __attribute__((visibility("default")))

using faults::Kind;

KVANT_REPLACES void* operator new(std::size_t size) {
  if (faults::event(Kind::host_allocation)) throw std::bad_alloc();
  if (void* block = std::malloc(size == 0 ? 1 : size)) return block;
  throw std::bad_alloc();
}
KVANT_REPLACES void* operator new[](std::size_t size) { return operator new(size); }
KVANT_REPLACES void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return faults::event(Kind::host_allocation) ? nullptr : std::malloc(size == 0 ? 1 : size);
}
KVANT_REPLACES void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return operator new(size, std::nothrow); }
KVANT_REPLACES void* operator new(std::size_t size, std::align_val_t alignment) {
  if (faults::event(Kind::host_allocation)) throw std::bad_alloc();
  const auto step = static_cast<std::size_t>(alignment);
  if (void* block = std::aligned_alloc(step, (size + step - 1) / step * step)) return block;
  throw std::bad_alloc();
}
KVANT_REPLACES void* operator new[](std::size_t size, std::align_val_t alignment) { return operator new(size, alignment); }
KVANT_REPLACES void operator delete(void* block) noexcept { std::free(block); }
KVANT_REPLACES void operator delete[](void* block) noexcept { std::free(block); }
KVANT_REPLACES void operator delete(void* block, std::size_t) noexcept { std::free(block); }
KVANT_REPLACES void operator delete[](void* block, std::size_t) noexcept { std::free(block); }
KVANT_REPLACES void operator delete(void* block, const std::nothrow_t&) noexcept { std::free(block); }
KVANT_REPLACES void operator delete[](void* block, const std::nothrow_t&) noexcept { std::free(block); }
KVANT_REPLACES void operator delete(void* block, std::align_val_t) noexcept { std::free(block); }
KVANT_REPLACES void operator delete[](void* block, std::align_val_t) noexcept { std::free(block); }
KVANT_REPLACES void operator delete(void* block, std::size_t, std::align_val_t) noexcept { std::free(block); }
KVANT_REPLACES void operator delete[](void* block, std::size_t, std::align_val_t) noexcept { std::free(block); }

namespace {

struct ThreadStart {
  void* (*body)(void*);
  void* argument;
};

void* driver_thread(void* given) {
  const ThreadStart start = *static_cast<ThreadStart*>(given);
  std::free(given);
  faults::enter_driver();
  return start.body(start.argument);
}

bool fails(Kind kind, int error) {
  if (!faults::event(kind)) return false;
  errno = error;
  return true;
}

int open_at(int folder, const char* path, int flags, unsigned mode) {
  if (fails((flags & O_CREAT) != 0 ? Kind::file_write : Kind::file_read, (flags & O_CREAT) != 0 ? ENOSPC : EIO)) return -1;
  return static_cast<int>(syscall(SYS_openat, folder, path, flags, mode));
}

unsigned mode_of(int flags, va_list list) { return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(list, unsigned) : 0; }

}  // namespace

extern "C" {

KVANT_REPLACES int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*body)(void*), void* argument) {
  using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const Create real = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
  if (!faults::in_driver()) return real(thread, attributes, body, argument);
  auto* start = static_cast<ThreadStart*>(std::malloc(sizeof(ThreadStart)));
  if (start == nullptr) return EAGAIN;
  *start = {body, argument};
  const int result = real(thread, attributes, driver_thread, start);
  if (result != 0) std::free(start);
  return result;
}

KVANT_REPLACES int open(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const unsigned mode = mode_of(flags, list);
  va_end(list);
  return open_at(AT_FDCWD, path, flags, mode);
}

KVANT_REPLACES int openat(int folder, const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const unsigned mode = mode_of(flags, list);
  va_end(list);
  return open_at(folder, path, flags, mode);
}

KVANT_REPLACES ssize_t write(int file, const void* data, std::size_t size) {
  return fails(Kind::file_write, ENOSPC) ? -1 : syscall(SYS_write, file, data, size);
}

KVANT_REPLACES ssize_t writev(int file, const iovec* pieces, int count) {
  return fails(Kind::file_write, ENOSPC) ? -1 : syscall(SYS_writev, file, pieces, count);
}

KVANT_REPLACES ssize_t read(int file, void* out, std::size_t size) {
  return fails(Kind::file_read, EIO) ? -1 : syscall(SYS_read, file, out, size);
}

KVANT_REPLACES int fsync(int file) {
  return fails(Kind::file_write, EIO) ? -1 : static_cast<int>(syscall(SYS_fsync, file));
}

KVANT_REPLACES int rename(const char* from, const char* to) noexcept {
  return fails(Kind::file_write, ENOSPC) ? -1 : static_cast<int>(syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to));
}

KVANT_REPLACES int renameat(int from_folder, const char* from, int to_folder, const char* to) noexcept {
  return fails(Kind::file_write, ENOSPC) ? -1 : static_cast<int>(syscall(SYS_renameat, from_folder, from, to_folder, to));
}

}  // extern "C"
